"""What Ray Tune is given: suggester, scheduler, callback; and whether its snapshot holds.

Each is a function of the search's own records, as far as Tune lets it be: trial k is suggested as
it was recorded, a scheduler's rungs are filled again from the trials' rungs, and a decision that
was carried out is not taken anew. That makes a restored and a replayed search the same search.
"""

import contextlib
import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from fstune.arm import Scalar, canonical_json
from fstune.equal_effect import BothArms, equal_in_effect
from fstune.materials import checkpoint_config
from fstune.promotion import Climb, Standing, next_climb
from fstune.records import EndRecord, SearchRecords, TrialRecord
from fstune.sampling import draw, sampler
from fstune.space import Space
from fstune.spec import SearchSpec
from fstune.store import ArmStore
from fstune.trainable import OBJECTIVE, RUNG_CLOCK, end_at


class SpaceFunction:
    """The space as Optuna's define-by-run function; a class, because Tune pickles it."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def __call__(self, trial: Any) -> None:
        self._space.suggest(trial)


class Suggester(OptunaSearch):
    """Optuna's sampler behind Tune, with a memory in the records.

    Trial k is what the records say it was; else point k of the spec; else a draw of a sampler that
    is seeded by the search's seed and k, so that a draw depends on k and the trials told so far,
    and on nothing that a kill could lose. Trials that stop early are told as pruned at their last
    rung, and trials without a delta as failed (OptunaSearch says COMPLETE to the first and nothing
    of the second).
    """

    def __init__(self, spec: SearchSpec, records: SearchRecords) -> None:
        super().__init__(SpaceFunction(Space(spec.space)), metric=OBJECTIVE, mode="max")
        self._spec = spec
        self._records = records

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if trial_id in self._ot_trials:
            return None
        number = len(self._ot_study.get_trials(deepcopy=False))
        recorded = self._records.trial(number)
        if recorded is not None:
            self._ot_study.enqueue_trial(recorded.candidate)
        elif number < len(self._spec.points):
            self._ot_study.enqueue_trial(dict(self._spec.points[number]))
        self._ot_study.sampler = sampler(self._spec, number)
        candidate: dict[str, Scalar] = super().suggest(trial_id)
        self._records.write_candidate(number, candidate)
        return {"number": number, "candidate": candidate, "search": str(self._records.root)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if trial_id in self._completed_trials:
            return
        trial = self._ot_trials[trial_id]
        value = (result or {}).get(OBJECTIVE, math.nan)
        if error or result is None or math.isnan(value):
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif result["last_rung"]:
            self._ot_study.tell(trial, value)
        else:
            trial.report(value, result["training_iteration"])
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)


class Climber(Searcher):
    """Asynchronous successive halving with promotion, as what Tune asks for trials.

    To Tune each climb of a candidate to its next rung is a trial of its own, so that a candidate
    that waits holds no resources, and nothing has to be restored: what to do next follows from the
    records (`fstune.promotion`, `fstune.sampling`) and from what runs now. When nobody may climb
    any more, those that still wait are stopped.
    """

    def __init__(self, spec: SearchSpec, records: SearchRecords) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._spec = spec
        self._records = records
        self._config = spec.model.init or checkpoint_config(Path(str(spec.model.checkpoint)))
        self._trials = self._read()
        self._running: dict[str, int] = {}
        self._settings: dict[str, BothArms] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        climb = self._next_climb()
        while climb is None and not self._all_drawn:
            climb = self._begin()
        if climb is None:
            if self._running:
                return None
            self._stop_waiting()
            return str(Searcher.FINISHED)
        self._running[trial_id] = climb.number
        return {
            "number": climb.number,
            "candidate": self._trials[climb.number].candidate,
            "search": str(self._records.root),
            "rung": climb.rung,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._running.pop(trial_id, None)
        if number is not None:
            self._reread(number)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(b"")  # Tune wants a file; the records hold all there is

    def restore(self, checkpoint_path: str) -> None:
        self._trials = self._read()

    def _read(self) -> list[TrialRecord]:
        """All trials; an end that a kill kept from being noted after its rung is noted now."""
        for trial in self._records.trials():
            if trial.end is None and trial.rungs and trial.equals is None:
                end = end_at(self._spec, trial.rungs[-1])
                if end is not None:
                    self._records.write_end(trial.number, end)
        return self._records.trials()

    @property
    def _all_drawn(self) -> bool:
        return len(self._trials) >= self._spec.search.trials

    def _next_climb(self) -> Climb | None:
        climbing = set(self._running.values())
        standings = [
            Standing(
                trial.number,
                tuple(rung.objective for rung in trial.rungs),
                trial.end is not None,
                trial.number in climbing,
            )
            for trial in self._trials
            if trial.equals is None
        ]
        search = self._spec.search
        last = len(self._spec.rungs) - 1
        return next_climb(standings, last, search.reduction_factor, self._all_drawn)

    def _begin(self) -> Climb | None:
        """Draw the next candidate; None if it equals one that is there already."""
        number = len(self._trials)
        candidate = draw(self._spec, self._trials)
        equals = next((one for one in self._trials if self._same(one, candidate)), None)
        same = None if equals is None else equals.number
        self._records.write_candidate(number, candidate, same)
        self._reread(number)
        return Climb(number, 0) if same is None else None

    def _same(self, trial: TrialRecord, candidate: dict[str, Scalar]) -> bool:
        if trial.equals is not None:
            return False
        arms = (self._arms(trial.candidate), self._arms(candidate))
        return equal_in_effect(*arms, self._spec.rungs[-1].steps, self._config)

    def _arms(self, candidate: Mapping[str, Scalar]) -> BothArms:
        """A candidate's settings; kept, since each is held against all that come after it."""
        key = canonical_json(dict(candidate))
        if key not in self._settings:
            self._settings[key] = self._spec.settings(candidate)
        return self._settings[key]

    def _reread(self, number: int) -> None:
        """Bring what is known of a trial, and of those that equal it, up to the records."""
        equal = [trial.number for trial in self._trials if trial.equals == number]
        for each in (number, *equal):
            record = self._records.trial(each)
            assert record is not None
            self._trials[each : each + 1] = [record]

    def _stop_waiting(self) -> None:
        for trial in self._trials:
            if trial.end is None and trial.equals is None:
                reached = trial.rungs[-1]
                place = f"at rung {reached.rung} was never in the top share"
                reason = f"ASHA: {reached.objective:+.4f} {place}"
                self._records.write_end(trial.number, EndRecord("stopped", reason))


