"""`scheduler: asha_promote` as what Tune asks for trials; who climbs is decided in `promotion`.

All that it suggests follows from the search's records and from what runs now, so that a resumed
search is the same search.
"""

from typing import Any

from ray.tune.search import Searcher

from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord, own_trials
from fstune.search.candidates import RecordedSearcher
from fstune.search.promotion import Climb, Standing, next_climb
from fstune.search.trainable import end_at
from fstune.specs.sections import SearchSpec


class Climber(RecordedSearcher):
    """Asynchronous successive halving with promotion, as what Tune asks for trials.

    To Tune each climb of a candidate to its next rung is a trial of its own, so that a candidate
    that waits holds no resources, and nothing has to be restored: what to do next follows from the
    records (`promotion`, `sampling`) and from what runs now. When nobody may climb
    any more, those that still wait are stopped.
    """

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
        _note_ends(spec, records)
        super().__init__(spec, records)
        self._spec = spec

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        climb = self._next_climb()
        while climb is None and not self._candidates.all_drawn:
            begun = self._candidates.begin()
            climb = None if begun.is_alias else Climb(begun.number, 0)
        if climb is None:
            if self._running:
                return None
            self._stop_waiting()
            return str(Searcher.FINISHED)
        self._running[trial_id] = climb.number
        return {
            "number": climb.number,
            "candidate": self._candidates.trials[climb.number].candidate,
            "search": str(self._records.root),
            "rung": climb.rung,
        }

    def _next_climb(self) -> Climb | None:
        climbing = set(self._running.values())
        standings = [
            Standing(
                trial.number,
                tuple(rung.told for rung in trial.rungs),
                trial.end is not None,
                trial.number in climbing,
            )
            for trial in own_trials(self._candidates.trials)
        ]
        search = self._spec.search
        last = len(self._spec.rungs) - 1
        return next_climb(standings, last, search.reduction_factor, self._candidates.all_drawn)

    def _stop_waiting(self) -> None:
        for trial in own_trials(self._candidates.trials):
            if trial.end is None:
                reached = trial.rungs[-1]
                reason = f"ASHA: was never in the top share at rung {reached.rung}"
                self._records.write_end(trial.number, EndRecord("stopped", reason))


def _note_ends(spec: SearchSpec, records: SearchFolder) -> None:
    """Note the ends that a kill kept from being noted after their rungs."""
    for trial in own_trials(records.trials()):
        if trial.end is None and trial.rungs:
            end = end_at(spec, trial.rungs[-1])
            if end is not None:
                records.write_end(trial.number, end)
