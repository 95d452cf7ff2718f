"""The numbers behind a report's figures: records and stored outcomes to plain series.

Each figure has one dataclass here, and each has a `Sheet`, which is what a reader downloads.
What they look like is in `drawing`. No torch, no Ray, no drawing.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from fstune.arms.store import ArmStore
from fstune.report.phrases import at_rung, label
from fstune.results.outcomes import seed_deltas, stored_pairs
from fstune.results.ranking import ranked
from fstune.results.records import Comparison, TrialRecord, own_trials
from fstune.results.verdict import Verdict
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar
from model.mechanisms import registry
from model.mechanisms.mechanism import Profile


@dataclass(frozen=True)
class Sheet:
    """A figure's numbers as a table."""

    header: tuple[str, ...]
    rows: Sequence[tuple[Scalar | None, ...]]

    def csv(self) -> str:
        """The table as comma-separated values, floats in full."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return out.getvalue()


@dataclass(frozen=True)
class ForestRow:
    """A candidate's delta where it was compared last, or a finalist's confirmation."""

    number: int
    label: str
    group: str
    """What the rows beside it have in common: the rung, or the confirmation."""
    baseline: float
    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    """The delta of each seed; empty where the arms' outcomes are not stored here."""
    verdict: Verdict
    stopped: bool
    """Whether it was stopped at this rung."""


@dataclass(frozen=True)
class Forest:
    """Deltas with intervals, best first, those at the last rung first of all."""

    metric: str
    margin: float
    higher_is_better: bool
    rows: list[ForestRow]

    def sheet(self) -> Sheet:
        header = ("trial", "candidate", "compared at", "baseline", "delta", "low", "high")
        rows = [
            (
                *(row.number, row.label, row.group, row.baseline, row.mean, row.low, row.high),
                *(row.verdict, row.stopped, " ".join(map(str, row.by_seed))),
            )
            for row in self.rows
        ]
        return Sheet((*header, "verdict", "stopped there", "delta of each seed"), rows)


@dataclass(frozen=True)
class CurveStep:
    """One evaluation on the way up."""

    steps: int
    seeds: int
    baseline: float
    variant: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Baseline and variant of one candidate over optimiser steps."""

    number: int
    label: str
    metric: str
    margin: float
    rungs: list[tuple[int, int]]
    """Steps and seeds of every rung of the search."""
    steps: list[CurveStep]

    def sheet(self) -> Sheet:
        header = ("step", "seeds", "baseline", "variant", "delta", "low", "high")
        rows = [
            (at.steps, at.seeds, at.baseline, at.variant, at.mean, at.low, at.high)
            for at in self.steps
        ]
        return Sheet(header, rows)


@dataclass(frozen=True)
class PathPoint:
    """A rung that was reached, and what had been spent by then."""

    number: int
    rung: int
    spent_steps: int
    objective: float
    best: float
    """The best objective at this rung so far."""


@dataclass(frozen=True)
class SearchPath:
    """The best objective at each rung against the optimiser steps of all arms."""

    metric: str
    rungs: list[tuple[int, int]]
    points: list[PathPoint]

    def sheet(self) -> Sheet:
        header = ("trial", "rung", "optimiser steps so far", "objective", "best at this rung")
        rows = [
            (point.number, point.rung, point.spent_steps, point.objective, point.best)
            for point in self.points
        ]
        return Sheet(header, rows)


@dataclass(frozen=True)
class SlicePoint:
    """A candidate as the slices show it."""

    number: int
    candidate: dict[str, Scalar]
    mean: float
    low: float
    high: float
    rungs: int


@dataclass(frozen=True)
class Slices:
    """The delta at the first rung, which every candidate reaches, against each setting."""

    metric: str
    margin: float
    at: str
    paths: list[str]
    log_scaled: list[str]
    """Paths that are drawn on a logarithmic scale."""
    points: list[SlicePoint]

    def sheet(self) -> Sheet:
        rows = [
            (
                *(point.number, *(point.candidate.get(path) for path in self.paths)),
                *(point.mean, point.low, point.high, point.rungs),
            )
            for point in self.points
        ]
        return Sheet(("trial", *self.paths, "delta", "low", "high", "rungs reached"), rows)


@dataclass(frozen=True)
class LayerValue:
    """What a mechanism has of one layer, say its gate."""

    layer: int
    before: float
    after: tuple[float, ...] = ()
    """After training: one value per head and seed; empty where nothing is stored."""


@dataclass(frozen=True)
class LayerProfile:
    """A quantity of a candidate's mechanism over depth."""

    title: str
    caption: str
    quantity: str
    """Its name."""
    number: int
    """Of the candidate."""
    num_layers: int
    learns: bool
    layers: list[LayerValue] = field(default_factory=list)

    def sheet(self) -> Sheet:
        rows = [(at.layer, at.before, " ".join(map(str, at.after))) for at in self.layers]
        when = (f"{self.quantity} before training", f"{self.quantity} after training")
        return Sheet(("layer", *when), rows)


def forest(trials: Sequence[TrialRecord], spec: SearchSpec, store: ArmStore) -> Forest:
    """Confirmations first, then every candidate at the last rung that it reached."""
    metric = spec.metric()

    def row(trial: TrialRecord, at: Comparison, split: str, stopped: bool) -> ForestRow:
        delta = at.deltas[metric.name]
        return ForestRow(
            number=trial.number,
            label=label(trial),
            group=f"{split}{at_rung(at.steps, at.seeds)}",
            baseline=delta.baseline,
            mean=delta.mean,
            low=delta.low,
            high=delta.high,
            by_seed=seed_deltas(store, at, metric),
            verdict=at.verdict,
            stopped=stopped,
        )

    rows = [
        row(trial, at, "confirmation: test split, ", False)
        for trial in ranked(trials)
        if trial.confirmation and (at := trial.confirmation.comparison)
    ]
    last = len(spec.rungs)
    rows += [
        row(trial, at, "", len(trial.rungs) < last and trial.end is not None)
        for trial in sorted(ranked(trials), key=lambda trial: -len(trial.rungs))
        if trial.rungs and (at := trial.rungs[-1])
    ]
    return Forest(metric.name, spec.objective.margin, metric.higher_is_better, rows)


