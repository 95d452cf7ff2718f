import itertools
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from arm_cases import outcome, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from scipy.stats import t as student_t

from fstune.arms.arm import Pair
from fstune.results import deltas as statistics
from fstune.results.deltas import Delta, paired_deltas
from fstune.results.verdict import verdict
from model.mechanisms.mechanism import OFF_IN_EFFECT
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, Metric, ratio

METRICS = (TOKEN_ACCURACY, NLL, EXACT_MATCH)


def delta(low: float, high: float, higher_is_better: bool = True) -> Delta:
    return Delta(0.0, 0.0, (low + high) / 2, low, high, higher_is_better)


def random_pairs(num_seeds: int, num_examples: int, seed: int = 0) -> list[Pair]:
    """Pairs with a gain of their own at each seed."""
    rng = np.random.default_rng(seed)
    total = rng.integers(4, 20, num_examples)

    def one(index: int, rate: float):
        correct = rng.binomial(total, rate)
        nll = rng.gamma(2.0, 1.0, num_examples) * total * (1.2 - rate)
        return outcome(correct, total, nll, seed_index=index)

    return [Pair(one(k, 0.4), one(k, 0.5 + 0.1 * k)) for k in range(num_seeds)]


Split = st.integers(1, 4).flatmap(
    lambda seeds: st.lists(
        st.tuples(
            st.integers(1, 5),
            *[st.tuples(st.integers(0, 5), st.floats(0, 50))] * (2 * seeds),
        ),
        min_size=1,
        max_size=12,
    )
)


