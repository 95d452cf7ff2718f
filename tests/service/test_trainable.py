"""The Ray Trainable, stepped in this process as Tune steps it in a worker."""

import math
from pathlib import Path

import pytest
from arm_cases import SPEC, made, rung_record, spec

from fstune.records import SearchRecords
from fstune.trainable import PairedTrial

OPEN = {"future_seed.alpha": 2.0}
OTHER = {"future_seed.alpha": 1.0}


@pytest.fixture
def begin(tmp_path):
    """Make a search's records from a spec, with one trial suggested for each candidate."""

    def begin(text: str = SPEC, candidates=(OPEN,)) -> SearchRecords:
        records = made(tmp_path, spec(tmp_path, text))
        for number, candidate in enumerate(candidates):
            records.write_candidate(number, candidate)
        return records

    return begin


def trial_of(records: SearchRecords, number: int = 0) -> PairedTrial:
    trial = records.trial(number)
    config = {"number": number, "candidate": trial.candidate, "search": str(records.root)}
    return PairedTrial(config=config)


def evaluations(records: SearchRecords) -> dict[Path, int]:
    files = (records.runs / "arms").glob("*/evaluations/*.npz")
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_step_is_a_rung(begin):
    records = begin(SPEC.replace("trials: 4", "trials: 4, reduction_factor: 5"))
    trainable = trial_of(records)
    first, second = trainable.train(), trainable.train()
    rungs = records.trial(0).rungs
    assert [first["objective"], second["objective"]] == [rung.objective for rung in rungs]
    assert [first["rung_clock"], second["rung_clock"]] == [1, 5]
    assert [first["last_rung"], second["last_rung"]] == [False, True]
    assert [first["done"], second["done"]] == [False, True]
    assert records.end(0).state == "completed"


def test_recorded_rungs_are_reported_and_not_run(begin):
    records = begin()
    records.write_rung(0, rung_record(0, objective=0.125))
    records.write_rung(0, rung_record(1, objective=0.5))
    trainable = trial_of(records)
    results = [trainable.train(), trainable.train()]
    assert [result["objective"] for result in results] == [0.125, 0.5]
    assert [result["done"] for result in results] == [False, True]
    assert not evaluations(records)


def test_a_delta_under_prune_below_ends_the_trial(begin):
    records = begin(SPEC.replace("trials: 4", "trials: 4, prune_below: 0.9"))
    assert trial_of(records).train()["done"]
    assert records.end(0).state == "stopped"
    assert "is under prune_below +0.9" in records.end(0).reason
    replay = trial_of(records).train()
    assert replay["done"], "a replay stops there too"


def test_a_divergence_is_a_verdict(begin):
    records = begin(SPEC.replace("lr: 1e-2", "lr: 1e30"))
    result = trial_of(records).train()
    assert math.isnan(result["objective"])
    assert result["done"]
    assert records.trial(0).verdict == "diverged"
    assert "at step" in records.end(0).reason
    again = trial_of(records).train()
    assert math.isnan(again["objective"])
    assert again["done"]


def test_what_nobody_foresaw_fails_one_trial_and_is_kept(begin):
    records = begin(candidates=({"future_seed.alpha": "open"}, OPEN))
    result = trial_of(records, 0).train()
    assert math.isnan(result["objective"])
    assert result["done"]
    assert records.trial(0).verdict == "failed"
    assert "Traceback" in records.end(0).detail
    assert not math.isnan(trial_of(records, 1).train()["objective"])


def test_a_checkpoint_names_rung_and_arms(begin, tmp_path):
    records = begin()
    first = trial_of(records)
    first.train()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    first.save_checkpoint(str(folder))
    text = (folder / "rung.json").read_text()
    assert records.rung(0, 0).arms[0].variant in text
    second = trial_of(records)
    second.load_checkpoint(str(folder))
    assert second.train()["rung"] == 1


def test_an_actor_is_used_again_for_another_trial(begin):
    records = begin(candidates=(OPEN, OTHER))
    trainable = trial_of(records, 0)
    trainable.train()
    config = {"number": 1, "candidate": OTHER, "search": str(records.root)}
    assert trainable.reset_config(config)
    result = trainable.train()
    assert result["rung"] == 0
    assert result["objective"] == records.rung(1, 0).objective


def test_progress_is_written_while_a_rung_runs(begin):
    records = begin()
    trial_of(records).train()
    progress = records.trial(0).progress
    assert (progress["doing"], progress["rung"], progress["step"]) == ("evaluate", 0, 2)
