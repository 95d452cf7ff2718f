"""A search's candidates: drawn one after the other, recorded, and each trained once.

How one is drawn is in `sampling`, when two do the same in `equal_effect`. Who is trained next is
the business of `climber` and `suggester`, which ask here.
"""

from collections.abc import Mapping
from pathlib import Path

from fstune.arms.inputs import checkpoint_config
from fstune.files import canonical_json
from fstune.results.folder import SearchFolder
from fstune.results.records import TrialRecord, own_trials
from fstune.search.equal_effect import BothArms, equal_in_effect
from fstune.search.sampling import draw
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar


class Candidates:
    """The trials of a search as its records have them, and the next one.

    A draw follows from the search's seed, its number and the trials so far, so that nothing is
    lost with this object.
    """

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
        self._spec = spec
        self._records = records
        self._config = spec.model.init or checkpoint_config(Path(str(spec.model.checkpoint)))
        self._settings: dict[str, BothArms] = {}
        self.trials = records.trials()

    @property
    def all_drawn(self) -> bool:
        """Whether no new candidate will come."""
        return len(self.trials) >= self._spec.search.trials

    def begin(self) -> TrialRecord:
        """Draw the next candidate and record it; an alias, if it equals one that is there."""
        number = len(self.trials)
        candidate = draw(self._spec, self.trials)
        own = own_trials(self.trials)
        equals = next((trial.number for trial in own if self._same(trial, candidate)), None)
        self._records.write_candidate(number, candidate, equals)
        self.reread(number)
        return self.trials[number]

    def reread(self, number: int) -> None:
        """Bring what is known of a trial and its aliases up to the records."""
        aliases = [trial.number for trial in self.trials if trial.equals == number]
        for each in (number, *aliases):
            record = self._records.trial(each)
            assert record is not None
            self.trials[each : each + 1] = [record]

    def _same(self, trial: TrialRecord, candidate: dict[str, Scalar]) -> bool:
        arms = (self._arms(trial.candidate), self._arms(candidate))
        return equal_in_effect(*arms, self._spec.rungs[-1].steps, self._config)

    def _arms(self, candidate: Mapping[str, Scalar]) -> BothArms:
        """A candidate's settings; kept, since each is held against all that come after it."""
        key = canonical_json(dict(candidate))
        if key not in self._settings:
            self._settings[key] = self._spec.settings(candidate)
        return self._settings[key]
