"""What a rung's delta is worth to the search: who climbs, and who is best."""

import dataclasses

import pytest
from arm_cases import delta, rung_record
from hypothesis import given
from hypothesis import strategies as st

from fstune.results.deltas import Delta
from fstune.results.ranking import ranked
from fstune.results.records import EndRecord, TrialRecord
from fstune.results.verdict import rated, verdict

MARGIN = 0.01
FINITE = st.floats(-1, 1, allow_nan=False)


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    """Of any sign and width; of several seeds, those seeds' bound lies inside the interval."""
    mean, half = draw(FINITE), draw(st.floats(0, 1))
    inside = draw(st.none() | st.floats(0, 1).map(lambda share: share * half))
    higher = draw(st.booleans())
    return Delta(0.5, 0.5 + mean, mean, mean - half, mean + half, higher, half_width=inside)


@given(deltas(), deltas())
def test_what_is_settled_never_promises_more_than_what_is_not(one, other):
    first, second = (rated(d, MARGIN, "lower", False, verdict(d, MARGIN)) for d in (one, other))
    if first.settled and not second.settled:
        assert first.promise <= second.promise
        assert first.objective <= second.objective


@given(deltas())
def test_settled_is_what_is_surely_no_better_than_the_margin(found):
    best = found.high if found.higher_is_better else -found.low
    assert rated(found, MARGIN, "lower", True, verdict(found, MARGIN)).settled == (best <= MARGIN)


@given(deltas())
def test_a_metric_turned_round_is_worth_the_same(found):
    turned = dataclasses.replace(
        found,
        mean=-found.mean,
        low=-found.high,
        high=-found.low,
        higher_is_better=not found.higher_is_better,
    )
    told = verdict(found, MARGIN)
    assert verdict(turned, MARGIN) == told
    for last in (False, True):
        one, other = (rated(each, MARGIN, "lower", last, told) for each in (found, turned))
        assert one == other


def test_a_candidate_that_does_nothing_does_not_stand_above_one_that_may():
    """The figures of a real search, where the other one gained 0.36 later."""
    nothing, alive = delta(0.0, 0.0, 0.0), delta(0.021, -0.021, 0.063)
    early = [
        rated(each, MARGIN, "lower", False, verdict(each, MARGIN)) for each in (nothing, alive)
    ]
    assert early[0].promise < early[1].promise
    assert [each.settled for each in early] == [True, False]


def test_what_has_not_learnt_is_not_settled():
    same = delta(0.0, 0.0, 0.0)
    assert rated(same, MARGIN, "lower", False, "no effect").settled
    assert not rated(same, MARGIN, "lower", False, "not learnt").settled


def test_the_last_rung_ranks_by_the_bound_that_was_asked_for():
    found = delta(0.3, 0.1, 0.5)
    assert rated(found, MARGIN, "lower", True, "unconfirmed gain").objective == 0.1
    assert rated(found, MARGIN, "mean", True, "unconfirmed gain").objective == 0.3
    assert rated(found, MARGIN, "mean", False, "unconfirmed gain").objective == 0.5


def test_of_what_has_not_learnt_what_differs_comes_first():
    """Likelihoods differ before answers do. It decides between equals, and nothing else."""
    same = delta(0.0, 0.0, 0.0)
    alive, dead = (rated(same, MARGIN, "lower", False, "not learnt", apart) for apart in (0.1, 0.0))
    assert alive.promise > dead.promise
    better = rated(delta(0.02, 0.01, 0.03), MARGIN, "lower", False, "unconfirmed gain", 0.0)
    assert better.promise > alive.promise
    assert rated(same, MARGIN, "lower", False, "no effect", 1e9).promise <= dead.promise


def test_at_its_rung_what_has_not_learnt_comes_after_what_has():
    """A delta of 0 between arms that guess stands above no lower bound."""
    guesses = rated(delta(0.0, 0.0, 0.0), MARGIN, "lower", True, "not learnt")
    alive = rated(delta(0.021, -0.021, 0.063), MARGIN, "lower", True, "inconclusive")
    trials = [
        TrialRecord(0, {}, [rung_record(0, verdict="not learnt", **vars(guesses))]),
        TrialRecord(1, {}, [rung_record(0, verdict="inconclusive", **vars(alive))]),
    ]
    assert [each.number for each in ranked(trials)] == [1, 0]


@pytest.mark.parametrize("broke_off", [False, True])
def test_the_settled_come_last_but_for_what_broke_off(broke_off):
    trials = [
        TrialRecord(0, {}, [rung_record(0), rung_record(1, objective=0.0, settled=True)]),
        TrialRecord(1, {}, [rung_record(0, objective=-0.2)]),
        TrialRecord(2, {}, [rung_record(0), rung_record(1, objective=-0.1)]),
    ]
    if broke_off:
        trials.append(TrialRecord(3, {}, [rung_record(0)], EndRecord("diverged", "")))
    assert [each.number for each in ranked(trials)] == [2, 1, 0, 3][: len(trials)]
