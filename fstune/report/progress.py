"""A search at one moment, drawn: what is being trained, bars, the best so far as a forest.

Drawn from trial records to a terminal's width, 80 columns being enough. `live` polls the records
and tells events; tables of results are in `table`.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from fstune.report.phrases import (
    COLOURS,
    at_rung,
    describe_candidate,
    duration,
    interval,
    looked,
    percent,
)
from fstune.results.deltas import CONFIDENCE, Delta, confirmation_confidence
from fstune.results.ranking import ranked, settled
from fstune.results.records import Comparison, TrialProgress, TrialRecord, own_trials
from fstune.specs.sections import SearchSpec

MOST_TRIALS = 5
"""Trials in the forest."""


DETAILED = 2
"""Up to so many trials at a time have lines of their own for step, rung and setting."""


QUIET_AFTER_S = 60.0
"""A search that trains tells where it is every second or so, but for evaluations."""


_LABEL, _BAR, _FOREST = 9, 28, 60
"""Columns of a bar's name and of a bar; the most columns that a forest takes."""


@dataclass(frozen=True)
class Snapshot:
    """A search at one moment, drawn to a terminal's width."""

    trials: Sequence[TrialRecord]
    spec: SearchSpec
    now: float
    """Seconds since the epoch."""
    unsent: str = ""
    """Why MLflow is behind, if it is."""
    most: int = MOST_TRIALS
    afar: bool = False
    """Whether it is seen from outside, where it cannot be told from a search that was stopped."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._headline()
        if self.unsent:
            behind = f"MLflow is behind: {self.unsent}"
            yield Text(behind, style="yellow", no_wrap=True, overflow="ellipsis")
        running = [trial for trial in self.trials if trial.progress is not None]
        for trial in running:
            yield from self._running(trial, in_detail=len(running) <= DETAILED)
        for trial in self.trials:
            if trial.looks and trial.confirmation is None:
                seen = looked(self.spec, trial.looks)
                yield Text(f"confirming trial {trial.number}: {seen}")
        best = [t for t in ranked(self.trials) if t.rungs and not settled(t)][: self.most]
        if best:
            yield Text()
            yield Group(*forest_lines(best, self.spec, options.max_width))

    def _headline(self) -> RenderableType:
        ended = Counter(trial.end.state for trial in self.trials if trial.end is not None)
        wanted = self.spec.search.trials
        states = ", ".join(f"{count} {state}" for state, count in ended.items())
        told = f"{ended.total()} of {wanted} trials ended" + (f" ({states})" if states else "")
        name = Text(self.spec.name, style="bold", no_wrap=True, overflow="ellipsis")
        name.append(f"  {told}", style="not bold")
        if ended.total() >= wanted:
            return name
        spent_s, left_s = seconds(self.trials, self.spec)
        waiting = sum(trial.end is None and trial.progress is None for trial in self.trials)
        estimate = f"about {duration(left_s)} left" if spent_s else "no estimate yet"
        told = estimate + (f", {waiting} waiting" if waiting else "")
        if not self.trials:
            told = "starting"
        share = _share(spent_s, spent_s + left_s)
        lines: list[RenderableType] = [name, _bar_line("search", share, told)]
        if self.afar and all(trial.progress is None for trial in self.trials):
            again = f"nothing is being trained; if it was stopped: fstune resume {self.spec.name}"
            lines.append(Text(again, style="dim"))
        return Group(*lines)

    def _running(self, trial: TrialRecord, in_detail: bool) -> Iterator[Text]:
        progress = trial.progress
        assert progress is not None
        index = progress.rung
        rung = self.spec.rungs[index]
        place = _share(progress.step, progress.to_step)
        step = f"{progress.step} of {progress.to_step}"
        of_rungs = f"rung {index + 1} of {len(self.spec.rungs)}"
        if not in_detail:
            told = f"rung {index + 1}, {step}, {_what(progress)}"
            yield _bar_line(f"trial {trial.number}", place, told)
            return
        title = Text(f"{f'trial {trial.number}':<{_LABEL}}", no_wrap=True, overflow="ellipsis")
        yield title.append(describe_candidate(trial.candidate), style="dim")
        where = f"{of_rungs}: {at_rung(rung.steps, rung.seeds)}"
        yield _bar_line("rung", rung_share(self.spec, progress), where)
        yield _bar_line("step", place, f"{step}, {_what(progress)}{self._age(progress)}")

    def _age(self, progress: TrialProgress) -> str:
        age_s = self.now - progress.at
        return f", {duration(age_s)} ago" if age_s > QUIET_AFTER_S else ""


def _what(progress: TrialProgress) -> str:
    """Which arm is at work, and what with."""
    arm = progress.role or "arm"
    who = arm if progress.seed is None else f"{arm} of seed {progress.seed}"
    if progress.doing == "wait":
        return f"waits for {who}"
    if progress.doing == "evaluate":
        return f"evaluating {who}"
    return who if progress.loss is None else f"{who}, loss {progress.loss:.3g}"


def rung_share(spec: SearchSpec, progress: TrialProgress) -> float:
    """How much of a rung's optimiser steps is behind, of all its arms together.

    A seed that the rung before had needs only the steps from there. Baseline and variant of seed 0
    come first, then those of seed 1; a step that was taken elsewhere counts as one taken here.
    """
    index = progress.rung
    goal = spec.rungs[index]
    reached, seeds_before = (0, 0)
    if index:
        reached, seeds_before = spec.rungs[index - 1].steps, spec.rungs[index - 1].seeds
    needs = [goal.steps - (reached if seed < seeds_before else 0) for seed in range(goal.seeds)]
    seed = progress.seed or 0
    here = needs[seed] - (goal.steps - progress.step)
    behind = 2 * sum(needs[:seed]) + (progress.role == "variant") * needs[seed]
    return _share(behind + max(0, here), 2 * sum(needs))


def seconds(trials: Sequence[TrialRecord], spec: SearchSpec) -> tuple[float, float]:
    """Seconds of training and evaluation behind, and an estimate of those ahead.

    A rung takes what it took so far in the median, or, where none was reached, in proportion to
    its steps and seeds. How many candidates will get to it: those that did, or the share that ASHA
    lets pass.
    """
    own = own_trials(trials)
    walls = [
        [trial.rungs[index].wall_s for trial in own if len(trial.rungs) > index]
        for index in range(len(spec.rungs))
    ]
    works = [rung.steps * rung.seeds for rung in spec.rungs]
    behind_s = sum(map(sum, walls))
    done = sum(len(wall) * work for wall, work in zip(walls, works, strict=True))
    if not done:
        return 0.0, 0.0
    step_s = behind_s / done
    factor = 1 if spec.search.scheduler == "none" else spec.search.reduction_factor
    entrants = spec.search.trials - sum(
        trial.is_alias or (trial.end is not None and not trial.rungs) for trial in trials
    )
    left_s = 0.0
    for index, (wall, work) in enumerate(zip(walls, works, strict=True)):
        rung_s = statistics.median(wall) if wall else step_s * work
        at_work = [
            rung_share(spec, trial.progress)
            for trial in own
            if trial.progress is not None and trial.progress.rung == index
        ]
        expected = max(len(wall) + len(at_work), math.ceil(entrants / factor**index))
        left_s += (expected - len(wall) - sum(at_work)) * rung_s
        behind_s += sum(at_work) * rung_s
    return behind_s, left_s / spec.resources.concurrent_trials


def forest_lines(trials: Sequence[TrialRecord], spec: SearchSpec, width: int) -> list[Text]:
    """The trials' deltas with their intervals, two lines each, on one axis below.

    Args:
        trials: from best to worst; each has a rung.
        spec: the search's.
        width: columns of the terminal.
    """
    metric = spec.metric()
    better = "more" if metric.higher_is_better else "less"
    at = [_best_known(trial) for trial in trials]
    deltas = [each.deltas[metric.name] for each in at]
    places = [f"{each.steps} × {each.seeds}" for each in at]
    figures = [interval(delta) for delta in deltas]
    left = f"{{:>5}}  {{:<{max(map(len, places))}}}  {{:<{max(map(len, figures))}}}  "
    indent = len(left.format("", "", ""))
    axis = _Axis.of(deltas, min(_FOREST, max(0, width - indent - 1)))
    heading = f"best so far: Δ {metric.name} ({better} is better), {percent(CONFIDENCE)} intervals"
    if any(trial.confirmation is not None for trial in trials):
        heading += f", test {percent(confirmation_confidence(1))}"
    lines = [Text(heading, style="bold", no_wrap=True, overflow="ellipsis")]
    for trial, place, figure, delta in zip(trials, places, figures, deltas, strict=True):
        colour = COLOURS.get(trial.verdict, "")
        row = Text(left.format(trial.number, place, figure), no_wrap=True, overflow="crop")
        lines.append(row.append(axis.drawn(delta), style=colour))
        below = Text("       ", no_wrap=True, overflow="ellipsis").append(trial.verdict, colour)
        shown = trial.confirmation and trial.confirmation.comparison
        confirmed = " on the test split" if shown else ""
        below.append(f"{confirmed}  {describe_candidate(trial.candidate)}", style="dim")
        lines.append(below)
    if axis.columns:
        lines.append(Text(" " * indent + axis.labels(), style="dim", no_wrap=True, overflow="crop"))
    return lines


def _best_known(trial: TrialRecord) -> Comparison:
    """What a confirmation found, else the last rung."""
    confirmed = trial.confirmation and trial.confirmation.comparison
    return confirmed or trial.rungs[-1]


@dataclass(frozen=True)
class _Axis:
    """A scale of whole columns from `low` to `high`; zero is on it."""

    low: float
    high: float
    columns: int

    @classmethod
    def of(cls, deltas: Sequence[Delta], columns: int) -> "_Axis":
        ends = [0.0, *(end for delta in deltas for end in (delta.low, delta.high))]
        known = [end for end in ends if math.isfinite(end)]
        low, high = min(known), max(known)
        return cls(low, high if high > low else low + 1.0, columns)

    def column(self, value: float) -> int:
        return round((value - self.low) / (self.high - self.low) * (self.columns - 1))

    def drawn(self, delta: Delta) -> str:
        """An interval as ├──●──┤, the zero line as ┊."""
        if not self.columns:
            return ""
        cells = [" "] * self.columns
        cells[self.column(0.0)] = "┊"
        if all(map(math.isfinite, (delta.low, delta.mean, delta.high))):
            low, high = sorted((self.column(delta.low), self.column(delta.high)))
            cells[low : high + 1] = "─" * (high - low + 1)
            cells[low], cells[high] = "├", "┤"
            cells[self.column(delta.mean)] = "●"
        return "".join(cells)

    def labels(self) -> str:
        """The scale's ends and zero, below their columns, as far as there is room."""
        cells = [" "] * self.columns
        for value in (0.0, self.low, self.high):
            text = f"{value:+.3g}" if value else "0"
            start = min(max(0, self.column(value) - len(text) // 2), self.columns - len(text))
            around = cells[max(0, start - 1) : start + len(text) + 1]
            if start >= 0 and not "".join(around).strip():
                cells[start : start + len(text)] = text
        return "".join(cells).rstrip()


def _bar_line(name: str, share: float, told: str) -> Text:
    line = Text(f"{name:<{_LABEL}}", no_wrap=True, overflow="ellipsis")
    full = round(_BAR * share)
    line.append("━" * full, style="cyan")
    line.append("─" * (_BAR - full), style="dim")
    return line.append(f"  {told}")


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole else 0.0
