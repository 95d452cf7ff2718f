"""How the next candidate is drawn: from the search's seed, its number and the trials so far.

Every draw makes Optuna's study anew from the trials and seeds its sampler by the number, so that
there is no sampler state that a kill could lose. A paused trial counts with its value at the last
rung that it reached, and may come back with a better one; Optuna's TPE puts what has come further
first, and within a rung what is better.
"""

import itertools
import warnings
from collections.abc import Collection, Container, Mapping, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from fstune.files import canonical_json, derive_seed
from fstune.results.records import TrialRecord
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar
from fstune.specs.space import Domain, Space

SAMPLER_DRAWS = 10
"""How often the sampler may repeat itself before a candidate is drawn from those that are left."""


def draw(spec: SearchSpec, trials: Sequence[TrialRecord]) -> dict[str, Scalar]:
    """The candidate of trial number `len(trials)`: the spec's point, or a draw unlike all before.

    Raises:
        ValueError: if the space has no other candidate.
    """
    number = len(trials)
    known = {canonical_json(trial.candidate) for trial in trials}
    space = Space(spec.space)
    if spec.search.sampler == "grid" and number >= len(spec.points):
        return _left(space, known)[0]
    study = _study(spec, trials)
    for attempt in range(SAMPLER_DRAWS):
        study.sampler = sampler(spec, number, attempt)
        if number < len(spec.points):
            study.enqueue_trial(dict(spec.points[number]))
        trial = study.ask()
        candidate = space.suggest(trial)
        if canonical_json(candidate) not in known:
            return candidate
        study.tell(trial, state=TrialState.FAIL)
    many = 2 * spec.search.trials
    if space.count(many) == many:
        return _at_random(spec, number, known)
    left = _left(space, known)
    return left[derive_seed(spec.search.seed, "left", number) % len(left)]


def _left(space: Space, known: Collection[str]) -> list[dict[str, Scalar]]:
    """The candidates of a space without ranges that are not drawn yet, in the space's order."""
    left = [point for point in space.points() if canonical_json(point) not in known]
    if not left:
        raise ValueError(f"all {len(known)} candidates of the space are drawn")
    return left


def any_candidate(spec: SearchSpec) -> dict[str, Scalar]:
    """Some candidate: the first point, completed by a draw, or else a draw."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    if spec.points:
        study.enqueue_trial(dict(spec.points[0]))
    return Space(spec.space).suggest(study.ask())


def _at_random(spec: SearchSpec, number: int, known: Container[str]) -> dict[str, Scalar]:
    """A candidate unlike all before, of a space that has many more of them.

    A sampler may keep to a branch of the space that is used up.
    """
    space = Space(spec.space)
    candidates = (
        space.suggest(optuna.create_study(sampler=_random(spec, number, attempt)).ask())
        for attempt in itertools.count()
    )
    return next(one for one in candidates if canonical_json(one) not in known)


def _random(spec: SearchSpec, number: int, attempt: int) -> optuna.samplers.RandomSampler:
    seed = derive_seed(spec.search.seed, f"left/{attempt}", number) % 2**32
    return optuna.samplers.RandomSampler(seed=seed)


def _study(spec: SearchSpec, trials: Sequence[TrialRecord]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    distributions = {path: _distribution(domain) for path, domain in spec.space.items()}
    study.add_trials([_frozen(trial, distributions, len(spec.rungs)) for trial in trials])
    return study


def _frozen(
    trial: TrialRecord, distributions: Mapping[str, BaseDistribution], rungs: int
) -> FrozenTrial:
    values = {reached.rung: reached.told for reached in trial.rungs}
    if trial.end is not None and trial.end.broke_off is not None:
        state = TrialState.FAIL
    elif len(values) == rungs:
        state = TrialState.COMPLETE
    else:
        state = TrialState.PRUNED if values else TrialState.RUNNING
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED)
    return create_trial(
        state=state,
        value=trial.rungs[-1].told if has_value else None,
        params=dict(trial.candidate),
        distributions={path: distributions[path] for path in trial.candidate},
        intermediate_values=values,
    )


def _distribution(domain: Domain) -> BaseDistribution:
    if domain.choice is not None:
        return CategoricalDistribution(domain.choice)
    if domain.int_uniform is not None:
        return IntDistribution(*domain.int_uniform)
    return FloatDistribution(*domain.bounds, log=domain.log_uniform is not None)


def sampler(spec: SearchSpec, number: int, attempt: int = 0) -> optuna.samplers.BaseSampler:
    """The spec's sampler, seeded for trial `number`; a later attempt draws otherwise."""
    stream = "sampler" if attempt == 0 else f"sampler/{attempt}"
    seed = derive_seed(spec.search.seed, stream, number) % 2**32
    # A grid's points may leave settings out, which are then drawn at random.
    if spec.search.sampler in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.search.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    with warnings.catch_warnings():
        # A space with conditions needs `group`, which Optuna calls experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            seed=seed,
            constant_liar=spec.resources.concurrent_trials > 1,
        )
