"""A confirmation that adds seeds until they suffice: what each look at the data allows to say.

Seeds are added at given looks. At each: a *gain* if the interval lies on the better side of zero;
else *not worth it* if an effect of the size that matters is excluded; else *more* seeds, and after
the last look *inconclusive*. Looking often would multiply the errors of a single look: both are
therefore shared among the looks (error spending: Lan and DeMets, Biometrika 70(3), 1983), in
proportion to a look's index, so that most is left for the looks with many seeds. Intervals are
repeated ones: they hold at all looks together (Jennison and Turnbull, Journal of the Royal
Statistical Society B 51(3), 1989).

Boundaries are for Student's t of seeds that are about normal; `sequential_bounds.py` has them.
Where one seed in eight fails, t finds gains that are none, most of all while no such seed is among
those that were run. So a gain by t is called one only where nothing is to be said against it
(`needs_seeds`, `undone_by_one`, `leans`). What that is worth and what it costs was measured by
`tests/benchmarks/sequential_power.py`. Nothing here knows arms, pairs or records.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fstune.results.sequential_bounds import BOUNDS
from fstune.specs.sections import LOOKS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Decision = Literal["gain", "not worth it", "more", "inconclusive"]

FALSE_EXCLUSION = 0.10
"""How often an effect of exactly the size that matters may be excluded."""


ENOUGH_SEEDS = 12
"""From so many on, a kind of seed that none of them is counts as rare: one kind in four is then
missed by 3 of 100 confirmations, one in eight by 20."""


UNSEEN = 3
"""Seeds that may yet fail. Where none of n has, up to 3 / n of all may, at 95 %: the rule of three
(Hanley and Lippman-Hand, Journal of the American Medical Association 249, 1983)."""


LOSS = 12
"""What one more seed may lose, in effects that matter, where it can lose more. Of seeds that gain
half such an effect, and one in eight loses seven halves, this leaves 1 false gain in 100 where
there were 5; beyond 12 it asks for seeds that change little."""


LEANING = -1.0
"""Skewness below which t is corrected; sixteen normal seeds have it by chance in 2 of 100."""


BIAS_PATHS = 5_000
"""Simulated confirmations, and as many mirrored: the bias is then known to 1 % of the error."""


@dataclass(frozen=True)
class Design:
    """Looks, and the boundary of each in multiples of the mean's standard error."""

    looks: tuple[int, ...]
    gain: tuple[float, ...]
    """Half the width of an interval of 98 %; a gain is an interval that excludes zero."""
    exclusion: tuple[float, ...]
    """How far above the mean an effect lies that is excluded."""

    @classmethod
    def ending_at(cls, last: int) -> "Design":
        """The design whose last look is at so many seeds.

        Raises:
            ValueError: if there is no look at so many, or it is the first.
        """
        if last not in BOUNDS:
            ends = ", ".join(map(str, BOUNDS))
            raise ValueError(f"the last look must be at one of {ends} seeds, got {last}")
        gain, exclusion = BOUNDS[last]
        return cls(LOOKS[: len(gain)], gain, exclusion)

    def by_t(self, index: int, mean: Floats, error: Floats, worth: float) -> tuple[Bools, Bools]:
        """Whether a look finds a gain, and whether it excludes an effect of `worth`.

        Args:
            index: of the look, from 0.
            mean: of seeds' deltas, turned so that more is better.
            error: its standard error.
            worth: the smallest effect that matters.
        """
        gains = mean > self.gain[index] * error
        excludes = worth - mean > self.exclusion[index] * error
        return gains, excludes


@dataclass(frozen=True)
class Look:
    """What a confirmation says of one metric at one look, in the metric's units and direction."""

    seeds: int
    mean: float
    low: float
    high: float
    """Of the repeated interval: 98 %, all looks together."""
    estimate: float
    """The mean, less what stopping here adds to it on average; the mean where seeds are added."""
    excluded: bool
    """Whether an effect of the size that matters is, with 90 %."""
    decision: Decision
    doubt: str
    """Why what t alone calls a gain is not called one, as a sentence; else empty."""


