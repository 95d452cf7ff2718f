"""One wording each for what every page and screen says: intervals, shares, durations, settings.

Whole sentences are in `words`.
"""

from collections.abc import Iterable, Mapping, Sequence

from fstune.results.deltas import Delta, confirmation_confidence
from fstune.results.records import Comparison, LookRecord, TrialRecord
from fstune.results.sequential import FALSE_EXCLUSION
from fstune.specs.sections import SearchSpec
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
    "not worth it": "dim",
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


def confirmed_at(spec: SearchSpec, finalists: int) -> float:
    """Level of each interval of a confirmation; repeated ones of looks hold at all of them."""
    looks = spec.confirm.looks if spec.confirm else "fixed"
    return confirmation_confidence(1 if looks == "sequential" else finalists)


def looked(spec: SearchSpec, looks: Sequence[LookRecord]) -> str:
    """What a sequential confirmation has seen, in a few sentences; empty before its first look."""
    if not looks:
        return ""
    last = looks[-1].at
    most = spec.confirm.seeds if spec.confirm else last.seeds
    worth = f"{spec.objective.worth_deciding:g}"
    told = [f"{counted(last.seeds, 'seed')} of at most {most}, {counted(len(looks), 'look')}"]
    if last.decision == "more":
        return f"{told[0]}, no answer yet"
    told.append(f"corrected for stopping there, the delta is about {last.estimate:+.4f}")
    if last.excluded:
        told.append(f"a gain of {worth} is excluded with {percent(1 - FALSE_EXCLUSION)}")
    elif last.decision == "inconclusive":
        told.append(f"neither is there a gain, nor is one of {worth} excluded")
    if last.doubt:
        told.append(last.doubt)
    return "; ".join(told)


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
