"""From paired outcomes to deltas, intervals and verdicts. Numpy only.

A delta is the mean over seeds and examples of variant minus baseline, example by example. Its
interval is a percentile bootstrap: over examples with one seed, for which alone it then holds; with
several on two levels, seeds and examples. All seeds are evaluated on the same examples, so that
the examples are drawn once for all drawn seeds (the pigeonhole bootstrap for crossed effects: Owen,
Annals of Applied Statistics 1(2), 2007). Drawing them anew within each seed would take an example's
own effect for noise that seeds average out, and covers 81 to 89 % instead of 95.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fstune.arm import Outcome, Pair
from tasks.metrics import TOTAL, Metric

CONFIDENCE = 0.95
"""Level of every interval; a confirmation of k finalists shares its error among them."""

RESAMPLES = 2000
"""Bootstrap draws: the standard error of a 2.5 % quantile is then about 0.35 % in level."""

POWER = 0.8
"""Of the smallest detectable delta."""

BOOTSTRAP_SEED = 20_260_220
"""Fixed, so that the same outcomes give the same interval, wherever and whenever computed."""

OFF_IN_EFFECT = 2.0**-24
"""Rounding of float32: a seed that much smaller than the state it copies is lost beside it."""

VERDICT_RULES = 1
"""Version of the rules in `verdict`, kept in every record."""

Verdict = Literal[
    "gain",
    "unconfirmed gain",
    "loss",
    "no effect",
    "inconclusive",
    "diverged",
    "infeasible",
    "failed",
    "running",
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
    p_value: float = 1.0
    """Of the hypothesis that the arms differ by chance alone, for these seeds (`_p_value`)."""
    detectable: float = 0.0
    """The smallest true delta that would be told from zero in 80 of 100 such comparisons."""
    seeds_agree: int = 0
    """How many seeds have a delta of the mean's sign."""

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
    num_seeds, num_examples = len(pairs), len(pairs[0].variant.measures[TOTAL])
    weight_BS, count_BN = _draws(num_seeds, num_examples)
    tail = 100 * (1 - confidence) / 2
    deltas = {}
    for metric in metrics:
        baseline_S, baseline_BS = _scores([pair.baseline for pair in pairs], metric, count_BN)
        variant_S, variant_BS = _scores([pair.variant for pair in pairs], metric, count_BN)
        drawn_B = (weight_BS * (variant_BS - baseline_BS)).sum(axis=1)
        low, high = np.percentile(drawn_B, [tail, 100 - tail])
        delta_S = variant_S - baseline_S
        mean = float(delta_S.mean())
        deltas[metric.name] = Delta(
            baseline=float(baseline_S.mean()),
            variant=float(variant_S.mean()),
            mean=mean,
            low=float(low),
            high=float(high),
            higher_is_better=metric.higher_is_better,
            p_value=_p_value(pairs, metric, mean),
            detectable=_detectable(float(drawn_B.std(ddof=1)), confidence),
            seeds_agree=int((np.sign(delta_S) == np.sign(mean)).sum()) if mean else 0,
        )
    return deltas


def _detectable(standard_error: float, confidence: float) -> float:
    """Minimum detectable effect: (z of the level + z of the power) · standard error.

    Bloom, Evaluation Review 19(5), 1995. The standard error is the bootstrap's.
    """
    normal = NormalDist()
    return standard_error * (normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(POWER))


def _p_value(pairs: Sequence[Pair], metric: Metric, mean: float) -> float:
    """Two-sided test of the hypothesis that the arms' names do not matter to any example.

    One seed whose examples are right or wrong: McNemar's exact test. Otherwise a permutation test:
    the arms of an example change names, in all seeds at once, since the seeds share the examples.
    It says nothing about seeds that were not run; the interval does.
    """
    if not metric.pooled:
        baseline_SN, variant_SN = (
            np.stack([metric.per_example(getattr(pair, arm).measures) for pair in pairs])
            for arm in ("baseline", "variant")
        )
        if len(pairs) == 1 and np.isin([baseline_SN, variant_SN], (0.0, 1.0)).all():
            gained = int((variant_SN > baseline_SN).sum())
            return mcnemar(gained, int((variant_SN < baseline_SN).sum()))
        delta_N = (variant_SN - baseline_SN).mean(axis=0)
        drawn_R = _flips(len(delta_N)) @ delta_N / len(delta_N)
    else:
        drawn_R = np.mean([_renamed(pair, metric) for pair in pairs], axis=0)
    # Rounding must not tell a draw that equals what was found from it.
    as_large = (np.abs(drawn_R) >= abs(mean) * (1 - 1e-9)).sum()
    return float((1 + as_large) / (1 + len(drawn_R)))


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test: of so many examples that changed, as few or fewer one way as these.

    Args:
        gained: examples that the variant alone has right.
        lost: examples that the baseline alone has right.
    """
    changed, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    return min(1.0, float(Fraction(2 * tail, 2**changed)))


def _renamed(pair: Pair, metric: Metric) -> NDArray[np.float64]:
    """A pooled metric's delta for each draw of which examples' arms change names."""
    kept_RN = (1 + _flips(len(pair.variant.measures[TOTAL]))) / 2
    sums: dict[str, list[NDArray[np.float64]]] = {"baseline": [], "variant": []}
    for name in metric.needs:
        baseline_N, variant_N = pair.baseline.measures[name], pair.variant.measures[name]
        moved_R = kept_RN @ (variant_N - baseline_N)
        sums["variant"].append(baseline_N.sum() + moved_R)
        sums["baseline"].append(variant_N.sum() - moved_R)
    delta_R: NDArray[np.float64] = metric.value(*sums["variant"]) - metric.value(*sums["baseline"])
    return delta_R


@lru_cache(maxsize=2)
def _flips(num_examples: int) -> NDArray[np.float64]:
    """1 where an example's arms keep their names in a draw, -1 where they change them."""
    rng = np.random.default_rng(BOOTSTRAP_SEED + 1)
    bits = rng.integers(0, 2, size=(RESAMPLES - 1, num_examples), dtype=np.int8)
    return (2.0 * bits - 1.0).astype(np.float64)


def _scores(
    outcomes: Sequence[Outcome], metric: Metric, count_BN: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A metric per seed, over all examples and over each draw of them."""
    if not metric.pooled:
        value_SN = np.stack([metric.per_example(outcome.measures) for outcome in outcomes])
        return value_SN.mean(axis=1), count_BN @ value_SN.T / value_SN.shape[1]
    measured = [np.stack([o.measures[name] for o in outcomes]) for name in metric.needs]
    return (
        metric.value(*(each_SN.sum(axis=1) for each_SN in measured)),
        metric.value(*(count_BN @ each_SN.T for each_SN in measured)),
    )


@lru_cache(maxsize=4)
def _draws(num_seeds: int, num_examples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each draw of the bootstrap takes each seed, as a share, and each example."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    share_S = np.full(num_seeds, 1 / num_seeds)
    weight_BS = rng.multinomial(num_seeds, share_S, size=RESAMPLES) / num_seeds
    share_N = np.full(num_examples, 1 / num_examples)
    count_BN = rng.multinomial(num_examples, share_N, size=RESAMPLES).astype(np.float64)
    return weight_BS, count_BN


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
