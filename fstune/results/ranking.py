"""Who stands before whom among a search's trials. Confirming them is `search.confirmation`."""

import math
from collections.abc import Sequence
from typing import get_args

from fstune.results.records import BrokeOff, TrialRecord


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials from best to worst; those that broke off or have no rung last."""

    def standing(trial: TrialRecord) -> tuple[bool, int, float]:
        objective = trial.rungs[-1].objective if trial.rungs else -math.inf
        known = -math.inf if math.isnan(objective) else objective
        return (_counts(trial), len(trial.rungs), known)

    return sorted(trials, key=standing, reverse=True)


def best_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best trial at the furthest rung; None while none counts."""
    return next(filter(_counts, ranked(trials)), None)


def _counts(trial: TrialRecord) -> bool:
    """Whether a trial may be the best: it has a rung and did not break off."""
    return bool(trial.rungs) and trial.verdict not in get_args(BrokeOff)