class RungAsha(AsyncHyperBandScheduler):
    """ASHA whose milestones are the spec's rungs, and which keeps to what was decided before.

    Tune's milestones are grace_period · reduction_factor^k; the time reported for rung k is
    reduction_factor^k, so that they meet whatever the rungs' steps are. Tune does not save a
    scheduler's rungs: they are filled again when it adds a restored trial.
    """

    def __init__(self, spec: SearchSpec, records: SearchRecords) -> None:
        factor = spec.search.reduction_factor
        super().__init__(
            time_attr=RUNG_CLOCK,
            metric=OBJECTIVE,
            mode="max",
            grace_period=1,
            reduction_factor=factor,
            max_t=factor ** (len(spec.rungs) - 1) if len(spec.rungs) > 1 else factor,
        )
        self._factor = factor
        self._records = records

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        reached = (trial.last_result or {}).get("rung", -1)
        for rung in range(reached + 1):
            record = self._records.rung(trial.config["number"], rung)
            if record is not None:
                result = {RUNG_CLOCK: self._factor**rung, OBJECTIVE: record.objective}
                super().on_trial_result(tune_controller, trial, result)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        # A restored trial may tell its last rung again, if a kill came before the decision was
        # carried out. ASHA lets pass whom it has seen at a rung, so it must not have seen this one.
        told = dict(self._brackets[0]._rungs).get(result[RUNG_CLOCK], {})
        told.pop(trial.trial_id, None)
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if self._went_on(trial, result["rung"]) else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        # NaN is nobody's rival, and a rung of nothing else makes NumPy complain.
        if not math.isnan(result.get(OBJECTIVE, math.nan)):
            super().on_trial_complete(tune_controller, trial, result)

    def _went_on(self, trial: Trial, rung: int) -> bool:
        number = trial.config["number"]
        end = self._records.end(number)
        ended_badly = end is not None and end.broke_off is not None
        return ended_badly or self._records.rung(number, rung + 1) is not None


