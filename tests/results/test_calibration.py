"""How often intervals hold the truth and confirmations find a gain where there is none.

By simulation on the code that decides, with fixed seeds; `tests/benchmarks/calibration.py` does the
same at length with the spread of real arms.
"""

import numpy as np
import pytest
from arm_cases import outcome

from fstune.arms.arm import Pair
from fstune.results.deltas import Delta, confirmation_confidence, paired_deltas
from fstune.results.verdict import verdict
from tasks.metrics import NLL

SEEDS, EXAMPLES, FINALISTS = 5, 100, 2


def compared(baseline_SN: np.ndarray, variant_SN: np.ndarray, confidence: float) -> Delta:
    """The delta of arms with these nats on each example."""
    arms = [
        [outcome(np.zeros(len(row)), 1, row, seed_index=k) for k, row in enumerate(arm_SN)]
        for arm_SN in (baseline_SN, variant_SN)
    ]
    pairs = [Pair(*both) for both in zip(*arms, strict=True)]
    return paired_deltas(pairs, [NLL], confidence)["nll"]


def arm(chance: np.random.Generator, seed_spread: float, seeds: int = SEEDS) -> np.ndarray:
    """Outcomes of an arm whose seeds differ as a whole, beside the noise of each example."""
    own_S1 = seed_spread * chance.standard_normal((seeds, 1))
    return own_S1 + chance.standard_normal((seeds, EXAMPLES))


def false_gains(chance: np.random.Generator, seed_spread: float, confirmations: int) -> int:
    """How many confirmations of finalists that do nothing find a gain."""
    level = confirmation_confidence(FINALISTS)
    gains = 0
    for _ in range(confirmations):
        baseline_SN = arm(chance, seed_spread)
        found = [compared(baseline_SN, arm(chance, seed_spread), level) for _ in range(FINALISTS)]
        gains += any(verdict(delta, 0.001, confirms=True) == "gain" for delta in found)
    return gains


def coverage(chance: np.random.Generator, seed_spread: float, seeds: int, intervals: int) -> float:
    held = 0
    for _ in range(intervals):
        baseline_SN, variant_SN = (arm(chance, seed_spread, seeds) for _ in range(2))
        found = compared(baseline_SN, variant_SN, 0.95)
        held += found.low <= 0.0 <= found.high
    return held / intervals


def test_a_confirmation_where_nothing_has_an_effect_finds_a_gain_in_one_of_a_hundred():
    # 15 at most are meant, with a binomial spread of 3.9. An error that finalists do not share, or
    # of 5 % instead of 2, makes it 28 to 35; the normal quantile for Student's 96.
    assert false_gains(np.random.default_rng(11), 1.0, 1500) <= 25


@pytest.mark.parametrize("seed_spread", [0.0, 1.0])
def test_ninety_five_of_a_hundred_intervals_of_five_seeds_hold_the_truth(seed_spread):
    # A binomial spread of 1.1 %, on either side of 93 to 97. The normal quantile holds 89 and 87.
    found = coverage(np.random.default_rng(3), seed_spread, 5, 400)
    assert 0.92 <= found <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("seed_spread", [0.0, 0.1, 0.3, 1.0])
def test_at_length_one_of_a_hundred_confirmations_finds_a_gain_that_is_none(seed_spread):
    assert false_gains(np.random.default_rng(13), seed_spread, 3000) <= 45


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 8])
@pytest.mark.parametrize("seed_spread", [0.0, 0.1, 0.3, 1.0])
def test_at_length_ninety_three_to_ninety_seven_of_a_hundred_hold_the_truth(seeds, seed_spread):
    found = coverage(np.random.default_rng(seeds), seed_spread, seeds, 3000)
    # With three seeds and few examples they are a little wide.
    assert 0.93 <= found <= 0.985


def test_a_gain_that_is_large_beside_its_noise_is_confirmed():
    chance = np.random.default_rng(12)
    level = confirmation_confidence(FINALISTS)
    found = [compared(arm(chance, 0.05), arm(chance, 0.05) - 0.9, level) for _ in range(40)]
    assert sum(verdict(delta, 0.001, confirms=True) == "gain" for delta in found) >= 36
