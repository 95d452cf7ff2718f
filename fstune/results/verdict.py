"""The verdict: what one may say of a delta. Intervals and tests are in `deltas`."""

from typing import Literal

from fstune.results.deltas import Delta
from model.mechanisms.mechanism import OFF_IN_EFFECT

VERDICT_RULES = 2
"""Version of the rules in `verdict` and of the intervals, kept in every record. Version 1 had a
bootstrap for several seeds, and confirmed at 95 % instead of 98 %."""


Verdict = Literal[
    "gain",
    "unconfirmed gain",
    "loss",
    "no effect",
    "inconclusive",
    "diverged",
    "infeasible",
    "failed",
    "running",
]


def verdict(
    delta: Delta, margin: float, largest_gate: float = 1.0, confirms: bool = False
) -> Verdict:
    """What one rung allows to say, by rules in this order (version `VERDICT_RULES`).

    1. No gate can rise above `OFF_IN_EFFECT`: no effect. What the arms then differ by is rounding,
       which training may amplify to a few flipped guesses.
    2. The interval lies within ± margin: no effect.
    3. The whole interval is on the better side of zero: unconfirmed gain. It is called a gain only
       in a confirmation, on seeds and examples that the search has not seen.
    4. The whole interval is on the worse side of zero: loss.
    5. Otherwise: inconclusive.

    Args:
        delta: of the objective's metric.
        margin: practical equivalence, in the metric's units.
        largest_gate: upper bound of the variant's gates.
        confirms: whether the delta is a confirmation's.
    """
    if largest_gate < OFF_IN_EFFECT or (-margin <= delta.low and delta.high <= margin):
        return "no effect"
    if delta.worst > 0:
        return "gain" if confirms else "unconfirmed gain"
    worst_case = delta.high if delta.higher_is_better else -delta.low
    return "loss" if worst_case < 0 else "inconclusive"
