"""Both arms of every seed to the same step, and what differs there.

The only place where a baseline meets its variant: at a rung of a search, and in a confirmation.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fstune.arms.advance import Workbench, advance
from fstune.arms.arm import ArmSpec, Pair
from fstune.arms.inputs import ArmInputs, gather
from fstune.results.comparison import (
    ComparedArms,
    compare,
    compare_at_look,
    design_of,
    rating,
)
from fstune.results.deltas import CONFIDENCE, Delta, confirmation_confidence, paired_deltas
from fstune.results.learning import NO_GUESSES, Grounds
from fstune.results.outcomes import stored_pairs
from fstune.results.records import ArmPair, Comparison, CurvePoint, RungRecord
from fstune.results.sequential import Look
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings, EvaluatedSplit, Scalar

CONFIRMATION_SEEDS_FROM = 1_000_000
"""Index of a confirmation's first seed; no rung comes near it."""


@dataclass(frozen=True)
class SeedArms:
    """Baseline and variant of one seed, and what each stands on."""

    baseline: ArmSpec
    variant: ArmSpec
    baseline_data: ArmInputs
    variant_data: ArmInputs


def arms_of(
    spec: SearchSpec,
    candidate: Mapping[str, Scalar],
    cache: Path,
    seeds: Sequence[int],
    split: EvaluatedSplit = "validation",
) -> list[SeedArms]:
    """The arms of a candidate for some seeds.

    Args:
        spec: the search.
        candidate: one setting of its space.
        cache: folder of the tokenised splits.
        seeds: indices of the seeds.
        split: what the arms are evaluated on.
    """
    last_step = spec.rungs[-1].steps
    both = [_scheduled(settings, last_step) for settings in spec.settings(candidate)]
    arms = []
    for seed in seeds:
        own = [_sampled(settings, seed) if spec.seeds.data else settings for settings in both]
        data = [gather(settings, cache, split) for settings in own]
        baseline, variant = (
            inputs.arm(settings, seed, spec.seeds)
            for settings, inputs in zip(own, data, strict=True)
        )
        arms.append(SeedArms(baseline, variant, *data))
    return arms


def _sampled(settings: ArmSettings, seed: int) -> ArmSettings:
    """The settings with a seed's own sample of the training rows."""
    task = replace(settings.task, train_sample=settings.task.train_sample + seed)
    return settings.model_copy(update={"task": task})


def _scheduled(settings: ArmSettings, last_step: int) -> ArmSettings:
    """The settings with the end of a decaying schedule that names none."""
    train = settings.train
    if train.lr_schedule == "constant" or train.lr_total_steps is not None:
        return settings
    train = train.model_copy(update={"lr_total_steps": last_step})
    return settings.model_copy(update={"train": train})


def run_rung(
    spec: SearchSpec,
    candidate: Mapping[str, Scalar],
    rung: int,
    cache: Path,
    bench: Workbench,
    grounds: Grounds = NO_GUESSES,
) -> RungRecord:
    """Advance a candidate's pairs to a rung and compare them there.

    Args:
        spec: the search.
        candidate: one setting of its space.
        rung: index into the spec's rungs.
        cache: folder of the tokenised splits.
        bench: where arms are trained, and who hears of it.
        grounds: what it is judged by; guesses on the validation split.

    Raises:
        DivergedError: if an arm's loss was not finite.
        InfeasibleError: if an arm does not fit into memory.
        InputError: if the data or the checkpoint cannot be used.
        FstuneError: if the objective's metric is no number.
    """
    started = time.perf_counter()
    goal = spec.rungs[rung]
    arms = arms_of(spec, candidate, cache, range(goal.seeds))
    each_arm = (arm for both in arms for arm in (both.baseline, both.variant))
    reused = sum(goal.steps in bench.store.evaluated_steps(arm.digest) for arm in each_arm)
    pairs = _advance(arms, "validation", goal.steps, bench)
    compared = _compared(spec, arms, pairs, bench, grounds)
    found = compare(spec, compared, grounds, CONFIDENCE, confirms=False)
    reached = spec.rungs[rung - 1].steps if rung else 0
    return RungRecord(
        **vars(found) | rating(spec, rung, found, grounds.rules),
        rung=rung,
        curve=[*_on_the_way(arms, reached, goal.steps, bench), _point(pairs, found.deltas)],
        wall_s=time.perf_counter() - started,
        reused=reused,
    )


def trained_pairs(
    spec: SearchSpec,
    candidate: Mapping[str, Scalar],
    seeds: Sequence[int],
    cache: Path,
    bench: Workbench,
) -> list[Pair]:
    """A candidate's pairs at the last rung's steps, on the validation split.

    Args:
        spec: the search.
        candidate: one setting of its space.
        seeds: indices of the seeds.
        cache: folder of the tokenised splits.
        bench: where arms are trained, and who hears of it.

    Raises:
        As `run_rung`.
    """
    arms = arms_of(spec, candidate, cache, seeds)
    return _advance(arms, "validation", spec.rungs[-1].steps, bench)


