"""Whether anything was learnt: arms against guesses, and against the model before training."""

import numpy as np
import pytest
from arm_cases import delta, outcome

from fstune.arms.arm import Pair
from fstune.results.learning import NO_GUESSES, UNTRAINED, Grounds, guessed_as_well
from fstune.results.verdict import verdict
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY

CHANCE = np.random.default_rng(5)
GUESSES = {"chance": {"token_accuracy": 0.25}, "majority": {"token_accuracy": 0.3}}


def right(rate: float, size: int = 200) -> np.ndarray:
    return (CHANCE.random(size) < rate).astype(float)


def pairs(baseline: float, variant: float, seeds: int = 3) -> list[Pair]:
    return [
        Pair(
            outcome(right(baseline), seed_index=seed, nll=1.0),
            outcome(right(variant), seed_index=seed, nll=1.0),
        )
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize(
    ("baseline", "variant", "guessed"),
    [(0.3, 0.3, "majority"), (0.1, 0.25, "majority"), (0.6, 0.3, ""), (0.3, 0.6, "")],
)
def test_one_arm_that_is_better_than_the_best_guess_suffices(seeds, baseline, variant, guessed):
    found = guessed_as_well(pairs(baseline, variant, seeds), TOKEN_ACCURACY, GUESSES, None)
    assert found == guessed


def test_where_no_guess_is_known_nothing_is_said():
    assert guessed_as_well(pairs(0.1, 0.1), EXACT_MATCH, GUESSES, None) == ""
    assert guessed_as_well(pairs(0.1, 0.1), TOKEN_ACCURACY, {}, None) == ""


def test_it_errs_as_often_as_it_says():
    """Arms that guess at the rate of the best guess are taken for learnt in 5 of 100, both sides
    and both arms together."""
    said = [
        guessed_as_well(pairs(0.3, 0.3, 1), TOKEN_ACCURACY, GUESSES, None) == "" for _ in range(600)
    ]
    assert 0.02 < np.mean(said) < 0.09  # two chances of 2.5 %, and three standard errors


@pytest.mark.parametrize("shift", [0.0, -0.2])
def test_a_likelihood_is_held_against_the_model_before_training(shift):
    """Paired by example: a small shift shows, however much examples differ."""
    hard = CHANCE.gamma(2.0, 2.0, 300)
    noise = CHANCE.normal(0, 0.05, (3, 300))
    before = outcome(np.zeros(300), nll=hard)
    arms = [outcome(np.zeros(300), nll=hard + shift * k + noise[k]) for k in (0, 1)]
    found = guessed_as_well([Pair(arms[0], arms[1])], NLL, GUESSES, before)
    assert found == ("" if shift else UNTRAINED)


def test_only_a_likelihood_needs_the_model_before_training():
    assert NO_GUESSES.wants_untrained(NLL)
    assert not NO_GUESSES.wants_untrained(TOKEN_ACCURACY)
    assert not Grounds(rules=2).wants_untrained(NLL), "older searches are decided as they were"


def test_nothing_can_be_told_of_what_has_learnt_nothing():
    same = delta(0.0, 0.0, 0.0)
    assert verdict(same, 0.01) == "no effect"
    assert verdict(same, 0.01, learnt=False) == "not learnt"
    assert verdict(same, 0.01, largest_gate=1e-9, learnt=False) == "no effect", "that is known"
    assert verdict(delta(0.1, 0.05, 0.15), 0.01, learnt=False) == "not learnt"
