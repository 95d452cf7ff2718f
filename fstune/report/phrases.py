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
    "not learnt": "yellow",
}


_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


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


def nothing_learnt(at: Comparison) -> str:
    """Why nothing can be told of a comparison, in a sentence."""
    return f"Neither arm is surely better than {at.guessed}: nothing can be told of their delta."


def detectable(delta: Delta) -> str:
    """The smallest delta that would be told from zero; a dash where the arms never differed."""
    return "–" if delta.detectable is None else f"{delta.detectable:.2g}"


def label(trial: TrialRecord) -> str:
    """A trial's number and setting in one line."""
    return f"{trial.number}: {describe_candidate(trial.candidate)}"


def at_rung(steps: int, seeds: int) -> str:
    """Where arms are compared, in words."""
    return f"{steps} steps × {counted(seeds, 'seed')}"


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


def counted(count: int, what: str) -> str:
    """A number of things: `1 seed`, `3 seeds`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def duration(wall_s: float) -> str:
    """A time in its two largest units."""
    if wall_s < 10:
        return f"{wall_s:.2g} s"
    whole_s = round(wall_s)
    for unit_s, unit, smaller_s, smaller in _UNITS:
        if whole_s >= unit_s:
            return f"{whole_s // unit_s} {unit} {whole_s % unit_s // smaller_s} {smaller}"
    return f"{whole_s} s"


def trivial_scores(guesses: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """What chance and trivial strategies score; empty where none of them has the metric."""
    scores = ((name, scored[metric]) for name, scored in guesses.items() if metric in scored)
    return ", ".join(f"{name} {score:.4f}" for name, score in scores)
