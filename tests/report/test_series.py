"""The numbers and sentences of a report, against counts made another way."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from arm_cases import SPEC, made, rung_record, spec
from report_cases import CORRECT, searched

from fstune.arms.store import ArmStore
from fstune.report import words
from fstune.report.examples import LONGEST_TEXT, PIECE, abridged, example_deltas
from fstune.report.importance import FEWEST, importance
from fstune.report.series import (
    SlicePoint,
    Slices,
    curve,
    forest,
    layer_profiles,
    search_path,
    slices,
)
from fstune.report.summary import summarise
from fstune.results.deltas import Delta
from fstune.results.folder import SearchFolder
from fstune.results.ranking import ranked
from fstune.results.records import (
    ArmPair,
    Comparison,
    Confirmation,
    CurvePoint,
    EndRecord,
    RungRecord,
    TrialRecord,
)
from fstune.results.verdict import Verdict
from fstune.specs.sections import SearchSpec


@pytest.fixture
def search(tmp_path) -> tuple[SearchFolder, SearchSpec]:
    return searched(tmp_path)


def store_of(records: SearchFolder) -> ArmStore:
    return ArmStore(records.runs / "arms")


def trial(number: int, *rungs: RungRecord, **changes: Any) -> TrialRecord:
    return TrialRecord(number, {"future_seed.alpha": -1.0}, list(rungs), **changes)


def test_the_forest_has_every_comparison_once_and_best_first(search):
    records, made_of = search
    found = forest(records.trials(), made_of, store_of(records))
    assert [(row.number, row.group.split(":")[0], row.stopped) for row in found.rows] == [
        (1, "confirmation", False),
        (1, "4 steps × 2 seeds", False),
        (0, "4 steps × 2 seeds", False),
        (2, "2 steps × 1 seed", True),
    ]
    assert [row.mean for row in found.rows] == [0.25, 0.3, 0.2, 0.05]


def test_dots_are_the_means_of_single_seeds(search):
    records, made_of = search
    base, variant = np.array(CORRECT["base"]) / 2, np.array(CORRECT["variant"]) / 2
    by_rung = {
        row.group: row.by_seed
        for row in forest(records.trials(), made_of, store_of(records)).rows
        if row.number == 1
    }
    assert by_rung["4 steps × 2 seeds"] == pytest.approx([(variant - base).mean()] * 2)
    store = ArmStore(records.runs / "elsewhere")
    assert {row.by_seed for row in forest(records.trials(), made_of, store).rows} == {()}


def test_a_curve_is_what_the_records_say(search):
    records, made_of = search
    record = records.trial(1)
    found = curve(record, made_of)
    points = [point for rung in record.rungs for point in rung.curve]
    assert [at.steps for at in found.steps] == [point.step for point in points]
    for at, point in zip(found.steps, points, strict=True):
        delta = point.deltas["token_accuracy"]
        assert (at.baseline, at.variant) == (delta.baseline, delta.variant)
        assert (at.mean, at.low, at.high) == (delta.mean, delta.low, delta.high)
    assert [at.seeds for at in found.steps] == [1, 1, 2, 2]


def test_the_path_counts_every_arm_once_and_by_its_furthest_step(tmp_path):
    made_of = spec(tmp_path)

    def reached(rung: int, ended_at: float, objective: float, *variants: str) -> RungRecord:
        arms = [ArmPair(seed, f"base{seed}", name) for seed, name in enumerate(variants)]
        record = rung_record(rung, arms=arms, objective=objective)
        point = dataclasses.replace(record.curve[-1], ended_at=ended_at)
        return dataclasses.replace(record, curve=[point])

    trials = [
        trial(0, reached(0, 1.0, 0.1, "a"), reached(1, 2.0, 0.2, "a", "A")),
        trial(1, reached(0, 3.0, 0.3, "b"), reached(1, 5.0, float("nan"), "b", "B")),
        trial(2, reached(0, 4.0, 0.2, "c")),
    ]
    found = search_path(trials, made_of)
    # Steps 2 and 4 at the rungs: base0 and a; base0, base1, a and A to 4; b; c; then b to 4, B.
    assert [(at.number, at.rung, at.spent_steps) for at in found.points] == [
        (0, 0, 4),
        (0, 1, 16),
        (1, 0, 18),
        (2, 0, 20),
        (1, 1, 26),
    ]
    assert [at.best for at in found.points] == [0.1, 0.2, 0.3, 0.3, 0.2]


def test_slices_show_all_candidates_at_the_rung_that_all_reach(search):
    found = slices(search[0].trials(), search[1])
    assert [point.number for point in found.points] == [0, 1, 2]
    assert [point.mean for point in found.points] == [0.1, 0.15, 0.05]
    assert found.paths == ["future_seed.alpha"]
    assert found.at == "2 steps × 1 seed"


def test_gates_open_by_the_sigmoid_and_the_schedule(tmp_path):
    more = "fixed: {future_seed: {seed_scale: 0.5, alpha_lr: 0.1}}\n"
    record = trial(0, rung_record(0))
    [found] = layer_profiles(record, spec(tmp_path, more=more), ArmStore(tmp_path))
    assert [(gate.layer, gate.before, gate.after) for gate in found.layers] == [
        (1, pytest.approx(0.5 / (1 + np.e)), ())
    ]
    assert found.learns


def test_gates_after_training_are_every_seeds_and_heads(search):
    records, made_of = search
    [found] = layer_profiles(records.trial(1), made_of, store_of(records))
    # Heads have gates of their own: the layer's mean is not one.
    assert [gate.after for gate in found.layers] == [(0.5, 0.5)]


def test_examples_are_those_that_differ_most(search):
    records, made_of = search
    found = example_deltas(records, made_of, 1, records.trial(1).rungs[-1])
    base, variant = (np.array(CORRECT[name]) for name in ("base", "variant"))
    # Seed 1 turns the examples round, so that an example's mean is over both ends.
    gain = ((variant - base) + (variant - base)[::-1]) / 4
    assert (found.better, found.worse, found.equal) == (
        (gain > 0).sum(),
        (gain < 0).sum(),
        (gain == 0).sum(),
    )
    told = {at.index: at.variant - at.baseline for at in (*found.gained, *found.lost)}
    assert told == {i: pytest.approx(gain[i]) for i in range(6) if gain[i]}
    gains = [at.variant - at.baseline for at in found.gained]
    assert gains == sorted(gains, reverse=True)
    assert found.gained[0].text.startswith("L=12|M=⟦__ → 3")
    assert found.gained[0].text.endswith("⟧|R=34")


def test_examples_without_their_split_have_no_text(search):
    records, made_of = search
    for manifest in records.cache.glob("*/manifest.json"):
        manifest.unlink()
    found = example_deltas(records, made_of, 1, records.trial(1).rungs[-1])
    assert {at.text for at in found.gained} == {""}


def test_without_outcomes_there_are_no_examples(tmp_path):
    made_of = spec(tmp_path)
    records = made(tmp_path, made_of)
    assert example_deltas(records, made_of, 0, rung_record(0)) is None


@pytest.mark.parametrize("long", ["before", "after", "wanted"])
def test_a_long_example_is_cut_around_what_is_wanted(long):
    parts = {"before": "b", "after": "a", "wanted": "w"}
    parts[long] *= 5000
    text = abridged("{before}⟦{wanted} → x⟧{after}".format(**parts))
    assert len(text) <= LONGEST_TEXT + 10
    assert " … " in text
    if long != "wanted":
        assert "⟦w → x⟧" in text
        assert len(text) <= PIECE + 20


def points(number: int, alpha_matters: bool = True) -> Slices:
    stream = random.Random(0)
    found = []
    for each in range(number):
        alpha, scale = stream.uniform(0, 1), stream.choice([0.5, 2.0])
        mean = (alpha if alpha_matters else 0.0) + stream.gauss(0, 0.02)
        candidate = {"future_seed.alpha": alpha, "future_seed.seed_scale": scale}
        found.append(SlicePoint(each, candidate, mean, mean - 0.1, mean + 0.1, 1))
    paths = ["future_seed.alpha", "future_seed.seed_scale"]
    return Slices("token_accuracy", 0.01, "2 steps × 1 seed", paths, [], found)


SPACE = """\
space:
  future_seed.alpha: {uniform: [0.0, 1.0]}
  future_seed.seed_scale: {choice: [0.5, 2.0]}
