"""Deltas by group of examples: whether a candidate helps at some lengths or depths, not at others.

A task declares measures that tell its examples apart (`Task.groups`); they are stored with every
outcome. Each group's delta is computed as that of all examples. No torch, no Ray.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fstune.arms.arm import Outcome, Pair
from fstune.arms.store import ArmStore
from fstune.report.series import Sheet
from fstune.results.deltas import Delta, paired_deltas
from fstune.results.outcomes import stored_pairs
from fstune.results.records import Comparison
from fstune.specs.sections import SearchSpec
from tasks import registry
from tasks.metrics import Metric

MOST_VALUES = 8
"""Different values up to which each is a group of its own."""


RANGES = 4
"""Into how many groups of about the same size more values are divided."""


@dataclass(frozen=True)
class GroupRow:
    """One group's delta."""

    measure: str
    label: str
    examples: int
    delta: Delta
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class GroupDeltas:
    """One candidate's deltas in each group, by each measure that tells groups apart."""

    number: int
    metric: str
    margin: float
    higher_is_better: bool
    rows: list[GroupRow]

    def sheet(self) -> Sheet:
        rows = [
            (
                *(row.measure, row.label, row.examples, row.delta.baseline, row.delta.variant),
                *(row.delta.mean, row.delta.low, row.delta.high),
                " ".join(map(str, row.by_seed)),
            )
            for row in self.rows
        ]
        header = ("measure", "group", "examples", "baseline", "variant", "delta", "low", "high")
        return Sheet((*header, "delta of each seed"), rows)


def group_deltas(
    spec: SearchSpec, number: int, at: Comparison, store: ArmStore
) -> GroupDeltas | None:
    """A candidate's deltas by group of examples.

    Args:
        spec: the search's.
        number: the candidate's trial.
        at: where its arms were compared.
        store: with their outcomes.

    Returns:
        None where the task declares no measure, all examples are of one group, or outcomes are not
        stored.
    """
    metric, pairs = spec.metric(), stored_pairs(store, at.arms, at.steps)
    if not pairs:
        return None
    measures = pairs[0].variant.measures
    rows = [
        row
        for name in registry.get(spec.task_name).groups
        if name in measures
        for row in _rows(name, measures[name], pairs, metric)
    ]
    margin = spec.objective.margin
    return GroupDeltas(number, metric.name, margin, metric.higher_is_better, rows) if rows else None


def _rows(
    measure: str, value_N: NDArray[np.float64], pairs: Sequence[Pair], metric: Metric
) -> Iterator[GroupRow]:
    groups = list(_groups(value_N))
    if len(groups) < 2:
        return
    for label, in_group_N in groups:
        chosen = [
            Pair(_only(pair.baseline, in_group_N), _only(pair.variant, in_group_N))
            for pair in pairs
        ]
        by_seed = tuple(
            metric.score(pair.variant.measures) - metric.score(pair.baseline.measures)
            for pair in chosen
        )
        delta = paired_deltas(chosen, [metric])[metric.name]
        yield GroupRow(measure, label, int(in_group_N.sum()), delta, by_seed)


def _groups(value_N: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each group's label and its examples: single values, or ranges where there are many."""
    known = np.unique(value_N)
    if len(known) <= MOST_VALUES:
        for value in known:
            yield _shown(value), value_N == value
        return
    quantiles = np.quantile(value_N, np.linspace(0, 1, RANGES + 1), method="nearest")
    bounds = np.unique(quantiles)
    for place, (low, high) in enumerate(pairwise(bounds.tolist())):
        last = place == len(bounds) - 2
        in_group_N = (value_N >= low) & ((value_N <= high) if last else (value_N < high))
        inside = value_N[in_group_N]
        yield f"{_shown(inside.min())} to {_shown(inside.max())}", in_group_N


def _shown(value: float) -> str:
    """A whole number in full, another to three digits."""
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"


def _only(outcome: Outcome, in_group_N: NDArray[np.bool_]) -> Outcome:
    measures = {name: values[in_group_N] for name, values in outcome.measures.items()}
    return replace(outcome, measures=measures)
