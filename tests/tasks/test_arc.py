"""arc's template, its labels, its scorer and its reasons to leave a row out."""

import json
from collections import Counter

import pytest
from task_cases import ARC_FILES, Bytes, arc_row, write_rows

from tasks import registry
from tasks.example import Example
from tasks.guesses import guess_scores
from tasks.scoring import Prediction
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import Dropped

TASK = registry.get("arc")
TOKENIZER = Bytes()


def settings(**changes):
    return TASK.Settings(**{"train_size": 1, "validation_size": 1} | changes)


def build(row, **changes):
    return TASK.builder(settings(**changes), TOKENIZER, ())(row)


def chosen(example, nll):
    found = TASK.scorer(settings(), TOKENIZER)(example, Prediction((0, 0), choice_nll=nll))
    return found["option_accuracy"]


def test_the_template_in_both_orders():
    choices = {"text": ["  two\nlines", "one"], "label": ["B", "A"]}
    row = arc_row(1, question=" Which  one? ", choices=choices, answerKey="B")
    options, question = "Options:\nA. one\nB. two lines\n", "Question: Which one?\n"
    for order, text in (
        ("options_first", f"{options}\n{question}\nAnswer:"),
        ("question_first", f"{question}\n{options}\nAnswer:"),
    ):
        example = build(row, order=order)
        assert TOKENIZER.decode(example.prompt) == text
        assert TOKENIZER.decode(example.answer) == " B"
        assert [TOKENIZER.decode(choice) for choice in example.choices] == [" A", " B"]


@pytest.mark.parametrize("number", range(6))
def test_labels_are_those_of_the_row(number):
    row = arc_row(number)
    example = build(row)
    assert len(example.choices) == len(row["choices"]["label"])
    assert TOKENIZER.decode(example.answer).strip() == row["answerKey"]


def test_the_likeliest_label_counts_and_a_tie_does_not():
    example = build(arc_row(1, answerKey="B"))
    assert chosen(example, (2.0, 1.0, 3.0, 4.0)) == 1.0
    assert chosen(example, (0.5, 1.0, 3.0, 4.0)) == 0.0
    assert chosen(example, (1.0, 1.0, 3.0, 4.0)) == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answerKey": "Z"}, "rows whose answer is none of the options"),
        ({"choices": {"text": ["x"], "label": ["A"]}, "answerKey": "A"}, "fewer than two"),
        ({"choices": {"text": ["x"], "label": ["A", "B"]}}, "do not match"),
        ({"choices": {"text": ["x", "y"], "label": ["A", "A"]}}, "do not match"),
        ({"question": " "}, "an empty question or option"),
    ],
)
def test_rows_that_are_no_question_are_left_out(changes, reason):
    dropped = build(arc_row(1, **changes))
    assert isinstance(dropped, Dropped)
    assert reason in dropped.reason


def test_a_prompt_is_never_cut():
    length = len(build(arc_row(1)).prompt)
    assert isinstance(build(arc_row(1), max_prompt_tokens=length), Example)
    assert build(arc_row(1), max_prompt_tokens=length - 1) == Dropped(
        f"prompts over {length - 1} tokens"
    )


def test_no_question_is_in_two_splits_in_other_punctuation(tmp_path):
    rows = [arc_row(number) for number in range(30)]
    again = [row | {"question": f"Which tree - is number: {n}"} for n, row in enumerate(rows[:9])]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "validation.jsonl", again)
    files = Files("train.jsonl", "validation.jsonl")
    asked = settings(train_size=21, validation_size=9, files=files)
    split = load_split(TASK, asked, "train", TOKENIZER, tmp_path / "cache", [tmp_path])
    assert split.dropped == {"near-copies of rows that another split holds": 9}


def test_who_chooses_blindly_says_what_is_chosen(tmp_path, case_data):
    asked = settings(train_size=12, validation_size=12, files=ARC_FILES)
    train, split = (
        load_split(TASK, asked, name, TOKENIZER, tmp_path, [case_data])
        for name in ("train", "validation")
    )
    chance = guess_scores(TASK, asked, TOKENIZER, train, split)["chance"]
    # Two tokens: a space, which all answers have, and the label.
    assert chance["token_accuracy"] == pytest.approx((1 + chance["option_accuracy"]) / 2)
    assert 0 < chance["option_accuracy"] < 1


def test_chance_is_one_in_as_many_as_there_are_options(tmp_path, real_data):
    folder = real_data / "arc_challenge"
    files = Files(train=str(folder / "train.jsonl"), validation=str(folder / "validation.jsonl"))
    asked = settings(train_size=300, validation_size=250, files=files, max_prompt_tokens=2000)
    train, split = (
        load_split(TASK, asked, name, TOKENIZER, tmp_path, []) for name in ("train", "validation")
    )
    found = guess_scores(TASK, asked, TOKENIZER, train, split)
    options = [len(split.example(index).choices) for index in range(len(split))]
    wanted = sum(1 / count for count in options) / len(options)
    assert found["chance"]["option_accuracy"] == pytest.approx(wanted, abs=0.03)
    labels = Counter(TOKENIZER.decode(split.example(i).answer) for i in range(len(split)))
    assert found["majority"]["option_accuracy"] in [n / len(split) for n in labels.values()]
    longest = 0
    by_question = {
        " ".join(row["question"].split()): row
        for row in map(json.loads, (folder / "validation.jsonl").read_text().splitlines())
    }
    for index in range(len(split)):
        text = TOKENIZER.decode(split.example(index).prompt)
        row = by_question[text.partition("Question: ")[2].partition("\n")[0]]
        options = sorted(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
        best = max(options, key=lambda option: len(option[1]))
        longest += best[0] == row["answerKey"]
    assert found["longest option"]["option_accuracy"] == longest / len(split)
