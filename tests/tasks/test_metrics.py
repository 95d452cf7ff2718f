"""Metrics against their formulae."""

import numpy as np
import pytest

from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, Metric, gathered, mean_of, ratio

MEASURES = gathered(
    [
        {"nll_sum": 1.0, "correct": 2.0, "total": 2.0, "hits": 1.0, "shots": 4.0},
        {"nll_sum": 6.0, "correct": 3.0, "total": 4.0, "hits": 3.0, "shots": 4.0},
        {"nll_sum": 0.0, "correct": 0.0, "total": 1.0, "hits": 0.0, "shots": 0.0},
    ]
)


def test_the_metrics_of_every_task_follow_their_formulae():
    assert TOKEN_ACCURACY.per_example(MEASURES).tolist() == [1.0, 0.75, 0.0]
    assert NLL.per_example(MEASURES).tolist() == [0.5, 1.5, 0.0]
    assert EXACT_MATCH.per_example(MEASURES).tolist() == [1.0, 0.0, 0.0]
    assert NLL.score(MEASURES) == pytest.approx(2 / 3)


def test_a_pooled_metric_is_of_the_sums_and_of_no_example():
    pooled = Metric("aim", True, "hits per shot", ("hits", "shots"), ratio, pooled=True)
    assert pooled.score(MEASURES) == 0.5
    with pytest.raises(ValueError, match="aim is a score of the whole split"):
        pooled.per_example(MEASURES)
    single = Metric("aim", True, "hits per shot", ("hits", "shots"), ratio)
    assert single.score(MEASURES) == pytest.approx((0.25 + 0.75 + 0) / 3)


def test_the_mean_of_a_measure():
    assert mean_of("hits", True, "hits").score(MEASURES) == pytest.approx(4 / 3)


def test_nothing_of_nothing_is_nothing():
    assert ratio([1.0, 0.0], [0.0, 0.0]).tolist() == [0.0, 0.0]
    assert ratio(np.ones((2, 1)), np.full(3, 2.0)).shape == (2, 3)


def test_examples_that_are_measured_differently_are_refused():
    with pytest.raises(ValueError, match=r"example 1 has measures \['b'\], the first one \['a'\]"):
        gathered([{"a": 1.0}, {"b": 1.0}])
