import contextlib
import json
import math
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from arm_cases import SPEC, made, rung_record, spec
from ray.tune.experiment import Trial

from fstune.arms import trainer as arm_run
from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord
from fstune.search.bookkeeping import Bookkeeper, FailureStop
from fstune.search.trainable import FAULT, OBJECTIVE, RUNG_CLOCK, PairedTrial

OPEN, SHUT = {"future_seed.alpha": 2.0}, {"future_seed.alpha": -30.0}
WITH_LR = """
fixed: {future_seed: {alpha: 0.5}}
space:
  train.lr: {log_uniform: [1e-4, 1e30]}
search: {trials: 4}
"""
WILD = {"train.lr": 1e30}


@pytest.fixture(autouse=True)
def _results_here(tmp_path, monkeypatch):
    """Ray makes a folder for every trainable, at home unless told otherwise."""
    monkeypatch.setattr(
        "ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray_results")
    )


def search(folder: Path, text: str = SPEC, more: str = "") -> SearchFolder:
    """A search in which one thread is enough, with its first candidate suggested."""
    records = made(folder, spec(folder, text, more + "\nresources: {gpus: 0, cpu_threads: 1}\n"))
    records.write_candidate(0, OPEN)
    return records


def diverging(folder: Path) -> SearchFolder:
    return search(folder, SPEC.partition("space:")[0], WITH_LR)


def trial(records: SearchFolder, candidate: dict[str, Any] = OPEN, number: int = 0) -> PairedTrial:
    return PairedTrial(config=config(records, candidate, number))


def config(records: SearchFolder, candidate: dict[str, Any], number: int) -> dict[str, Any]:
    return {"number": number, "candidate": candidate, "search": str(records.root)}


KEYS = (OBJECTIVE, RUNG_CLOCK, "rung", "last_rung", FAULT)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What fstune itself puts into a result."""
    return {key: result[key] for key in (*KEYS, "done") if key in result}


def files(folder: Path) -> dict[str, int]:
    """Every file of the arms, with the time of its last change."""
    paths = (folder / "arms").rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file()}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_trial_without_the_gpu_that_it_was_given_ends_with_the_reason(tmp_path, monkeypatch):
    records = made(tmp_path, spec(tmp_path))
    records.write_candidate(0, OPEN)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert told(trial(records).train())["done"]
    reason = ended_early(records, "failed", 0).reason
    assert re.match(r"on \S+: CUDA_VISIBLE_DEVICES=0 names GPUs, and none can be used: ", reason)
    assert not (tmp_path / "arms").exists()


def ended_early(records: SearchFolder, state: str, rung: int) -> EndRecord:
    """The end of a trial that came to no record of this rung."""
    end = records.end(0)
    assert end is not None
    assert end.state == state
    assert records.rung(0, rung) is None
    return end


def test_a_step_is_a_rung_and_reports_its_objective(tmp_path):
    records = search(tmp_path)
    going = trial(records)
    for rung, seeds in ((0, 1), (1, 2)):
        result = told(going.train())
        record = records.rung(0, rung)
        assert record.seeds == seeds
        assert result == {
            OBJECTIVE: record.objective,
            RUNG_CLOCK: 3**rung,
            "rung": rung,
            "last_rung": rung == 1,
            "done": rung == 1,
        }
    assert records.end(0) == EndRecord("completed", "reached the last rung")


def test_a_disk_that_refuses_to_note_where_a_trial_is_ends_nothing(tmp_path):
    records = search(tmp_path)
    (records.root / "trials" / "0000" / "progress.json").mkdir()  # no file can take its place
    going = trial(records)
    assert [told(going.train())["done"] for _ in range(2)] == [False, True]
    assert records.end(0) == EndRecord("completed", "reached the last rung")


@contextlib.contextmanager
def nothing_can_be_written() -> Iterator[None]:
    """The system itself refuses every byte to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_fault_of_the_machine_is_no_verdict_on_the_candidate(tmp_path):
    records = search(tmp_path)
    going = trial(records)
    with nothing_can_be_written():
        result = told(going.step())
    assert math.isnan(result[OBJECTIVE])
    assert result["done"]
    assert result[FAULT].startswith("a file would be larger than this process may write")
    assert records.trial(0).end is None, "it is tried again"
    assert FAULT not in told(trial(records).train())
    assert records.rung(0, 0) is not None


def test_a_fault_of_the_machine_ends_the_search(tmp_path):
    records = search(tmp_path)
    stop = FailureStop(records.spec(), records)
    stop("t0", {OBJECTIVE: 0.5})
    assert not stop.stop_all()
    stop("t0", {OBJECTIVE: math.nan, FAULT: "no space is left on the disk"})
    assert stop.stop_all()
    assert stop.fault == "no space is left on the disk"