@settings(max_examples=30, deadline=None)
@given(Split)
def test_a_delta_is_the_plain_mean_of_variant_minus_baseline(rows):
    total = np.array([row[0] for row in rows])
    outcomes = []
    for k in range(len(rows[0]) - 1):
        correct = np.minimum([row[1 + k][0] for row in rows], total)
        nll = np.array([row[1 + k][1] for row in rows])
        outcomes.append(outcome(correct, total, nll, seed_index=k // 2))
    pairs = [Pair(*outcomes[k : k + 2]) for k in range(0, len(outcomes), 2)]
    found = paired_deltas(pairs, METRICS)
    by_hand = {
        "token_accuracy": lambda o: o.measures["correct"] / o.measures["total"],
        "nll": lambda o: o.measures["nll_sum"] / o.measures["total"],
        "exact_match": lambda o: (o.measures["correct"] == o.measures["total"]).astype(float),
    }
    for name, value in by_hand.items():
        baseline = np.mean([value(p.baseline) for p in pairs])
        variant = np.mean([value(p.variant) for p in pairs])
        assert found[name].baseline == pytest.approx(baseline, abs=1e-12)
        assert found[name].variant == pytest.approx(variant, abs=1e-12)
        assert found[name].mean == pytest.approx(variant - baseline, abs=1e-12)
        assert found[name].low <= found[name].high
        assert found[name].higher_is_better == (name != "nll")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_one_seeds_interval_is_scipys_percentile_bootstrap(metric):
    pairs = random_pairs(1, 70)
    found = paired_deltas(pairs, METRICS)[metric.name]
    values = [metric.per_example(o.measures) for o in (pairs[0].baseline, pairs[0].variant)]
    wanted = bootstrap(
        (values[1] - values[0],),
        np.mean,
        method="percentile",
        n_resamples=20_000,
        confidence_level=0.95,
        rng=np.random.default_rng(1),
    )
    # A 2.5 % quantile of 2000 draws has a standard error of about 0.06 standard deviations.
    tolerance = 0.2 * wanted.standard_error
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=tolerance)


def nll_pairs(difference_SN: np.ndarray) -> list[Pair]:
    """Pairs that differ by so many nats on each example."""
    size = difference_SN.shape[1]
    return [
        Pair(
            outcome(np.zeros(size), 1, 0.0, seed_index=k),
            outcome(np.zeros(size), 1, row, seed_index=k),
        )
        for k, row in enumerate(difference_SN)
    ]


def student_half_width(difference_SN: list[list[float]], level: float = 0.975) -> float:
    """Half of the interval by analysis of variance, cell by cell."""
    seeds, examples = len(difference_SN), len(difference_SN[0])
    mean = sum(map(sum, difference_SN)) / seeds / examples
    of_seed = [sum(row) / examples - mean for row in difference_SN]
    of_example = [sum(column) / seeds - mean for column in zip(*difference_SN, strict=True)]
    rest = sum(
        (difference_SN[k][n] - mean - of_seed[k] - of_example[n]) ** 2
        for k in range(seeds)
        for n in range(examples)
    ) / ((seeds - 1) * (examples - 1))
    by_seed = examples * sum(each**2 for each in of_seed) / (seeds - 1)
    by_example = seeds * sum(each**2 for each in of_example) / (examples - 1)
    extra = max(by_example - rest, 0.0)
    quantile = student_t.ppf(level, seeds - 1)
    return float(quantile * math.sqrt((by_seed + extra) / seeds / examples))


# Where seeds differ much, and where examples do: an interval on one level alone fits only one.
@pytest.mark.parametrize(("seed_spread", "example_spread"), [(1.0, 0.1), (0.02, 1.0)])
@pytest.mark.parametrize("num_seeds", [2, 8])
def test_several_seeds_interval_is_that_of_analysis_of_variance(
    seed_spread, example_spread, num_seeds
):
    rng = np.random.default_rng(3)
    difference_SN = rng.normal(size=(num_seeds, 1)) * seed_spread
    difference_SN = difference_SN + rng.normal(size=(1, 9)) * example_spread
    difference_SN = difference_SN + rng.normal(size=(num_seeds, 9)) * 0.1
    found = paired_deltas(nll_pairs(difference_SN), [NLL])["nll"]
    half = student_half_width(difference_SN.tolist())
    assert found.low == pytest.approx(difference_SN.mean() - half, rel=1e-4)
    assert found.high == pytest.approx(difference_SN.mean() + half, rel=1e-4)


# An independent oracle for the standard error: how means of new seeds and examples spread.
@pytest.mark.parametrize(("seed_spread", "example_spread"), [(0.0, 0.0), (0.5, 0.0), (0.2, 1.0)])
def test_the_interval_is_as_wide_as_new_seeds_and_examples_spread(seed_spread, example_spread):
    rng = np.random.default_rng(7)
    seeds, examples = 40, 50
    deltas = []
    for _ in range(300):
        difference_SN = (
            rng.normal(size=(seeds, 1)) * seed_spread
            + rng.normal(size=(1, examples)) * example_spread
            + rng.normal(size=(seeds, examples))
        )
        deltas.append(paired_deltas(nll_pairs(difference_SN), [NLL])["nll"])
    spread = np.std([delta.mean for delta in deltas])
    half = np.median([delta.high - delta.low for delta in deltas]) / 2
    assert half == pytest.approx(1.96 * spread, rel=0.15)


def test_seeds_that_differ_are_no_more_certain_for_many_examples():
    rng = np.random.default_rng(6)
    difference_SN = np.array([[0.0], [0.3], [0.1]]) + rng.normal(size=(3, 2000)) * 0.1
    found = paired_deltas(nll_pairs(difference_SN), [NLL])["nll"]
    wanted = student_t.ppf(0.975, 2) * difference_SN.mean(axis=1).std(ddof=1) / math.sqrt(3)
    assert (found.high - found.low) / 2 == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_pooled_metric_that_is_a_mean_has_the_means_interval(num_seeds):
    pairs = random_pairs(num_seeds, 40)
    size = np.ones(40)
    share = Metric("share", True, "a mean", ("nll_sum", "one"), ratio)
    pooled = replace(share, name="pooled", pooled=True)
    pairs = [
        Pair(*(replace(o, measures={**o.measures, "one": size}) for o in (p.baseline, p.variant)))
        for p in pairs
    ]
    found = paired_deltas(pairs, [share, pooled])
    mean, other = found["share"], found["pooled"]
    assert (other.low, other.high) == (pytest.approx(mean.low), pytest.approx(mean.high))
    assert other.detectable == pytest.approx(mean.detectable)


@pytest.mark.parametrize("seed_spread", [0.0, 0.1])
def test_intervals_of_several_seeds_hold_the_truth_where_examples_have_effects(seed_spread):
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        seeds = rng.normal(size=(3, 1)) * seed_spread
        examples = rng.normal(size=(1, 60))
        difference_SN = seeds + examples + rng.normal(size=(3, 60))
        found = paired_deltas(nll_pairs(difference_SN), [NLL])["nll"]
        held += found.low <= 0.0 <= found.high
    # 190 are meant. Examples drawn anew within each seed hold 168 to 178.
    assert held >= 183


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_equal_outcomes_give_exactly_nothing(num_seeds):
    pairs = [Pair(p.baseline, p.baseline) for p in random_pairs(num_seeds, 13)]
    for found in paired_deltas(pairs, METRICS).values():
        assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
        assert found.baseline == found.variant


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(4)
    truth, held = 0.3, 0
    for _ in range(200):
        shift = rng.normal(truth, 1.0, 60)
        variant = outcome(np.zeros(60), 1, shift)
        found = paired_deltas([Pair(outcome(np.zeros(60), 1, 0.0), variant)], [NLL])["nll"]
        held += found.low <= truth <= found.high
    # 190 are meant; binomial spread is 3, and the percentile interval is a little short at 60.
    assert 180 <= held <= 199


def test_the_same_outcomes_give_the_same_interval():
    first, second = (paired_deltas(random_pairs(3, 20), METRICS) for _ in range(2))
    assert first == second


def test_metrics_share_the_draws_so_that_one_more_changes_none():
    pairs = random_pairs(2, 20)
    assert paired_deltas(pairs, [NLL])["nll"] == paired_deltas(pairs, METRICS)["nll"]


def test_a_large_rung_needs_little_memory():
    pairs = random_pairs(5, 1000)
    tracemalloc.start()
    try:
        paired_deltas(pairs, METRICS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 160 * 2**20


@pytest.mark.parametrize(
    "second",
    [
        {"step": 20, "seed_index": 1},
        {"examples": "another", "seed_index": 1},
    ],
    ids=str,
)
def test_pairs_of_different_steps_or_splits_have_no_delta(second):
    pairs = [pair([0, 1], [1, 1]), pair([0, 1], [1, 1], **second)]
    with pytest.raises(ValueError, match="one step and one split"):
        paired_deltas(pairs, METRICS)


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match="every seed once"):
        paired_deltas([pair([0, 1], [1, 1]), pair([0, 1], [1, 1])], METRICS)


def test_no_pair_has_no_delta():
    with pytest.raises(ValueError, match="got 0 pairs"):
        paired_deltas([], METRICS)


def test_a_gain_is_turned_so_that_more_is_better():
    up = Delta(0.0, 0.0, 0.3, 0.1, 0.6, higher_is_better=True)
    down = Delta(0.0, 0.0, -0.3, -0.6, -0.1, higher_is_better=False)
    assert (up.gain("mean"), up.gain("lower")) == (0.3, 0.1)
    assert (down.gain("mean"), down.gain("lower")) == (0.3, 0.1)


def test_candidates_are_ranked_by_what_these_seeds_say_and_judged_by_what_others_would():
    rng = np.random.default_rng(8)
    difference_SN = np.array([[0.1], [0.9]]) + rng.normal(size=(2, 200)) * 0.5
    found = paired_deltas(nll_pairs(-difference_SN), [NLL])["nll"]
    example_N = difference_SN.mean(axis=0)
    half = 1.95996 * example_N.std(ddof=1) / math.sqrt(200)
    assert found.gain("lower") == pytest.approx(example_N.mean() - half, rel=1e-4)
    assert found.gain("lower") > 0 > found.worst
    assert verdict(found, 0.01) == "inconclusive"
    one = paired_deltas(nll_pairs(-difference_SN[:1]), [NLL])["nll"]
    assert one.gain("lower") == one.worst == -one.high


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.02, 0.3, "unconfirmed gain"),
        (1e-9, 0.3, "unconfirmed gain"),
        (0.0, 0.3, "inconclusive"),
        (-0.02, 0.3, "inconclusive"),
        (-0.3, 0.02, "inconclusive"),
        (-0.3, 0.0, "inconclusive"),
        (-0.3, -0.02, "loss"),
        (-0.3, -1e-9, "loss"),
        (-0.01, 0.01, "no effect"),
        (0.0, 0.0, "no effect"),
        # The margin comes before the sign.
        (0.005, 0.01, "no effect"),
        (-0.01, -0.005, "no effect"),
        (0.005, 0.011, "unconfirmed gain"),
    ],
)
def test_a_verdict_follows_the_rules_in_their_order(low, high, wanted):
    assert verdict(delta(low, high), margin=0.01) == wanted
    turned = delta(-high, -low, higher_is_better=False)
    assert verdict(turned, margin=0.01) == wanted


