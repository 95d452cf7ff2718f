"""Which settings matter: Optuna's PED-ANOVA over a search's candidates, with a bootstrap.

PED-ANOVA (Watanabe, Bansal, Hutter, IJCAI 2023) asks in which settings the best quarter of the
candidates differs from all of them; shares add up to 1. The interval is a percentile bootstrap over
candidates. With few candidates any such figure is noise, so that there is none under `FEWEST`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fstune.report.phrases import percent
from fstune.report.series import Sheet, SlicePoint, Slices
from fstune.results.deltas import CONFIDENCE
from fstune.specs.sections import SearchSpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


FEWEST = 20
"""Candidates below which nothing is said: the best quarter is then fewer than five."""


BEST_SHARE = 0.25
"""The quantile that counts as good."""


BOOTSTRAP_DRAWS = 200
"""Bootstrap draws."""


SEED = 20_260_223
"""Of the bootstrap: the same records give the same figure."""


@dataclass(frozen=True)
class Share:
    """A setting's share of importance, with its interval."""

    path: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """Shares from large to small, or why there are none."""

    shares: list[Share]
    trials: int
    note: str

    def sheet(self) -> Sheet:
        rows = [(share.path, share.mean, share.low, share.high) for share in self.shares]
        return Sheet(("setting", "importance", "low", "high"), rows)


def importance(found: Slices, spec: SearchSpec, higher_is_better: bool) -> Importance:
    """Importance of each setting that every candidate has, for the delta at the first rung."""
    points = [point for point in found.points if np.isfinite(point.mean)]
    paths = [path for path in found.paths if all(path in point.candidate for point in points)]
    left_out = [path for path in found.paths if path not in paths]
    if len(points) < FEWEST:
        note = (
            f"{len(points)} candidates are too few to rank the settings by importance; "
            f"from {FEWEST} on they are ranked here."
        )
        return Importance([], len(points), note)
    if len(paths) < 2:
        return Importance([], len(points), "Fewer than two settings are in every candidate.")
    trials = _frozen(points, paths, spec, 1.0 if higher_is_better else -1.0)
    whole = _shares(trials)
    rng = np.random.default_rng(SEED)
    draws = [
        _shares([trials[i] for i in rng.integers(len(trials), size=len(trials))])
        for _ in range(BOOTSTRAP_DRAWS)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    bounds = {
        path: np.percentile([draw.get(path, 0.0) for draw in draws], [tail, 100 - tail])
        for path in paths
    }
    shares = [Share(path, whole.get(path, 0.0), *map(float, bounds[path])) for path in paths]
    note = (
        f"PED-ANOVA over {len(points)} candidates at {found.at}: what the best "
        f"{percent(BEST_SHARE)} have in common; {percent(CONFIDENCE)} bootstrap intervals over "
        "candidates."
    )
    if left_out:
        note += f" Not rated, since not every candidate has them: {', '.join(left_out)}."
    return Importance(sorted(shares, key=lambda share: -share.mean), len(points), note)


def _frozen(
    points: Sequence[SlicePoint], paths: Sequence[str], spec: SearchSpec, sign: float
) -> "list[FrozenTrial]":
    """The candidates as Optuna's trials, turned so that more is better."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for point in points:
        study.enqueue_trial({path: point.candidate[path] for path in paths})
        trial = study.ask()
        for path in paths:
            spec.space[path].draw(path, trial)
        study.tell(trial, sign * point.mean)
    return study.trials


def _shares(trials: "Sequence[FrozenTrial]") -> Mapping[str, float]:
    import optuna

    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