@pytest.mark.parametrize("faulty", [True, False])
def test_a_trial_that_another_ones_fault_has_ended_stays_open(tmp_path, faulty):
    """Trials run side by side, and Tune ends them all when the search stops."""
    records = search(tmp_path)
    records.write_rung(0, rung_record(0))
    stop = FailureStop(records.spec(), records)
    if faulty:
        stop("another", {OBJECTIVE: math.nan, FAULT: "no space is left on the disk"})
    ended = Trial("PairedTrial", config=config(records, OPEN, 0), trial_id="t0", stub=True)
    Bookkeeper(records.spec(), records, stop).on_trial_complete(1, [], ended)
    assert (records.end(0) is None) == faulty, "by ASHA alone it is stopped"


def test_recorded_rungs_are_reported_without_training(tmp_path):
    records = search(tmp_path)
    first = trial(records)
    results = [told(first.train()) for _ in range(2)]
    before = files(tmp_path)
    again = trial(records)
    assert [told(again.train()) for _ in range(2)] == results
    assert files(tmp_path) == before


def test_a_trial_killed_before_its_end_was_noted_still_ends(tmp_path):
    records = search(tmp_path)
    first = trial(records)
    results = [told(first.train()) for _ in range(2)]
    (records.root / "trials" / "0000" / "end.json").unlink()
    again = trial(records)
    assert [told(again.train()) for _ in range(2)] == results
    assert records.end(0).state == "completed"


def test_a_delta_under_prune_below_stops_the_trial(tmp_path):
    text = SPEC.replace("{trials: 4}", "{trials: 4, prune_below: 0.9}")
    records = search(tmp_path, text)
    result = told(trial(records).train())
    most = records.rung(0, 0).deltas["token_accuracy"].high
    assert result == {
        OBJECTIVE: records.rung(0, 0).objective,
        RUNG_CLOCK: 1,
        "rung": 0,
        "last_rung": False,
        "done": True,
    }
    assert records.end(0).state == "stopped"
    assert records.end(0).reason == f"gains {most:+.4f} at most, under prune_below +0.9"
    assert told(trial(records).train()) == result, "a replay ends where the trial was stopped"


@pytest.mark.parametrize(
    ("metric", "threshold", "stopped"),
    [
        ("token_accuracy", 0.255, False),  # mean 0.25, at most 0.26
        ("token_accuracy", 0.265, True),
        ("nll", 0.7, False),  # better by 0.5 in the mean, by 0.75 at most
        ("nll", 0.8, True),
    ],
)
def test_only_what_cannot_reach_prune_below_is_stopped(tmp_path, metric, threshold, stopped):
    text = SPEC.replace("{trials: 4}", f"{{trials: 4, prune_below: {threshold}}}")
    records = search(tmp_path, text + f"objective: {{metric: {metric}}}\n")
    records.write_rung(0, rung_record(0))
    assert trial(records).train()["done"] == stopped
    assert (records.end(0) is not None) == stopped


def test_a_climb_to_one_rung_ends_there(tmp_path):
    records = search(tmp_path)
    for rung in (0, 1):
        climb = PairedTrial(config=config(records, OPEN, 0) | {"rung": rung})
        result = told(climb.train())
        assert (result["rung"], result["done"]) == (rung, True)
        (tmp_path / str(rung)).mkdir()
        climb.save_checkpoint(str(tmp_path / str(rung)))
        again = PairedTrial(config=config(records, OPEN, 0) | {"rung": rung})
        again.load_checkpoint(str(tmp_path / str(rung)))
        assert told(again.train()) == result, "told again if the worker was lost after it"
        assert (records.end(0) is not None) == (rung == 1)


def test_the_last_rung_is_reached_whatever_its_delta(tmp_path):
    text = SPEC.replace("{trials: 4}", "{trials: 4, prune_below: 0.9}")
    records = search(tmp_path, text)
    (tmp_path / "rung.json").write_text(json.dumps({"rungs_done": 1, "arms": []}))
    going = trial(records)
    going.load_checkpoint(str(tmp_path))
    assert going.train()["done"]
    assert records.end(0).state == "completed"


def test_an_arm_that_diverges_ends_the_trial(tmp_path):
    records = diverging(tmp_path)
    result = told(trial(records, WILD).train())
    assert math.isnan(result.pop(OBJECTIVE))
    assert result == {RUNG_CLOCK: 1, "rung": 0, "last_rung": False, "done": True}
    end = ended_early(records, "diverged", 0)
    assert "loss nan at step" in end.reason or "loss inf at step" in end.reason
    before = files(tmp_path)
    again = told(trial(records, WILD).train())
    assert again["done"]
    assert math.isnan(again[OBJECTIVE])
    assert files(tmp_path) == before


def test_an_arm_that_diverged_keeps_no_weights_unless_asked_to(tmp_path):
    for keeps in ("open", "all"):
        folder = tmp_path / keeps
        folder.mkdir()
        text = SPEC.partition("space:")[0].replace("steps: 2,", "steps: 3,")
        more = f"evaluation: {{every: 1}}\nresources: {{gpus: 0, keep_checkpoints: {keeps}}}\n"
        records = made(folder, spec(folder, text, WITH_LR + more))
        records.write_candidate(0, WILD)
        trial(records, WILD).train()
        assert records.end(0).state == "diverged"
        variants = [path.parent for path in folder.glob("arms/*/diverged.json")]
        (arm,) = [path for path in variants]
        assert bool(list(arm.glob("checkpoints/0*"))) == (keeps == "all")


