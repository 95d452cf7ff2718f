"""Tune's own stopping ASHA, and what Tune is given where each candidate is one trial of its own.

`scheduler: asha_promote` is in `climber` and `promotion`.
"""

import math
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fstune.results.folder import SearchFolder
from fstune.search.candidates import RecordedSearcher
from fstune.search.trainable import OBJECTIVE, RUNG_CLOCK
from fstune.specs.sections import SearchSpec


class Suggester(RecordedSearcher):
    """Candidates as Tune asks for them where each is one trial of its own, from rung to rung.

    It keeps nothing that a kill could lose: what was suggested before is suggested again as the
    records have it, and passes again through the rungs that have a record, at no cost.
    """

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
        super().__init__(spec, records)
        self._next = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        while self._next < len(self._candidates.trials) or not self._candidates.all_drawn:
            if self._next == len(self._candidates.trials):
                self._candidates.begin()
            trial = self._candidates.trials[self._next]
            self._next += 1
            if not trial.is_alias:
                self._running[trial_id] = trial.number
                search = str(self._records.root)
                return {"number": trial.number, "candidate": trial.candidate, "search": search}
        return str(Searcher.FINISHED)


class RungAsha(AsyncHyperBandScheduler):
    """ASHA whose milestones are the spec's rungs, and which keeps to what was decided before.

    Tune's milestones are grace_period · reduction_factor^k; the time reported for rung k is
    reduction_factor^k, so that they meet whatever the rungs' steps are. After a restart its rungs
    fill again, as trials pass through those that they have records of.
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
        self._records = records

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        # A trial that lost its worker may report its last rung again. ASHA lets pass whom it has
        # seen at a rung, so it must not have seen this one.
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
