"""False discoveries and the winner's luck, against the definition and by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from arm_cases import outcome
from hypothesis import given
from hypothesis import strategies as st

from fstune.arms.store import ArmStore
from fstune.results.deltas import Delta
from fstune.results.records import ArmPair, RungRecord, TrialRecord
from fstune.results.selection import adjusted, corrected_winner, false_discovery_adjusted
from tasks.metrics import TOKEN_ACCURACY

SIZE = 200


def test_a_candidate_that_equals_another_is_tested_once():
    def tried(number: int, p_value: float, equals: int | None = None) -> TrialRecord:
        deltas = {"nll": Delta(0.0, 0.0, 0.0, 0.0, 0.0, False, p_value)}
        rung = RungRecord(10, 1, deltas, "inconclusive", 0.0, 1.0, [], 0, [], 1.0)
        return TrialRecord(number, {}, [rung], equals=equals)

    own = [tried(0, 0.02), tried(1, 0.5), tried(2, 0.9), TrialRecord(3, {})]
    copies = [tried(number, 0.02, equals=0) for number in (4, 5, 6)]
    found = false_discovery_adjusted([*own, *copies], "nll")
    # While it is read, a copy may be further than what it equals.
    assert false_discovery_adjusted(copies, "nll") == {4: 0.02, 5: 0.02, 6: 0.02}
    assert found == pytest.approx({0: 0.06, 1: 0.75, 2: 0.9, 4: 0.06, 5: 0.06, 6: 0.06})


@given(st.lists(st.floats(0.0, 1.0), max_size=30))
def test_adjusted_p_values_are_those_of_benjamini_and_hochberg(p_values):
    numbers = range(10, 10 + len(p_values))
    found = adjusted(dict(zip(numbers, p_values, strict=True)))
    # The least p·n/rank of its own and all higher ranks, and at most 1.
    order = sorted(numbers, key=lambda number: p_values[number - 10])
    steps = [p_values[n - 10] * len(order) / rank for rank, n in enumerate(order, 1)]
    wanted = {number: min(1.0, *steps[at:]) for at, number in enumerate(order)}
    assert found == pytest.approx(wanted)


def search(store: ArmStore, rates: list[float], seed: int = 0) -> list[TrialRecord]:
    """Trials whose variants have so many examples right; the baseline has half of them."""
    chance = np.random.default_rng(seed)
    base = outcome(chance.random(SIZE) < 0.5, arm=f"base{seed}")
    store.save_outcome(base)
    trials = []
    for number, rate in enumerate(rates):
        arm = f"variant{seed}-{number}"
        store.save_outcome(outcome(chance.random(SIZE) < rate, arm=arm))
        arms = [ArmPair(0, base.arm, arm)]
        rung = RungRecord(10, 1, {}, "inconclusive", 0.0, 1.0, arms, 0, [], 1.0)
        trials.append(TrialRecord(number, {}, [rung]))
    return trials


def test_the_best_of_many_that_do_nothing_is_lucky_and_its_other_half_is_not(tmp_path):
    store = ArmStore(tmp_path)
    found = [
        corrected_winner(search(store, [0.5] * 12, seed), TOKEN_ACCURACY, store)
        for seed in range(12)
    ]
    # The baseline's own luck is in both, so that only the gap tells: the best of 12 halves is off
    # by about 1.6 standard errors of a half, 0.08.
    gap = np.mean([winner.naive - winner.mean for winner in found])
    assert 0.06 < gap < 0.16
    assert all(sum(winner.picked.values()) == pytest.approx(1.0) for winner in found)


def test_a_winner_by_far_needs_no_correction(tmp_path):
    store = ArmStore(tmp_path)
    winner = corrected_winner(search(store, [0.5, 0.95, 0.5]), TOKEN_ACCURACY, store)
    assert winner.picked == {1: 1.0}
    assert winner.mean == pytest.approx(winner.naive, abs=1e-12)


def test_one_candidate_or_none_has_nothing_to_correct(tmp_path):
    store = ArmStore(tmp_path)
    assert corrected_winner([], TOKEN_ACCURACY, store) is None
    assert corrected_winner(search(store, [0.9]), TOKEN_ACCURACY, store) is None
    [one] = search(store, [0.9])
    assert corrected_winner([one, replace(one, number=1, equals=0)], TOKEN_ACCURACY, store) is None
    trials = search(store, [0.9, 0.8], seed=1)
    assert corrected_winner(trials, TOKEN_ACCURACY, ArmStore(tmp_path / "gone")) is None
