"""Balanced accuracy and Matthews' correlation, against the definitions and for constants."""

import math
from collections import Counter
from random import Random

import numpy as np
import pytest

from tasks.metrics import gathered
from tasks.parts.classes import balanced_accuracy, class_measures, matthews


def scores(wanted, said, count, parts=1):
    """Both scores of items that are spread over so many examples."""
    rows = [class_measures(wanted[n::parts], said[n::parts], count) for n in range(parts)]
    measures = gathered(rows)
    return [metric.score(measures) for metric in (balanced_accuracy(count), matthews(count))]


def drawn(seed, count, items):
    """Wanted classes, and said ones that are right more often than not."""
    stream = Random(seed)
    wanted = stream.choices(range(count), weights=range(1, count + 1), k=items)
    said = [each if stream.random() < 0.5 else stream.randrange(count) for each in wanted]
    return wanted, said


def test_two_classes_as_matthews_has_it():
    wanted, said = drawn(0, 2, 200)
    counts = Counter(zip(wanted, said, strict=True))
    tp, tn, fp, fn = (counts[pair] for pair in ((1, 1), (0, 0), (0, 1), (1, 0)))
    correlation = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    recall = (tp / (tp + fn) + tn / (tn + fp)) / 2
    assert scores(wanted, said, 2) == pytest.approx([recall, correlation])


def test_several_classes_as_covariances_of_indicators():
    # Gorodkin's definition: the sum over classes of the covariances of 0/1 indicators.
    wanted, said = drawn(1, 4, 300)
    is_wanted, is_said = (np.eye(4)[each] for each in (wanted, said))

    def covariance(x, y):
        return ((x - x.mean(axis=0)) * (y - y.mean(axis=0))).sum()

    correlation = covariance(is_wanted, is_said) / math.sqrt(
        covariance(is_wanted, is_wanted) * covariance(is_said, is_said)
    )
    recall = np.mean([(is_said * is_wanted)[:, k].sum() / is_wanted[:, k].sum() for k in range(4)])
    assert scores(wanted, said, 4) == pytest.approx([recall, correlation])


def test_how_items_are_spread_over_examples_does_not_matter():
    wanted, said = drawn(2, 3, 90)
    assert scores(wanted, said, 3, parts=7) == pytest.approx(scores(wanted, said, 3))


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("constant", [0, 1, None])
def test_a_constant_scores_as_chance(count, constant):
    wanted, _ = drawn(3, count, 100)
    recall, correlation = scores(wanted, [constant] * 100, count)
    assert recall == pytest.approx(0 if constant is None else 1 / count)
    assert correlation == 0


def test_gold_scores_one_and_what_is_no_class_nothing():
    wanted, _ = drawn(4, 3, 60)
    assert scores(wanted, wanted, 3) == [1.0, pytest.approx(1.0)]
    half = [each if n % 2 else None for n, each in enumerate(wanted)]
    # As if it were a fourth class, which is never wanted.
    as_fourth = [3 if each is None else each for each in half]
    assert scores(wanted, half, 3) == pytest.approx(scores(wanted, as_fourth, 4))


def test_a_class_that_is_never_wanted_counts_for_nothing():
    assert scores([0, 0, 1, 1], [0, 0, 1, 2], 3)[0] == pytest.approx(0.75)
    assert scores([1, 1, 1], [1, 1, 0], 2) == [pytest.approx(2 / 3), 0.0]


def test_scores_are_elementwise_as_resampling_needs_them():
    wanted, said = drawn(5, 3, 60)
    measures = gathered([class_measures(wanted[n::6], said[n::6], 3) for n in range(6)])
    count_BN = np.array([[1.0] * 6, [3, 0, 1, 0, 2, 0]])
    for metric in (balanced_accuracy(3), matthews(3)):
        found = metric.value(*(count_BN @ measures[name] for name in metric.needs))
        each = [
            metric.score({name: values * counts for name, values in measures.items()})
            for counts in count_BN
        ]
        assert found == pytest.approx(each)
