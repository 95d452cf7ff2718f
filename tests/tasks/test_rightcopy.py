"""rightcopy's own rules."""

import pytest
from task_cases import Bytes

from tasks import registry
from tasks.example import TaskError
from tasks.splits import load_split

TASK = registry.get("rightcopy")


def settings(**changes):
    return TASK.Settings(**{"train_size": 20, "validation_size": 5} | changes)


def test_the_masked_span_wants_what_stands_to_its_right(tokenizer, tmp_path):
    split = load_split(TASK, settings(length=6), "train", tokenizer, tmp_path, [])
    for index in range(len(split)):
        example = split.example(index)
        left, middle, right = tokenizer.decode(example.prompt).split("|")
        assert (left[:2], middle, right[:2]) == ("L=", "M=______", "R=")
        assert tokenizer.decode(example.target_tokens) == right[2:]
        assert {example.prompt[position] for position in example.target_positions} == {ord("_")}
        assert set(left[2:] + right[2:]) <= set("0123456789")


def test_it_renders_with_the_target_beside_the_mask(tokenizer):
    build = TASK.builder(settings(length=2), tokenizer, ())
    example = build({"left": "12", "right": "34"})
    assert TASK.render(example, tokenizer) == "L=12|M=⟦__ → 34⟧|R=34"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"length": 0}, "length >= 1 must hold, got 0"),
        ({"alphabet": "a"}, "at least 2 characters"),
        ({"alphabet": "aa"}, "none twice must hold, got 'aa'"),
        ({"alphabet": "ab_"}, "neither the mask '_'"),
        ({"alphabet": "ab|"}, "neither the mask"),
        ({"mask": "="}, "none of '=|'"),
        ({"mask": "__"}, "one character"),
        ({"train_size": 0}, "train_size >= 1"),
        ({"validation_size": 0}, "validation_size >= 1"),
        ({"test_size": -1}, "test_size >= 0"),
        ({"data_seed": -1}, "data_seed >= 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule.replace("|", "\\|")):
        settings(**changes)


def test_a_character_of_several_tokens_is_refused(tokenizer, tmp_path):
    with pytest.raises(TaskError, match="'é' is 2 tokens of the tokenizer bytes"):
        load_split(TASK, settings(alphabet="aé"), "train", tokenizer, tmp_path, [])


def test_two_characters_of_one_token_are_refused(tmp_path):
    class Lossy(Bytes):
        def encode(self, text):
            return super().encode(text.upper())

    with pytest.raises(TaskError, match="one token"):
        load_split(TASK, settings(alphabet="aA"), "train", Lossy(), tmp_path, [])


def test_an_alphabet_with_too_few_strings_is_refused(tokenizer, tmp_path):
    few = settings(length=1, alphabet="ab", train_size=50)
    with pytest.raises(TaskError, match=r"rightcopy train: 50 examples asked, \d different ones"):
        load_split(TASK, few, "train", tokenizer, tmp_path, [])
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_no_string_is_drawn_twice_within_or_across_splits(tokenizer, tmp_path):
    # 256 strings in all, so that independent draws would collide.
    small = settings(length=2, alphabet="abcd", train_size=150, validation_size=20, test_size=15)
    prompts = []
    for name in ("train", "validation", "test"):
        split = load_split(TASK, small, name, tokenizer, tmp_path, [])
        prompts += [split.example(index).prompt for index in range(len(split))]
    assert len(set(prompts)) == len(prompts) == 185
