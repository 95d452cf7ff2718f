"""Tune's events, written into the trials' records, and when a search has failed too often.

A trial's worker writes its rungs and most ends itself (`trainable`); the driver alone knows that
ASHA stopped a trial, or that its worker was lost.
"""

import contextlib
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord, TrialRecord
from fstune.search.trainable import FAULT
from fstune.specs.sections import SearchSpec


class FailureStop(tune.Stopper):
    """Ends a search in which one candidate after the other fails, or the machine does."""

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
        self._most = spec.search.stop_after_failures
        self._records = records
        self.fault = ""
        """What is wrong with the machine, as a trial told it."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.fault = self.fault or result.get(FAULT, "")
        return False

    def stop_all(self) -> bool:
        return bool(self.fault) or len(self._records.failed_in_a_row()) >= self._most


class Bookkeeper(tune.Callback):
    """Notes in the driver why a trial stopped, and frees the checkpoints of those that have."""

    def __init__(self, spec: SearchSpec, records: SearchFolder, stop: FailureStop) -> None:
        self._records = records
        self._keeps_all = spec.resources.keep_checkpoints == "all"
        self._gives_up = stop.stop_all

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        record = self._record(trial)
        if (trial.last_result or {}).get(FAULT):
            self._records.clear_progress(record.number)  # it is tried again by a resume
            return
        if "rung" in trial.config:
            if record.end is None:
                self._records.clear_progress(record.number)  # it waits to climb on
                return
        elif record.end is None and self._gives_up():
            return  # it was not ASHA that stopped this one, and it will go on
        elif record.end is None:
            reached = record.rungs[-1]
            reason = f"ASHA: not in the top share at rung {reached.rung}"
            self._records.write_end(record.number, EndRecord("stopped", reason))
        self.finish(record.number)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        detail = ""
        if trial.error_file:
            with contextlib.suppress(OSError):
                detail = Path(trial.error_file).read_text()
        reason = "the worker was lost too often"
        self._records.write_end(trial.config["number"], EndRecord("failed", reason, detail))
        self.finish(trial.config["number"])

    def finish(self, number: int) -> None:
        """Free what an ended trial no longer needs; baselines are shared and stay."""
        record = self._records.trial(number)
        assert record is not None
        if not self._keeps_all:
            for arm in {pair.variant for rung in record.rungs for pair in rung.arms}:
                self._records.store.drop_checkpoints(arm)

    def _record(self, trial: Trial) -> TrialRecord:
        record = self._records.trial(trial.config["number"])
        assert record is not None
        return record


def trial_folder(trial: Trial) -> str:
    """Name of a trial's folder below Tune's; a function of a module, because Tune pickles it."""
    climb = f"-rung-{trial.config['rung']}" if "rung" in trial.config else ""
    return f"trial-{trial.config['number']:04d}{climb}"
