"""What it takes to decide a question: from how far seeds and examples differ to power and price.

A pilot, or whatever a search has trained, tells the spread (two-way analysis of variance). Given
that, sequential confirmations are simulated with normal seeds and fstune's own boundaries
(`sequential`), for any number of examples. Nothing here trains or reads files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import chdtri

from fstune.arms.arm import Pair
from fstune.results.deltas import deltas_of_seeds, mean_squares
from fstune.results.sequential import Design, Floats, needs_seeds, normal_seeds, undone_by_one
from fstune.specs.sections import LOOKS, SearchSpec
from tasks.metrics import Metric

PATHS = 4000
"""Simulated confirmations: a power of 0.9 is then known to half a point."""


WANTED_POWER = 0.9
"""How often a gain that matters is to be found."""


RANGE = 0.8
"""Of the interval for how far seeds differ: a pilot of four tells it to a factor of two or so."""


@dataclass(frozen=True)
class Variation:
    """How a candidate's delta varies, as standard deviations in the metric's units."""

    seeds: float
    """Between seeds, of a seed's delta on all examples there could be."""
    examples: float
    """Between examples, of an example's own delta, which all seeds share."""
    rest: float
    """Of what belongs to neither."""
    num_seeds: int
    """Of the pilot."""
    num_examples: int
    mean: float
    """The delta that it found, turned so that more is better."""
    least: float | None
    """The smallest that a seed's delta could be, so turned; None if anything."""

    @classmethod
    def of(cls, pairs: Sequence[Pair], metric: Metric) -> "Variation":
        """The variation between these pairs.

        Args:
            pairs: of two seeds at least.
            metric: what is compared.
        """
        turn = 1.0 if metric.higher_is_better else -1.0
        delta_SN = turn * deltas_of_seeds(pairs, metric)
        num_seeds, num_examples = delta_SN.shape
        of_seeds, of_examples, rest = mean_squares(delta_SN)
        baseline = float(np.mean([metric.score(pair.baseline.measures) for pair in pairs]))
        return cls(
            seeds=math.sqrt(max(of_seeds - rest, 0.0) / num_examples),
            examples=math.sqrt(max(of_examples - rest, 0.0) / num_seeds),
            rest=math.sqrt(rest),
            num_seeds=num_seeds,
            num_examples=num_examples,
            mean=float(delta_SN.mean()),
            least=None if metric.worst is None else min(metric.worst - baseline, 0.0),
        )

    def of_a_seed(self, examples: int) -> float:
        """Standard deviation of a seed's measured delta, the examples' own part left out."""
        return math.hypot(self.seeds, self.rest / math.sqrt(examples))

    def of_examples(self, examples: int) -> float:
        """Standard deviation of what the choice of examples adds, however many seeds there are."""
        return self.examples / math.sqrt(examples)

    @property
    def range_of_seeds(self) -> tuple[float, float]:
        """Between what bounds `seeds` lies with `RANGE`, by how few seeds told it."""
        freedom = self.num_seeds - 1
        whole = self.of_a_seed(self.num_examples) ** 2
        noise = self.rest**2 / self.num_examples
        low, high = (
            freedom * whole / float(chdtri(freedom, tail)) - noise
            for tail in (0.5 - RANGE / 2, 0.5 + RANGE / 2)
        )
        return math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))

    def examples_that_suffice(self, seeds: int) -> int:
        """So many that more would narrow an interval of so many seeds by a tenth at the most."""
        wanted = 1.1**2 - 1
        per_example = self.examples**2 + self.rest**2 / seeds
        if self.seeds == 0.0:
            return 0 if per_example == 0.0 else 10**9
        return math.ceil(per_example / (wanted * self.seeds**2 / seeds))


@dataclass(frozen=True)
class Prospect:
    """What confirmations of a candidate of some effect come to."""

    gain: float
    """Share that is called a gain."""
    excluded: float
    """Share in which the effect that matters is excluded."""
    seeds: float
    """Mean number of seeds."""
    most: int
    """Seeds of the last look."""