@pytest.mark.parametrize("bounds", [(0.2, 0.3), (-0.3, -0.2), (-0.3, 0.3)])
def test_a_gate_that_is_shut_has_no_effect_whatever_came_out(bounds):
    assert verdict(delta(*bounds), 0.01, largest_gate=OFF_IN_EFFECT / 2) == "no effect"
    assert verdict(delta(*bounds), 0.01, largest_gate=OFF_IN_EFFECT) != "no effect"


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (9, 2), (30, 60), (400, 300)])
def test_mcnemar_is_the_binomial_test_of_the_examples_that_changed(gained, lost):
    wanted = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert statistics.mcnemar(gained, lost) == pytest.approx(wanted, rel=1e-9)


def test_one_seed_of_right_and_wrong_is_tested_by_mcnemar():
    one = pair([1, 1, 1, 0, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0])
    found = paired_deltas([one], METRICS)
    wanted = binomtest(3, 4).pvalue
    assert found["exact_match"].p_value == pytest.approx(wanted)
    assert found["token_accuracy"].p_value == pytest.approx(wanted)


def all_renamings(pairs: list[Pair], metric: Metric) -> list[float]:
    """The mean delta for every choice of examples whose arms change names, in all seeds at once."""
    size = len(pairs[0].variant.measures["total"])
    deltas = []
    for renamed in itertools.product([False, True], repeat=size):
        by_seed = []
        for each in pairs:
            arms = []
            for mine, other in ((each.baseline, each.variant), (each.variant, each.baseline)):
                arms.append(
                    {
                        name: np.where(renamed, other.measures[name], mine.measures[name])
                        for name in mine.measures
                    }
                )
            by_seed.append(metric.score(arms[1]) - metric.score(arms[0]))
        deltas.append(float(np.mean(by_seed)))
    return deltas


