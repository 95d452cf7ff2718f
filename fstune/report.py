"""Records to tables and JSON: what a search found. No torch, no Ray.

Trials are ranked by the rung they reached and, within a rung, by the objective there: deltas at
different rungs are not comparable. One that broke off comes after all that did not.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from fstune.arm import Scalar
from fstune.records import BrokeOff, Comparison, Confirmation, SearchRecords, TrialRecord
from fstune.selection import FALSE_DISCOVERY_RATE, corrected_winner, false_discovery_adjusted
from fstune.spec import SearchSpec
from fstune.statistics import (
    CONFIDENCE,
    OFF_IN_EFFECT,
    VERDICT_RULES,
    Delta,
    confirmation_confidence,
)
from fstune.store import ArmStore, write_json

_BASELINE = "baseline: "

COLOURS = {
    "gain": "bold green",
    "unconfirmed gain": "green",
    "loss": "red",
    "diverged": "red",
    "infeasible": "red",
    "failed": "red",
    "no effect": "dim",
}


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


def as_json(records: SearchRecords, spec: SearchSpec) -> dict[str, Any]:
    """The search as the JSON that `fstune report NAME --format json` prints."""
    trials = records.trials()
    best = best_of(trials)
    adjusted = false_discovery_adjusted(trials, spec.metric().name)
    return {
        "search": spec.name,
        "spec_digest": spec.digest,
        "objective": spec.metric().name,
        "verdict_rules": VERDICT_RULES,
        "trials": [
            _trial_json(trial) | {"q_value": adjusted.get(trial.number)} for trial in trials
        ],
        "best": None if best is None else best.number,
        "guesses": records.guesses(),
        "selection_corrected": _winner_json(trials, spec, records),
    }


def _winner_json(
    trials: Sequence[TrialRecord], spec: SearchSpec, records: SearchRecords
) -> dict[str, Any] | None:
    found = corrected_winner(trials, spec.metric(), ArmStore(records.runs / "arms"))
    if found is None:
        return None
    picked = [{"trial": number, "share": share} for number, share in found.picked.items()]
    return {"mean": found.mean, "naive": found.naive, "picked": picked}


def _trial_json(trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "candidate": trial.candidate,
        "equals": trial.equals,
        "verdict": trial.verdict,
        "confirmation": _confirmation_json(trial.confirmation),
        "state": "running" if trial.end is None else trial.end.state,
        "reason": None if trial.end is None else trial.end.reason,
        "rungs": [_comparison_json(rung) for rung in trial.rungs],
        "arms": [
            {"seed": pair.seed, "baseline": pair.baseline, "variant": pair.variant}
            for pair in (trial.rungs[-1].arms if trial.rungs else [])
        ],
    }


def _confirmation_json(confirmation: Confirmation | None) -> dict[str, Any] | None:
    if confirmation is None or confirmation.comparison is None:
        return None if confirmation is None else {"verdict": confirmation.verdict}
    return _comparison_json(confirmation.comparison)


def _comparison_json(rung: Comparison) -> dict[str, Any]:
    return {
        "steps": rung.steps,
        "seeds": rung.seeds,
        "verdict": rung.verdict,
        "flags": rung.flags,
        "baseline": {name: delta.baseline for name, delta in rung.deltas.items()},
        "variant": {name: delta.variant for name, delta in rung.deltas.items()},
        "delta": {
            name: {
                "mean": delta.mean,
                "low": delta.low,
                "high": delta.high,
                "p_value": delta.p_value,
                "half_width": delta.half_width,
                "detectable": delta.detectable,
                "seeds_agree": delta.seeds_agree,
            }
            for name, delta in rung.deltas.items()
        },
    }


def write_report(records: SearchRecords, spec: SearchSpec) -> Path:
    """Keep the JSON beside the records; returns its path."""
    path = records.root / "report.json"
    write_json(path, as_json(records, spec))
    return path


def result_table(records: SearchRecords, spec: SearchSpec, most: int | None = None) -> Group:
    """The ranked table: a few lines a trial, so that 80 columns are enough.

    Args:
        records: the search's.
        spec: the search's.
        most: how many trials at the most, without remarks on the whole; all with them if None.
    """
    metric = spec.metric().name
    lines: list[RenderableType] = [Text(_heading(metric, CONFIDENCE, "verdict"), style="bold")]
    trials = records.trials()
    adjusted = false_discovery_adjusted(trials, metric)
    for trial in ranked(trials)[:most]:
        verdict = (trial.verdict, COLOURS.get(trial.verdict, ""))
        last = trial.rungs[-1] if trial.rungs else None
        lines.append(Text.assemble(f"{trial.number:>5}  ", _figures(last, metric), verdict))
        below = _below(trial, metric, adjusted)
        lines.append(Padding(below, (0, 0, 0, len("trial  ")), expand=False))
    if most is None:
        lines += _remarks(records, spec, trials)
    return Group(*lines)


def _below(trial: TrialRecord, metric: str, adjusted: Mapping[int, float]) -> Text:
    """What stands below a trial's figures: its setting, its test, what is odd about it."""
    text = Text(describe_candidate(trial.candidate), style="dim")
    if trial.equals is not None:
        text.append(f" (equal in effect to {trial.equals})")
    if trial.end is not None and trial.end.broke_off is not None:
        text.append(f"\n{trial.end.reason.partition(chr(10))[0]}", style="red not dim")
    if not trial.rungs:
        return text
    last = trial.rungs[-1]
    if last.largest_gate < OFF_IN_EFFECT:
        text.append(f" (off in effect: no gate over {last.largest_gate:.1g})")
    text.append(f"\n{_test(last, metric, adjusted[trial.number])}")
    for flag in last.flags:
        if not flag.startswith(_BASELINE):
            text.append(f"\nlook at {flag}", style="yellow not dim")
    return text


