import dataclasses
import io
import json
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from arm_cases import made, rung_record, spec
from rich.console import Console

from fstune.report.data import as_json, write_report
from fstune.report.phrases import describe_candidate
from fstune.report.table import result_table
from fstune.results.deltas import Delta
from fstune.results.folder import SearchFolder
from fstune.results.ranking import ranked
from fstune.results.records import EndRecord, TrialProgress, TrialRecord
from fstune.specs.sections import SearchSpec


def shown(view: Any, width: int = 80) -> str:
    """What a terminal of that width shows."""
    file = io.StringIO()
    Console(file=file, width=width).print(view)
    return file.getvalue()


@pytest.fixture
def small(tmp_path) -> SearchSpec:
    return spec(tmp_path)


@pytest.fixture
def records(tmp_path, small) -> SearchFolder:
    """Four trials: at the last rung, stopped at the first, diverged, and running."""
    records = made(tmp_path, small)
    for number in range(4):
        records.write_candidate(number, {"future_seed.alpha": -1.25 - number})
    records.write_rung(0, rung_record(0, 0.2))
    records.write_rung(0, rung_record(1, 0.15))
    records.write_end(0, EndRecord("completed", "reached the last rung"))
    records.write_rung(1, rung_record(0, 0.4, verdict="inconclusive"))
    records.write_end(1, EndRecord("stopped", "ASHA"))
    records.write_end(2, EndRecord("diverged", "arm x: loss nan at step 7"))
    progress = TrialProgress("x", "train", 1, 2, 2.5, rung=0, pid=1, at=time.time())
    records.write_progress(3, progress)
    return records


def trial(number: int, *objectives: float, end: EndRecord | None = None) -> TrialRecord:
    rungs = [rung_record(rung, objective=value) for rung, value in enumerate(objectives)]
    return TrialRecord(number, {}, rungs, end)


def test_trials_are_ranked_by_rung_and_then_by_objective():
    trials = [
        trial(0),
        trial(1, 0.9),
        trial(2, 0.1, -0.2),
        trial(3, 0.1, 0.3),
        trial(4, 0.95),
        trial(5, 0.1, float("nan")),
        trial(6, 0.1, 0.3),
    ]
    assert [each.number for each in ranked(trials)] == [3, 6, 2, 5, 4, 1, 0]


def test_a_trial_that_broke_off_is_not_the_best(tmp_path, small):
    records = made(tmp_path, small)
    for number in range(2):
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        records.write_rung(number, rung_record(0, 0.5 - number / 10))
    assert as_json(records, small)["best"] == 0
    records.write_end(0, EndRecord("diverged", "loss nan"))
    assert as_json(records, small)["best"] == 1
    assert [each.number for each in ranked(records.trials())] == [1, 0]


def test_a_search_without_a_rung_has_no_best(tmp_path, small):
    records = made(tmp_path, small)
    records.write_candidate(0, {"future_seed.alpha": 0.0})
    found = as_json(records, small)
    assert found["best"] is None
    assert found["trials"][0]["verdict"] == found["trials"][0]["state"] == "running"


def test_the_json_has_the_promised_shape(records, small):
    found = as_json(records, small)
    assert found["search"] == "small"
    assert found["spec_digest"] == small.digest
    assert found["best"] == 0
    assert [each["candidate"] for each in found["trials"]] == [
        {"future_seed.alpha": -1.25 - number} for number in range(4)
    ]
    assert [each["verdict"] for each in found["trials"]] == [
        "unconfirmed gain",
        "inconclusive",
        "diverged",
        "running",
    ]
    rungs = found["trials"][0]["rungs"]
    assert [(rung["steps"], rung["seeds"]) for rung in rungs] == [(2, 1), (4, 2)]
    metrics = {"token_accuracy", "nll", "exact_match"}
    for rung, record in zip(rungs, records.trial(0).rungs, strict=True):
        assert set(rung) >= {"steps", "seeds", "baseline", "variant", "delta"}
        assert set(rung["baseline"]) == set(rung["variant"]) == set(rung["delta"]) == metrics
        for name, delta in record.deltas.items():
            assert rung["baseline"][name] == delta.baseline
            assert rung["variant"][name] == delta.variant
            wanted = dataclasses.asdict(delta)
            for name_in_another_place in ("baseline", "variant", "higher_is_better"):
                del wanted[name_in_another_place]
            assert rung["delta"][name] == wanted
    assert found["trials"][0]["arms"] == [
        {"seed": seed, "baseline": f"base{seed}", "variant": f"variant{seed}"} for seed in range(2)
    ]
    assert found["trials"][2]["rungs"] == found["trials"][2]["arms"] == []
    assert found["trials"][2]["reason"] == "arm x: loss nan at step 7"