def prospect(
    variation: Variation, design: Design, examples: int, effect: float, worth: float
) -> Prospect:
    """Simulates sequential confirmations.

    Args:
        variation: of the candidate.
        design: looks and boundaries.
        examples: of the test split.
        effect: the true one, turned so that more is better.
        worth: the effect that matters.
    """
    unit_mean_KP, unit_error_KP, of_examples_P = _paths(design.looks)
    spread, shared = variation.of_a_seed(examples), variation.of_examples(examples)
    running_P = np.ones(unit_mean_KP.shape[1], bool)
    gains = excluded = total_seeds = 0
    for k, seeds in enumerate(design.looks):
        mean_P = effect + spread * unit_mean_KP[k] + shared * of_examples_P
        error_P = np.hypot(spread * unit_error_KP[k], shared)
        gains_P, excludes_P = design.by_t(k, mean_P, error_P, worth)
        least = variation.least
        gains_P &= ~needs_seeds(seeds, mean_P, least) & ~undone_by_one(seeds, mean_P, least, worth)
        stops_P = running_P & (gains_P | excludes_P | (k == len(design.looks) - 1))
        gains += int((stops_P & gains_P).sum())
        excluded += int((stops_P & excludes_P & ~gains_P).sum())
        total_seeds += seeds * int(stops_P.sum())
        running_P &= ~stops_P
    paths = len(running_P)
    return Prospect(gains / paths, excluded / paths, total_seeds / paths, design.looks[-1])


@lru_cache(maxsize=2)
def _paths(looks: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    """Means and errors of seeds, and the examples' part, in their own units; always the same."""
    chance = np.random.default_rng(PATHS)
    mean_KP, error_KP = normal_seeds(looks, PATHS, chance)
    return mean_KP, error_KP, chance.standard_normal(PATHS)


def smallest_found(
    variation: Variation, design: Design, examples: int, worth: float, most: float
) -> float | None:
    """The smallest effect that is found with `WANTED_POWER`, to a hundredth; None above `most`."""

    def found(effect: float) -> bool:
        return prospect(variation, design, examples, effect, worth).gain >= WANTED_POWER

    if not found(most):
        return None
    low, high = 0.0, most
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Price:
    """What arms cost here."""

    steps: int
    """Optimiser steps of an arm, to the last rung."""
    train_s: float
    """Seconds of training an arm to it."""
    example_s: float
    """Seconds of evaluating one example."""
    at_once: int = 1
    """Arms that are trained at the same time."""

    def hours(self, seeds: float, examples: int) -> float:
        """Of so many seeds' baselines and variants."""
        arm_s = self.train_s + examples * self.example_s
        return 2 * seeds * arm_s / self.at_once / 3600

    @classmethod
    def of(cls, pairs: Sequence[Pair], at_once: int) -> "Price":
        """As these arms took; parallel ones are taken to share a machine without loss.

        Args:
            pairs: outcomes of arms that were trained to the last rung.
            at_once: arms that are trained at the same time.
        """
        outcomes = [each for pair in pairs for each in (pair.baseline, pair.variant)]
        num_examples = len(next(iter(outcomes[0].measures.values())))
        return cls(
            steps=outcomes[0].step,
            train_s=float(np.mean([each.train_wall_s for each in outcomes])),
            example_s=float(np.mean([each.eval_wall_s for each in outcomes])) / num_examples,
            at_once=at_once,
        )


@dataclass(frozen=True)
class Outlook:
    """All that it takes to say what confirming a candidate comes to and costs."""

    variation: Variation
    price: Price
    design: Design
    worth: float

    @classmethod
    def of(cls, spec: SearchSpec, pairs: Sequence[Pair]) -> "Outlook":
        """By a candidate's pairs, and by what the spec says of a confirmation.

        Where the spec has no sequential looks, they are those that a confirmation has by default.

        Args:
            spec: the search.
            pairs: of two seeds at least, at the last rung's steps.
        """
        sequential = spec.confirm is not None and spec.confirm.looks == "sequential"
        last = spec.confirm.seeds if spec.confirm and sequential else LOOKS[-1]
        return cls(
            Variation.of(pairs, spec.metric()),
            Price.of(pairs, spec.resources.arms_at_once),
            Design.ending_at(last),
            spec.objective.worth_deciding,
        )

    def prospect(self, examples: int, effect: float) -> Prospect:
        """Of confirmations on so many examples, at a true effect."""
        return prospect(self.variation, self.design, examples, effect, self.worth)

    def smallest_found(self, examples: int, most: float) -> float | None:
        """The smallest effect that is found with `WANTED_POWER`; None above `most`."""
        return smallest_found(self.variation, self.design, examples, self.worth, most)

    def with_seeds_differing(self, by: float) -> "Outlook":
        """The same where seeds differ by so much."""
        return replace(self, variation=replace(self.variation, seeds=by))
