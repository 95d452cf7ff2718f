"""Outcomes drawn with the spread and correlation of real arms, for `calibration.py`.

What is measured, on a table of `make_outcome_table.py` and in the objective's own units: the
correlation over examples between outcomes that share the example alone, the example and the arm,
or the example and the seed; between an arm's outcomes at two rungs; and how far a pair's delta
moves from seed to seed beyond what examples explain (two-way analysis of variance). A variant that
does nothing, with real noise, is an arm and itself with other seeds: `without_effect`.

What is drawn: right or wrong, of one normal variable per outcome, which is a sum of one for the
example, for arm and example, for seed and example, and for all three, and which an arm's seed
shifts as a whole. Their shares are such that right and wrong correlate as was measured. An effect
shifts one arm. Two arms without an effect differ by chance alone: their true delta is 0.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstune.arms.arm import Outcome, Pair
from fstune.results.deltas import mean_squares
from tasks.metrics import CORRECT, NLL_SUM, TOTAL

NORMAL = NormalDist()
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """What was measured on the arms of one search at its last rung."""

    rate: float
    """Mean of the arms."""
    example: float
    """Correlation of outcomes of different arms and seeds on the same example."""
    arm_example: float
    """Of the same arm with different seeds."""
    seed_example: float
    """Of different arms with the same seed: what pairing is worth."""
    between_rungs: float
    """Of the same arm and seed at the two rungs."""
    seed_delta: float
    """Standard deviation over seeds of a pair's true delta, in the metric's units."""


def read_table(path: Path) -> tuple[dict[str, Any], dict[str, Floats]]:
    """What the table says of itself, and the outcomes [arm, rung, seed, example] of each search."""
    with np.load(path, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
        return about, {name: stored[name].astype(np.float64) for name in about["searches"]}


def measured(value_ARSN: Floats) -> Spread:
    """The spread of a baseline (arm 0) and a variant or more."""
    last_ASN = value_ARSN[:, -1]
    num_arms, num_seeds, num_examples = last_ASN.shape
    kinds: dict[tuple[bool, bool], list[float]] = {}
    matrix = _correlations(last_ASN.reshape(-1, num_examples))
    for i in range(num_arms * num_seeds):
        for j in range(i):
            kind = (i // num_seeds == j // num_seeds, i % num_seeds == j % num_seeds)
            kinds.setdefault(kind, []).append(matrix[i, j])
    tables = [mean_squares(last_ASN[arm] - last_ASN[0]) for arm in range(1, num_arms)]
    variance = np.mean([(of_seeds - rest) / num_examples for of_seeds, _, rest in tables])
    return Spread(
        rate=float(last_ASN.mean()),
        example=_mean(kinds[False, False]),
        arm_example=_mean(kinds[True, False]),
        seed_example=_mean(kinds[False, True]),
        between_rungs=_between_rungs(value_ARSN),
        seed_delta=float(np.sqrt(max(variance, 0.0))),
    )


def without_effect(value_RSN: Floats) -> Spread:
    """The spread of an arm against itself with other seeds: no effect, and nothing shared."""
    num_seeds, num_examples = value_RSN.shape[1:]
    matrix = _correlations(value_RSN[-1])
    example = _mean([matrix[i, j] for i in range(num_seeds) for j in range(i)])
    of_seeds, _, rest = mean_squares(value_RSN[-1])
    return Spread(
        rate=float(value_RSN[-1].mean()),
        example=example,
        arm_example=example,
        seed_example=example,
        between_rungs=_between_rungs(value_RSN[None]),
        seed_delta=float(np.sqrt(2 * max(of_seeds - rest, 0.0) / num_examples)),
    )


def _correlations(value_KN: Floats) -> Floats:
    """Between rows; NaN with a row that is constant, such as an arm that has nothing right."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(value_KN))


def _mean(correlations: list[float]) -> float:
    """Of what is known of them; 0 where nothing is, or where it is below."""
    known = [each for each in correlations if not math.isnan(each)]
    return max(float(np.mean(known)), 0.0) if known else 0.0


def _between_rungs(value_ARSN: Floats) -> float:
    first, last = (value_ARSN[:, rung].reshape(-1, value_ARSN.shape[-1]) for rung in (0, -1))
    both = zip(first, last, strict=True)
    return _mean([_correlations(np.stack(rows))[0, 1] for rows in both])


QUADRATURE = np.polynomial.hermite_e.hermegauss(64)


