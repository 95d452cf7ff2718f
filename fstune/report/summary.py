"""What a report says, as plain values: question, answer, cost, table, figures' numbers, facts.

Built once from the records and the arms' stored outcomes, then rendered by `page` as HTML and as
Markdown: nothing is said in one that is not said in the other, pictures aside. No torch, no Ray.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fstune.arms.store import ArmStore
from fstune.report import words
from fstune.report.candidates import Table, all_candidates, confirmed_finalists
from fstune.report.data import as_json
from fstune.report.examples import ExampleDeltas, example_deltas
from fstune.report.groups import GroupDeltas, group_deltas
from fstune.report.importance import Importance, importance
from fstune.report.phrases import confirmed_at, percent
from fstune.report.series import (
    Curve,
    Forest,
    LayerProfile,
    LayerValue,
    SearchPath,
    Sheet,
    Slices,
    curve,
    forest,
    layer_profiles,
    search_path,
    slices,
)
from fstune.results.deltas import CONFIDENCE
from fstune.results.folder import SearchFolder
from fstune.results.ranking import best_of, ranked
from fstune.results.records import TrialRecord
from fstune.specs.sections import SearchSpec

MOST_CURVES = 8
"""Candidates whose curves are drawn, from the best down."""


FEWEST_LAYERS = 3
"""Layers below which a sentence says what a figure over them would."""


_LEVEL = percent(CONFIDENCE)


Series = Forest | Curve | SearchPath | Slices | Importance | LayerProfile | GroupDeltas


@dataclass(frozen=True)
class Figure:
    """A figure: what it shows, in words and in numbers."""

    slug: str
    title: str
    caption: str
    series: Series

    def sheet(self) -> Sheet:
        return self.series.sheet()


@dataclass(frozen=True)
class Remark:
    """What is said in words, and not drawn."""

    title: str
    text: str


@dataclass(frozen=True)
class Summary:
    """All that a report says."""

    name: str
    state: str
    question: str
    setting: list[tuple[str, str]]
    answer: words.Answer
    cost: list[tuple[str, str]]
    results: Table
    confirmed: Table | None
    figures: list[Figure]
    curves: list[Figure]
    """The best candidate's first; a reader chooses among them."""
    notes: list[Remark]
    """What is said in words alone."""
    examples: ExampleDeltas | None
    provenance: list[tuple[str, str]]
    reproduce: list[str]
    spec_file: str
    """Name under which the resolved spec is saved."""
    spec_json: str
    report_json: str


def summarise(records: SearchFolder, spec: SearchSpec) -> Summary:
    """Everything about a search that has at least been made."""
    trials = records.trials()
    order = ranked(trials)
    store = records.store
    best = best_of(trials)
    finalists = records.num_finalists
    figures, notes = _drawable(spec, records, trials, best)
    ended = sum(trial.end is not None for trial in trials)
    spec_file = f"{spec.name}.spec.json"
    return Summary(
        name=spec.name,
        state=f"{ended} of {spec.search.trials} trials ended",
        question=words.question(spec),
        setting=[*words.setting(spec, records.rules), *words.without_understanding(records, spec)],
        answer=words.answer(spec, order, best, finalists),
        cost=words.cost(trials, spec, store),
        results=all_candidates(spec, order),
        confirmed=confirmed_finalists(spec, order, finalists),
        figures=figures,
        curves=[_curve(trial, spec) for trial in order if trial.rungs][:MOST_CURVES],
        notes=notes,
        examples=example_deltas(records, spec, best.number, best.rungs[-1]) if best else None,
        provenance=words.facts(records, spec),
        reproduce=words.reproduce(spec, spec_file),
        spec_file=spec_file,
        spec_json=records.spec_text(),
        report_json=json.dumps(as_json(records, spec)),
    )


def _drawable(
    spec: SearchSpec,
    records: SearchFolder,
    trials: Sequence[TrialRecord],
    best: TrialRecord | None,
) -> tuple[list[Figure], list[Remark]]:
    store = records.store
    rows, found = forest(trials, spec, store), slices(trials, spec)
    if not rows.rows:
        return [], []
    shares = importance(found, spec, spec.metric().higher_is_better)
    parts: list[Figure | Remark | None] = [_importance(shares)]
    if best is not None:
        parts += [*_profiles(best, spec, store), _by_group(best, spec, store)]
        parts.append(_outlook(best, spec, store))
    parts.append(_luck(trials, spec, store))
    figures = _overview(spec, records, trials, rows, found)
    figures += [part for part in parts if isinstance(part, Figure)]
    return figures, [part for part in parts if isinstance(part, Remark)]


