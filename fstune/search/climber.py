"""`scheduler: asha_promote` as what Tune asks for trials; who climbs is decided in `promotion`.

All that it suggests follows from the search's records and from what runs now, so that a resumed
search is the same search.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from fstune.arms.inputs import checkpoint_config
from fstune.files import canonical_json
from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord, TrialRecord, own_trials
from fstune.search.equal_effect import BothArms, equal_in_effect
from fstune.search.promotion import Climb, Standing, next_climb
from fstune.search.sampling import draw
from fstune.search.trainable import OBJECTIVE, end_at
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar


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
            if trial.end is None and trial.rungs and not trial.is_alias:
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
            for trial in own_trials(self._trials)
        ]
        search = self._spec.search
        last = len(self._spec.rungs) - 1
        return next_climb(standings, last, search.reduction_factor, self._all_drawn)

    def _begin(self) -> Climb | None:
        """Draw the next candidate; None if it equals one that is there already."""
        number = len(self._trials)
        candidate = draw(self._spec, self._trials)
        own = own_trials(self._trials)
        equals = next((trial.number for trial in own if self._same(trial, candidate)), None)
        self._records.write_candidate(number, candidate, equals)
        self._reread(number)
        return Climb(number, 0) if equals is None else None

    def _same(self, trial: TrialRecord, candidate: dict[str, Scalar]) -> bool:
        arms = (self._arms(trial.candidate), self._arms(candidate))
        return equal_in_effect(*arms, self._spec.rungs[-1].steps, self._config)

    def _arms(self, candidate: Mapping[str, Scalar]) -> BothArms:
        """A candidate's settings; kept, since each is held against all that come after it."""
        key = canonical_json(dict(candidate))
        if key not in self._settings:
            self._settings[key] = self._spec.settings(candidate)
        return self._settings[key]

    def _reread(self, number: int) -> None:
        """Bring what is known of a trial and its aliases up to the records."""
        aliases = [trial.number for trial in self._trials if trial.equals == number]
        for each in (number, *aliases):
            record = self._records.trial(each)
            assert record is not None
            self._trials[each : each + 1] = [record]

    def _stop_waiting(self) -> None:
        for trial in own_trials(self._trials):
            if trial.end is None:
                reached = trial.rungs[-1]
                place = f"at rung {reached.rung} was never in the top share"
                reason = f"ASHA: {reached.objective:+.4f} {place}"
                self._records.write_end(trial.number, EndRecord("stopped", reason))