def latent_correlation(correlation: float, rate: float) -> float:
    """Correlation of two normal variables whose signs, at this rate, correlate so much.

    The tetrachoric correlation, here of 0 and more: both share a normal variable x, given which
    they are independent, so that P(both right) is an integral over x (Gauss and Hermite).
    """
    x_K, weight_K = QUADRATURE
    weight_K = weight_K / weight_K.sum()
    threshold = NORMAL.inv_cdf(rate)
    low, high = 0.0, 0.9999
    for _ in range(50):
        middle = (low + high) / 2
        given = (threshold + np.sqrt(middle) * x_K) / np.sqrt(1 - middle)
        both = float(weight_K @ np.array([NORMAL.cdf(each) for each in given]) ** 2)
        if (both - rate**2) / (rate * (1 - rate)) < correlation:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@dataclass(frozen=True)
class Model:
    """How right and wrong come about; shares of a variance of 1."""

    rate: float
    example: float
    arm_example: float
    seed_example: float
    rest: float
    between_rungs: float
    """Correlation between rungs of all but the example's own part."""
    arm_seed: float
    """Standard deviation of an arm's seed, which shifts all its outcomes."""

    @classmethod
    def of(cls, spread: Spread) -> "Model":
        """The model of a measured spread.

        Raises:
            ValueError: if all arms have the same examples right, so that there is nothing to draw.
        """
        if spread.example > 0.999:
            raise ValueError("arms must differ by example, got a correlation of 1 between them")
        rate = spread.rate
        example, with_arm, with_seed = (
            latent_correlation(each, rate)
            for each in (spread.example, spread.arm_example, spread.seed_example)
        )
        shares = np.array([example, max(with_arm - example, 0.0), max(with_seed - example, 0.0)])
        shares = shares / max(shares.sum(), 1.0)
        between = (spread.between_rungs - spread.example) / (1 - spread.example)
        density = NORMAL.pdf(NORMAL.inv_cdf(rate))
        return cls(
            rate=rate,
            example=float(shares[0]),
            arm_example=float(shares[1]),
            seed_example=float(shares[2]),
            rest=float(1 - shares.sum()),
            between_rungs=float(np.clip(between, 0.0, 1.0)),
            arm_seed=spread.seed_delta / (math.sqrt(2) * density),
        )

    def draw(
        self,
        effect_A: Sequence[float],
        shape: tuple[int, int, int],
        chance: np.random.Generator,
    ) -> tuple[NDArray[np.bool_], Floats]:
        """Right or wrong, and each arm's and seed's true rate.

        Args:
            effect_A: of each arm on its rate, over all seeds and examples.
            shape: rungs, seeds, examples.
            chance: draws.

        Returns:
            [rung, arm, seed, example] and [rung, arm, seed].
        """
        num_rungs, num_seeds, num_examples = shape
        num_arms = len(effect_A)
        wide = math.sqrt(1 + self.arm_seed**2)
        threshold_A = wide * np.array([NORMAL.inv_cdf(self.rate + each) for each in effect_A])
        own_AS = self._over_rungs((num_rungs, num_arms, num_seeds), chance) * self.arm_seed
        mean_RAS = threshold_A[:, None] + own_AS
        latent_RASN = (
            math.sqrt(self.example) * chance.standard_normal(num_examples)
            + math.sqrt(self.arm_example)
            * self._over_rungs((num_rungs, num_arms, 1, num_examples), chance)
            + math.sqrt(self.seed_example)
            * self._over_rungs((num_rungs, 1, num_seeds, num_examples), chance)
            + math.sqrt(self.rest)
            * self._over_rungs((num_rungs, num_arms, num_seeds, num_examples), chance)
        )
        rate_RAS = np.array([NORMAL.cdf(each) for each in mean_RAS.ravel()]).reshape(mean_RAS.shape)
        return latent_RASN + mean_RAS[..., None] > 0, rate_RAS

    def _over_rungs(self, shape: tuple[int, ...], chance: np.random.Generator) -> Floats:
        """Normal variables, one a rung, with the correlation that rungs have."""
        shared = math.sqrt(self.between_rungs) * chance.standard_normal(shape[1:])
        return shared + math.sqrt(1 - self.between_rungs) * chance.standard_normal(shape)


def pairs(right_ASN: NDArray[np.bool_], arm: int, num_seeds: int) -> list[Pair]:
    """The pairs of an arm with arm 0, of the first seeds."""
    return [
        Pair(_outcome(right_ASN[0, seed], seed), _outcome(right_ASN[arm, seed], seed))
        for seed in range(num_seeds)
    ]


def _outcome(right_N: NDArray[np.bool_], seed: int) -> Outcome:
    one_N = np.ones(len(right_N))
    measures = {CORRECT: right_N.astype(np.float64), TOTAL: one_N, NLL_SUM: one_N}
    return Outcome("arm", seed, "split", 1, measures, (), {}, (), 0, 0.0, 0.0, 0.0)
