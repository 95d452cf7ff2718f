"""A search's candidates: drawn one after the other, recorded, and each trained once.

How one is drawn is in `sampling`. Who is trained next is decided in `climber` and `asha`, which ask
here.

Two candidates are equal in effect, so that only one of them is trained, if all but one mechanism's
settings is the same in both their arms, and the mechanism says that these do the same wherever
training may take its parameters. Adam moves a weight by at most lr · max(1, (1 - β1) / √(1 - β2))
in a step (Kingma and Ba 2015, section 2.1). Where that cannot be shown, candidates count as
different.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from fstune.arms.inputs import checkpoint_config
from fstune.files import canonical_json
from fstune.results.folder import SearchFolder
from fstune.results.records import TrialRecord, own_trials
from fstune.search.sampling import draw
from fstune.search.trainable import OBJECTIVE
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings, Scalar
from model.config import ModelConfig
from model.mechanisms import registry

BothArms = tuple[ArmSettings, ArmSettings]
"""The baseline's settings and the variant's."""


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


class RecordedSearcher(Searcher):
    """What Tune asks for trials; it keeps nothing that a kill could lose, the records have it."""

    def __init__(self, spec: SearchSpec, records: SearchFolder) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._records = records
        self._candidates = Candidates(spec, records)
        self._running: dict[str, int] = {}
        """Numbers of the candidates at work, by Tune's names for its trials."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._running.pop(trial_id, None)
        if number is not None:
            self._candidates.reread(number)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(b"")  # Tune wants a file, and none is ever read


def equal_in_effect(first: BothArms, second: BothArms, last_step: int, config: ModelConfig) -> bool:
    """Whether the arms of two candidates do the same.

    Args:
        first: baseline's and variant's settings of a candidate (`SearchSpec.settings`).
        second: those of another one.
        last_step: how long they may be trained.
        config: shapes of the model.
    """
    (baseline, variant), (other_baseline, other_variant) = first, second
    if baseline != other_baseline or variant == other_variant:
        return baseline == other_baseline
    one, other = variant.mechanisms, other_variant.mechanisms
    if one.keys() != other.keys() or variant.without() != other_variant.without():
        return False
    beta1, beta2 = variant.train.betas
    travel = last_step * max(1.0, (1 - beta1) / math.sqrt(1 - beta2))
    return all(registry.get(name).equal(one[name], other[name], config, travel) for name in one)
