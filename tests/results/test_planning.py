"""What a plan promises, held against confirmations of drawn outcomes by the code that decides."""

import dataclasses
import math

import numpy as np
import pytest
from arm_cases import outcome

from fstune.arms.arm import Pair
from fstune.results.deltas import seeds_and_error
from fstune.results.planning import (
    WANTED_POWER,
    Price,
    Variation,
    prospect,
    smallest_found,
)
from fstune.results.sequential import Design, look
from tasks.metrics import NLL

TRUE = Variation(
    seeds=0.03, examples=0.2, rest=0.4, num_seeds=8, num_examples=400, mean=0.0, least=None
)
DESIGN = Design.ending_at(32)
WORTH = 0.05


def drawn(chance: np.random.Generator, seeds: int, examples: int, effect: float) -> list[Pair]:
    """Pairs whose deltas vary as `TRUE` says, as nats by which the variant is better."""
    own_S1 = TRUE.seeds * chance.standard_normal((seeds, 1))
    shared_N = TRUE.examples * chance.standard_normal(examples)
    rest_SN = TRUE.rest * chance.standard_normal((seeds, examples))
    gain_SN = effect + own_S1 + shared_N + rest_SN
    zeros = np.zeros(examples)
    return [
        Pair(
            outcome(zeros, nll=5.0, seed_index=seed),
            outcome(zeros, nll=5.0 - gain_SN[seed], seed_index=seed),
        )
        for seed in range(seeds)
    ]


def test_the_spread_of_a_pilot_is_found_again():
    chance = np.random.default_rng(1)
    found = [Variation.of(drawn(chance, 8, 400, 0.1), NLL) for _ in range(60)]
    for name in ("seeds", "examples", "rest"):
        squares = [getattr(each, name) ** 2 for each in found]
        wanted = getattr(TRUE, name) ** 2
        # Means of 60 estimates, each with the error that seven free seeds leave.
        assert np.mean(squares) == pytest.approx(wanted, rel=4 * math.sqrt(2 / 7 / 60)), name
    assert np.mean([each.mean for each in found]) == pytest.approx(0.1, abs=0.01)


def test_the_range_for_seeds_holds_them_as_often_as_it_says():
    chance = np.random.default_rng(2)
    ranges = [Variation.of(drawn(chance, 4, 200, 0.0), NLL).range_of_seeds for _ in range(200)]
    held = np.mean([low <= TRUE.seeds <= high for low, high in ranges])
    assert 0.72 < held < 0.9  # 80 %, a binomial spread of 2.8


@pytest.mark.parametrize("effect", [0.0, 0.025, WORTH])
def test_promised_power_holds(effect):
    chance = np.random.default_rng(3)
    promised = prospect(TRUE, DESIGN, 400, effect, WORTH)
    seen = []
    for _ in range(200):
        pairs = drawn(chance, DESIGN.looks[-1], 400, effect)
        for index, seeds in enumerate(DESIGN.looks):
            deltas, error = seeds_and_error(pairs[:seeds], NLL)
            at = look(DESIGN, index, deltas, error, WORTH, None, NLL.higher_is_better)
            if at.decision != "more":
                break
        seen.append(at)
    assert np.mean([at.decision == "gain" for at in seen]) == pytest.approx(promised.gain, abs=0.05)
    excluded = np.mean([at.decision == "not worth it" for at in seen])
    assert excluded == pytest.approx(promised.excluded, abs=0.05)
    assert np.mean([at.seeds for at in seen]) == pytest.approx(promised.seeds, rel=0.1)


def test_the_smallest_gain_that_is_found_is():
    found = smallest_found(TRUE, DESIGN, 400, WORTH, 1.0)
    assert prospect(TRUE, DESIGN, 400, found, WORTH).gain >= WANTED_POWER
    assert prospect(TRUE, DESIGN, 400, 0.9 * found, WORTH).gain < WANTED_POWER
    assert smallest_found(TRUE, DESIGN, 400, WORTH, 0.5 * found) is None


def test_more_examples_and_steadier_seeds_see_more():
    sizes = [smallest_found(TRUE, DESIGN, size, WORTH, 1.0) for size in (100, 400, 1600)]
    assert sizes == sorted(sizes, reverse=True)
    steady = dataclasses.replace(TRUE, seeds=0.0)
    assert smallest_found(steady, DESIGN, 400, WORTH, 1.0) < sizes[1]


def test_from_enough_examples_on_more_hardly_help():
    enough = TRUE.examples_that_suffice(32)

    def error(examples: float) -> float:
        return math.hypot(TRUE.of_a_seed(examples) / math.sqrt(32), TRUE.of_examples(examples))

    assert error(enough) / error(1e12) == pytest.approx(1.1, rel=1e-3)


def test_arms_cost_what_they_took():
    arm = outcome(np.zeros(50), train_wall_s=30.0, eval_wall_s=5.0, step=120)
    price = Price.of([Pair(arm, dataclasses.replace(arm, train_wall_s=50.0))], at_once=2)
    assert (price.steps, price.train_s) == (120, 40.0)
    # Ten seeds, two arms each, 40 s and 100 examples of 0.1 s, two at a time.
    assert price.hours(10, 100) == pytest.approx(10 * 2 * (40 + 10) / 2 / 3600)