def look(
    design: Design,
    index: int,
    seed_deltas: Sequence[float],
    error: float,
    worth: float,
    least: float | None,
    higher_is_better: bool,
) -> Look:
    """What the seeds so far allow to say.

    Args:
        design: when is looked, and with what boundaries.
        index: of the look, from 0.
        seed_deltas: variant minus baseline, of each seed so far.
        error: the standard error of their mean, examples included.
        worth: the smallest effect that matters, above 0.
        least: the smallest that a seed's delta could be, turned so that more is better: minus the
            baseline's score where that is between 0 and 1 and more is better. None if anything.
        higher_is_better: the metric's direction.

    Raises:
        ValueError: if seeds are not as many as the look has, or a number cannot be.
    """
    turn = 1.0 if higher_is_better else -1.0
    delta_S = turn * np.array(seed_deltas, float)
    _check(design, index, delta_S, error, worth, least)
    if least is not None:
        # A seed whose baseline did well can lose more than the mean baseline has.
        least = min(least, float(delta_S.min()))
    mean = delta_S.mean()
    gains, excludes = design.by_t(index, mean, np.asarray(error), worth)
    against = _doubt(delta_S, error, design.gain[index], least, worth) if gains else ""
    decision = _decision(bool(gains) and not against, bool(excludes), len(design.looks) - index - 1)
    bias = 0.0
    if decision != "more":
        bias = stopping_bias(design, float(mean), error * math.sqrt(len(delta_S)), worth, least)
    half = design.gain[index] * error
    return Look(
        seeds=len(delta_S),
        mean=float(turn * mean),
        low=float(turn * mean - half),
        high=float(turn * mean + half),
        estimate=float(turn * (mean - bias)),
        excluded=bool(excludes),
        decision=decision,
        doubt=against,
    )


def _check(
    design: Design, index: int, delta_S: Floats, error: float, worth: float, least: float | None
) -> None:
    if not 0 <= index < len(design.looks):
        raise ValueError(f"look must be one of 0 to {len(design.looks) - 1}, got {index}")
    if len(delta_S) != design.looks[index]:
        wanted = design.looks[index]
        raise ValueError(f"look {index} must have {wanted} seeds' deltas, got {len(delta_S)}")
    if not np.isfinite(delta_S).all():
        raise ValueError(f"seeds' deltas must be finite, got {delta_S.tolist()}")
    if not 0 <= error < math.inf:
        raise ValueError(f"0 <= error must hold, got {error}")
    if not 0 < worth < math.inf:
        raise ValueError(f"0 < worth must hold, got {worth}")
    if least is not None and not -math.inf < least <= 0:
        raise ValueError(f"least <= 0 must hold, got {least}")


def _decision(gains: bool, excludes: bool, looks_left: int) -> Decision:
    if gains:
        return "gain"
    if excludes:
        return "not worth it"
    return "more" if looks_left else "inconclusive"


def _doubt(
    delta_S: Floats, error: float, boundary: float, least: float | None, worth: float
) -> str:
    """What is to be said against a gain by t; nothing, if nothing is."""
    seeds, mean = len(delta_S), delta_S.mean()
    if needs_seeds(seeds, mean, least):
        return (
            f"{seeds} seeds may have missed a kind that fails: fewer than {ENOUGH_SEEDS} make a "
            f"gain only if it would outlast {UNSEEN} more that lost everything."
        )
    if undone_by_one(seeds, mean, least, worth):
        return f"One more seed that lost {_one_loss(least, worth):.3g} would undo the gain."
    if leans(delta_S, np.asarray(error), boundary):
        return "A few seeds lose much more than the others, so that Student's t claims too much."
    return ""


def needs_seeds(seeds: int, mean: Floats, least: Floats | float | None) -> Bools:
    """Whether seeds are so few that a kind that fails may be missing, and would undo a gain.

    Args:
        seeds: how many were run.
        mean: of their deltas, turned so that more is better.
        least: the smallest that a seed's delta could be, so turned; None if anything.
    """
    if seeds >= ENOUGH_SEEDS:
        return np.zeros(np.shape(mean), bool)
    if least is None:
        return np.ones(np.shape(mean), bool)
    return np.asarray(seeds * mean + UNSEEN * least <= 0)


def undone_by_one(seeds: int, mean: Floats, least: Floats | float | None, worth: float) -> Bools:
    """Whether one more seed would undo a gain: one that lost `LOSS` effects, or all it can."""
    return np.asarray(seeds * mean <= _one_loss(least, worth))


def _one_loss(least: Floats | float | None, worth: float) -> Floats:
    return np.asarray(LOSS * worth if least is None else np.minimum(-least, LOSS * worth))


