"""Asynchronous successive halving with promotion: who climbs to which rung next.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), Algorithm 2: the
best 1/factor of those that have come to a rung may climb, highest rung first; where none may, a new
candidate begins. A candidate that waits is paused, not stopped: its arms are stored. Pure decisions
on what the records say, so that nothing of them has to be saved; no Ray, no Optuna.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How far a candidate has come."""

    number: int
    objectives: tuple[float, ...] = ()
    """More is better; one for each rung that it has reached."""
    ended: bool = False
    """Climbs no further: it diverged, failed, was pruned, or is at the last rung."""
    climbing: bool = False
    """Is on its way to the next rung at this moment."""


@dataclass(frozen=True)
class Climb:
    """A candidate on its way to a rung."""

    number: int
    rung: int


def next_climb(
    standings: Iterable[Standing], last_rung: int, factor: int, all_drawn: bool
) -> Climb | None:
    """The next climb of a candidate that has begun; None where none may climb now.

    One that was drawn and has not reached the first rung comes before all others: it was being
    trained when the search was stopped. A candidate without a delta at a rung (it diverged, or it
    failed) is nobody's rival there; one that was pruned is, though it climbs no further itself.

    Algorithm 2 rounds down, so that fewer than `factor` candidates at a rung would send none up. Of
    a search whose candidates are all drawn, each rung sends up one at least.

    Args:
        standings: of every candidate drawn, but for those that equal another.
        last_rung: index of the rung at which candidates are complete.
        factor: one in so many climbs.
        all_drawn: whether no new candidate will come.
    """
    known = list(standings)
    for one in known:
        if not (one.objectives or one.ended or one.climbing):
            return Climb(one.number, 0)
    for rung in reversed(range(last_rung)):
        for one in _best(known, rung, factor):
            if _may_climb(one, rung):
                return Climb(one.number, rung + 1)
    if all_drawn and not any(one.climbing for one in known):
        return _last_climb(known, last_rung)
    return None


def _best(known: Sequence[Standing], rung: int, factor: int) -> list[Standing]:
    """The best 1/factor of a rung, best first; of equals the earlier one."""
    came = [one for one in known if len(one.objectives) > rung]
    came.sort(key=lambda one: (-one.objectives[rung], one.number))
    return came[: len(came) // factor]


def _may_climb(one: Standing, rung: int) -> bool:
    return len(one.objectives) == rung + 1 and not (one.ended or one.climbing)


def _last_climb(known: Sequence[Standing], last_rung: int) -> Climb | None:
    """The best of the lowest rung above which nobody has come, if one of them may climb."""
    for rung in range(last_rung):
        if any(len(one.objectives) > rung + 1 for one in known):
            continue
        waiting = [one for one in known if _may_climb(one, rung)]
        if not waiting:
            return None
        best = min(waiting, key=lambda one: (-one.objectives[rung], one.number))
        return Climb(best.number, rung + 1)
    return None
