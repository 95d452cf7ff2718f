"""collate against a plain walk over the examples."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.batch import collate
from tasks.example import Example, Split

TOKENS = st.integers(1, 255)


@st.composite
def examples(draw):
    prompt = tuple(draw(st.lists(TOKENS, min_size=1, max_size=9)))
    positions = tuple(sorted(draw(st.sets(st.integers(0, len(prompt) - 1)))))
    targets = tuple(draw(TOKENS) for _ in positions)
    answer = tuple(draw(st.lists(TOKENS, min_size=0 if positions else 1, max_size=5)))
    return Example(prompt, answer, positions, targets)


def expected(batch_of):
    """(row, tokens read up to the prediction, wanted token, first of an answer), in any order."""
    targets = []
    for row, example in enumerate(batch_of):
        for position, token in zip(example.target_positions, example.target_tokens, strict=True):
            targets.append((row, example.prompt[: position + 1], token, False))
        for index, token in enumerate(example.answer):
            targets.append((row, example.prompt + example.answer[:index], token, index == 0))
    return sorted(targets)


def mask_of(part):
    """Where there are tokens; no mask says everywhere."""
    return torch.ones_like(part.tokens_BT, dtype=bool) if part.mask_BT is None else part.mask_BT


def found(batch, batch_of):
    targets = []
    for part, carried in ((batch.prompt, False), (batch.answer, True)):
        if part is None:
            continue
        rows, width = part.tokens_BT.shape
        assert (rows, width) == (batch.num_examples, width) == mask_of(part).shape
        for where, token, row, first in zip(
            part.where_N, part.target_N, part.example_N, part.first_N, strict=True
        ):
            b, t = divmod(int(where), width)
            assert b == row
            assert mask_of(part)[b, : t + 1].all()
            read = tuple(part.tokens_BT[b, : t + 1].tolist())
            read = batch_of[b].prompt + read if carried else read
            targets.append((b, read, int(token), bool(first)))
    return sorted(targets)


@settings(max_examples=40, deadline=None)
@given(st.lists(examples(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_batch_asks_for_each_target_after_the_right_tokens(stored, random):
    split = Split.from_examples(stored)
    indices = [random.randrange(len(stored)) for _ in range(3)]
    chosen = [stored[index] for index in indices]
    batch = collate(split, indices)
    assert found(batch, chosen) == expected(chosen)
    assert batch.num_examples == 3
    masks = [mask_of(part) for part in (batch.prompt, batch.answer) if part is not None]
    assert batch.num_tokens == sum(int(mask.sum()) for mask in masks)
    assert (batch.answer is None) == all(len(example.answer) < 2 for example in chosen)


def test_padding_is_to_the_right_and_not_in_the_mask():
    split = Split.from_examples([Example((5, 6, 7), (1, 2)), Example((8,), (3,))])
    batch = collate(split, [0, 1])
    assert batch.prompt.tokens_BT.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.prompt.mask_BT.tolist() == [[True] * 3, [True, False, False]]
    assert batch.answer.tokens_BT.tolist() == [[1], [0]]
    assert batch.answer.mask_BT.tolist() == [[True], [False]]
    assert batch.prompt.where_N.tolist() == [2, 3]
    assert batch.prompt.first_N.tolist() == [True, True]
    assert batch.num_tokens == 5


def test_a_pass_has_the_promised_types_also_without_targets():
    # The second example has all its targets in its prompt, the first only answers.
    split = Split.from_examples([Example((1, 2), (3, 4)), Example((1, 2), (), (0,), (9,))])
    batch = collate(split, [1, 0]).to("cpu")
    for part in (batch.prompt, batch.answer):
        for name in ("tokens_BT", "where_N", "target_N", "example_N"):
            assert getattr(part, name).dtype == torch.int64
        assert part.first_N.dtype == torch.bool
    assert batch.prompt.mask_BT is None
    assert batch.answer.mask_BT.dtype == torch.bool
    assert batch.answer.example_N.tolist() == [1]


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        collate(Split.from_examples([Example((1,), (2,))]), [])
