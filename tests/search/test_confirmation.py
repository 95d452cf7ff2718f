"""A confirmation's arms: new seeds, the test split, the level that finalists share."""

import json

import numpy as np
import pytest
from arm_cases import SPEC, bench, rung_record, spec

from fstune.errors import SpecError
from fstune.results.folder import SearchFolder
from fstune.results.pairing import CONFIRMATION_SEEDS_FROM, arms_of, confirm, run_rung
from fstune.results.records import Comparison, Confirmation, TrialRecord
from fstune.results.verdict import verdict

OPEN = {"future_seed.alpha": 2.0}
CONFIRMED = SPEC.replace("validation_size: 6", "validation_size: 6, test_size: 5") + (
    "confirm: {finalists: 2, seeds: 3}\n"
)


def settings_of(folder, digest):
    return json.loads((folder / "arms" / digest / "arm.json").read_text())


def test_a_confirmation_has_seeds_and_examples_of_its_own(tmp_path):
    made = spec(tmp_path, CONFIRMED)
    bench_here, _ = bench(tmp_path)
    searched = [run_rung(made, OPEN, rung, tmp_path / "cache", bench_here) for rung in (0, 1)]
    assert not list((tmp_path / "cache").glob("*-test-*")), "a search reads no test example"
    found = confirm(made, OPEN, 1, tmp_path / "cache", bench_here)
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
    made = spec(tmp_path, CONFIRMED)
    test = arms_of(made, OPEN, tmp_path / "cache", [0], "test")[0].variant_data
    other = arms_of(made, OPEN, tmp_path / "cache", [0])[0].variant_data
    held = {test.evaluated.example(i).prompt for i in range(5)}
    assert held.isdisjoint(other.evaluated.example(i).prompt for i in range(6))
    assert held.isdisjoint(other.train.example(i).prompt for i in range(10))


def test_more_finalists_make_wider_intervals(tmp_path):
    made = spec(tmp_path, CONFIRMED)
    one, four = (
        confirm(made, OPEN, finalists, tmp_path / "cache", bench(tmp_path)[0]).deltas["nll"]
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
