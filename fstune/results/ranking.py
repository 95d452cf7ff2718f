"""Who stands before whom among a search's trials. Confirming them is `search.confirmation`."""

import math
from collections.abc import Sequence
from typing import get_args

from fstune.results.records import BrokeOff, TrialRecord


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials from best to worst.

    One that is surely no better than the margin comes after all that may be, however far it came;
    at its rung, one that has learnt nothing after all that have. Those that broke off or have no
    rung are last.
    """

    def standing(trial: TrialRecord) -> tuple[bool, bool, int, bool, float]:
        objective = trial.rungs[-1].objective if trial.rungs else -math.inf
        known = -math.inf if math.isnan(objective) else objective
        learnt = bool(trial.rungs) and trial.rungs[-1].verdict != "not learnt"
        return (_counts(trial), not settled(trial), len(trial.rungs), learnt, known)

    return sorted(trials, key=standing, reverse=True)


def best_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best trial at the furthest rung; None while none counts."""
    return next(filter(_counts, ranked(trials)), None)


def settled(trial: TrialRecord) -> bool:
    """Whether a trial is surely no better than the margin where it is."""
    return bool(trial.rungs) and trial.rungs[-1].settled


def _counts(trial: TrialRecord) -> bool:
    """Whether a trial may be the best: it has a rung and did not break off."""
    return bool(trial.rungs) and trial.verdict not in get_args(BrokeOff)
