"""squad's template, its filling with other passages, and its reasons to leave a row out."""

from collections import Counter

import pytest
from task_cases import Bytes, squad_row

from tasks import registry
from tasks.answers import normalised
from tasks.example import TaskError
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


@pytest.mark.parametrize("fill_to", [1, 511])
def test_a_length_under_the_longest_prompt_is_refused(fill_to):
    with pytest.raises(ValueError, match="fill_to is 0 or at least max_prompt_tokens"):
        build(squad_row(1), fill_to=fill_to)


def test_real_articles_feed_one_split_each(tmp_path, real_data):
    file = str(real_data / "squad" / "train.jsonl")
    files = Files(train=file, validation=file)
    asked = TASK.Settings(
        train_size=400,
        validation_size=60,
        test_size=60,
        files=files,
        max_prompt_tokens=1200,
        fill_to=2048,
    )
    contexts = {}
    for name in SPLIT_NAMES:
        split = load_split(TASK, asked, name, TOKENIZER, tmp_path, [])
        assert set(split.prompt_lengths.tolist()) == {2048}
        contexts[name] = {
            TOKENIZER.decode(split.example(i).prompt).partition("Question: ")[2]
            for i in range(len(split))
        }
        assert len(contexts[name]) == len(split)
    assert not contexts["train"] & contexts["validation"]
    assert not contexts["test"] & (contexts["train"] | contexts["validation"])
