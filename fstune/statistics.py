"""From paired outcomes to deltas, intervals and verdicts. Numpy only.

A delta is the mean over seeds and examples of variant minus baseline, example by example. Its
interval is a percentile bootstrap: over examples with one seed, for which alone it then holds; with
several on two levels, seeds and examples. All seeds are evaluated on the same examples, so that
the examples are drawn once for all drawn seeds (the pigeonhole bootstrap for crossed effects: Owen,
Annals of Applied Statistics 1(2), 2007). Drawing them anew within each seed would take an example's
own effect for noise that seeds average out, and covers 81 to 89 % instead of 95.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fstune.arm import Outcome, Pair
from tasks.example import Metric, metric_values

CONFIDENCE = 0.95
"""Level of every interval; a confirmation of k finalists shares its error among them."""

RESAMPLES = 2000
"""Bootstrap draws: the standard error of a 2.5 % quantile is then about 0.35 % in level."""

BOOTSTRAP_SEED = 20_260_220
"""Fixed, so that the same outcomes give the same interval, wherever and whenever computed."""

INDICES_AT_ONCE = 4_000_000
"""Examples drawn in one go: memory does not grow with their number."""

OFF_IN_EFFECT = 2.0**-24
"""Rounding of float32: a seed that much smaller than the state it copies is lost beside it."""

VERDICT_RULES = 1
"""Version of the rules in `verdict`, kept in every record."""

Verdict = Literal[
    "gain", "unconfirmed gain", "loss", "no effect", "inconclusive", "diverged", "failed", "running"
]


@dataclass(frozen=True)
class Delta:
    """Variant minus baseline in one metric, with the bounds of its interval."""

    baseline: float
    variant: float
    mean: float
    low: float
    high: float
    higher_is_better: bool

    def gain(self, bound: Literal["lower", "mean"]) -> float:
        """The delta turned so that more is better: its lower bound or its mean."""
        if bound == "mean":
            return self.mean if self.higher_is_better else -self.mean
        return self.low if self.higher_is_better else -self.high


def paired_deltas(
    pairs: Sequence[Pair], metrics: Sequence[Metric], confidence: float = CONFIDENCE
) -> dict[str, Delta]:
    """Deltas of one rung in every metric; all metrics share the bootstrap's draws.

    Args:
        pairs: one per seed, all at one step and over the same number of examples.
        metrics: what is computed per example.
        confidence: level of the intervals.

    Raises:
        ValueError: if there is no pair, the pairs are of different steps or splits, or a seed comes
            twice.
    """
    if len({(pair.step, pair.variant.examples) for pair in pairs}) != 1:
        raise ValueError(f"one step and one split must hold for all pairs, got {len(pairs)} pairs")
    if len({pair.variant.seed_index for pair in pairs}) != len(pairs):
        raise ValueError("every seed once must hold, got a seed twice")
    baseline_MSN = np.stack([_values([pair.baseline for pair in pairs], m) for m in metrics])
    variant_MSN = np.stack([_values([pair.variant for pair in pairs], m) for m in metrics])
    difference_MSN = variant_MSN - baseline_MSN
    means_MB = _bootstrap_means(difference_MSN)
    tail = 100 * (1 - confidence) / 2
    low_M, high_M = np.percentile(means_MB, [tail, 100 - tail], axis=1)
    return {
        metric.name: Delta(
            baseline=float(baseline_MSN[m].mean()),
            variant=float(variant_MSN[m].mean()),
            mean=float(difference_MSN[m].mean()),
            low=float(low_M[m]),
            high=float(high_M[m]),
            higher_is_better=metric.higher_is_better,
        )
        for m, metric in enumerate(metrics)
    }


def _values(outcomes: Sequence[Outcome], metric: Metric) -> NDArray[np.float64]:
    return np.stack([metric_values(metric.name, o.nll_sum, o.correct, o.total) for o in outcomes])


def _bootstrap_means(difference_MSN: NDArray[np.float64]) -> NDArray[np.float64]:
    _, num_seeds, num_examples = difference_MSN.shape
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    means_MB = np.empty((len(difference_MSN), RESAMPLES))
    block = max(1, INDICES_AT_ONCE // num_examples)
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        share_S = np.full(num_seeds, 1 / num_seeds)
        weight_BS = rng.multinomial(num_seeds, share_S, size=size) / num_seeds
        example_BN = rng.integers(num_examples, size=(size, num_examples))
        for m, difference_SN in enumerate(difference_MSN):
            drawn_BN = np.take_along_axis(weight_BS @ difference_SN, example_BN, axis=1)
            means_MB[m, start : start + size] = drawn_BN.mean(axis=1)
    return means_MB


def verdict(
    delta: Delta, margin: float, largest_gate: float = 1.0, confirms: bool = False
) -> Verdict:
    """What one rung allows to say, by rules in this order (version `VERDICT_RULES`).

    1. No gate can rise above `OFF_IN_EFFECT`: no effect. What the arms then differ by is rounding,
       which training may amplify to a few flipped guesses.
    2. The interval lies within ± margin: no effect.
    3. The whole interval is on the better side of zero: unconfirmed gain. It is called a gain only
       in a confirmation, on seeds and examples that the search has not seen.
    4. The whole interval is on the worse side of zero: loss.
    5. Otherwise: inconclusive.

    Args:
        delta: of the objective's metric.
        margin: practical equivalence, in the metric's units.
        largest_gate: upper bound of the variant's gates.
        confirms: whether the delta is a confirmation's.
    """
    if largest_gate < OFF_IN_EFFECT or (-margin <= delta.low and delta.high <= margin):
        return "no effect"
    if delta.gain("lower") > 0:
        return "gain" if confirms else "unconfirmed gain"
    worst_case = delta.high if delta.higher_is_better else -delta.low
    return "loss" if worst_case < 0 else "inconclusive"
