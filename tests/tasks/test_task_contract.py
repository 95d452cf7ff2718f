"""What every registered task keeps; a new task is tested by its entry in task_cases.CASES."""

import json
from collections import Counter
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
from make_golden import GOLDEN, golden
from task_cases import CASES, SIZES, Bytes, golden_row, other_future

from tasks import registry
from tasks.example import TaskError
from tasks.guesses import CHANCE_ROUNDS, guess_scores
from tasks.metrics import CORRECT, NLL_SUM, TOTAL, gathered
from tasks.scoring import Prediction
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES

TOKENIZER = Bytes()


@pytest.fixture(params=registry.names())
def task(request):
    return registry.get(request.param)


@pytest.fixture
def settings(task):
    return task.Settings(**SIZES, **CASES[task.name])


@pytest.fixture
def build(task, case_data, tmp_path):
    """Loads a split of the task, from a cache of its own for each name of a cache."""

    def load(settings, split, cache="cache"):
        return load_split(task, settings, split, TOKENIZER, tmp_path / cache, [case_data])

    return load


def score(task, settings, split, answers):
    """Every metric when each example is answered so."""
    scorer = task.scorer(settings, TOKENIZER)
    rows = []
    for index in range(len(split)):
        example = split.example(index)
        prediction, nll = answers(example)
        wanted = (*example.target_tokens, *example.answer)
        hits = sum(a == b for a, b in zip(prediction.tokens, wanted, strict=True))
        basic = {NLL_SUM: nll * len(wanted), CORRECT: float(hits), TOTAL: float(len(wanted))}
        rows.append(basic | dict(scorer(example, prediction) if scorer else {}))
    measures = gathered(rows)
    return {metric.name: metric.score(measures) for metric in task.measured(settings)}


def gold(example):
    return (
        Prediction(
            tokens=(*example.target_tokens, *example.answer),
            choice_nll=tuple(float(choice != example.answer) for choice in example.choices),
            generated=(example.answer,),
        ),
        0.0,
    )


def wrong(example):
    # Half a vocabulary away: what no alphabet has, and no reduction of one makes right.
    far = TOKENIZER.vocab_size // 2
    wanted = (*example.target_tokens, *example.answer)
    return (
        Prediction(
            tokens=tuple((token + far) % TOKENIZER.vocab_size for token in wanted),
            choice_nll=tuple(float(choice == example.answer) for choice in example.choices),
            generated=(tuple((token + far) % TOKENIZER.vocab_size for token in example.answer),),
        ),
        20.0,
    )


def test_every_task_has_a_case_here():
    assert set(CASES) == set(registry.names())


def test_a_task_declares_itself(task, settings):
    assert registry.get(task.name) is not None
    assert task.version >= 1
    assert settings.name == task.name
    assert task.summary
    assert task.licence
    assert task.origin
    assert isinstance(task.needs_future, bool)
    assert task.primary_metric in [metric.name for metric in task.metrics]
    defaults = {field.name: field.default for field in fields(task.Settings)}
    assert defaults["train_size"] is defaults["validation_size"] is MISSING
    assert (defaults["test_size"], defaults["data_seed"]) == (0, 0)
    assert task.Settings.__pydantic_config__["extra"] == "forbid"
    assert task.orders[:1] == ((settings.order,) if task.orders else ())


def test_gold_answers_score_one_and_wrong_ones_nothing(task, settings, build):
    split = build(settings, "validation")
    assert {metric.name for metric in task.measured(settings)} <= {m.name for m in task.metrics}
    best, worst = (score(task, settings, split, answers) for answers in (gold, wrong))
    for metric in task.measured(settings):
        if metric.higher_is_better:
            assert best[metric.name] == 1.0, metric.name
            assert worst[metric.name] <= 0.0, metric.name
        else:
            assert best[metric.name] == 0.0, metric.name
            assert worst[metric.name] > 0.0, metric.name


def test_chance_is_what_its_alphabet_says(task, settings, build):
    alphabet = task.alphabet(settings, TOKENIZER)
    train, split = build(settings, "train"), build(settings, "validation")
    guesses = guess_scores(task, settings, TOKENIZER, train, split)
    assert set(guesses) >= {"majority"}
    assert ("chance" in guesses) == (alphabet is not None or len(split.choice_ends) > 0)
    if alphabet is None:
        return
    wanted = set(split.target_tokens.tolist()) | set(split.answer_tokens.tolist())
    assert wanted <= set(alphabet)
    assert len(set(alphabet)) == len(alphabet)
    # Each guess hits with probability 1/n; the mean over G targets strays by 5 standard errors.
    n, targets = len(alphabet), CHANCE_ROUNDS * int(split.target_counts.sum())
    spread = 5 * np.sqrt((n - 1) / n**2 / targets)
    hits = np.average([guesses["chance"]["token_accuracy"]])
    assert abs(hits - 1 / n) < spread * np.sqrt(_evenness(split))


def _evenness(split):
    """Examples weigh alike, targets do not: how much that widens the spread of their mean."""
    share = 1 / (len(split) * split.target_counts)
    return float((share**2 * split.target_counts).sum() * split.target_counts.sum())