"""


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_setting_that_matters_is_the_important_one(tmp_path, higher_is_better):
    text = (spec(tmp_path), (tmp_path / "spec.yaml").read_text())[1]
    head, _, _ = text.partition("space:")
    made_of = spec(tmp_path, head + SPACE + "search: {trials: 4}\n")
    found = importance(points(30), made_of, higher_is_better)
    first, second = found.shares
    assert first.path == "future_seed.alpha"
    assert first.low > second.high
    assert first.mean + second.mean == pytest.approx(1.0)
    assert all(share.low <= share.high for share in found.shares)


def test_few_candidates_have_no_importance(tmp_path):
    found = importance(points(FEWEST - 1), spec(tmp_path), True)
    assert found.shares == []
    assert f"{FEWEST - 1} candidates are too few" in found.note


def comparison(verdict: Verdict) -> Comparison:
    record = rung_record(1, verdict=verdict)
    names = [field.name for field in dataclasses.fields(Comparison)]
    return Comparison(**{name: getattr(record, name) for name in names})


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        ("unconfirmed gain", "Perhaps"),
        ("loss", "No, it harms"),
        ("no effect", "No effect"),
        ("inconclusive", "Inconclusive"),
    ],
)
def test_an_unconfirmed_search_never_answers_yes(tmp_path, verdict, word):
    best = trial(0, rung_record(0), rung_record(1, verdict=verdict))
    found = words.answer(spec(tmp_path), [best], best, 0)
    assert (found.verdict, found.word) == (verdict, word)
    assert "Not confirmed" in found.confirmation
    assert "Δ +0.2500 [" in found.sentence
    assert "validation examples" in found.sentence


def test_a_confirmation_decides_the_answer(tmp_path):
    made_of = spec(tmp_path)
    lost = trial(0, rung_record(1), confirmation=Confirmation(comparison("inconclusive"), 1.0))
    won = trial(1, rung_record(1), confirmation=Confirmation(comparison("gain"), 1.0))
    broken = trial(2, rung_record(1), confirmation=Confirmation(None, 1.0, "loss nan"))
    found = words.answer(made_of, [lost, won, broken], lost, 3)
    assert (found.word, found.verdict) == ("Yes", "gain")
    assert "(candidate 1)" in found.sentence
    assert "99.3 % interval" in found.sentence
    assert "test examples" in found.sentence
    assert "Confirmed for 1 of 3 finalists" in found.confirmation
    found = words.answer(made_of, [lost, broken], lost, 2)
    assert (found.word, found.verdict) == ("Inconclusive", "inconclusive")
    assert "Not confirmed for any of 2 finalists" in found.confirmation
    found = words.answer(made_of, [broken], None, 1)
    assert found.verdict == "diverged"
    assert "loss nan" in found.sentence


def test_a_finalist_has_the_level_that_all_share_before_the_others_are_tried(tmp_path):
    records, made_of = searched(tmp_path)
    (records.root / "trials/0000/confirmation.json").unlink()
    found = summarise(records, made_of)
    assert "99 % interval" in found.answer.sentence
    assert "Confirmed for 1 of 2 finalists, of which 1 was tried so far:" in (
        found.answer.confirmation
    )
    assert "99 % intervals" in found.confirmed.caption


@pytest.mark.parametrize(
    ("objective", "shown"),
    [
        ("{metric: token_accuracy}", "lower bound of Δ token_accuracy"),
        ("{metric: nll}", "lower bound of −Δ nll"),
        ("{metric: nll, bound: mean}", "−Δ nll"),
    ],
)
def test_what_is_shown_so_that_more_is_better_is_called_so(tmp_path, objective, shown):
    made_of = spec(tmp_path, more=f"objective: {objective}\n")
    records = [rung_record(rung, objective=0.25) for rung in (0, 1)]
    found = search_path([trial(0, *records)], made_of)
    assert found.points[-1].best == 0.25
    assert f"ranked by {shown}" in dict(words.setting(made_of, 2))["Judged by"]
    assert f"at the last rung by {shown}" in dict(words.setting(made_of, 3))["Judged by"]


def broken(number: int, state: Any, *rungs: RungRecord) -> TrialRecord:
    return trial(number, *rungs, end=EndRecord(state, "arm x: loss nan at step 7"))


@pytest.mark.parametrize("state", ["diverged", "infeasible", "failed"])
def test_trials_that_all_broke_off_are_the_answer(tmp_path, state):
    made_of = spec(tmp_path)
    ended = [broken(number, state) for number in range(4)]
    found = words.answer(made_of, ended, None, 0)
    assert (found.verdict, found.headline) == (state, state.capitalize())
    assert "No candidate has reached a rung. 4 " + state in found.sentence
    assert "loss nan at step 7" in found.sentence
    # One that is still at work, or yet to come, may do better.
    for order in ([*ended[1:], trial(0)], ended[1:]):
        assert words.answer(made_of, order, None, 0).headline == "Not yet: running"


def test_trials_that_broke_off_above_a_rung_are_told_apart(tmp_path):
    ended = [broken(0, "diverged", rung_record(0)), *(broken(n, "failed") for n in (1, 2, 3))]
    found = words.answer(spec(tmp_path), ended, None, 0)
    assert found.verdict == "failed"
    assert "1 of 4 reached a rung, and broke off later. 1 diverged, 3 failed" in found.sentence


@pytest.mark.parametrize(
    ("space", "baseline", "asked", "mechanism", "against"),
    [
        ("future_seed.alpha", "", "Does Future-Seed raise", "Future-Seed", "the mechanism off"),
        (
            "future_seed.alpha",
            "task.control: repeat_prompt",
            "Does Future-Seed raise",
            "Future-Seed",
            "the mechanism off, task.control=repeat_prompt",
        ),
        ("future_seed.alpha", "future_seed.norm: true", "the variant", "Future-Seed", "norm=True"),
        ("train.lr", "train.lr: 0.001", "the variant", "none", "train.lr=0.001"),
    ],
)
def test_the_question_is_of_what_the_arms_differ_in(
    tmp_path, space, baseline, asked, mechanism, against
):
    varied = f"{space}: {{uniform: [0.01, 0.02]}}"
    text = SPEC.replace("future_seed.alpha: {uniform: [-40.0, 2.0]}", varied)
    made_of = spec(tmp_path, text, f"baseline: {{{baseline}}}\n")
    assert asked in words.question(made_of)
    facts = dict(words.setting(made_of, 3))
    assert facts["Mechanism"].startswith(mechanism)
    assert facts["Baseline"] == against


def test_the_cost_counts_arms_once(search):
    records, made_of = search
    facts = dict(words.cost(records.trials(), made_of, store_of(records)))
    # Three trials of one arm name: base0, base1, variant0, variant1, used by 2, 2 and 1 trials.
    # Two trials asked for 2 and then 4 arms, one for 2.
    assert facts["Arms"].startswith("4; of 14 that the rungs asked for, 0 had been trained that")
    assert facts["Optimiser steps"] == str(4 * 4)
    assert facts["Tokens trained on"] == "400"
    assert facts["Training of all arms"] == "6 s"
    assert facts["Not counted"].startswith("what 1 candidate took")


def test_the_cost_counts_the_steps_of_branches(tmp_path):
    records, _ = searched(tmp_path)
    cooled = spec(tmp_path, SPEC, "evaluation: {weights: mean, cooldown: 0.5}\n")
    facts = dict(words.cost(records.trials(), cooled, store_of(records)))
    # base0 and variant0 at 2 and 4: branches of 1 and 2 steps, 2 on the way; the others at 4.
    assert facts["Optimiser steps"] == str(2 * 5 + 2 * 4)
    assert search_path(records.trials(), cooled).points[-1].spent_steps == 2 * 5 + 2 * 4
    assert dict(words.setting(cooled, 3))["Weights evaluated"] == (
        "after a branch whose rates fall to 0 over 50 % of the rung; their exponential mean over "
        "the steps, decay 0.97"
    )


def test_what_chance_scores_is_told_where_it_is_known(search):
    records, made_of = search
    assert words.without_understanding(records, made_of) == []
    records.write_guesses({"uniform": {"token_accuracy": 0.1, "nll": 2.3}, "other": {"nll": 1.0}})
    assert words.without_understanding(records, made_of) == [
        ("Without understanding", "token_accuracy: uniform 0.1000")
    ]


def test_ranks_are_those_of_the_terminal(search):
    summary = summarise(*search)
    numbers = [each.number for each in ranked(search[0].trials())]
    assert [row[0].value for row in summary.results.rows] == numbers
    assert [figure.slug for figure in summary.curves] == ["curve-1", "curve-2", "curve-0"]


def test_a_curve_of_nll_turns_what_is_better(tmp_path):
    made_of = spec(tmp_path, more="objective: {metric: nll}\n")
    deltas = {"nll": Delta(3.0, 2.0, -1.0, -1.5, -0.5, False)}
    record = rung_record(0, deltas=deltas, curve=[CurvePoint(2, 1.0, deltas)])
    found = forest([trial(0, record)], made_of, ArmStore(tmp_path))
    assert not found.higher_is_better
    assert "lower nll" in words.question(made_of)
    # The objective is turned so that more is better, and said to be.
    judged_by = dict(words.setting(made_of, 3))["Judged by"]
    assert "bound of −Δ nll for the seeds that were run" in judged_by
