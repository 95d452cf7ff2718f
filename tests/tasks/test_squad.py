"""squad's template, its filling with other passages, and its reasons to leave a row out."""

import json
from collections import Counter
from pathlib import Path

import pytest
from task_cases import Bytes, squad_row, write_rows

from tasks import registry
from tasks.example import TaskError
from tasks.parts.answers import normalised
from tasks.parts.text import one_line
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES, Dropped

TASK = registry.get("squad")
TOKENIZER = Bytes()
MATERIAL = [squad_row(number) for number in range(40, 120)]


def build(row, material=(), **changes):
    sizes = {"train_size": 1, "validation_size": 1}
    return TASK.builder(TASK.Settings(**sizes | changes), TOKENIZER, material)(row)


def test_the_template_in_both_orders():
    row = squad_row(
        1, context=" One  page.\n", question="How many? ", answers={"text": [" one ", "1"]}
    )
    context, question = "Context:\nOne page.\n\n", "Question: How many?\n\n"
    last, first = (build(row, order=order) for order in TASK.orders)
    assert TOKENIZER.decode(last.prompt) == f"{context}{question}Answer:"
    assert TOKENIZER.decode(first.prompt) == f"{question}{context}Answer:"
    assert TOKENIZER.decode(last.answer) == TOKENIZER.decode(first.answer) == " one\n"
    assert last.reference == '[" one ", "1"]'


@pytest.mark.parametrize("fill_to", [300, 512, 1024])
def test_prompts_are_filled_to_exactly_so_many_tokens_around_the_passage(fill_to):
    places = set()
    for number in range(12):
        row = squad_row(number)
        changes = {"fill_to": fill_to, "max_prompt_tokens": 300}
        last, first = (build(row, MATERIAL, order=order, **changes) for order in TASK.orders)
        assert len(last.prompt) == len(first.prompt) == fill_to
        assert Counter(last.prompt) == Counter(first.prompt)
        text = TOKENIZER.decode(last.prompt)
        assert text.count(f"{row['context']}\n\n") == 1
        places.add(text.index(row["context"]) * 4 // fill_to)
        others = text.replace(row["context"], "")
        assert not any(
            answer in normalised(others.partition("Question:")[0])
            for answer in map(normalised, row["answers"]["text"])
        )
    assert len(places) > 1 or fill_to == 300


def test_a_prompt_follows_from_its_row_and_the_material_alone():
    changes = {"fill_to": 600, "max_prompt_tokens": 300}
    alone = build(squad_row(3), MATERIAL, **changes)
    assert build(squad_row(3), MATERIAL, **changes) == alone
    assert build(squad_row(2), MATERIAL, **changes).prompt != alone.prompt


def test_too_little_to_fill_with_is_told():
    with pytest.raises(TaskError, match=r"passages are .* tokens too short to fill a prompt"):
        build(squad_row(3), MATERIAL[:2], fill_to=2000, max_prompt_tokens=300)


@pytest.mark.parametrize(
    ("changes", "settings", "reason"),
    [
        ({"answers": {"text": [" "]}}, {}, "rows without an answer"),
        ({"answers": {"text": ["x" * 9]}}, {"max_answer_tokens": 9}, "answers over 9 tokens"),
        ({}, {"max_prompt_tokens": 50}, "passages and questions over 50 tokens"),
    ],
)
def test_rows_that_do_not_fit_are_left_out(changes, settings, reason):
    assert build(squad_row(1, **changes), **settings) == Dropped(reason)


def test_a_row_whose_answer_too_many_passages_hold_is_left_out():
    row = squad_row(3, answers={"text": ["The"]})
    reason = Dropped("answers that too many other passages hold")
    assert build(row, MATERIAL, fill_to=600, max_prompt_tokens=300) == reason


@pytest.mark.parametrize("fill_to", [1, 511])
def test_a_length_under_the_longest_prompt_is_refused(fill_to):
    with pytest.raises(ValueError, match="fill_to is 0 or at least max_prompt_tokens"):
        build(squad_row(1), fill_to=fill_to)


@pytest.mark.parametrize("own_validation", [True, False])
def test_articles_feed_one_split_each(tmp_path, own_validation):
    write_rows(tmp_path / "train.jsonl", [squad_row(number) for number in range(400)])
    write_rows(tmp_path / "other.jsonl", [squad_row(number) for number in range(320, 800)])
    files = Files("train.jsonl", "other.jsonl" if own_validation else "train.jsonl")
    asked = TASK.Settings(train_size=80, validation_size=24, test_size=24, files=files)
    articles = {}
    for name in SPLIT_NAMES:
        split = load_split(TASK, asked, name, TOKENIZER, tmp_path / "cache", [tmp_path])
        texts = [TOKENIZER.decode(split.example(i).prompt) for i in range(len(split))]
        articles[name] = {int(text.split(" is on ")[0].split()[-1]) // 2 for text in texts}
    assert not articles["train"] & (articles["validation"] | articles["test"])
    assert not articles["validation"] & articles["test"]


def test_real_articles_feed_one_split_each(tmp_path, real_data):
    file = str(real_data / "squad" / "train.jsonl")
    asked = TASK.Settings(
        train_size=400,
        validation_size=60,
        test_size=60,
        files=Files(train=file, validation=file),
        max_prompt_tokens=1200,
        fill_to=2048,
    )
    article_of = {
        one_line(row["question"]): row["title"]
        for row in map(json.loads, Path(file).read_text(encoding="utf-8").splitlines())
    }
    articles = {}
    for name in SPLIT_NAMES:
        split = load_split(TASK, asked, name, TOKENIZER, tmp_path, [])
        assert set(split.prompt_lengths.tolist()) == {2048}
        texts = [TOKENIZER.decode(split.example(i).prompt) for i in range(len(split))]
        questions = {text.rpartition("Question: ")[2].partition("\n")[0] for text in texts}
        assert len(questions) == len(split)
        articles[name] = {article_of[question] for question in questions}
    assert not articles["train"] & (articles["validation"] | articles["test"])
    assert not articles["validation"] & articles["test"]