@pytest.mark.parametrize("control", ["shuffled_future", "repeat_prompt"])
def test_controls_keep_what_is_wanted(task, settings, build, control):
    if control == "shuffled_future" and hasattr(settings, "stride"):
        # With 1 all that stands to the right is labelled, and refused.
        settings = replace(settings, stride=2)
    plain = build(settings, "train", "plain")
    if control == "shuffled_future" and len(plain.target_tokens) == 0:
        with pytest.raises(TaskError, match="nothing stands to the right of an answer"):
            build(replace(settings, control=control), "train", "other")
        return
    other = build(replace(settings, control=control), "train", "other")
    assert other.digest != plain.digest
    for index in range(len(plain)):
        before, after = plain.example(index), other.example(index)
        assert (after.answer, after.target_tokens) == (before.answer, before.target_tokens)
        if control == "repeat_prompt":
            assert after.prompt == before.prompt * 2
            assert [after.prompt[p] for p in after.target_positions] == [
                before.prompt[p] for p in before.target_positions
            ]
            continue
        assert Counter(after.prompt) == Counter(before.prompt)
        assert after.target_positions == before.target_positions
        stays = range(before.target_positions[0] + 1), before.target_positions
        for place in {*stays[0], *stays[1]}:
            assert after.prompt[place] == before.prompt[place]


def test_building_twice_gives_the_same_bytes(settings, build):
    for split in SPLIT_NAMES:
        first, second = build(settings, split, "one"), build(settings, split, "two")
        assert first.digest == second.digest
        assert len(first) == settings.size(split)


def test_another_sample_of_train_leaves_the_other_splits_alone(settings, build):
    other = replace(settings, train_sample=1)
    assert build(other, "train").digest != build(settings, "train").digest
    assert build(other, "validation").digest == build(settings, "validation").digest


def test_another_data_seed_gives_other_examples(settings, build):
    other = replace(settings, data_seed=1)
    assert build(settings, "train").digest != build(other, "train").digest


def test_a_larger_train_split_begins_with_the_smaller_one(settings, build):
    small = build(settings, "train")
    large = build(replace(settings, train_size=settings.train_size + 10), "train")
    assert [small.example(i) for i in range(len(small))] == [
        large.example(i) for i in range(len(small))
    ]


def test_validation_and_test_do_not_depend_on_the_size_of_train(settings, build):
    larger = replace(settings, train_size=settings.train_size + 10)
    for split in ("validation", "test"):
        assert build(settings, split).digest == build(larger, split, "other").digest


def test_splits_share_no_example(settings, build):
    seen = []
    for name in SPLIT_NAMES:
        split = build(settings, name)
        seen += [
            (split.example(i).prompt, split.example(i).target_tokens) for i in range(len(split))
        ]
    assert len(set(seen)) == len(seen) == sum(SIZES.values())


def test_targets_and_tokens_are_in_range(settings, build):
    split = build(settings, "train")
    lengths = np.repeat(split.prompt_lengths, np.diff(split.target_offsets))
    assert (split.target_positions >= 0).all()
    assert (split.target_positions < lengths).all()
    for tokens in (split.prompt_tokens, split.answer_tokens, split.target_tokens):
        assert ((tokens >= 0) & (tokens < TOKENIZER.vocab_size)).all()
    assert (split.target_counts >= 1).all()


def test_a_task_that_needs_the_future_has_targets_before_the_end_of_the_prompt(
    task, settings, build
):
    example = build(settings, "validation").example(0)
    before_the_end = [p for p in example.target_positions if p < len(example.prompt) - 1]
    assert bool(before_the_end) == task.needs_future


def test_what_stands_to_the_right_decides_the_target_of_a_task_that_needs_the_future(
    task, settings
):
    if not task.needs_future:
        pytest.skip(f"{task.name} does not need the future")
    build = task.builder(settings, TOKENIZER, ())
    one, other = build(golden_row(task.name)), build(other_future(task.name))
    assert Counter(one.prompt) == Counter(other.prompt)
    wanted = [
        dict(zip(example.target_positions, example.target_tokens, strict=True))
        for example in (one, other)
    ]
    undecided = [
        position
        for position in wanted[0].keys() & wanted[1].keys()
        if one.prompt[: position + 1] == other.prompt[: position + 1]
        and wanted[0][position] != wanted[1][position]
    ]
    assert undecided


def test_rendering_marks_the_target(task, settings, build):
    example = build(settings, "validation").example(0)
    text = task.render(example, TOKENIZER)
    wanted = TOKENIZER.decode(example.target_tokens + example.answer)
    marked = "".join(
        piece.split("⟧")[0].rpartition(" → ")[2] if example.target_positions else piece[:-1]
        for piece in text.split("⟦")[1:]
    )
    assert marked == wanted
    assert text.startswith(TOKENIZER.decode(example.prompt[:2]))


def test_all_orders_hold_the_same_information(task, settings, build):
    if not task.orders:
        pytest.skip(f"{task.name} has one order only")
    splits = [build(replace(settings, order=order), "train") for order in task.orders]
    assert len({split.digest for split in splits}) == len(task.orders)
    for index in range(len(splits[0])):
        examples = [split.example(index) for split in splits]
        assert len({example.answer for example in examples}) == 1
        assert all(Counter(e.prompt) == Counter(examples[0].prompt) for e in examples)


def test_tokens_of_a_fixed_row_change_only_with_the_version(task):
    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden(task.name) == content["tasks"][task.name], content["command"]
