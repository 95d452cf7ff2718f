"""passkey and needle: the grid, where digits are hidden, and what the text may hold."""

import itertools
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from task_cases import Bytes, golden_row, prose_row, write_rows

from model.tokenizer import WorldTokenizer
from tasks import registry
from tasks.example import TaskError
from tasks.guesses import guess_scores
from tasks.scoring import Prediction
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES, Dropped

PASSKEY, NEEDLE = registry.get("passkey"), registry.get("needle")
TOKENIZER = Bytes()
SIZES = {"train_size": 1, "validation_size": 1}
TEXT = [prose_row(number) for number in range(40, 60)]
KEY_ROW = {"key": "71432", "seed": 5, "number": 0}


def needle_row(**changes):
    alone = {"others": [], "values": ["4071826"], "number": 0}
    return golden_row("needle") | alone | changes


def build(task, row, tokenizer=TOKENIZER, **changes):
    material = TEXT if task is NEEDLE else ()
    return task.builder(task.Settings(**SIZES | changes), tokenizer, material)(row)


def test_the_templates_in_both_orders():
    last, first = (
        TOKENIZER.decode(build(PASSKEY, KEY_ROW, lengths=(240,), order=order).prompt)
        for order in PASSKEY.orders
    )
    query = "Question: What is the pass key?\n\n"
    assert first.startswith(f"{query}Text: The pass key is 71432. The ")
    assert last.startswith("Text: The pass key is 71432. The ")
    assert first.endswith("\n\nAnswer: The pass key is ")
    assert last.endswith(f"\n\n{query}Answer: The pass key is ")
    other = build(NEEDLE, needle_row(), lengths=(700,))
    text = TOKENIZER.decode(other.prompt)
    assert text.startswith("Text: The number of Tovaki is 4071826. ")
    assert text.endswith(
        "\n\nQuestion: What is the number of Tovaki?\n\nAnswer: The number of Tovaki is "
    )
    assert TOKENIZER.decode(other.answer) == "4071826"


@pytest.mark.parametrize("task", [PASSKEY, NEEDLE], ids=lambda task: task.name)
@given(depth=st.floats(0, 1), length=st.integers(500, 1500), seed=st.integers(0, 2**64 - 1))
@hypothesis_settings(max_examples=15, deadline=None)
def test_a_prompt_has_its_length_and_the_digits_stand_at_their_depth(task, depth, length, seed):
    row = (KEY_ROW if task is PASSKEY else needle_row()) | {"seed": seed}
    example = build(task, row, lengths=(length,), depths=(depth,))
    assert len(example.prompt) == length
    text = TOKENIZER.decode(example.prompt).removeprefix("Text:").partition("\n\nQuestion")[0]
    (found,) = re.finditer(r" The (pass key|number of Tovaki) is (\d+)\.", text)
    assert found[2] == TOKENIZER.decode(example.answer)
    before, after = text[: found.start()], text[found.end() :]
    assert "" in (before, after) or before[-1] in ".!?"
    assert after == "" or after[0] == " "
    # Between two whole sentences none of which could be moved to the other side for the better.
    wanted = depth * (len(before) + len(after))
    assert 2 * abs(len(before) - wanted) <= longest_sentence(task) + 1e-6


def longest_sentence(task):
    if task is PASSKEY:
        return len(" The stone is yellow.")
    texts = " ".join(row["text"] for row in TEXT)
    return 1 + max(map(len, re.split(r"(?<=[.!?]) ", texts)))


def test_cells_take_turns_and_each_example_says_its_own(tmp_path):
    lengths, depths = (256, 300), (0.0, 0.5, 1.0)
    asked = PASSKEY.Settings(
        train_size=12, validation_size=60, test_size=6, lengths=lengths, depths=depths, digits=6
    )
    scorer = PASSKEY.scorer(asked, TOKENIZER)
    for name, each in (("train", 2), ("validation", 10), ("test", 1)):
        split = load_split(PASSKEY, asked, name, TOKENIZER, tmp_path, [])
        measures = []
        for index in range(len(split)):
            example = split.example(index)
            found = scorer(example, Prediction(example.answer))
            assert found["length"] == len(example.prompt)
            measures.append((found["length"], found["depth"]))
        assert set(PASSKEY.groups) == set(found)
        assert Counter(measures) == dict.fromkeys(itertools.product(lengths, depths), each)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WorldTokenizer()], ids=lambda t: t.name)
def test_each_digit_is_one_token_wherever_it_stands(tokenizer):
    for task, row in ((PASSKEY, KEY_ROW), (NEEDLE, needle_row())):
        example = build(task, row, tokenizer, lengths=(400,), depths=(0.5,))
        digits = tokenizer.decode(example.answer)
        assert len(example.answer) == len(digits)
        places = range(len(example.prompt) - len(digits))
        hits = [p for p in places if example.prompt[p : p + len(digits)] == example.answer]
        assert len(hits) == 1
        assert len(example.prompt) == 400


def test_distractors_stand_elsewhere_in_the_same_text_and_have_other_names():
    names, values = ["Ludemo", "Bakiro"], ["4071826", "5500139", "8642097"]
    row = needle_row(others=names, values=values)
    places = set()
    for seed in range(6):
        example = build(NEEDLE, row | {"seed": seed}, lengths=(1200,), depths=(0.5,), distractors=2)
        text = TOKENIZER.decode(example.prompt)
        found = re.findall(r"The number of (\w+) is (\d{7})\.", text)
        assert sorted(found) == sorted(zip(["Tovaki", *names], values, strict=True))
        assert TOKENIZER.decode(example.answer) == "4071826"
        places.add(tuple(name for name, _ in found))
    assert len(places) > 1