def _overview(
    spec: SearchSpec,
    records: SearchFolder,
    trials: Sequence[TrialRecord],
    rows: Forest,
    found: Slices,
) -> list[Figure]:
    metric, margin = spec.metric().name, spec.objective.margin
    confirmed = ""
    if any(trial.confirmation for trial in trials):
        level = percent(confirmed_at(spec, records.num_finalists))
        confirmed = f", and in the confirmation, where it is a {level} interval"
    figures = [
        Figure(
            "forest",
            f"Δ {metric} of every candidate",
            f"Variant minus baseline: mean and {_LEVEL} interval at the last rung that the "
            f"candidate reached{confirmed}; dots are single seeds. The band is ±{margin:g}, within "
            "which a delta is no effect. A hollow mark is a candidate that came no further.",
            rows,
        ),
        Figure(
            "path",
            "The search's path",
            "The best objective at each rung (line) against the optimiser steps of all arms so "
            f"far; dots are candidates. Ranked by {words.ranked_by(spec, records.rules)}. An arm "
            "that several candidates share counts once.",
            search_path(trials, spec),
        ),
    ]
    if found.paths:
        caption = (
            f"Every candidate at {found.at}, the one rung that all of them reach, with its "
            f"{_LEVEL} interval. The darker the mark, the more rungs it climbed."
        )
        figures.append(Figure("slices", "Δ against each setting", caption, found))
    return figures


def _importance(shares: Importance) -> Figure | Remark:
    title = "Which settings matter"
    if not shares.shares:
        return Remark(title, shares.note)
    return Figure("importance", title, shares.note, shares)


def _profiles(best: TrialRecord, spec: SearchSpec, store: ArmStore) -> Iterator[Figure | Remark]:
    """What the candidate's mechanisms have over the layers."""
    for profile in layer_profiles(best, spec, store):
        learns = "They learn." if profile.learns else "They do not learn."
        if len(profile.layers) < FEWEST_LAYERS:
            values = "; ".join(_value(profile, at) for at in profile.layers)
            yield Remark(profile.title, f"Candidate {best.number}: {values}.")
        else:
            caption = f"{profile.caption} {learns}"
            yield Figure(f"{profile.quantity}s", profile.title, caption, profile)


def _by_group(best: TrialRecord, spec: SearchSpec, store: ArmStore) -> Figure | None:
    found = group_deltas(spec, best.number, best.rungs[-1], store)
    if found is None:
        return None
    caption = (
        f"Candidate {best.number} at its last rung, in each group of validation examples: mean and "
        f"{_LEVEL} interval of that group alone; dots are single seeds. Among many groups, some "
        "differ by chance."
    )
    return Figure("groups", f"Δ {found.metric} by group of examples", caption, found)


def _luck(trials: Sequence[TrialRecord], spec: SearchSpec, store: ArmStore) -> Remark | None:
    text = words.luck(trials, spec, store)
    return Remark("What of it may be luck", text) if text else None


def _outlook(best: TrialRecord, spec: SearchSpec, store: ArmStore) -> Remark | None:
    text = words.outlook(spec, best, store)
    return Remark("What deciding it would take", text) if text else None


def _value(profile: LayerProfile, at: LayerValue) -> str:
    after = ", ".join(f"{value:.3g}" for value in at.after) or "not stored"
    return (
        f"layer {at.layer} has a {profile.quantity} of {at.before:.3g} before training, and at the "
        f"last rung, for every seed and head: {after}"
    )


def _curve(trial: TrialRecord, spec: SearchSpec) -> Figure:
    caption = (
        "Means over the seeds and examples of each evaluation, and their difference with its "
        f"{_LEVEL} interval. Vertical lines are the rungs; where the number of seeds changes, the "
        "curves are over other arms."
    )
    found = curve(trial, spec)
    return Figure(f"curve-{trial.number}", f"Candidate {found.label}", caption, found)
