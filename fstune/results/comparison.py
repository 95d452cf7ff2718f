"""What the pairs of a candidate say: deltas, verdict, what is odd about them.

From outcomes that are there; how they come to be is in `pairing`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fstune.arms.arm import Outcome, Pair
from fstune.arms.diagnostics import flags
from fstune.errors import FstuneError
from fstune.results.deltas import (
    Delta,
    confirmation_confidence,
    paired_deltas,
    seeds_and_error,
)
from fstune.results.learning import KNOWS_LEARNING, Grounds, guessed_as_well
from fstune.results.records import ArmPair, Comparison
from fstune.results.sequential import Design, Look, look
from fstune.results.verdict import Verdict, rated, sequential_verdict, verdict
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings
from model.mechanisms import registry
from tasks.metrics import NLL, Metric


@dataclass(frozen=True)
class ComparedArms:
    """The outcomes of a comparison, and whose they are."""

    baseline: ArmSettings
    variant: ArmSettings
    num_layers: int
    arms: Sequence[ArmPair]
    pairs: Sequence[Pair]
    metrics: Sequence[Metric]
    untrained: Outcome | None = None
    """The model before its first step, where `Grounds.wants_untrained`."""


def compare(
    spec: SearchSpec,
    of: ComparedArms,
    grounds: Grounds,
    confidence: float,
    confirms: bool,
    boundary: float | None = None,
) -> Comparison:
    """What the pairs say of a candidate.

    Args:
        spec: the search.
        of: the outcomes.
        grounds: what they are judged by.
        confidence: level of the intervals.
        confirms: whether this is a confirmation.
        boundary: of a look's intervals (`paired_deltas`).

    Raises:
        FstuneError: if the objective's metric is no number.
    """
    deltas = paired_deltas(of.pairs, of.metrics, confidence, boundary)
    metric, step = spec.metric(), of.pairs[0].step
    objective = deltas[metric.name]
    if not math.isfinite(objective.mean):
        raise FstuneError(
            f"{metric.name} is {objective.baseline} for the baseline and "
            f"{objective.variant} for the variant at step {step}: every measure of the "
            f"task {spec.task_name} must be finite"
        )
    gate = reach(of.variant, of.num_layers, spec.rungs[-1].steps)
    guessed = guess_of(metric, of.pairs, grounds, of.untrained)
    return Comparison(
        steps=step,
        seeds=len(of.pairs),
        deltas=deltas,
        verdict=judged(spec, of.baseline, of.variant, objective, gate, guessed, confirms),
        objective=objective.gain(spec.objective.bound),
        largest_gate=gate,
        arms=list(of.arms),
        flags=_flags(of.pairs),
        guessed=guessed,
        untrained=of.untrained.arm if of.untrained else None,
    )


def compare_at_look(
    spec: SearchSpec, of: ComparedArms, grounds: Grounds, index: int
) -> tuple[Comparison, Look]:
    """What a look of a sequential confirmation says: with repeated intervals, and its answer.

    Args:
        spec: the search; has a section `confirm` with sequential looks.
        of: the outcomes of the look's seeds.
        grounds: what they are judged by.
        index: of the look, from 0.

    Raises:
        FstuneError: if the objective's metric is no number.
    """
    design = design_of(spec)
    level = confirmation_confidence(1)
    found = compare(spec, of, grounds, level, confirms=True, boundary=design.gain[index])
    seen = seen_at(spec, of.pairs, index)
    return replace(found, verdict=sequential_verdict(found.verdict, seen.decision)), seen


def design_of(spec: SearchSpec) -> Design:
    """The looks of a sequential confirmation and their boundaries."""
    assert spec.confirm is not None
    return Design.ending_at(spec.confirm.seeds)


def seen_at(spec: SearchSpec, pairs: Sequence[Pair], index: int) -> Look:
    """What look `index` sees of the objective's metric."""
    metric = spec.metric()
    deltas, error = seeds_and_error(pairs, metric)
    baseline = float(np.mean([metric.score(pair.baseline.measures) for pair in pairs]))
    least = metric.worst - baseline if metric.worst is not None else None
    worth = spec.objective.worth_deciding
    return look(design_of(spec), index, deltas, error, worth, least, metric.higher_is_better)


def guess_of(
    metric: Metric, pairs: Sequence[Pair], grounds: Grounds, untrained: Outcome | None
) -> str:
    """The guess than which neither arm is surely better, by the search's rules."""
    if grounds.rules < KNOWS_LEARNING:
        return ""
    return guessed_as_well(pairs, metric, grounds.guesses, untrained)


def rating(spec: SearchSpec, rung: int, at: Comparison, rules: int) -> dict[str, Any]:
    """What a rung is worth to the search, by the names of its record's fields.

    Args:
        spec: the search.
        rung: index of the rung.
        at: what was compared there.
        rules: the search's.
    """
    delta, wanted = at.deltas[spec.metric().name], spec.objective
    if rules < KNOWS_LEARNING:
        return {"objective": delta.gain(wanted.bound)}
    last = rung == len(spec.rungs) - 1
    # Likelihoods move before answers do, and every task has them.
    apart = abs(at.deltas[NLL.name].mean) if NLL.name in at.deltas else 0.0
    return asdict(rated(delta, wanted.margin, wanted.bound, last, at.verdict, apart))


def reach(variant: ArmSettings, num_layers: int, steps: int) -> float:
    """The most that a variant's mechanisms can change; 1 where one has no bound, or there is none.

    Args:
        variant: its settings.
        num_layers: of its model.
        steps: the most optimiser steps that it is trained.
    """
    bounds = [
        registry.get(name).reach(settings, num_layers, steps)
        for name, settings in variant.mechanisms.items()
    ]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if known and len(known) == len(bounds) else 1.0


def judged(
    spec: SearchSpec,
    baseline: ArmSettings,
    variant: ArmSettings,
    objective: Delta,
    largest_gate: float,
    guessed: str,
    confirms: bool,
) -> Verdict:
    """The verdict on an objective's delta between two arms of these settings."""
    # A shut gate says that nothing can come of it only where nothing else differs.
    nothing_else = baseline == variant.without()
    gate = largest_gate if nothing_else else 1.0
    return verdict(objective, spec.objective.margin, gate, confirms, learnt=not guessed)


def _flags(pairs: Sequence[Pair]) -> list[str]:
    """What is odd about either arm at any seed, each thing once."""
    found = {
        f"{arm}: {flag}": None
        for pair in pairs
        for arm, outcome in (("baseline", pair.baseline), ("variant", pair.variant))
        for flag in flags(outcome.diagnostics)
    }
    return list(found)