def test_arms_that_do_not_fit_make_the_trial_infeasible(tmp_path, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(arm_run, "token_scores", too_large)
    records = search(tmp_path)
    result = told(trial(records).train())
    assert result["done"]
    assert math.isnan(result[OBJECTIVE])
    end = ended_early(records, "infeasible", 0)
    assert "memory: training batch 1 does not fit" in end.reason
    assert records.trial(0).verdict == "infeasible"


def test_a_replay_goes_up_to_the_rung_at_which_the_trial_went_wrong(tmp_path):
    records = search(tmp_path)
    first = trial(records)
    first.train()
    records.write_end(0, EndRecord("diverged", "arm x: loss nan at step 3"))
    again = trial(records)
    for going in (first, again):
        if going is again:
            assert not going.train()["done"], "rung 0 was not where it ended"
        result = told(going.train())
        assert (result["rung"], result["done"]) == (1, True)
        assert math.isnan(result[OBJECTIVE])
    assert records.rung(0, 1) is None


def test_an_unreadable_cache_fails_the_trial_and_leaves_a_traceback(tmp_path):
    records = search(tmp_path)
    records.cache.write_text("in the way")
    result = told(trial(records).train())
    assert result["done"]
    assert math.isnan(result[OBJECTIVE])
    end = ended_early(records, "failed", 0)
    assert end.reason.startswith(("FileExistsError", "NotADirectoryError"))
    assert "Traceback" in end.detail
    assert "splits.py" in end.detail


def test_a_candidate_that_the_settings_refuse_fails_the_trial(tmp_path):
    records = search(tmp_path)
    assert trial(records, {"future_seed.layer_start": -5}).train()["done"]
    end = ended_early(records, "failed", 0)
    assert end.reason.startswith("ValidationError")
    assert "layer_start" in end.reason
    assert "Traceback" in end.detail


def test_a_fault_with_words_of_its_own_needs_no_traceback(tmp_path):
    records = search(tmp_path)
    trial(records).train()
    (records.root / "trials" / "0000" / "rung-0.json").unlink()
    for path in tmp_path.glob("arms/*/arm.json"):
        path.write_text(path.read_text().replace('"batch_size": 3', '"batch_size": 4'))
    assert trial(records).train()["done"]
    end = ended_early(records, "failed", 0)
    assert end.reason.endswith("arm.json holds other settings than its digest says; move it away")
    assert end.detail == ""


def test_a_checkpoint_goes_on_at_the_right_rung(tmp_path):
    records = search(tmp_path)
    first = trial(records)
    first.train()
    saved = tmp_path / "saved"
    saved.mkdir()
    first.save_checkpoint(str(saved))
    again = trial(records)
    again.load_checkpoint(str(saved))
    result = told(again.train())
    assert (result["rung"], result["done"]) == (1, True)
    assert result[OBJECTIVE] == records.rung(0, 1).objective


def test_a_checkpoint_before_the_first_rung_begins_at_it(tmp_path):
    records = search(tmp_path)
    trial(records).save_checkpoint(str(tmp_path))
    again = trial(records)
    again.load_checkpoint(str(tmp_path))
    assert told(again.train())["rung"] == 0


def test_a_worker_is_used_again_for_another_candidate(tmp_path):
    records = search(tmp_path)
    worker = trial(records)
    worker.train()
    worker.train()
    records.write_candidate(1, SHUT)
    assert worker.reset(config(records, SHUT, 1))
    result = told(worker.train())
    assert (result["rung"], result["done"]) == (0, False)
    assert records.rung(1, 0).largest_gate < 1e-9 < records.rung(0, 0).largest_gate
    assert result[OBJECTIVE] == records.rung(1, 0).objective


def test_progress_is_written_while_an_arm_is_trained(tmp_path, monkeypatch):
    records = search(tmp_path)
    seen = []
    write = SearchFolder.write_progress

    def watched(self, number, progress):
        write(self, number, progress)
        seen.append(self.trial(number).progress)

    monkeypatch.setattr(SearchFolder, "write_progress", watched)
    trial(records).train()
    assert {"train", "evaluate"} <= {progress.doing for progress in seen}
    arms = {path.name for path in tmp_path.glob("arms/*")}
    for progress in seen:
        assert progress.pid == os.getpid()
        assert progress.rung == 0
        assert progress.to_step == 2
        assert progress.arm in arms
    trial(records).train()
    assert seen[-1] == records.trial(0).progress
    assert len([p for p in seen if p.doing == "train"]) == 1, "not more than once a second"


def test_an_ended_trial_has_no_progress(tmp_path):
    records = search(tmp_path)
    going = trial(records)
    going.train()
    assert records.trial(0).progress is not None
    going.train()
    assert records.trial(0).progress is None
    assert not (records.root / "trials" / "0000" / "progress.json").exists()
