"""From paired outcomes to deltas, intervals and verdicts. NumPy and SciPy only.

A delta is the mean over seeds and examples of variant minus baseline, example by example. With one
seed its interval is a percentile bootstrap over examples, and holds for that seed alone. With
several it is on two levels, seeds and examples, both drawn by chance: Student's t, with standard
error and degrees of freedom from a two-way analysis of variance (`_standard_error`). All seeds are
evaluated on the same examples, so that seeds and examples are crossed: to take the examples of a
seed for its own would take an example's own effect for noise that seeds average out.

A bootstrap of both levels at once was tried first and is no good here: it counts twice what noise
belongs to neither level, and of a handful of seeds, drawn with replacement, it makes too little.
At 95 % it held from 83 % to over 99 %, as seeds differed much or not at all (docs/calibration.md).
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
from scipy.special import nctdtrinc, stdtrit

from fstune.arms.arm import Outcome, Pair
from tasks.metrics import TOTAL, Metric

CONFIDENCE = 0.95
"""Level of every interval of a search; a confirmation has `confirmation_confidence`."""


RESAMPLES = 2000
"""Bootstrap draws: the standard error of a 2.5 % quantile is then about 0.35 % in level."""


POWER = 0.8
"""Of the smallest detectable delta."""


BOOTSTRAP_SEED = 20_260_220
"""Fixed, so that the same outcomes give the same interval, wherever and whenever computed."""


FALSE_GAIN = 0.01
"""How often a confirmation may find a gain where there is none, all its finalists together."""


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
    detectable: float | None = None
    """The smallest true delta that would be told from zero in 80 of 100 such comparisons; None
    where the arms agree in every example, which tells nothing of how they may differ."""
    seeds_agree: int = 0
    """How many seeds have a delta of the mean's sign."""
    half_width: float | None = None
    """Half of the interval for these very seeds, examples alone being drawn by chance; None with
    one seed, where that is the interval."""

    def gain(self, bound: Literal["lower", "mean", "upper"]) -> float:
        """The delta turned so that more is better: its mean, or a bound of it for these seeds.

        Two or three seeds tell how much seeds differ so badly that a bound for all seeds would rank
        candidates by that error: in simulation, it found an effect half as often.
        """
        mean = self.mean if self.higher_is_better else -self.mean
        if bound == "mean":
            return mean
        if self.half_width is not None:
            return mean - self.half_width if bound == "lower" else mean + self.half_width
        return self.worst if bound == "lower" else self.best

    @property
    def worst(self) -> float:
        """The worse end of the interval, turned so that more is better."""
        return self.low if self.higher_is_better else -self.high

    @property
    def best(self) -> float:
        """The better end of the interval, turned so that more is better."""
        return self.high if self.higher_is_better else -self.low


def paired_deltas(
    pairs: Sequence[Pair],
    metrics: Sequence[Metric],
    confidence: float = CONFIDENCE,
    boundary: float | None = None,
) -> dict[str, Delta]:
    """Deltas of one rung in every metric; all metrics share what is drawn.

    Args:
        pairs: one per seed, all at one step and over the same number of examples.
        metrics: what is computed per example.
        confidence: level of the intervals.
        boundary: how many standard errors an interval of several seeds reaches either way instead
            of Student's quantile, where the level is that of several looks together.

    Raises:
        ValueError: if there is no pair, the pairs are of different steps or splits, or a seed comes
            twice.
    """
    if len({(pair.step, pair.variant.examples) for pair in pairs}) != 1:
        raise ValueError(f"one step and one split must hold for all pairs, got {len(pairs)} pairs")
    if len({pair.variant.seed_index for pair in pairs}) != len(pairs):
        raise ValueError("every seed once must hold, got a seed twice")
    interval = _of_one_seed if len(pairs) == 1 else _of_several_seeds
    deltas = {}
    for metric in metrics:
        baseline_S, variant_S = (
            np.array([metric.score(getattr(pair, arm).measures) for pair in pairs])
            for arm in ("baseline", "variant")
        )
        delta_S = variant_S - baseline_S
        mean = float(delta_S.mean())
        found = interval(pairs, metric, mean, confidence, boundary)
        deltas[metric.name] = Delta(
            baseline=float(baseline_S.mean()),
            variant=float(variant_S.mean()),
            mean=mean,
            low=found.low,
            high=found.high,
            higher_is_better=metric.higher_is_better,
            p_value=_p_value(pairs, metric, mean),
            detectable=found.detectable,
            seeds_agree=int((np.sign(delta_S) == np.sign(mean)).sum()) if mean else 0,
            half_width=found.half_width,
        )
    return deltas


def confirmation_confidence(finalists: int) -> float:
    """Level of each finalist's interval in a confirmation.

    `FALSE_GAIN` is shared among the finalists (Bonferroni); a gain is one of an interval's two
    sides.
    """
    return 1 - 2 * FALSE_GAIN / finalists


@dataclass(frozen=True)
class _Interval:
    low: float
    high: float
    detectable: float | None
    """Minimum detectable effect, a multiple of the standard error (Bloom, Evaluation Review 19(5),
    1995): quantile of the level + z of the power; of Student's t, the noncentrality at which it
    passes its quantile with that power."""
    half_width: float | None = None


_POWER_Z = NormalDist().inv_cdf(POWER)


def normal_quantile(confidence: float) -> float:
    """How many standard errors a two-sided interval of a normal variable reaches either way."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


_ROUNDING = 1e-18
"""Share of the rest's mean square below which that of seeds is rounding: 1e-9 of its spread."""


