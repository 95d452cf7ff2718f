"""Pairs of a comparison, read again from the store that keeps their arms."""

from collections.abc import Sequence

from fstune.arms.arm import Pair
from fstune.arms.store import ArmStore
from fstune.results.records import ArmPair, Comparison
from tasks.metrics import Metric


def stored_pairs(store: ArmStore, arms: Sequence[ArmPair], step: int) -> list[Pair]:
    """The pairs whose outcomes are stored, one per seed; none if any is missing."""
    pairs = []
    for arm in arms:
        baseline, variant = store.outcome(arm.baseline, step), store.outcome(arm.variant, step)
        if baseline is None or variant is None:
            return []
        pairs.append(Pair(baseline, variant))
    return pairs


def seed_deltas(store: ArmStore, at: Comparison, metric: Metric) -> tuple[float, ...]:
    """The delta of each seed, if the outcomes of all are stored."""
    return tuple(
        metric.score(pair.variant.measures) - metric.score(pair.baseline.measures)
        for pair in stored_pairs(store, at.arms, at.steps)
    )
