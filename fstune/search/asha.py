"""Tune's own stopping ASHA: what Tune is given, and whether its snapshot agrees with the records.

`scheduler: asha_promote` is in `climber` and `promotion`.
"""

import json
import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from fstune.results.folder import SearchFolder
from fstune.search.sampling import sampler
from fstune.search.trainable import OBJECTIVE, RUNG_CLOCK
from fstune.specs.sections import SearchSpec
from fstune.specs.space import Space

if TYPE_CHECKING:
    from fstune.specs.settings import Scalar


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

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
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


class RungAsha(AsyncHyperBandScheduler):
    """ASHA whose milestones are the spec's rungs, and which keeps to what was decided before.

    Tune's milestones are grace_period · reduction_factor^k; the time reported for rung k is
    reduction_factor^k, so that they meet whatever the rungs' steps are. Tune does not save a
    scheduler's rungs: they are filled again when it adds a restored trial.
    """

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
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
        # A restored trial may report its last rung again, if a kill came before the decision was
        # carried out. ASHA lets pass whom it has seen at a rung, so it must not have seen this one.
        seen = dict(self._brackets[0]._rungs).get(result[RUNG_CLOCK], {})
        seen.pop(trial.trial_id, None)
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


def scheduler(spec: SearchSpec, records: SearchFolder) -> TrialScheduler:
    """The scheduler that the spec asks for."""
    return RungAsha(spec, records) if spec.search.scheduler == "asha" else FIFOScheduler()


def snapshot_fault(folder: Path, records: SearchFolder) -> str | None:
    """Why Tune's snapshot cannot be restored from; None where it can.

    Tune writes it file by file, and takes a torn one for a search without trials. A whole one can
    be read, tells the same of the same trials in each file, and tells nothing against the records.
    """
    try:
        pickle.loads((folder / "tuner.pkl").read_bytes())
        state = json.loads(_newest(folder, "experiment_state-*.json").read_text())
        searcher = pickle.loads(_newest(folder, "searcher-state-*.pkl").read_bytes())
        trials = [json.loads(trial) for trial, _ in state["trial_data"]]
        asked, finished = set(searcher["_ot_trials"]), set(searcher["_completed_trials"])
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
        "Tune's snapshot has other finished trials than its searcher": ended != finished,
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