@pytest.mark.parametrize(("depth", "led"), [(0.0, {True}), (0.5, {True, False}), (1.0, {False})])
def test_depth_decides_who_leads_where_two_stand_together(depth, led):
    row = needle_row(others=["Ludemo"], values=["4071826", "5500139"])
    found = set()
    for seed in range(60):
        example = build(NEEDLE, row | {"seed": seed}, lengths=(300,), depths=(depth,))
        text = TOKENIZER.decode(example.prompt)
        together = re.search(r"of (\w+) is \d+\. The number of \w+ is \d+\.", text)
        if together:
            found.add(together[1] == "Tovaki")
    assert found == led


def test_what_the_text_already_holds_is_not_hidden_in_it():
    reason = Dropped("names or numbers that the text holds")
    assert build(NEEDLE, needle_row(values=["143"]), lengths=(700,), digits=3) == reason
    assert build(NEEDLE, needle_row(name="NATO"), lengths=(700,)) == reason


def test_a_length_without_room_and_a_text_too_short_are_told():
    with pytest.raises(TaskError, match=r"passkey: lengths >= \d+ must hold .* got 20"):
        build(PASSKEY, KEY_ROW, lengths=(20,))
    with pytest.raises(TaskError, match=r"needle: the texts are \d+ tokens too short"):
        build(NEEDLE, needle_row(), lengths=(10_000,))
    with pytest.raises(TaskError, match="a split has no text of its own"):
        NEEDLE.builder(NEEDLE.Settings(**SIZES), TOKENIZER, ())


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"lengths": ()}, "lengths has at least one value and none twice"),
        ({"lengths": (0,)}, "lengths >= 1"),
        ({"depths": (0.5, 0.5)}, "depths has at least one value and none twice"),
        ({"depths": (1.1,)}, "0 <= depths <= 1"),
        ({"digits": 0}, "digits >= 1"),
        ({"order": "last"}, "order is one of query_last, query_first"),
        ({"distractors": -1}, "distractors >= 0"),
        ({"columns": {"txt": "page"}}, "columns names fields among text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        NEEDLE.Settings(**SIZES | changes)


@pytest.mark.parametrize("pools", ["one", "two", "three"])
def test_splits_quote_documents_of_their_own(tmp_path, pools):
    named = {"one": ["a", "a", ""], "two": ["a", "b", ""], "three": ["a", "b", "c"]}[pools]
    for first, name in enumerate("abc"):
        rows = [prose_row(number) for number in range(first * 200 + 20, first * 200 + 200)]
        rows += [prose_row(number) for number in range(20)]  # in every file
        write_rows(tmp_path / f"{name}.jsonl", rows)
    asked = NEEDLE.Settings(
        train_size=20,
        validation_size=20,
        test_size=20,
        lengths=(1000,),
        files=Files(*(f"{name}.jsonl" if name else "" for name in named)),
    )
    quoted, hidden = {}, {}
    for split in SPLIT_NAMES:
        found = load_split(NEEDLE, asked, split, TOKENIZER, tmp_path / "cache", [tmp_path])
        prompts = [TOKENIZER.decode(found.example(i).prompt) for i in range(len(found))]
        quoted[split] = {n for text in prompts for n in re.findall(r"number (\d+)\?", text)}
        hidden[split] = {re.findall(r"number of (\w+)", text)[0] for text in prompts}
        assert quoted[split]
    for one, other in itertools.combinations(SPLIT_NAMES, 2):
        assert not quoted[one] & quoted[other]
        assert not hidden[one] & hidden[other]


def test_any_number_scores_as_one_of_so_many(tmp_path, case_data):
    files = Files("prose/train.jsonl", "prose/validation.jsonl")
    asked = NEEDLE.Settings(
        train_size=4,
        validation_size=400,
        lengths=(600,),
        depths=(0.0, 0.5, 1.0),
        distractors=1,
        files=files,
    )
    train, split = (
        load_split(NEEDLE, asked, name, TOKENIZER, tmp_path, [case_data])
        for name in ("train", "validation")
    )
    scores = guess_scores(NEEDLE, asked, TOKENIZER, train, split)
    # The first of two numbers is the right one half the time: 5 standard errors of 400.
    assert abs(scores["any_number"]["retrieved"] - 0.5) < 0.125
    assert scores["chance"]["retrieved"] < 0.01


def test_real_books(tmp_path, real_data):
    files = Files(
        train=str(real_data / "haystack" / "gutenberg_books.jsonl"),
        validation=str(real_data / "wikitext" / "wiki_paragraphs_validation.jsonl"),
    )
    asked = NEEDLE.Settings(
        train_size=2, validation_size=4, lengths=(2048, 65536), depths=(0.25,), files=files
    )
    split = load_split(NEEDLE, asked, "train", WorldTokenizer(), tmp_path, [])
    assert split.prompt_lengths.tolist() == [2048, 65536]
    for index in range(2):
        example = split.example(index)
        text = WorldTokenizer().decode(example.prompt)
        digits = WorldTokenizer().decode(example.answer)
        assert text.count(digits) == 1
        # In characters depth is only about what it is in tokens.
        assert 0.2 < text.index(digits) / len(text) < 0.3
        assert json.loads(example.reference)["depth"] == 0.25
