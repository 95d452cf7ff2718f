"""Pairs of a comparison, read again from the store that keeps their arms."""

from collections.abc import Sequence

from fstune.arms.arm import Outcome, Pair
from fstune.arms.store import ArmStore
from fstune.errors import StoreError
from fstune.results.records import ArmPair, Comparison
from tasks.metrics import Metric


class NotStoredError(StoreError):
    """An arm's evaluation is not stored."""

    def __init__(self, arm: str, step: int) -> None:
        super().__init__(f"the evaluation of arm {arm} at step {step} is not stored")


def required_pairs(store: ArmStore, arms: Sequence[ArmPair], step: int) -> list[Pair]:
    """The pairs of a comparison at a step, one per seed.

    Raises:
        NotStoredError: names the first arm whose outcome is missing.
        StoreError: if an outcome is damaged.
        ValueError: if the outcomes of two arms make no pair.
    """
    return [
        Pair(_outcome(store, arm.baseline, step), _outcome(store, arm.variant, step))
        for arm in arms
    ]


def stored_pairs(store: ArmStore, arms: Sequence[ArmPair], step: int) -> list[Pair]:
    """The same, or none at all where an outcome is missing."""
    try:
        return required_pairs(store, arms, step)
    except NotStoredError:
        return []


def _outcome(store: ArmStore, arm: str, step: int) -> Outcome:
    outcome = store.outcome(arm, step)
    if outcome is None:
        raise NotStoredError(arm, step)
    return outcome


def seed_deltas(store: ArmStore, at: Comparison, metric: Metric) -> tuple[float, ...]:
    """The delta of each seed, if the outcomes of all are stored."""
    return tuple(
        metric.score(pair.variant.measures) - metric.score(pair.baseline.measures)
        for pair in stored_pairs(store, at.arms, at.steps)
    )