def curve(trial: TrialRecord, spec: SearchSpec) -> Curve:
    """A trial's way up the rungs."""
    metric = spec.metric().name
    steps = []
    for rung in trial.rungs:
        for point in rung.curve:
            delta = point.deltas[metric]
            values = (delta.baseline, delta.variant, delta.mean, delta.low, delta.high)
            steps.append(CurveStep(point.step, rung.seeds, *values))
    rungs = [(rung.steps, rung.seeds) for rung in spec.rungs]
    return Curve(trial.number, label(trial), metric, spec.objective.margin, rungs, steps)


def search_path(trials: Sequence[TrialRecord], spec: SearchSpec) -> SearchPath:
    """Rungs in the order in which they were reached.

    An arm that several candidates share is counted once: what is spent is what was trained.
    """
    reached = sorted(
        (
            (rung.curve[-1].ended_at, trial.number, rung)
            for trial in own_trials(trials)
            for rung in trial.rungs
        ),
        key=lambda item: (item[0], item[1], item[2].rung),
    )
    trained: dict[str, set[int]] = {}
    best: dict[int, float] = {}
    points = []
    for _, number, rung in reached:
        for pair in rung.arms:
            for arm in (pair.baseline, pair.variant):
                trained.setdefault(arm, set()).add(rung.steps)
        if math.isfinite(rung.objective):
            best[rung.rung] = max(best.get(rung.rung, -math.inf), rung.objective)
        spent = sum(map(spec.evaluation.steps_taken, trained.values()))
        so_far = best.get(rung.rung, math.nan)
        points.append(PathPoint(number, rung.rung, spent, rung.objective, so_far))
    rungs = [(rung.steps, rung.seeds) for rung in spec.rungs]
    return SearchPath(spec.metric().name, rungs, points)


def objective_name(spec: SearchSpec) -> str:
    """What candidates are ranked by at the last rung, in words; more of it is better."""
    turned = "" if spec.metric().higher_is_better else "−"
    bound = "lower bound of " if spec.objective.bound == "lower" else ""
    return f"{bound}{turned}Δ {spec.metric().name}"


def slices(trials: Sequence[TrialRecord], spec: SearchSpec) -> Slices:
    """Every candidate at the first rung, where all are comparable."""
    metric = spec.metric().name
    points = []
    for trial in trials:
        if trial.rungs:
            delta = trial.rungs[0].deltas[metric]
            place = (delta.mean, delta.low, delta.high, len(trial.rungs))
            points.append(SlicePoint(trial.number, trial.candidate, *place))
    first = spec.rungs[0]
    varied = [
        path
        for path in spec.space
        if len({point.candidate[path] for point in points if path in point.candidate}) > 1
    ]
    return Slices(
        metric=metric,
        margin=spec.objective.margin,
        at=at_rung(first.steps, first.seeds) if points else "",
        paths=varied,
        log_scaled=[path for path in varied if spec.space[path].log_uniform is not None],
        points=points,
    )


def layer_profiles(trial: TrialRecord, spec: SearchSpec, store: ArmStore) -> list[LayerProfile]:
    """What a candidate's mechanisms have over the layers, before training and at its last rung.

    None if the depth is neither in the spec nor in an outcome, or if the settings are an older
    version's.
    """
    try:
        _, variant = spec.settings(trial.candidate)
    except ValidationError:
        return []
    last = trial.rungs[-1]
    seen = [pair.variant.diagnostics for pair in stored_pairs(store, last.arms, last.steps)]
    found = []
    for name, settings in variant.mechanisms.items():
        shapes, mechanism = variant.model.init, registry.get(name)
        depth = next(filter(None, map(mechanism.depth, seen)), 0)
        num_layers = shapes.num_layers if shapes else depth
        profile = mechanism.profile(settings, num_layers) if num_layers else None
        if profile is not None:
            found.append(_layer_profile(trial.number, profile, num_layers, seen))
    return found


def _layer_profile(
    number: int, profile: Profile, num_layers: int, seen: Sequence[Mapping[str, float]]
) -> LayerProfile:
    after: dict[int, list[float]] = {}
    for diagnostics in seen:
        for layer, values in _by_layer(diagnostics, profile.quantity).items():
            after.setdefault(layer, []).extend(values)
    return LayerProfile(
        title=profile.title,
        caption=profile.caption.format(number=number),
        quantity=profile.quantity,
        number=number,
        num_layers=num_layers,
        learns=profile.learns,
        layers=[
            LayerValue(layer, before, tuple(after.get(layer, ())))
            for layer, before in profile.before.items()
        ],
    )


def _by_layer(diagnostics: Mapping[str, float], quantity: str) -> dict[int, list[float]]:
    """A quantity by layer, of every head where heads have their own."""
    heads: dict[int, list[float]] = {}
    means: dict[int, list[float]] = {}
    for name, value in diagnostics.items():
        match = re.fullmatch(rf"{re.escape(quantity)}/L(\d+)(\.H\d+)?", name)
        if match:
            (heads if match[2] else means).setdefault(int(match[1]), []).append(value)
    return means | heads
