"""What a confirmation's looks say, and how often they err.

Boundaries are held against single seeds, drawn one by one; the package has sums alone.
"""

import math
import runpy
import statistics
from pathlib import Path

import numpy as np
import pytest

from fstune.results import sequential_bounds
from fstune.results.deltas import FALSE_GAIN
from fstune.results.sequential import (
    FALSE_EXCLUSION,
    Design,
    Look,
    leans,
    look,
    spent,
    stopping_bias,
)
from fstune.specs.sections import LOOKS

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "sequential_bounds.py"
ENDS = LOOKS[1:]
WORTH = 0.02
BASELINE = 0.25
PATHS = 300_000


@pytest.fixture(scope="module")
def seeds() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error at each look, [look, path], of normal seeds drawn one by one."""
    delta_PS = np.random.default_rng(5).standard_normal((PATHS, LOOKS[-1]))
    found = [(delta_PS[:, :n].mean(1), delta_PS[:, :n].std(1, ddof=1) / n**0.5) for n in LOOKS]
    mean_KP, error_KP = (np.stack(each) for each in zip(*found, strict=True))
    return mean_KP, error_KP


def first_at(met_KP: np.ndarray) -> np.ndarray:
    """The share of paths that meet a boundary at each look and at none before."""
    return np.bincount(met_KP.argmax(0)[met_KP.any(0)], minlength=len(met_KP)) / met_KP.shape[1]


def played(delta_S: np.ndarray, design: Design, least: float | None) -> Look:
    """The look at which a confirmation of these seeds stops."""
    for index, n in enumerate(design.looks):
        seen_S = delta_S[:n]
        found = look(design, index, seen_S, seen_S.std(ddof=1) / n**0.5, WORTH, least, True)
        if found.decision != "more":
            break
    return found


def at(index: int, delta_S, least: float | None = -BASELINE, worth: float = WORTH) -> Look:
    """A look of the longest design at seeds whose examples add nothing to the error."""
    error = float(np.std(delta_S, ddof=1)) / len(delta_S) ** 0.5
    return look(Design.ending_at(32), index, delta_S, error, worth, least, True)


@pytest.mark.parametrize("last", ENDS)
def test_a_gain_that_is_none_is_found_in_one_of_a_hundred_and_shared_by_the_looks(last, seeds):
    design, (mean_KP, error_KP) = Design.ending_at(last), seeds
    # A path and its mirror image are two: their gains are never at one look.
    met_KP = np.stack(
        [
            [
                design.by_t(k, turn * mean_KP[k], error_KP[k], 1.0)[0]
                for k in range(len(design.looks))
            ]
            for turn in (1, -1)
        ]
    )
    found_K = (first_at(met_KP[0]) + first_at(met_KP[1])) / 2
    for found, share in zip(found_K, spent(FALSE_GAIN, len(found_K)), strict=True):
        assert abs(found - share) < 4.5 * math.sqrt(share / (2 * PATHS))
    assert abs(found_K.sum() - FALSE_GAIN) < 4 * math.sqrt(FALSE_GAIN / (2 * PATHS))


@pytest.mark.parametrize("last", ENDS)
def test_an_effect_that_matters_is_excluded_in_ten_of_a_hundred(last, seeds):
    design, (mean_KP, error_KP) = Design.ending_at(last), seeds
    met_KP = np.stack(
        [design.by_t(k, 1.0 + mean_KP[k], error_KP[k], 1.0)[1] for k in range(len(design.looks))]
    )
    for found, share in zip(first_at(met_KP), spent(FALSE_EXCLUSION, len(met_KP)), strict=True):
        assert abs(found - share) < 4.5 * math.sqrt(share / PATHS)
    assert abs(met_KP.any(0).mean() - FALSE_EXCLUSION) < 4 * math.sqrt(FALSE_EXCLUSION / PATHS)


def test_intervals_hold_the_truth_at_all_looks_together(seeds):
    design, (mean_KP, error_KP) = Design.ending_at(32), seeds
    outside_KP = np.abs(mean_KP) > np.array(design.gain)[:, None] * error_KP
    share = outside_KP.any(0).mean()
    # Both sides: 2 %, less what leaves on the one side first and on the other later.
    assert abs(share - 2 * FALSE_GAIN) < 4 * math.sqrt(2 * FALSE_GAIN / PATHS)


def test_the_boundaries_are_what_their_command_makes():
    command = runpy.run_path(str(BENCHMARK))
    paths, last = 150_000, 16
    again = command["table"](paths, np.random.default_rng(7))[last]
    kept = sequential_bounds.BOUNDS[last]
    for error, one, other in zip((FALSE_GAIN, FALSE_EXCLUSION), again, kept, strict=True):
        for k, share in enumerate(spent(error, len(one))):
            # How fast Student's tail falls there: d log p / d log t is about this.
            freedom = LOOKS[k] - 1
            slope = other[k] ** 2 * (freedom + 1) / (freedom + other[k] ** 2)
            spread = 1 / math.sqrt(share * 2 * paths) / slope
            assert abs(math.log(one[k] / other[k])) < 4.5 * spread + 1e-3
    found = {last: [list(each) for each in both] for last, both in sequential_bounds.BOUNDS.items()}
    assert command["written"](found) == Path(sequential_bounds.__file__).read_text("utf-8")


def test_a_last_look_that_is_none_is_refused_with_those_there_are():
    for last in (4, 10, 64):
        with pytest.raises(ValueError, match=f"one of 6, 8, 12, 16, 24, 32 seeds, got {last}"):
            Design.ending_at(last)


def test_a_huge_effect_is_a_gain_at_once():
    found = at(0, [0.60, 0.58, 0.61, 0.57])
    assert (found.decision, found.doubt) == ("gain", "")
    assert found.low > 0


def test_few_seeds_that_agree_are_doubted_unless_the_gain_outlasts_three_that_fail():
    agreeing = np.array([0.0, 0.001, 0.002, 0.001, 0.0, 0.002])
    # Six seeds of m outlast three that lose 0.25 if 6 m > 0.75.
    above, below = (at(1, mean - 0.001 + agreeing) for mean in (0.1251, 0.1249))
    assert (above.decision, above.doubt) == ("gain", "")
    assert below.decision == "more"
    assert below.low > 0
    assert below.doubt.startswith("6 seeds may have missed")
    unbounded = at(1, 0.5 + agreeing, least=None)
    assert (unbounded.decision, unbounded.low > 0) == ("more", True)


def test_a_seed_that_lost_more_than_the_baseline_has_says_what_one_may_lose():
    # The others have 0.75 · 6 to lose; a seed is 0.5 under its own baseline.
    delta_S = 2.0 + np.array([0.0, 0.1, -0.1, 0.05, -0.05, 0.0])
    assert at(1, delta_S, least=-0.25).decision == "gain"
    lost_S = np.concatenate([delta_S[:5], [-6.0]])
    error = 0.01
    found = look(Design.ending_at(32), 1, lost_S, error, WORTH, -0.25, True)
    assert found.decision == "more"
    assert found.doubt.startswith("6 seeds")


def test_a_small_gain_must_outlast_a_seed_that_loses_twelve_effects():
    wide = np.array([0.0, 0.0005, -0.0005, 0.001, -0.001, 0.0] * 2)
    above, below = (at(3, mean + wide) for mean in (0.0201, 0.0199))
    assert above.decision == "gain"
    assert below.decision == "more"
    assert below.doubt == "One more seed that lost 0.24 would undo the gain."
    # A baseline that has less to lose.
    assert at(3, 0.0199 + wide, least=-0.2).decision == "gain"


def test_seeds_some_of_which_lose_much_are_doubted():
    delta_S = np.full(24, 0.045) + 0.002 * np.tile([1, -1], 12)
    delta_S[:4] = -0.045
    found = at(5, delta_S)
    assert found.low > 0
    assert found.decision == "more"
    assert found.doubt.startswith("A few seeds lose much more")
    mirrored_S = 2 * delta_S.mean() - delta_S
    assert at(5, mirrored_S).decision == "gain"


def test_the_corrected_t_is_halls():
    chance = np.random.default_rng(2)
    for _ in range(20):
        delta_S = 1.1 - chance.exponential(1.0, 16)
        mean, spread = statistics.mean(delta_S), statistics.stdev(delta_S)
        skew = sum((each - mean) ** 3 for each in delta_S) / 16 / spread**3
        u = mean / spread
        t = 4 * (u + skew * u**2 / 3 + skew**2 * u**3 / 27 + skew / 96)
        error = np.array(spread / 4)
        assert leans(delta_S, error, t + 1e-9, below=skew + 1e-9)
        assert not leans(delta_S, error, t - 1e-9, below=skew + 1e-9)
        assert not leans(delta_S, error, t + 1e-9, below=skew - 1e-9)


def test_a_gain_is_an_interval_above_zero_that_is_not_doubted():
    chance, seen = np.random.default_rng(6), set()
    for _ in range(400):
        index = int(chance.integers(len(LOOKS)))
        effect = chance.choice([0.0, 0.02, 0.05, 0.2])
        found = at(index, effect + 0.02 * chance.standard_normal(LOOKS[index]))
        assert (found.low > 0) == (found.decision == "gain" or found.doubt != "")
        assert found.decision != "gain" or not found.doubt
        assert (found.decision == "not worth it") <= found.excluded
        assert found.high - found.mean == pytest.approx(found.mean - found.low)
        seen.add((found.decision, found.doubt != ""))
    assert len(seen) >= 5


def test_what_is_excluded_ends_a_confirmation_that_found_no_gain():
    assert at(0, [0.001, -0.001, 0.002, -0.002]).decision == "not worth it"
    # A small gain is one, though an effect that matters is excluded.
    small = at(3, 0.004 + 0.001 * np.tile([1, -1], 6), least=-0.01)
    assert (small.decision, small.excluded) == ("gain", True)
    # And not worth it where the gain is doubted.
    doubted = at(3, 0.004 + 0.001 * np.tile([1, -1], 6))
    assert (doubted.decision, doubted.excluded, doubted.doubt != "") == ("not worth it", True, True)


def test_arms_that_never_differ_are_not_worth_it():
    found = at(0, [0.0] * 4)
    assert (found.decision, found.doubt) == ("not worth it", "")
    assert (found.low, found.high) == (0.0, 0.0)


@pytest.mark.parametrize("last", ENDS)
def test_the_last_look_asks_for_no_more_and_only_it_leaves_things_open(last):
    design = Design.ending_at(last)
    for index, n in enumerate(design.looks):
        delta_S = 0.01 + 0.2 * np.tile([1, -1], n // 2)
        found = look(design, index, delta_S, 0.2 / n**0.5, WORTH, -0.5, True)
        assert found.decision == ("inconclusive" if n == last else "more")
        assert found.estimate != found.mean if n == last else found.estimate == found.mean


def test_a_metric_of_which_less_is_better_is_the_same_turned_over():
    chance = np.random.default_rng(3)
    for index, effect in [(0, 0.4), (2, 0.0), (3, 0.05), (6, 0.01), (6, -0.03)]:
        delta_S = effect + 0.03 * chance.standard_normal(LOOKS[index])
        one, other = (
            look(Design.ending_at(32), index, turn * delta_S, 0.01, WORTH, -0.3, turn > 0)
            for turn in (1, -1)
        )
        assert (one.mean, one.low, one.high) == (-other.mean, -other.high, -other.low)
        assert one.estimate == -other.estimate
        assert (one.decision, one.doubt, one.excluded) == (
            *(other.decision, other.doubt),
            other.excluded,
        )


def test_units_do_not_matter():
    chance = np.random.default_rng(4)
    for index, effect in [(0, 0.4), (2, 0.0), (3, 0.05), (6, 0.01)]:
        delta_S = effect + 0.03 * chance.standard_normal(LOOKS[index])
        one, other = (
            look(Design.ending_at(32), index, u * delta_S, u * 0.01, u * WORTH, -u * 0.3, True)
            for u in (1.0, 128.0)
        )
        assert one.decision == other.decision
        assert other.estimate == 128 * one.estimate
        assert other.low == 128 * one.low


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": 7}, "look must be one of 0 to 6, got 7"),
        ({"seed_deltas": [0.1] * 5}, "look 0 must have 4 seeds' deltas, got 5"),
        ({"seed_deltas": [0.1, math.nan, 0.1, 0.1]}, "must be finite"),
        ({"error": -0.1}, "0 <= error must hold, got -0.1"),
        ({"error": math.nan}, "0 <= error must hold, got nan"),
        ({"worth": 0.0}, "0 < worth must hold, got 0.0"),
        ({"least": 0.2}, "least <= 0 must hold, got 0.2"),
        ({"least": -math.inf}, "least <= 0 must hold, got -inf"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_value(change, said):
    right = {
        "design": Design.ending_at(32),
        "index": 0,
        "seed_deltas": [0.1] * 4,
        "error": 0.01,
        "worth": WORTH,
        "least": -0.5,
        "higher_is_better": True,
    }
    look(**right)
    with pytest.raises(ValueError, match=said):
        look(**(right | change))


def test_where_nothing_can_stop_early_the_mean_is_not_biased():
    one_look = Design((8,), (3.0,), (1.5,))
    assert abs(stopping_bias(one_look, 0.01, 0.03, WORTH, None)) < 1e-12


@pytest.mark.parametrize("effect", [0.0, 0.03])
def test_the_estimate_is_off_by_less_than_the_mean(effect):
    # Of 2,000 and more the means are off by −0.0024 and +0.0008, estimates by a fifth of it.
    design, chance = Design.ending_at(32), np.random.default_rng(10)
    looks = [
        played(effect + 0.025 * chance.standard_normal(32), design, -BASELINE) for _ in range(600)
    ]
    raw = statistics.mean(each.mean for each in looks) - effect
    corrected = statistics.mean(each.estimate for each in looks) - effect
    assert abs(corrected) < abs(raw) / 2
    assert abs(corrected - raw) > abs(raw) / 2