def _remarks(
    records: SearchRecords, spec: SearchSpec, trials: Sequence[TrialRecord]
) -> Iterator[Text]:
    """What is to be known of the whole table."""
    metric = spec.metric()
    # Candidates share baselines: once is enough.
    shared = {flag for trial in trials for rung in trial.rungs[-1:] for flag in rung.flags}
    for flag in sorted(flag for flag in shared if flag.startswith(_BASELINE)):
        yield Text(f"look at {flag}", style="yellow")
    winner = corrected_winner(trials, metric, ArmStore(records.runs / "arms"))
    if winner is not None:
        measured, luck = f"{winner.mean:+.4f}", f"{winner.naive:+.4f}"
        yield Text(
            f"best of the last rung where it was not picked: {measured} (where it was: {luck})"
        )
    guesses = [
        f"{name} {scores[metric.name]:.4f}"
        for name, scores in records.guesses().items()
        if metric.name in scores
    ]
    if guesses:
        yield Text(f"{metric.name} without understanding: {', '.join(guesses)}")


def confirmation_table(records: SearchRecords, spec: SearchSpec) -> Group:
    """The finalists on new seeds and the test split; nothing, where none is confirmed."""
    metric = spec.metric().name
    confirmed = [trial for trial in ranked(records.trials()) if trial.confirmation is not None]
    if not confirmed:
        return Group()
    level = confirmation_confidence(records.num_finalists)
    lines = [Text(_heading(metric, level, "confirmed"), style="bold")]
    for trial in confirmed:
        assert trial.confirmation is not None
        verdict = (trial.verdict, COLOURS.get(trial.verdict, ""))
        figures = _figures(trial.confirmation.comparison, metric)
        lines.append(Text.assemble(f"{trial.number:>5}  ", figures, verdict))
    note = f"test split, new seeds; together the intervals hold at {confirmation_confidence(1):.0%}"
    lines.append(Text(note, style="dim"))
    return Group(*lines)


def _heading(metric: str, level: float, last: str) -> str:
    delta = f"Δ {metric} [{100 * level:.3g} %]"
    return f"trial  {'steps × seeds':<14}baseline  {delta:<29}{last}"


def _figures(rung: Comparison | None, metric: str) -> str:
    if rung is None:
        return f"{'-':<14}{'-':<10}{'-':<29}"
    delta = rung.deltas[metric]
    reached = f"{rung.steps} × {rung.seeds}"
    return f"{reached:<14}{delta.baseline:<10.4f}{interval(delta):<29}"


def _test(rung: Comparison, metric: str, adjusted: float) -> str:
    """What the interval alone does not say, in one line."""
    delta = rung.deltas[metric]
    survives = "yes" if adjusted <= FALSE_DISCOVERY_RATE else "no"
    seeds = "this seed only" if rung.seeds == 1 else f"{delta.seeds_agree} of {rung.seeds} seeds"
    return (
        f"p {delta.p_value:.2g}, q {adjusted:.2g} (at FDR {FALSE_DISCOVERY_RATE:.0%}: {survives}), "
        f"{seeds}, detectable {delta.detectable:.2g}"
    )


def interval(delta: Delta) -> str:
    """A delta and its bounds as text."""
    return f"{delta.mean:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]"


def describe_candidate(candidate: Mapping[str, Scalar]) -> str:
    """A candidate in one line; the mechanism's name goes without saying."""
    return " ".join(
        f"{path.removeprefix('future_seed.')}={value:.4g}"
        if isinstance(value, float)
        else f"{path.removeprefix('future_seed.')}={value}"
        for path, value in candidate.items()
    )