def leans(delta_PS: Floats, error_P: Floats, boundary: float, below: float = LEANING) -> Bools:
    """Whether seeds lean towards losses so far that t, corrected for it, is under its boundary.

    With u the mean and γ the third moment in units of the seeds' spread, the corrected t is
    √n (u + γu²/3 + γ²u³/27 + γ/6n): Hall, Journal of the Royal Statistical Society B 54(1), 1992.

    Args:
        delta_PS: of each seed, turned so that more is better.
        error_P: the mean's standard error; times √n, the seeds' spread.
        boundary: multiple of the standard error.
        below: the skewness γ from which on they are asked.
    """
    seeds = delta_PS.shape[-1]
    mean_P = delta_PS.mean(axis=-1)
    third_P = ((delta_PS - mean_P[..., None]) ** 3).mean(axis=-1)
    spread_P = error_P * math.sqrt(seeds)
    leaning = third_P < below * spread_P**3
    # Seeds without spread do not lean.
    spread_P = np.where(leaning, spread_P, 1.0)
    skew, u = np.where(leaning, third_P, 0.0) / spread_P**3, mean_P / spread_P
    t = math.sqrt(seeds) * (u + skew * u**2 / 3 + skew**2 * u**3 / 27 + skew / (6 * seeds))
    return np.asarray(leaning & (t <= boundary))


def stopping_bias(
    design: Design, effect: float, spread: float, worth: float, least: float | None
) -> float:
    """How far a confirmation's mean lies from the effect on average, since it stops on it.

    By simulation, with normal seeds and the same draws at each call: Whitehead, Biometrika 73(3),
    1986. That skewed seeds are corrected for is left out.

    Args:
        design: as the confirmation's.
        effect: the true one, turned so that more is better.
        spread: standard deviation of seeds' deltas.
        worth: as the confirmation's.
        least: as the confirmation's.
    """
    unit_mean_KP, unit_error_KP = _bias_paths(design.looks)
    running_P = np.ones(unit_mean_KP.shape[1], bool)
    total = 0.0
    for k, seeds in enumerate(design.looks):
        mean_P = effect + spread * unit_mean_KP[k]
        gains_P, excludes_P = design.by_t(k, mean_P, spread * unit_error_KP[k], worth)
        gains_P &= ~needs_seeds(seeds, mean_P, least) & ~undone_by_one(seeds, mean_P, least, worth)
        last = k == len(design.looks) - 1
        stops_P = running_P & (gains_P | excludes_P | last)
        total += float(mean_P[stops_P].sum())
        running_P &= ~stops_P
    return total / len(running_P) - effect


@lru_cache(maxsize=2)
def _bias_paths(looks: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Means and errors of `normal_seeds`, and the same with all signs turned."""
    mean_KP, error_KP = normal_seeds(looks, BIAS_PATHS, np.random.default_rng(BIAS_PATHS))
    return np.hstack([mean_KP, -mean_KP]), np.hstack([error_KP, error_KP])


def normal_seeds(
    looks: Sequence[int], num_paths: int, chance: np.random.Generator
) -> tuple[Floats, Floats]:
    """Confirmations of normal seeds of mean 0 and standard deviation 1, at each look.

    Only sums and sums of squares are drawn: those of n fresh seeds are a normal variable and,
    about its mean, a chi-square of n − 1 degrees of freedom.

    Returns:
        The mean so far, and its standard error, both [look, path].
    """
    sum_P, square_P = np.zeros(num_paths), np.zeros(num_paths)
    mean_KP, error_KP = np.empty((2, len(looks), num_paths))
    for k, (before, seeds) in enumerate(zip((0, *looks), looks, strict=False)):
        fresh = seeds - before
        fresh_P = math.sqrt(fresh) * chance.standard_normal(num_paths)
        sum_P += fresh_P
        square_P += fresh_P**2 / fresh + chance.chisquare(fresh - 1, num_paths)
        mean_KP[k] = sum_P / seeds
        error_KP[k] = np.sqrt((square_P - sum_P * mean_KP[k]) / (seeds * (seeds - 1)))
    return mean_KP, error_KP


def spent(error: float, num_looks: int) -> list[float]:
    """The share of an error that each look may spend: in proportion to its index, from 1."""
    return [error * look / sum(range(num_looks + 1)) for look in range(1, num_looks + 1)]
