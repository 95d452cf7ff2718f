"""A search on drawn outcomes, decided by fstune's own code: who climbs, who is a finalist.

Nothing is trained. Outcomes are drawn by `outcome_model`; deltas, verdicts, what a rung is worth,
promotion and ranking are fstune's. Used by `who_climbs.py` and `calibration.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from outcome_model import Model, pairs

from fstune.results.deltas import CONFIDENCE, Delta, paired_deltas, seeds_and_error
from fstune.results.ranking import ranked
from fstune.results.records import RungRecord, TrialRecord
from fstune.results.sequential import Design, Look, look
from fstune.results.verdict import VERDICT_RULES, rated, verdict
from fstune.search.promotion import Standing, next_climb
from fstune.specs.sections import SearchSpec
from tasks.metrics import TOKEN_ACCURACY

METRIC = TOKEN_ACCURACY
"""Of one target an example: right or wrong, the widest spread that a metric between 0 and 1 has."""

FLIPPED = 0.003
"""Share of its baseline's answers that a candidate changes which does nothing to speak of."""


@dataclass(frozen=True)
class Sizes:
    """What a shipped search asks for."""

    name: str
    trials: int
    factor: int
    rung_seeds: tuple[int, ...]
    validation: int
    test: int
    finalists: int
    confirm_seeds: int
    margin: float
    worth: float

    @classmethod
    def of(cls, spec: SearchSpec) -> "Sizes":
        assert spec.confirm is not None
        return cls(
            name=spec.name,
            trials=spec.search.trials,
            factor=spec.search.reduction_factor,
            rung_seeds=tuple(rung.seeds for rung in spec.rungs),
            validation=spec.task.validation_size,
            test=spec.task.test_size,
            finalists=spec.confirm.finalists,
            confirm_seeds=spec.confirm.seeds,
            margin=spec.objective.margin,
            worth=spec.objective.worth_deciding,
        )


def delta_of(right: Any, arm: int, num_seeds: int, confidence: float = CONFIDENCE) -> Delta:
    return paired_deltas(pairs(right, arm, num_seeds), [METRIC], confidence)[METRIC.name]


def outcomes(
    sizes: Sizes,
    model: Model,
    effects: Sequence[float | None],
    chance: np.random.Generator,
) -> Any:
    """Right or wrong of all arms, [rung, arm, seed, example]; candidate k is arm k + 1.

    Args:
        sizes: the search's.
        model: of the outcomes.
        effects: of each candidate; None for one that does nothing but flip a few answers.
        chance: draws.
    """
    shape = (len(sizes.rung_seeds), max(sizes.rung_seeds), sizes.validation)
    right_RASN, _ = model.draw([0.0, *(each or 0.0 for each in effects)], shape, chance)
    for arm, effect in enumerate(effects, start=1):
        if effect is None:
            flips_RSN = chance.random(right_RASN[:, 0].shape) < FLIPPED
            right_RASN[:, arm] = right_RASN[:, 0] ^ flips_RSN
    return right_RASN


def searched(sizes: Sizes, right_RASN: Any, rules: int = VERDICT_RULES) -> list[TrialRecord]:
    """The trials of a search with these outcomes, from best to worst.

    Args:
        sizes: the search's.
        right_RASN: as of `outcomes`.
        rules: version of the verdict rules: 2 ranks by the lower bound at every rung.
    """
    trials: list[TrialRecord] = []
    while (climb := _next(trials, sizes)) is not None:
        number, rung = climb
        if number == len(trials):
            trials.append(TrialRecord(number, {}))
        found = delta_of(right_RASN[rung], number + 1, sizes.rung_seeds[rung])
        trials[number].rungs.append(_record(found, sizes, rung, rules))
    return ranked(trials)


def finalists(order: Sequence[TrialRecord], sizes: Sizes, most: int) -> list[int]:
    """The trials that are confirmed, in their order."""
    at_last = [trial.number for trial in order if len(trial.rungs) == len(sizes.rung_seeds)]
    return at_last[:most]


def looked_at(right_ASN: Any, sizes: Sizes) -> Look:
    """The last look of a confirmation that has these outcomes of baseline and variant."""
    design = Design.ending_at(sizes.confirm_seeds)
    for index, seeds in enumerate(design.looks):
        both = pairs(right_ASN, 1, seeds)
        deltas, error = seeds_and_error(both, METRIC)
        least = -float(right_ASN[0, :seeds].mean())
        seen = look(design, index, deltas, error, sizes.worth, least, METRIC.higher_is_better)
        if seen.decision != "more":
            break
    return seen


def _next(trials: list[TrialRecord], sizes: Sizes) -> tuple[int, int] | None:
    """Who is compared where next: with one slot, as `scheduler: asha_promote` decides."""
    all_drawn, last = len(trials) >= sizes.trials, len(sizes.rung_seeds) - 1
    standings = [
        Standing(t.number, tuple(r.told for r in t.rungs), ended=len(t.rungs) == last + 1)
        for t in trials
    ]
    climb = next_climb(standings, last, sizes.factor, all_drawn)
    if climb is not None:
        return climb.number, climb.rung
    return None if all_drawn else (len(trials), 0)


def _record(delta: Delta, sizes: Sizes, rung: int, rules: int) -> RungRecord:
    told = verdict(delta, sizes.margin)
    last = rung == len(sizes.rung_seeds) - 1
    found = rated(delta, sizes.margin, "lower", last, told)
    older = rules < VERDICT_RULES
    return RungRecord(
        steps=rung + 1,
        seeds=sizes.rung_seeds[rung],
        deltas={METRIC.name: delta},
        verdict=told,
        objective=delta.gain("lower") if older else found.objective,
        promise=None if older else found.promise,
        settled=not older and found.settled,
        largest_gate=1.0,
        arms=[],
        rung=rung,
        curve=[],
        wall_s=0.0,
    )
