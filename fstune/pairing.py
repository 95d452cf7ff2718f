"""One rung of one candidate: both arms of every seed to the same step, and what differs.

The only place where a baseline meets its variant.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fstune.arm import ArmSettings, ArmSpec, Pair, Scalar
from fstune.materials import Materials, gather
from fstune.records import ArmPair, CurvePoint, RungRecord
from fstune.spec import SearchSpec
from fstune.statistics import Delta, paired_deltas, verdict
from fstune.store import ArmStore
from fstune.training import Workbench, advance

PairOfArms = tuple[ArmSpec, ArmSpec]
"""Baseline and variant."""


def arms_of(
    spec: SearchSpec, candidate: Mapping[str, Scalar], cache: Path, seeds: int
) -> tuple[list[PairOfArms], Materials, Materials]:
    """Both arms of each of a candidate's first `seeds` seeds, and what they stand on."""
    last_step = spec.rungs[-1].steps
    baseline, variant = (_scheduled(settings, last_step) for settings in spec.settings(candidate))
    baseline_data, variant_data = gather(baseline, cache), gather(variant, cache)
    pairs = [
        (baseline_data.arm(baseline, seed), variant_data.arm(variant, seed))
        for seed in range(seeds)
    ]
    return pairs, baseline_data, variant_data


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
) -> RungRecord:
    """Advance a candidate's pairs to a rung and compare them there.

    Args:
        spec: the search.
        candidate: one setting of its space.
        rung: index into the spec's rungs.
        cache: folder of the tokenised splits.
        bench: where arms are trained and who is told.

    Raises:
        DivergedError: if an arm's loss was not finite.
        InputError: if the data or the checkpoint cannot be used.
    """
    started = time.perf_counter()
    goal = spec.rungs[rung]
    arms, baseline_data, variant_data = arms_of(spec, candidate, cache, goal.seeds)
    metrics = variant_data.metrics
    finals = [
        Pair(
            baseline=advance(baseline, baseline_data, goal.steps, bench),
            variant=advance(variant, variant_data, goal.steps, bench),
        )
        for baseline, variant in arms
    ]
    deltas = paired_deltas(finals, metrics)
    objective = deltas[spec.metric().name]
    baseline_settings, variant_settings = (arm.settings for arm in arms[0])
    mechanism = variant_settings.future_seed
    largest_gate = mechanism.largest_gate(variant_data.config.num_layers) if mechanism else 1.0
    # A shut gate says that nothing can come of it only where nothing else differs.
    nothing_else = baseline_settings == variant_settings.model_copy(update={"future_seed": None})
    every = bench.evaluate_every or goal.steps
    reached = spec.rungs[rung - 1].steps if rung else 0
    on_the_way = [
        pairs
        for step in range(reached - reached % every + every, goal.steps, every)
        if (pairs := _stored_pairs(arms, step, bench.store))
    ]
    return RungRecord(
        rung=rung,
        steps=goal.steps,
        seeds=goal.seeds,
        deltas=deltas,
        verdict=verdict(objective, spec.objective.margin, largest_gate if nothing_else else 1.0),
        objective=objective.gain(spec.objective.bound),
        largest_gate=largest_gate,
        arms=[
            ArmPair(seed, baseline.digest, variant.digest)
            for seed, (baseline, variant) in enumerate(arms)
        ],
        curve=[_point(pairs, paired_deltas(pairs, metrics)) for pairs in on_the_way]
        + [_point(finals, deltas)],
        wall_s=time.perf_counter() - started,
    )


def _stored_pairs(arms: Sequence[PairOfArms], step: int, store: ArmStore) -> list[Pair]:
    """The pairs at a step, or none where an arm was not evaluated there."""
    outcomes = [
        (store.outcome(baseline.digest, step), store.outcome(variant.digest, step))
        for baseline, variant in arms
    ]
    pairs = [Pair(b, v) for b, v in outcomes if b is not None and v is not None]
    return pairs if len(pairs) == len(arms) else []


def _point(pairs: Sequence[Pair], deltas: dict[str, Delta]) -> CurvePoint:
    ended_at = max(pair.variant.ended_at for pair in pairs)
    return CurvePoint(pairs[0].step, ended_at, deltas)