def _of_one_seed(
    pairs: Sequence[Pair], metric: Metric, mean: float, confidence: float, boundary: float | None
) -> _Interval:
    """Percentile bootstrap over the examples of the only pair."""
    del mean, boundary
    pair = pairs[0]
    drawn_B = _drawn(pair.variant, metric) - _drawn(pair.baseline, metric)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(drawn_B, [tail, 100 - tail])
    detectable = float(drawn_B.std(ddof=1)) * (normal_quantile(confidence) + _POWER_Z)
    return _Interval(float(low), float(high), detectable or None)


def seeds_and_error(pairs: Sequence[Pair], metric: Metric) -> tuple[list[float], float]:
    """Each seed's delta, and the standard error of their mean over seeds and examples.

    Args:
        pairs: of two seeds at least.
        metric: what is compared.
    """
    # Of a pooled metric the scores themselves, from which the means of its pseudo-values differ.
    of_seeds = [
        metric.score(pair.variant.measures) - metric.score(pair.baseline.measures) for pair in pairs
    ]
    return of_seeds, _standard_error(deltas_of_seeds(pairs, metric))[0]


def deltas_of_seeds(pairs: Sequence[Pair], metric: Metric) -> NDArray[np.float64]:
    """What each example adds to each seed's delta: [seed, example]."""
    baseline_SN, variant_SN = (
        np.stack([contributions(getattr(pair, arm), metric) for pair in pairs])
        for arm in ("baseline", "variant")
    )
    delta_SN: NDArray[np.float64] = variant_SN - baseline_SN
    return delta_SN


def _of_several_seeds(
    pairs: Sequence[Pair], metric: Metric, mean: float, confidence: float, boundary: float | None
) -> _Interval:
    """Student's t about the mean, over seeds and examples."""
    delta_SN = deltas_of_seeds(pairs, metric)
    error, freedom = _standard_error(delta_SN)
    quantile = boundary or float(stdtrit(freedom, 0.5 + confidence / 2))
    half = quantile * error
    detectable = float(nctdtrinc(freedom, 1 - POWER, quantile)) * error
    _, of_examples, _ = mean_squares(delta_SN)
    of_these_seeds = normal_quantile(confidence) * math.sqrt(of_examples / delta_SN.size)
    return _Interval(mean - half, mean + half, detectable or None, of_these_seeds)


def contributions(outcome: Outcome, metric: Metric) -> NDArray[np.float64]:
    """What each example adds to a score: its own, or the jackknife's pseudo-value of a pooled one.

    Dorfman, Berbaum and Metz, Investigative Radiology 27(9), 1992.
    """
    if not metric.pooled:
        return metric.per_example(outcome.measures)
    measured = [outcome.measures[name] for name in metric.needs]
    size = len(measured[0])
    whole = metric.value(*(each_N.sum() for each_N in measured))
    without_N = metric.value(*(each_N.sum() - each_N for each_N in measured))
    return size * whole - (size - 1) * without_N


def mean_squares(delta_SN: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of seeds, of examples and of the rest: two-way analysis of variance, one delta a cell.

    Searle, Casella and McCulloch, "Variance Components" (Wiley, 1992), chapter 4.

    Args:
        delta_SN: of two seeds at least; of a single example all but the first is 0.
    """
    num_seeds, num_examples = delta_SN.shape
    free_examples = max(num_examples - 1, 1)
    seed_S, example_N, mean = delta_SN.mean(axis=1), delta_SN.mean(axis=0), delta_SN.mean()
    rest_SN = delta_SN - seed_S[:, None] - example_N + mean
    return (
        float(num_examples * ((seed_S - mean) ** 2).sum() / (num_seeds - 1)),
        float(num_seeds * ((example_N - mean) ** 2).sum() / free_examples),
        float((rest_SN**2).sum() / ((num_seeds - 1) * free_examples)),
    )


def _standard_error(delta_SN: NDArray[np.float64]) -> tuple[float, int]:
    """Of the mean over seeds and examples, both drawn by chance, and its degrees of freedom.

    With the mean squares S of seeds, N of examples and E of the rest, the variance is
    (S + max(N - E, 0)) / (seeds · examples): Hillis, Statistics in Medicine 26(3), 2007, where
    readers stand for seeds and cases for examples. The freedom is that of S, the least that his can
    be: his own errs three times as often as it says, with three seeds and in the far tail that a
    confirmation stands on. Seeds that agree but for rounding, as those of a score with few values
    may, are taken to differ by what the rest does.
    """
    of_seeds, of_examples, rest = mean_squares(delta_SN)
    if of_seeds <= _ROUNDING * rest:
        of_seeds = rest
    variance = of_seeds + max(of_examples - rest, 0.0)
    return math.sqrt(variance / delta_SN.size), len(delta_SN) - 1


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
    # Rounding must not tell a draw that equals what was found from it; NaN tells nothing.
    as_large = (~(np.abs(drawn_R) < abs(mean) * (1 - 1e-9))).sum()
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


def _drawn(outcome: Outcome, metric: Metric) -> NDArray[np.float64]:
    """A metric over each of the bootstrap's draws of examples."""
    count_BN = _draws(len(outcome.measures[TOTAL]))
    if not metric.pooled:
        value_N = metric.per_example(outcome.measures)
        mean_B: NDArray[np.float64] = count_BN @ value_N / len(value_N)
        return mean_B
    return metric.value(*(count_BN @ outcome.measures[name] for name in metric.needs))


@lru_cache(maxsize=4)
def _draws(num_examples: int) -> NDArray[np.float64]:
    """How often each draw of the bootstrap takes each example."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    share_N = np.full(num_examples, 1 / num_examples)
    return rng.multinomial(num_examples, share_N, size=RESAMPLES).astype(np.float64)
