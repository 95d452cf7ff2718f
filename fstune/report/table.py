"""What a search found, as tables for a terminal. No torch, no Ray.

Trials are ranked by the rung they reached and, within a rung, by the objective there: deltas at
different rungs are not comparable. What is surely no better than the margin comes after all that
may be, and what broke off last.
"""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from fstune.report.phrases import (
    COLOURS,
    confirmed_at,
    describe_candidate,
    detectable,
    interval,
    looked,
    nothing_learnt,
    percent,
    trivial_scores,
)
from fstune.report.words import outlook
from fstune.results.deltas import CONFIDENCE, confirmation_confidence
from fstune.results.folder import SearchFolder
from fstune.results.ranking import best_of, ranked
from fstune.results.records import Comparison, TrialRecord
from fstune.results.selection import (
    FALSE_DISCOVERY_RATE,
    corrected_winner,
    false_discovery_adjusted,
)
from fstune.specs.sections import SearchSpec
from model.mechanisms.mechanism import OFF_IN_EFFECT

_BASELINE = "baseline: "


def result_table(records: SearchFolder, spec: SearchSpec, most: int | None = None) -> Group:
    """The ranked table: a few lines a trial, so that 80 columns are enough.

    Args:
        records: the search's.
        spec: the search's.
        most: only so many trials, without notes on the whole; all, with them, if None.
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
    elif last.settled:
        text.append(
            " (inside the margin)" if last.verdict == "no effect" else " (below the margin)"
        )
    text.append(f"\n{_test(last, metric, adjusted[trial.number])}")
    if last.verdict == "not learnt":
        text.append(f"\n{nothing_learnt(last)}", style="yellow not dim")
    for flag in last.flags:
        if not flag.startswith(_BASELINE):
            text.append(f"\nlook at {flag}", style="yellow not dim")
    return text


def _remarks(
    records: SearchFolder, spec: SearchSpec, trials: Sequence[TrialRecord]
) -> Iterator[Text]:
    """Notes on the table as a whole."""
    metric = spec.metric()
    # Candidates share baselines: once is enough.
    shared = {flag for trial in trials for rung in trial.rungs[-1:] for flag in rung.flags}
    for flag in sorted(flag for flag in shared if flag.startswith(_BASELINE)):
        yield Text(f"look at {flag}", style="yellow")
    winner = corrected_winner(trials, metric, records.store)
    if winner is not None:
        measured, luck = f"{winner.mean:+.4f}", f"{winner.naive:+.4f}"
        yield Text(
            f"best of the last rung where it was not picked: {measured} (where it was: {luck})"
        )
    best = best_of(trials)
    if best is not None and (told := outlook(spec, best, records.store)):
        yield Text(told)
    scores = trivial_scores(records.guesses(), metric.name)
    if scores:
        yield Text(f"{metric.name} without understanding: {scores}")


def confirmation_table(records: SearchFolder, spec: SearchSpec) -> Group:
    """The finalists on new seeds and the test split; nothing, where none is confirmed."""
    metric = spec.metric().name
    confirmed = [trial for trial in ranked(records.trials()) if trial.confirmation is not None]
    if not confirmed:
        return Group()
    level = confirmed_at(spec, records.num_finalists)
    lines: list[RenderableType] = [Text(_heading(metric, level, "confirmed"), style="bold")]
    for trial in confirmed:
        assert trial.confirmation is not None
        verdict = (trial.verdict, COLOURS.get(trial.verdict, ""))
        figures = _figures(trial.confirmation.comparison, metric)
        lines.append(Text.assemble(f"{trial.number:>5}  ", figures, verdict))
        if seen := looked(spec, trial.looks):
            lines.append(Padding(Text(seen, style="dim"), (0, 0, 0, len("trial  ")), expand=False))
    together = percent(confirmation_confidence(1))
    note = f"test split, new seeds; together the intervals hold at {together}"
    lines.append(Text(note, style="dim"))
    return Group(*lines)


def _heading(metric: str, level: float, last: str) -> str:
    delta = f"Δ {metric} [{percent(level)}]"
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
    rate = percent(FALSE_DISCOVERY_RATE)
    survives = "yes" if adjusted <= FALSE_DISCOVERY_RATE else "no"
    seeds = "this seed only" if rung.seeds == 1 else f"{delta.seeds_agree} of {rung.seeds} seeds"
    test = f"p {delta.p_value:.2g}, q {adjusted:.2g} (at FDR {rate}: {survives}), {seeds}"
    return test if rung.verdict == "not learnt" else f"{test}, detectable {detectable(delta)}"
