"""One wording each for what every page and screen says: intervals, shares, durations, settings.

Whole sentences are in `words`.
"""

from collections.abc import Iterable, Mapping

from fstune.results.deltas import Delta
from fstune.results.records import Comparison, TrialRecord
from fstune.specs.settings import Scalar
from model.mechanisms.registry import of_path

COLOURS = {
    "gain": "bold green",
    "unconfirmed gain": "green",
    "loss": "red",
    "diverged": "red",
    "infeasible": "red",
    "failed": "red",
    "no effect": "dim",
}


def interval(delta: Delta) -> str:
    """A delta and its bounds as text."""
    return f"{delta.mean:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]"


def describe_candidate(candidate: Mapping[str, Scalar]) -> str:
    """A candidate in one line; the name of an only mechanism goes without saying."""
    return " ".join(
        f"{short(path, candidate)}={value:.4g}"
        if isinstance(value, float)
        else f"{short(path, candidate)}={value}"
        for path, value in candidate.items()
    )


def label(trial: TrialRecord) -> str:
    """A trial's number and setting in one line."""
    return f"{trial.number}: {describe_candidate(trial.candidate)}"


def at_rung(comparison: Comparison) -> str:
    """Where a comparison was made, in words."""
    seeds = "1 seed" if comparison.seeds == 1 else f"{comparison.seeds} seeds"
    return f"{comparison.steps} steps × {seeds}"


def short(path: str, among: Iterable[str]) -> str:
    """A setting's path; its mechanism's name goes without saying if no path has another's.

    Args:
        path: of the setting.
        among: the paths that stand beside it.
    """
    mechanism = of_path(path)
    others = {of_path(other) for other in among} - {None, mechanism}
    return path if mechanism is None or others else path.removeprefix(f"{mechanism}.")


def percent(share: float) -> str:
    """A share of 1 in per cent, to three digits."""
    return f"{100 * share:.3g} %"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
