"""`scheduler: asha_promote` as what Tune asks for trials; who climbs is decided in `promotion`.

All that it suggests follows from the search's records and from what runs now, so that a resumed
search is the same search.
"""

from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord, own_trials
from fstune.search.candidates import Candidates
from fstune.search.promotion import Climb, Standing, next_climb
from fstune.search.trainable import OBJECTIVE, end_at
from fstune.specs.sections import SearchSpec


class Climber(Searcher):
    """Asynchronous successive halving with promotion, as what Tune asks for trials.

    To Tune each climb of a candidate to its next rung is a trial of its own, so that a candidate
    that waits holds no resources, and nothing has to be restored: what to do next follows from the
    records (`promotion`, `sampling`) and from what runs now. When nobody may climb
    any more, those that still wait are stopped.
    """

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._spec = spec
        self._records = records
        self._candidates = self._read()
        self._running: dict[str, int] = {}

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

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._running.pop(trial_id, None)
        if number is not None:
            self._candidates.reread(number)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(b"")  # Tune wants a file; the records hold all there is

    def restore(self, checkpoint_path: str) -> None:
        self._candidates = self._read()

    def _read(self) -> Candidates:
        """All trials; an end that a kill kept from being noted after its rung is noted now."""
        for trial in self._records.trials():
            if trial.end is None and trial.rungs and not trial.is_alias:
                end = end_at(self._spec, trial.rungs[-1])
                if end is not None:
                    self._records.write_end(trial.number, end)
        return Candidates(self._spec, self._records)

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
