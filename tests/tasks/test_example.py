"""Examples, their store and their metrics."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.example import Example, Split, TaskError

EXAMPLES = [
    Example((1, 2, 3), (4,)),
    Example((5,), (), (0,), (6,)),
    Example((7, 8), (9, 10), (0, 1), (11, 12)),
]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (((), (1,)), "at least one token"),
        (((1,),), "got neither"),
        (((1,), (), (0,), ()), "equally long, got 1 and 0"),
        (((1, 2), (), (2,), (1,)), r"ascend within 0\.\.1"),
        (((1, 2), (), (-1,), (1,)), "ascend"),
        (((1, 2), (), (1, 0), (1, 1)), "ascend"),
        (((1, 2), (), (1, 1), (1, 1)), "ascend"),
    ],
)
def test_an_example_that_cannot_be_scored_is_refused(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        Example(*arguments)


def test_a_split_gives_back_its_examples():
    split = Split.from_examples(iter(EXAMPLES))
    assert len(split) == 3
    assert [split.example(i) for i in range(3)] == EXAMPLES
    assert split.prompt_lengths.tolist() == [3, 1, 2]
    assert split.target_counts.tolist() == [1, 1, 4]
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"got {index}"):
            split.example(index)


def test_a_saved_split_is_mapped_and_equal(tmp_path):
    saved = replace(Split.from_examples(EXAMPLES[:1]), dropped={"too long": 2}, rows_read=3)
    saved.save(tmp_path / "split")
    loaded = Split.load(tmp_path / "split")
    assert isinstance(loaded.prompt_tokens, np.memmap)
    assert loaded.digest == saved.digest
    assert (loaded.dropped, loaded.rows_read) == ({"too long": 2}, 3)
    assert loaded.example(0) == EXAMPLES[0]


def test_the_digest_tells_splits_apart():
    halves = [
        [Example((1, 2), (3,)), Example((4,), (5,))],
        [Example((1,), (3,)), Example((2, 4), (5,))],
        [Example((1, 2), (3,))],
        [Example((1, 2), (), (0,), (3,))],
        [Example((1, 2), (), (1,), (3,))],
    ]
    assert len({Split.from_examples(half).digest for half in halves}) == len(halves)


def test_a_changed_file_is_noticed(tmp_path):
    Split.from_examples(EXAMPLES).save(tmp_path)
    file = tmp_path / "target_tokens.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(TaskError, match="damaged"):
        Split.load(tmp_path)


def test_another_format_is_not_read(tmp_path):
    Split.from_examples(EXAMPLES).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(TaskError, match="format 2 is wanted, got 1"):
        Split.load(tmp_path)