HIT_RATE = Metric("hit_rate", True, "hits per token", ("correct", "total"), ratio, pooled=True)


@pytest.mark.parametrize("metric", [*METRICS, HIT_RATE], ids=lambda metric: metric.name)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_permutation_test_is_that_of_all_renamings(metric, seeds):
    chance = np.random.default_rng(seeds)
    total = chance.integers(2, 9, size=10)
    pairs = [
        Pair(
            *(
                outcome(chance.binomial(total, p), total, chance.random(10), seed_index=seed)
                for p in (0.3, 0.6)
            )
        )
        for seed in range(seeds)
    ]
    found = paired_deltas(pairs, [metric])[metric.name]
    deltas = np.abs(all_renamings(pairs, metric))
    wanted = (deltas >= abs(found.mean) * (1 - 1e-9)).mean()
    binary = metric.name == "exact_match" and seeds == 1
    if not binary:
        # Drawn renamings: three standard errors.
        spread = 3 * math.sqrt(wanted * (1 - wanted) / statistics.RESAMPLES) + 1e-3
        assert found.p_value == pytest.approx(wanted, abs=spread)


def test_a_detectable_delta_is_detected_in_80_of_100_comparisons():
    chance = np.random.default_rng(5)
    size, spread = 200, 0.5
    base = outcome(np.zeros(size), 1, np.zeros(size))

    def compared(shift: float) -> Delta:
        shifted = outcome(np.zeros(size), 1, chance.normal(shift, spread, size))
        return paired_deltas([Pair(base, shifted)], METRICS)["nll"]

    detectable = compared(0.0).detectable
    assert detectable == pytest.approx(2.8016 * spread / math.sqrt(size), rel=0.15)
    told = [compared(2.8016 * spread / math.sqrt(size)) for _ in range(300)]
    assert sum(delta.low > 0 for delta in told) / 300 == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_so_it_is_with_several_seeds_which_tell_little_of_how_seeds_differ(seeds):
    chance = np.random.default_rng(7)
    size, seed_spread, spread = 20, 0.3, 0.1
    error = math.sqrt((seed_spread**2 + spread**2 / size) / seeds)

    def compared(shift: float) -> Delta:
        by_seed = shift + seed_spread * chance.standard_normal((seeds, 1))
        noise = spread * chance.standard_normal((seeds, size))
        return paired_deltas(nll_pairs(by_seed + noise), [NLL])["nll"]

    one = compared(0.0)
    # A multiple of the standard error, of which half of the interval is a known multiple too.
    multiple = 2 * one.detectable / (one.high - one.low) * student_t.ppf(0.975, seeds - 1)
    told = [compared(multiple * error) for _ in range(1000)]
    assert sum(delta.low > 0 for delta in told) / 1000 == pytest.approx(0.8, abs=0.035)


