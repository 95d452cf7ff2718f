"""A confirmation: new seeds, the test split, look by look; the level that finalists share."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from arm_cases import SPEC, bench, made, rung_record, spec

from fstune.arms.advance import workbench
from fstune.errors import SpecError
from fstune.report.data import write_report
from fstune.report.verification import differences
from fstune.results.deltas import seeds_and_error
from fstune.results.folder import SearchFolder
from fstune.results.outcomes import required_pairs
from fstune.results.pairing import CONFIRMATION_SEEDS_FROM, arms_of, confirm, run_rung
from fstune.results.records import Comparison, Confirmation, EndRecord, TrialRecord
from fstune.results.sequential import Design
from fstune.results.verdict import verdict
from fstune.search.confirmation import _confirm_in_worker, _next
from fstune.search.lifecycle import Search
from tasks.metrics import NLL

OPEN = {"future_seed.alpha": 2.0}
CONFIRMED = SPEC.replace("validation_size: 6", "validation_size: 6, test_size: 5") + (
    "confirm: {finalists: 2, looks: fixed, seeds: 3}\n"
)


def settings_of(folder, digest):
    return json.loads((folder / "arms" / digest / "arm.json").read_text())


def test_a_confirmation_has_seeds_and_examples_of_its_own(tmp_path):
    of = spec(tmp_path, CONFIRMED)
    bench_here, _ = bench(tmp_path)
    searched = [run_rung(of, OPEN, rung, tmp_path / "cache", bench_here) for rung in (0, 1)]
    assert not list((tmp_path / "cache").glob("*-test-*")), "a search reads no test example"
    found = confirm(of, OPEN, 1, tmp_path / "cache", bench_here)
    assert (found.steps, found.seeds) == (4, 3)
    first = CONFIRMATION_SEEDS_FROM
    assert [pair.seed for pair in found.arms] == [first, first + 1, first + 2]
    seen = [
        settings_of(tmp_path, digest)
        for rung in searched
        for pair in rung.arms
        for digest in (pair.baseline, pair.variant)
    ]
    for pair in found.arms:
        baseline, variant = (settings_of(tmp_path, d) for d in (pair.baseline, pair.variant))
        assert baseline["seeds"] == variant["seeds"]
        assert baseline["evaluated_digest"] == variant["evaluated_digest"]
        for arm in seen:
            assert arm["evaluated_digest"] != variant["evaluated_digest"]
            assert arm["seeds"]["order"] != variant["seeds"]["order"]
            assert arm["seeds"]["init"] != variant["seeds"]["init"]
    evaluations = (tmp_path / "arms" / found.arms[0].variant / "evaluations").glob("*.npz")
    assert {len(np.load(path)["measure/total"]) for path in evaluations} == {5}


def test_the_test_split_holds_no_example_of_the_others(tmp_path):
    of = spec(tmp_path, CONFIRMED)
    test = arms_of(of, OPEN, tmp_path / "cache", [0], "test")[0].variant_data
    other = arms_of(of, OPEN, tmp_path / "cache", [0])[0].variant_data
    held = {test.evaluated.example(i).prompt for i in range(5)}
    assert held.isdisjoint(other.evaluated.example(i).prompt for i in range(6))
    assert held.isdisjoint(other.train.example(i).prompt for i in range(10))


def test_more_finalists_make_wider_intervals(tmp_path):
    of = spec(tmp_path, CONFIRMED)
    one, four = (
        confirm(of, OPEN, finalists, tmp_path / "cache", bench(tmp_path)[0]).deltas["nll"]
        for finalists in (1, 4)
    )
    assert one.mean == four.mean
    assert four.low < one.low < one.high < four.high


def test_only_a_confirmation_says_gain():
    delta = rung_record().deltas["token_accuracy"]
    assert verdict(delta, 0.01) == "unconfirmed gain"
    assert verdict(delta, 0.01, confirms=True) == "gain"


def test_a_confirmations_verdict_is_the_trials_and_its_first_look_stays(tmp_path):
    records = SearchFolder(tmp_path / "searches" / "small")
    records.write_candidate(0, OPEN)
    rung = rung_record()
    records.write_rung(0, rung)
    assert records.trial(0).verdict == "unconfirmed gain"
    values = {name: getattr(rung, name) for name in Comparison.__dataclass_fields__}
    first = Confirmation(Comparison(**values | {"verdict": "inconclusive"}), 1.0)
    records.write_confirmation(0, first)
    records.write_confirmation(0, Confirmation(Comparison(**values | {"verdict": "gain"}), 2.0))
    assert records.confirmation(0) == first
    assert records.trial(0).verdict == "inconclusive"
    assert TrialRecord(0, OPEN, [rung], confirmation=Confirmation(None, 1.0)).verdict == "diverged"


def test_a_confirmation_without_test_examples_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"spec\.yaml:\d+: confirm: needs test examples"):
        spec(tmp_path, SPEC, "confirm: {finalists: 1}\n")


SEQUENTIAL = CONFIRMED.replace("finalists: 2, looks: fixed, seeds: 3", "finalists: 2, seeds: 6") + (
    "objective: {metric: nll, margin: 1.0e-9, worth: 1.0e-9}\nresources: {cpu_threads: 1}\n"
)


@pytest.fixture(scope="module")
def undecided(tmp_path_factory):
    """A search whose first finalist was confirmed to the last look: so small a gain is worth it."""
    folder = tmp_path_factory.mktemp("undecided")
    of = spec(folder, SEQUENTIAL.replace("trials: 4", "trials: 2"))
    records = made(folder, of)
    for number, alpha in enumerate((2.0, 1.0)):
        candidate = {"future_seed.alpha": alpha}
        records.write_candidate(number, candidate)
        for rung in (0, 1):
            bench_here = workbench(records.store, of)
            found = run_rung(of, candidate, rung, records.cache, bench_here, records.grounds())
            records.write_rung(number, found)
        records.write_end(number, EndRecord("completed", "reached the last rung"))
    records.write_finalists([0, 1])
    _confirm_in_worker(str(records.root), 0, 2)
    write_report(records, of)
    return records


@pytest.fixture
def records(undecided, tmp_path):
    """A copy of it."""
    shutil.copytree(undecided.runs, tmp_path / "runs")
    return SearchFolder(tmp_path / "runs" / "searches" / undecided.name)


def test_seeds_are_added_look_by_look(undecided):
    trial = undecided.trial(0)
    assert [look.at.seeds for look in trial.looks] == [4, 6]
    assert trial.looks[0].at.decision == "more"
    assert trial.confirmation.comparison.seeds == 6
    assert undecided.guesses("test")
    for pair in trial.confirmation.comparison.arms:
        for arm in (pair.baseline, pair.variant):
            kept = list((undecided.store.root / arm).glob("checkpoints/*"))
            assert not kept, "weights of a null"


def test_it_ends_with_the_look_that_decides(records):
    """Half a nat is excluded at once. What was trained for another look is not again."""
    values = json.loads(records.spec_text())
    values["objective"]["worth"] = 0.5
    (records.root / "spec.json").write_text(json.dumps(values))
    for path in records.root.glob("trials/0000/[lc]o*.json"):
        path.unlink()
    trained = evaluated(records)
    _confirm_in_worker(str(records.root), 0, 2)
    trial = records.trial(0)
    assert [(look.at.seeds, look.at.decision) for look in trial.looks] == [(4, "not worth it")]
    assert trial.confirmation.comparison.seeds == 4
    assert evaluated(records) == trained


def evaluated(records):
    """When each evaluation was written."""
    return {path: path.stat().st_mtime_ns for path in records.store.root.rglob("*.npz")}


def test_intervals_of_a_look_are_those_that_hold_at_all_looks(undecided):
    found = undecided.trial(0).confirmation.comparison
    pairs = required_pairs(undecided.store, found.arms, found.steps)
    _, error = seeds_and_error(pairs, NLL)
    delta, look = found.deltas["nll"], undecided.trial(0).looks[-1].at
    assert (delta.high - delta.low) / 2 == pytest.approx(Design.ending_at(6).gain[-1] * error)
    assert (look.low, look.high) == pytest.approx((delta.low, delta.high))


def test_a_confirmation_that_was_stopped_goes_on_where_it_was(records):
    folder = records.root / "trials" / "0000"
    whole = {path.name: path.read_bytes() for path in folder.glob("look-*.json")}
    trained = evaluated(records)
    (folder / "confirmation.json").unlink()
    (folder / "look-2.json").unlink()
    _confirm_in_worker(str(records.root), 0, 2)
    again = {path.name: path.read_bytes() for path in folder.glob("look-*.json")}
    assert again["look-1.json"] == whole["look-1.json"], "a look keeps its date"
    assert json.loads(again["look-2.json"])["at"] == json.loads(whole["look-2.json"])["at"]
    assert evaluated(records) == trained


def test_what_the_looks_say_comes_out_again_and_a_change_is_found(records):
    of = records.spec()
    assert differences(records, of) == []
    path = records.root / "trials" / "0000" / "look-2.json"
    told = json.loads(path.read_text())
    told["at"]["estimate"] += 0.25
    path.write_text(json.dumps(told))
    assert any("look 2: estimate is" in line for line in differences(records, of))


def test_the_next_finalist_is_tried_only_where_the_one_before_it_is_a_gain(records):
    search = Search(records.spec(), records, records.runs, "unused")
    path = records.root / "trials" / "0000" / "confirmation.json"
    assert _next(search, [0, 1]) is None
    found = records.trial(0).confirmation.comparison
    path.unlink()
    assert _next(search, [0, 1]) == 0
    gain = dataclasses.replace(found, verdict="gain")
    records.write_confirmation(0, Confirmation(gain, 1.0))
    assert _next(search, [0, 1]) == 1
