"""Metrics: from what is measured of each example to a score.

An evaluation yields measures, one number per example and name. Three of them every task has: the
negative log-likelihood summed over its targets, how many targets there are, and how many of them
are the argmax; a task's scorer (`tasks.scoring`) adds its own. A metric is a function of measures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float64Array: TypeAlias = npt.NDArray[np.float64]
Measures: TypeAlias = Mapping[str, Float64Array]
"""Per name one number per example, in the split's order."""

NLL_SUM = "nll_sum"
"""Measure: negative log-likelihood summed over the example's targets, in nats."""
CORRECT = "correct"
"""Measure: targets that are the argmax."""
TOTAL = "total"
"""Measure: targets of the example, at least 1."""


@dataclass(frozen=True)
class Metric:
    """A score of a split: of each example, then averaged, or of the sums over all examples."""

    name: str
    higher_is_better: bool
    summary: str
    needs: tuple[str, ...]
    """The measures that `value` is given, in this order."""
    value: Callable[..., Float64Array] = field(repr=False)
    """Works elementwise on arrays of any shape."""
    pooled: bool = False
    """False: the mean over examples of `value`. True: `value` of the measures summed over examples,
    for scores that no example has of its own (F1, MCC)."""
    worst: float | None = None
    """The worst score there can be, of a metric that has one: 0 of a share."""

    def per_example(self, measures: Measures) -> Float64Array:
        """The score of each example.

        Raises:
            ValueError: if the metric is pooled.
        """
        if self.pooled:
            raise ValueError(f"{self.name} is a score of the whole split, not of an example")
        return np.asarray(self.value(*(measures[name] for name in self.needs)), dtype=np.float64)

    def score(self, measures: Measures) -> float:
        """The score of the whole split."""
        if self.pooled:
            return float(self.value(*(measures[name].sum() for name in self.needs)))
        return float(self.per_example(measures).mean())


def mean_of(
    measure: str, higher_is_better: bool, summary: str, worst: float | None = None
) -> Metric:
    """The metric that is the mean of one measure, by the measure's name.

    Args:
        measure: one number per example.
        higher_is_better: whether more of it is better.
        summary: what it says, in a line.
        worst: the worst that it can be; None if there is no bound.
    """
    return Metric(measure, higher_is_better, summary, (measure,), _itself, worst=worst)


def ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Float64Array:
    """Above / below, and 0 where there is nothing below: the usual rule of precision and recall."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    result: Float64Array = np.zeros(np.broadcast_shapes(above.shape, below.shape))
    np.divide(above, below, out=result, where=below != 0)
    return result


def _itself(values: Float64Array) -> Float64Array:
    return values


def _all_correct(correct: Float64Array, total: Float64Array) -> Float64Array:
    return np.equal(correct, total).astype(np.float64)


TOKEN_ACCURACY = Metric(
    "token_accuracy",
    True,
    "share of target tokens that are the argmax",
    (CORRECT, TOTAL),
    ratio,
    worst=0.0,
)
NLL = Metric(
    "nll", False, "negative log-likelihood per target token, in nats", (NLL_SUM, TOTAL), ratio
)
EXACT_MATCH = Metric(
    "exact_match",
    True,
    "1 where every target token is the argmax, else 0",
    (CORRECT, TOTAL),
    _all_correct,
    worst=0.0,
)


def gathered(rows: Sequence[Mapping[str, float]]) -> dict[str, Float64Array]:
    """Measures from one mapping per example.

    Raises:
        ValueError: if two examples have different measures.
    """
    names = sorted(rows[0]) if rows else []
    for index, row in enumerate(rows):
        if sorted(row) != names:
            raise ValueError(f"example {index} has measures {sorted(row)}, the first one {names}")
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}
