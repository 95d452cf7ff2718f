"""Whether anything was learnt: arms held against those that understand nothing.

Where neither arm is surely better than a blind guess, what differs between them tells nothing of
what is being compared. What the guesses score is computed in `tasks.guesses`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fstune.arms.arm import Outcome, Pair
from fstune.results.deltas import CONFIDENCE, contributions, normal_quantile
from fstune.results.verdict import VERDICT_RULES
from tasks.metrics import NLL_SUM, Metric

UNTRAINED = "the model before training"


KNOWS_LEARNING = 3
"""The first rules that tell what has not learnt, and who is settled."""


@dataclass(frozen=True)
class Grounds:
    """What a comparison is judged by beside its outcomes."""

    rules: int = VERDICT_RULES
    """Of the search; a confirmation has those of its search."""
    guesses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What chance and trivial strategies score on the evaluated split, by strategy and metric."""

    def wants_untrained(self, metric: Metric) -> bool:
        """Whether the model before training is evaluated too: no guess has a likelihood."""
        return self.rules >= KNOWS_LEARNING and NLL_SUM in metric.needs


NO_GUESSES = Grounds()
"""The newest rules, and no guess to hold the arms against."""


def guessed_as_well(
    pairs: Sequence[Pair],
    metric: Metric,
    guesses: Mapping[str, Mapping[str, float]],
    untrained: Outcome | None,
) -> str:
    """The guess than which neither arm is surely better; empty where one is, or none is known.

    Args:
        pairs: one per seed.
        metric: the objective's.
        guesses: scores by strategy and metric, on the same examples.
        untrained: the model before its first step on them; of likelihoods alone.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    if untrained is not None:
        rival, name = contributions(untrained, metric), UNTRAINED
    else:
        known = {
            name: sign * scored[metric.name]
            for name, scored in guesses.items()
            if metric.name in scored
        }
        if not known:
            return ""
        name = max(known, key=lambda each: known[each])
        rival = np.full(1, sign * known[name])
    both = ([pair.baseline for pair in pairs], [pair.variant for pair in pairs])
    return "" if any(_lower_bound(arm, metric, rival, sign) > 0 for arm in both) else name


def _lower_bound(
    outcomes: Sequence[Outcome], metric: Metric, rival_N: NDArray[np.float64], sign: float
) -> float:
    """Of an arm's lead over its rival, for these seeds, examples being drawn by chance."""
    lead_N = sign * (np.mean([contributions(each, metric) for each in outcomes], axis=0) - rival_N)
    spread = float(lead_N.std(ddof=1)) if len(lead_N) > 1 else math.inf
    return float(lead_N.mean()) - normal_quantile(CONFIDENCE) * spread / math.sqrt(len(lead_N))