def scheduler(spec: SearchSpec, records: SearchRecords) -> TrialScheduler:
    """The scheduler that the spec asks for."""
    return RungAsha(spec, records) if spec.search.scheduler == "asha" else FIFOScheduler()


class FailureStop(tune.Stopper):
    """Ends a search in which one candidate after the other fails."""

    def __init__(self, spec: SearchSpec, records: SearchRecords) -> None:
        self._most = spec.search.stop_after_failures
        self._records = records

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return len(self._records.failed_in_a_row()) >= self._most


class Bookkeeper(tune.Callback):
    """Writes down in the driver what only the driver knows: why a trial stopped."""

    def __init__(self, records: SearchRecords, spec: SearchSpec, store: ArmStore) -> None:
        self._records = records
        self._keeps_all = spec.resources.keep_checkpoints == "all"
        self._store = store
        self._gives_up = FailureStop(spec, records).stop_all

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        record = self._record(trial)
        if "rung" in trial.config:
            if record.end is None:
                self._records.clear_progress(record.number)  # it waits to climb on
                return
        elif record.end is None and self._gives_up():
            return  # it was not ASHA that stopped this one, and it will go on
        elif record.end is None:
            reached = record.rungs[-1]
            place = f"at rung {reached.rung} is not in the top share"
            reason = f"ASHA: {reached.objective:+.4f} {place}"
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
                self._store.drop_checkpoints(arm)

    def _record(self, trial: Trial) -> TrialRecord:
        record = self._records.trial(trial.config["number"])
        assert record is not None
        return record


def trial_folder(trial: Trial) -> str:
    """Name of a trial's folder below Tune's; a function of a module, because Tune pickles it."""
    climb = f"-rung-{trial.config['rung']}" if "rung" in trial.config else ""
    return f"trial-{trial.config['number']:04d}{climb}"


def snapshot_fault(folder: Path, records: SearchRecords) -> str | None:
    """Why Tune's snapshot cannot be restored from; None where it can.

    Tune writes it file by file, and takes a torn one for a search without trials. A whole one can
    be read, tells the same of the same trials in each file, and tells nothing against the records.
    """
    try:
        pickle.loads((folder / "tuner.pkl").read_bytes())
        state = json.loads(_newest(folder, "experiment_state-*.json").read_text())
        searcher = pickle.loads(_newest(folder, "searcher-state-*.pkl").read_bytes())
        trials = [json.loads(trial) for trial, _ in state["trial_data"]]
        asked, told = set(searcher["_ot_trials"]), set(searcher["_completed_trials"])
        root = searcher["_records"].root
    except Exception as error:  # noqa: BLE001  # unpickling torn bytes can raise anything
        return f"Tune's snapshot is torn: {type(error).__name__}: {error}"
    ids = {trial["trial_id"] for trial in trials}
    ended = {trial["trial_id"] for trial in trials if trial["status"] in _ENDED}
    known = {trial.number: trial.candidate for trial in records.trials()}
    suggested = {trial["config"]["number"]: trial["config"]["candidate"] for trial in trials}
    faults = {
        f"Tune's snapshot was made in {root}": root != records.root,
        "Tune's snapshot has no trial yet": not trials,
        "Tune's snapshot has other trials than its searcher": ids != asked,
        "Tune's snapshot has other finished trials than its searcher": ended != told,
        "Tune's snapshot has other trials than the records": any(
            known.get(number) != candidate for number, candidate in suggested.items()
        ),
    }
    return next((fault for fault, holds in faults.items() if holds), None)


_ENDED = (Trial.TERMINATED, Trial.ERROR)


def _newest(folder: Path, pattern: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no {pattern} in {folder}")
    return paths[-1]