def test_the_json_is_kept_beside_the_records(records, small):
    path = write_report(records, small)
    assert path == records.root / "report.json"
    assert json.loads(path.read_text()) == as_json(records, small)


def test_the_table_holds_the_numbers_of_the_json(records, small):
    lines = shown(result_table(records, small)).splitlines()
    found = as_json(records, small)["trials"]
    rows = [line for line in lines if re.match(r" +\d+  ", line)]
    assert [int(row.split()[0]) for row in rows] == [0, 1, 2, 3]
    for row in rows[:2]:
        trial = found[int(row.split()[0])]
        rung = trial["rungs"][-1]
        delta = rung["delta"]["token_accuracy"]
        interval = f"{delta['mean']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
        assert f"{rung['steps']} × {rung['seeds']}" in row
        assert f"{rung['baseline']['token_accuracy']:.4f}" in row
        assert interval in row
        assert row.endswith(trial["verdict"])
    assert "alpha=-1.25" in lines[2]
    at = lines.index(next(row for row in rows if row.endswith("diverged")))
    assert lines[at + 2].strip() == "arm x: loss nan at step 7"


def test_the_table_fits_in_80_columns(tmp_path):
    made_of = spec(tmp_path, more="objective: {metric: nll}\n")
    records = made(tmp_path, made_of)
    records.write_candidate(0, {f"future_seed.setting_{n}": 1.23456789 for n in range(9)})
    wide = rung_record(0, -10.123456, steps=100_000, seeds=10)
    records.write_rung(0, wide)
    text = shown(result_table(records, made_of))
    assert max(map(len, text.splitlines())) <= 80
    row = text.splitlines()[1]
    # No number runs into its neighbour.
    assert re.search(r"100000 × 10 +3\.0000 +\+20\.2469 \[\+30\.\d{4}, \+5\.\d{4}\] +unconf", row)


def test_the_table_can_be_cut_short(records, small):
    assert len(shown(result_table(records, small, most=1)).splitlines()) == 4


def test_a_candidate_is_told_in_one_line():
    candidate = {"future_seed.alpha": -2.123456, "future_seed.norm": True, "train.lr": 3e-5}
    assert describe_candidate(candidate) == "alpha=-2.123 norm=True train.lr=3e-05"


def test_a_report_reaches_neither_torch_nor_ray():
    heavy = {"torch", "ray", "mlflow"}
    code = f"import sys, fstune.report.table; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_needs_no_understanding_is_shown_beside_the_results(records, small):
    assert "without understanding" not in shown(result_table(records, small))
    guesses = {
        "chance": {"token_accuracy": 0.1, "exact_match": 0.01},
        "majority": {"token_accuracy": 0.125},
        "copy": {"exact_match": 0.5},
    }
    records.write_guesses(guesses)
    table = shown(result_table(records, small))
    assert "token_accuracy without understanding: chance 0.1000, majority 0.1250\n" in table
    assert as_json(records, small)["guesses"] == guesses


def test_a_line_says_what_the_interval_does_not(tmp_path, small):
    records = made(tmp_path / "other", small)
    for number, (p_value, seeds) in enumerate([(0.001, 2), (0.04, 1), (0.9, 2)]):
        delta = Delta(0.5, 0.6, 0.1, 0.02, 0.2, True, p_value, 0.15, 1)
        rung = rung_record(1 if seeds == 2 else 0, 0.1)
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        deltas = {**rung.deltas, "token_accuracy": delta}
        records.write_rung(number, dataclasses.replace(rung, rung=0, deltas=deltas))
    table = shown(result_table(records, small))
    assert "p 0.001, q 0.003 (at FDR 5 %: yes), 1 of 2 seeds, detectable 0.15\n" in table
    assert "p 0.04, q 0.06 (at FDR 5 %: no), this seed only, detectable 0.15\n" in table
    found = as_json(records, small)
    assert [trial["q_value"] for trial in found["trials"]] == pytest.approx([0.003, 0.06, 0.9])


def test_what_is_odd_is_said_below_the_trial(tmp_path, small):
    records = made(tmp_path / "odd", small)
    records.write_candidate(0, {"future_seed.alpha": 1.0})
    flags = ["variant: one answer for nearly all examples", "baseline: nearly all empty"]
    records.write_candidate(1, {"future_seed.alpha": 2.0})
    for number in range(2):
        records.write_rung(number, dataclasses.replace(rung_record(0), flags=flags))
    table = shown(result_table(records, small))
    assert table.count("look at variant: one answer for nearly all examples") == 2
    assert table.count("look at baseline: nearly all empty") == 1
    assert as_json(records, small)["trials"][0]["rungs"][0]["flags"] == flags