@pytest.mark.parametrize("swapped", [0, 1])
def test_seeds_that_agree_but_for_rounding_are_no_surer_than_those_that_agree(swapped):
    # Two seeds of one score whose sums are of the same thirds and tenths in another order.
    values = np.array([1 / 3, 0.1, 0.7, -2 / 3, 0.2, 1 / 7, 0.9, -0.3, 0.6, 0.05])
    order = np.roll(np.arange(10), 3) if swapped else np.arange(10)[::-1]
    difference_SN = np.stack([values, values[order]])
    assert difference_SN[0].mean() == pytest.approx(difference_SN[1].mean(), abs=1e-15)
    found = paired_deltas(nll_pairs(difference_SN), [NLL])["nll"]
    rest = difference_SN - difference_SN.mean(axis=0)
    least = 12.7 * math.sqrt((rest**2).sum() / 9 / 20)
    assert found.high - found.low > 2 * least


def test_what_is_no_number_is_no_discovery():
    missing = outcome([1.0, 0.0], 1, [math.nan, 1.0])
    with np.errstate(invalid="ignore"):
        found = paired_deltas([Pair(outcome([1.0, 0.0]), missing)], [NLL])["nll"]
    assert found.p_value == 1.0


def test_seeds_that_agree_with_the_mean_are_counted():
    pairs = [
        pair([0, 0, 0, 1], [1, 1, 0, 1], seed_index=0),
        pair([0, 0, 1, 1], [0, 1, 1, 1], seed_index=1),
        pair([1, 0, 0, 1], [0, 0, 0, 1], seed_index=2),
    ]
    assert paired_deltas(pairs, METRICS)["exact_match"].seeds_agree == 2
    same = [pair([0, 1], [0, 1])]
    assert paired_deltas(same, METRICS)["exact_match"].seeds_agree == 0


@pytest.mark.parametrize("metric", [*METRICS, HIT_RATE], ids=lambda metric: metric.name)
def test_what_a_look_is_told_of_seeds_is_the_delta_that_is_shown(metric):
    """Of a pooled metric too, whose pseudo-values have another mean than the score."""
    pairs = random_pairs(4, 12, seed=3)
    shown = paired_deltas(pairs, [metric], boundary=3.0)[metric.name]
    deltas, error = statistics.seeds_and_error(pairs, metric)
    assert np.mean(deltas) == pytest.approx(shown.mean, rel=1e-12)
    assert (shown.low, shown.high) == pytest.approx(
        (shown.mean - 3.0 * error, shown.mean + 3.0 * error), rel=1e-12
    )
