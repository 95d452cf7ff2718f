"""Scores of answers that are classes, each counted once, that no constant answer can raise.

Both are of the whole split: from how many items of each class there are, were said and were right.
Classes are numbered from 0; what is said may be none of them.
"""

from collections.abc import Sequence

import numpy as np

from tasks.metrics import Float64Array, Metric, ratio


def class_measures(
    wanted: Sequence[int], said: Sequence[int | None], count: int
) -> dict[str, float]:
    """What the scores of `count` classes need of one example: its items, wanted and said."""
    pairs = list(zip(wanted, said, strict=True))
    measures: dict[str, float] = {}
    for each in range(count):
        measures[_wanted(each)] = float(sum(one == each for one, _ in pairs))
        measures[_said(each)] = float(sum(other == each for _, other in pairs))
        measures[_right(each)] = float(sum(one == other == each for one, other in pairs))
    return measures


def balanced_accuracy(count: int) -> Metric:
    """The mean over classes of the share of each that was said; 1 / classes for a constant."""
    names = range(count)
    return Metric(
        "balanced_accuracy",
        True,
        "mean over classes of the share of a class that is recognised",
        (*map(_right, names), *map(_wanted, names)),
        _mean_recall,
        pooled=True,
        worst=0.0,
    )


def matthews(count: int) -> Metric:
    """Matthews' correlation; with more than two classes Gorodkin's generalisation of it.

    Source: Gorodkin, Comput. Biol. Chem. 28 (2004) 367, equation 8. 0 for a constant, and where
    only one class is wanted.
    """
    names = range(count)
    return Metric(
        "mcc",
        True,
        "correlation of wanted and said classes, Matthews' and its generalisation",
        (*map(_right, names), *map(_wanted, names), *map(_said, names)),
        _correlation,
        pooled=True,
        worst=-1.0,
    )


def _right(each: int) -> str:
    return f"class_{each}_right"


def _wanted(each: int) -> str:
    return f"class_{each}_wanted"


def _said(each: int) -> str:
    return f"class_{each}_said"


def _mean_recall(*counts: Float64Array) -> Float64Array:
    right_C, wanted_C = np.split(np.stack(counts), 2)
    return ratio(ratio(right_C, wanted_C).sum(axis=0), (wanted_C > 0).sum(axis=0))


def _correlation(*counts: Float64Array) -> Float64Array:
    right_C, wanted_C, said_C = np.split(np.stack(counts), 3)
    total = wanted_C.sum(axis=0)
    # What is said and none of the classes is one more, which is never wanted.
    unknown = total - said_C.sum(axis=0)
    together = right_C.sum(axis=0) * total - (wanted_C * said_C).sum(axis=0)
    spread_wanted = total**2 - (wanted_C**2).sum(axis=0)
    spread_said = total**2 - (said_C**2).sum(axis=0) - unknown**2
    return ratio(together, np.sqrt(spread_wanted * spread_said))