def _on_the_way(
    arms: Sequence[SeedArms], after: int, before: int, bench: Workbench
) -> Iterator[CurvePoint]:
    """The common evaluations between two steps, those excluded."""
    every = bench.evaluate_every or before
    for step in range(after - after % every + every, before, every):
        pairs = stored_pairs(bench.store, _arm_pairs(arms), step)
        if pairs:
            yield _point(pairs, paired_deltas(pairs, arms[0].variant_data.metrics))


def confirmed_arms(
    spec: SearchSpec, candidate: Mapping[str, Scalar], cache: Path, seeds: int
) -> list[SeedArms]:
    """The arms of a finalist's confirmation, of so many new seeds; arguments as of `confirm`."""
    indices = range(CONFIRMATION_SEEDS_FROM, CONFIRMATION_SEEDS_FROM + seeds)
    return arms_of(spec, candidate, cache, indices, "test")


def look_at(
    spec: SearchSpec,
    candidate: Mapping[str, Scalar],
    index: int,
    cache: Path,
    bench: Workbench,
    grounds: Grounds = NO_GUESSES,
) -> tuple[Comparison, Look]:
    """Bring a finalist's arms to a look of its sequential confirmation, and take it.

    Args:
        spec: the search; has a section `confirm` with sequential looks.
        candidate: the finalist.
        index: of the look, from 0.
        cache: folder of the tokenised splits.
        bench: where arms are trained, and who hears of it.
        grounds: what it is judged by; guesses on the test split.

    Raises:
        As `confirm`.
    """
    seeds = design_of(spec).looks[index]
    compared = _confirmed(spec, confirmed_arms(spec, candidate, cache, seeds), bench, grounds)
    return compare_at_look(spec, compared, grounds, index)


def confirm(
    spec: SearchSpec,
    candidate: Mapping[str, Scalar],
    finalists: int,
    cache: Path,
    bench: Workbench,
    grounds: Grounds = NO_GUESSES,
) -> Comparison:
    """Compare a finalist's arms on new seeds and the test split, at the last rung's steps, once.

    The error of the intervals is shared among the finalists (`confirmation_confidence`), so that
    all of them hold together.

    Args:
        spec: the search; has a section `confirm`.
        candidate: the finalist.
        finalists: how many there are.
        cache: folder of the tokenised splits.
        bench: where arms are trained, and who hears of it.
        grounds: what it is judged by; guesses on the test split.

    Raises:
        DivergedError: if an arm's loss was not finite.
        InfeasibleError: if an arm does not fit into memory.
        InputError: if the data or the checkpoint cannot be used.
        FstuneError: if the objective's metric is no number.
    """
    assert spec.confirm is not None
    arms = confirmed_arms(spec, candidate, cache, spec.confirm.seeds)
    compared = _confirmed(spec, arms, bench, grounds)
    return compare(spec, compared, grounds, confirmation_confidence(finalists), confirms=True)


def _confirmed(
    spec: SearchSpec, arms: Sequence[SeedArms], bench: Workbench, grounds: Grounds
) -> ComparedArms:
    """The outcomes of a confirmation's arms."""
    pairs = _advance(arms, "test", spec.rungs[-1].steps, bench)
    return _compared(spec, arms, pairs, bench, grounds)


def _compared(
    spec: SearchSpec,
    arms: Sequence[SeedArms],
    pairs: Sequence[Pair],
    bench: Workbench,
    grounds: Grounds,
) -> ComparedArms:
    """The outcomes of the arms, with the baseline's before its first step where that is wanted."""
    first = arms[0]
    untrained = None
    if grounds.wants_untrained(spec.metric()):
        untrained = advance(first.baseline, first.baseline_data, 0, bench)
    return ComparedArms(
        baseline=first.baseline.settings,
        variant=first.variant.settings,
        num_layers=first.variant_data.config.num_layers,
        arms=_arm_pairs(arms),
        pairs=pairs,
        metrics=first.variant_data.metrics,
        untrained=untrained,
    )


def _advance(
    arms: Sequence[SeedArms], split: EvaluatedSplit, step: int, bench: Workbench
) -> list[Pair]:
    variants = [(both.variant, both.variant_data, "variant") for both in arms]
    baselines = [(both.baseline, both.baseline_data, "baseline") for both in arms]
    # Arm workers come from the other end, and may have done the baselines long ago.
    work = [*variants, *baselines]
    bench.on_begin([arm for arm, _, _ in work], split, step)
    found = {
        arm.digest: advance(arm, data, step, _reporting_as(role, bench)) for arm, data, role in work
    }
    return [Pair(found[both.baseline.digest], found[both.variant.digest]) for both in arms]


def _reporting_as(role: str, bench: Workbench) -> Workbench:
    """A workbench whose reports say which of a pair is at work."""
    return replace(
        bench, on_progress=lambda progress: bench.on_progress(replace(progress, role=role))
    )


def _arm_pairs(arms: Sequence[SeedArms]) -> list[ArmPair]:
    """As the records name them."""
    return [
        ArmPair(both.baseline.seeds.index, both.baseline.digest, both.variant.digest)
        for both in arms
    ]


def _point(pairs: Sequence[Pair], deltas: dict[str, Delta]) -> CurvePoint:
    ended_at = max(pair.variant.ended_at for pair in pairs)
    return CurvePoint(pairs[0].step, ended_at, deltas)
