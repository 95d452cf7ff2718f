"""A few arms from which a plan tells how far seeds and examples differ, and what an arm costs.

They are arms that the search will ask for too, so that nothing of a pilot is lost. What is made of
them is in `results.planning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from fstune.arms.advance import Workbench, workbench
from fstune.arms.arm import Pair
from fstune.arms.inputs import checkpoint_layers
from fstune.arms.store import ArmStore
from fstune.errors import InputError
from fstune.results.comparison import reach
from fstune.results.folder import SearchFolder
from fstune.results.outcomes import stored_pairs
from fstune.results.pairing import arms_of, trained_pairs
from fstune.results.paths import search_names
from fstune.results.ranking import ranked
from fstune.results.records import TrialRecord, own_trials
from fstune.search.requirements import require_machine
from fstune.search.sampling import draw
from fstune.specs.loading import find, load
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar
from model.mechanisms.mechanism import OFF_IN_EFFECT

SEEDS = 4
"""Of a pilot: they tell how far seeds differ to within a factor of two or so."""


@dataclass(frozen=True)
class Pilot:
    """Pairs of one candidate, at the steps of the last rung."""

    candidate: dict[str, Scalar]
    pairs: list[Pair]
    split: str
    """What they were evaluated on."""


def train_pilot(spec: SearchSpec, cache: Path, bench: Workbench) -> Pilot:
    """Train the first candidate of the search that is not off in effect.

    Args:
        spec: the search.
        cache: folder of the tokenised splits.
        bench: where arms are trained, and who hears of it.

    Raises:
        InputError: if all candidates are off in effect.
        DivergedError, InfeasibleError, InputError: as of training an arm.
    """
    candidate = _first_that_acts(spec, cache)
    pairs = trained_pairs(spec, candidate, range(SEEDS), cache, bench)
    return Pilot(candidate, pairs, "validation")


def found_pilot(records: SearchFolder) -> Pilot | None:
    """What a search has trained with two seeds or more: a confirmation, else its best candidate."""
    spec = records.spec()
    trials = [trial for trial in ranked(own_trials(records.trials())) if trial.rungs]
    confirmed = [trial for trial in trials if trial.confirmation]
    for trial in [*confirmed, *trials]:
        comparison = trial.comparisons[-1]
        if comparison.steps != spec.rungs[-1].steps or comparison.seeds < 2:
            continue
        pairs = stored_pairs(records.store, comparison.arms, comparison.steps)
        if pairs:
            looked = trial.confirmation and comparison is trial.confirmation.comparison
            return Pilot(trial.candidate, pairs, "test" if looked else "validation")
    return None


def _first_that_acts(spec: SearchSpec, cache: Path) -> dict[str, Scalar]:
    trials: list[TrialRecord] = []
    last_step = spec.rungs[-1].steps
    for number in count():
        try:
            candidate = draw(spec, trials)
        except ValueError:
            break
        (both,) = arms_of(spec, candidate, cache, [0])
        layers = both.variant_data.config.num_layers
        if reach(both.variant.settings, layers, last_step) >= OFF_IN_EFFECT:
            return candidate
        trials.append(TrialRecord(number, candidate))
        if number >= spec.search.trials:
            break
    raise InputError(f"{spec.name}: no candidate would change anything; see `space` and `fixed`")


def pilot_of(
    search: str, data: Sequence[Path], runs: Path, overrides: Sequence[str]
) -> tuple[SearchSpec, Pilot]:
    """The pilot that a search has trained already, or one that is trained now.

    Args:
        search: name of a search in `runs`, or a spec.
        data: folders of data and checkpoints.
        runs: folder of the arms, where those of a pilot stay for the search.
        overrides: `path=value`, of a spec.

    Raises:
        InputError: if there is neither, or the data or the machine do not allow it.
        DivergedError, InfeasibleError: as of training an arm.
    """
    if not overrides and search in search_names(runs):
        records = SearchFolder.find(runs, search)
        found = found_pilot(records)
        if found is not None:
            return records.spec(), found
    loaded = load(find(search), overrides).resolved(data, checkpoint_layers)
    if loaded.probes:
        raise InputError(
            "train.batch_size: probe leaves the size open; give one by --set train.batch_size=N"
        )
    require_machine(loaded.spec)
    bench = workbench(ArmStore(runs / "arms"), loaded.spec)
    return loaded.spec, train_pilot(loaded.spec, runs / "cache", bench)
