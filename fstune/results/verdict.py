"""What one may say of a delta, and what it is worth to a search. Intervals are in `deltas`."""

from dataclasses import dataclass
from typing import Literal

from fstune.results.deltas import Delta
from fstune.results.sequential import Decision
from model.mechanisms.mechanism import OFF_IN_EFFECT

VERDICT_RULES = 3
"""Version of the rules in `verdict`, of the intervals and of who climbs, kept with every search,
which is gone on with and shown under the rules that it began with. Version 1 had a bootstrap for
several seeds, and confirmed at 95 % instead of 98 %; version 2 ranked by the lower bound at every
rung, called what had learnt nothing "no effect", and confirmed with a fixed number of seeds."""


FIRST_KEPT_RULES = 2
"""Of searches that do not say by which rules they were decided."""


Verdict = Literal[
    "gain",
    "unconfirmed gain",
    "loss",
    "no effect",
    "not learnt",
    "not worth it",
    "inconclusive",
    "diverged",
    "infeasible",
    "failed",
    "running",
]


def verdict(
    delta: Delta,
    margin: float,
    largest_gate: float = 1.0,
    confirms: bool = False,
    learnt: bool = True,
) -> Verdict:
    """What one rung allows to say, by rules in this order (version `VERDICT_RULES`).

    1. No gate can rise above `OFF_IN_EFFECT`: no effect. What the arms then differ by is rounding,
       which training may amplify to a few flipped guesses.
    2. Neither arm has learnt anything (`learning`): not learnt. How they differ tells nothing.
    3. The interval lies within ± margin: no effect.
    4. The whole interval is on the better side of zero: unconfirmed gain. It is called a gain only
       in a confirmation, on seeds and examples that the search has not seen.
    5. The whole interval is on the worse side of zero: loss.
    6. Otherwise: inconclusive.

    Args:
        delta: of the objective's metric.
        margin: practical equivalence, in the metric's units.
        largest_gate: upper bound of the variant's gates.
        confirms: whether the delta is a confirmation's.
        learnt: whether either arm is surely better than a guess.
    """
    if largest_gate < OFF_IN_EFFECT:
        return "no effect"
    if not learnt:
        return "not learnt"
    if -margin <= delta.low and delta.high <= margin:
        return "no effect"
    if delta.worst > 0:
        return "gain" if confirms else "unconfirmed gain"
    return "loss" if delta.best < 0 else "inconclusive"


def sequential_verdict(told: Verdict, decision: Decision) -> Verdict:
    """What a sequential confirmation comes to at its last look.

    Args:
        told: what `verdict` says of the repeated interval there.
        decision: what the look says (`sequential.look`): a gain there needs more than the interval.
    """
    if told in ("gain", "inconclusive"):
        return "inconclusive" if decision == "more" else decision
    return told


@dataclass(frozen=True)
class Rating:
    """What a rung's delta is worth to the search: who climbs, and who is best."""

    objective: float
    """What candidates are ranked by among those at the rung; more is better."""
    promise: float
    """What the sampler and Tune are told."""
    settled: bool
    """Whether it is surely no better than the margin: it comes after all that are not."""


def rated(
    delta: Delta,
    margin: float,
    bound: Literal["lower", "mean"],
    last: bool,
    told: Verdict,
    apart: float = 0.0,
) -> Rating:
    """How a delta stands at its rung.

    Before the last rung what counts is how good a candidate may still be: its upper bound for the
    seeds that were run. One that does nothing has a narrow interval, and would otherwise stand
    above all that may. At the last rung it is `bound`, but of what has not learnt, whose delta
    tells nothing. That is never settled, and one whose arms differ comes before one whose do not.

    Args:
        delta: of the objective's metric.
        margin: practical equivalence.
        bound: what candidates are ranked by in the end.
        last: whether this is the last rung.
        told: the rung's verdict.
        apart: how far the arms are from each other in a measure that moves before the metric does.
    """
    settled = told == "no effect" or (told != "not learnt" and delta.best <= margin)
    upper = delta.gain("upper")
    # As one number: nothing that is settled comes before what is not.
    promise = min(upper, margin)
    if not settled:
        promise = max(upper, margin) + _TIE * apart / (1.0 + apart)
    by_bound = last and told != "not learnt"
    return Rating(delta.gain(bound) if by_bound else promise, promise, settled)


_TIE = 1e-6
"""What arms that differ count for: less than any two scores differ by, more than rounding."""
