"""Examples to padded tensors: one pass over the prompts, one over the answers, one over choices.

Letters: B examples, T positions, N scored positions of a pass, R choices of all examples. Padding
is to the right; padded positions hold token 0 and are False in the mask.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.example import Example, Split


@dataclass(frozen=True)
class Pass:
    """One forward pass over B padded rows."""

    tokens_BT: Tensor
    """int64; 0 where padded."""
    mask_BT: Tensor | None
    """bool; True where there is a token. None where no row is padded, which is quicker."""
    where_N: Tensor
    """int64; flat positions b·T + t whose logits are scored."""
    target_N: Tensor
    """int64; the token wanted there."""
    example_N: Tensor
    """int64; the row b of each target."""
    first_N: Tensor
    """bool; True for an answer's first token."""

    def to(self, device: torch.device | str) -> "Pass":
        return Pass(
            tokens_BT=self.tokens_BT.to(device),
            mask_BT=None if self.mask_BT is None else self.mask_BT.to(device),
            where_N=self.where_N.to(device),
            target_N=self.target_N.to(device),
            example_N=self.example_N.to(device),
            first_N=self.first_N.to(device),
        )


@dataclass(frozen=True)
class Choices:
    """The answers whose likelihoods are compared."""

    prompt_R: Tensor
    """int64; the example of each choice."""
    first_R: Tensor
    """int64; its first token, which the prompt's last position must predict."""
    rest: Pass | None
    """Reads choice[:-1] from the state after the choice's prompt and scores choice[1:]; one row a
    choice. None where each is one token."""

    def to(self, device: torch.device | str) -> "Choices":
        return Choices(
            prompt_R=self.prompt_R.to(device),
            first_R=self.first_R.to(device),
            rest=None if self.rest is None else self.rest.to(device),
        )


@dataclass(frozen=True)
class Batch:
    """The passes that score B examples."""

    prompt: Pass
    """Scores targets inside the prompts and, at each prompt's last token, the answer's first."""
    answer: Pass | None
    """Reads answer[:-1] from the carried state and scores answer[1:]; None where all are empty."""
    choices: Choices | None
    """None where no example has any."""
    last_B: Tensor
    """int64; flat positions b·T + t of the prompts' last tokens."""
    num_examples: int
    num_tokens: int
    """Tokens that both passes read, padding not counted."""

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(
            prompt=self.prompt.to(device),
            answer=None if self.answer is None else self.answer.to(device),
            choices=None if self.choices is None else self.choices.to(device),
            last_B=self.last_B.to(device),
            num_examples=self.num_examples,
            num_tokens=self.num_tokens,
        )


def collate(split: Split, indices: Sequence[int]) -> Batch:
    """The examples at `indices`, in that order, as one batch."""
    if len(indices) == 0:
        raise ValueError("a batch has at least one example, got no indices")
    examples = [split.example(index) for index in indices]
    prompt = _pass([example.prompt for example in examples], map(_prompt_targets, examples))
    answer = None
    if any(len(example.answer) > 1 for example in examples):
        answers = [example.answer for example in examples]
        answer = _pass([tokens[:-1] for tokens in answers], map(_later, answers))
    last = [b * prompt.tokens_BT.shape[1] + len(e.prompt) - 1 for b, e in enumerate(examples)]
    read = sum(len(example.prompt) + max(0, len(example.answer) - 1) for example in examples)
    return Batch(
        prompt=prompt,
        answer=answer,
        choices=_choices(examples),
        last_B=torch.tensor(last),
        num_examples=len(examples),
        num_tokens=read,
    )


def _choices(examples: Sequence[Example]) -> Choices | None:
    rows = [(b, choice) for b, example in enumerate(examples) for choice in example.choices]
    if not rows:
        return None
    tokens = [choice for _, choice in rows]
    rest = None
    if any(len(choice) > 1 for choice in tokens):
        rest = _pass([choice[:-1] for choice in tokens], map(_later, tokens))
    return Choices(
        prompt_R=torch.tensor([b for b, _ in rows]),
        first_R=torch.tensor([choice[0] for choice in tokens]),
        rest=rest,
    )


_Target = tuple[int, int, bool]
"""Position, wanted token, whether it is an answer's first."""


def _prompt_targets(example: Example) -> list[_Target]:
    inside = zip(example.target_positions, example.target_tokens, strict=True)
    targets = [(position, token, False) for position, token in inside]
    targets += [(len(example.prompt) - 1, token, True) for token in example.answer[:1]]
    return targets


def _later(tokens: tuple[int, ...]) -> list[_Target]:
    return [(position, token, False) for position, token in enumerate(tokens[1:])]


def _pass(rows: Sequence[tuple[int, ...]], targets_B: Iterable[list[_Target]]) -> Pass:
    longest = max(1, *map(len, rows))
    tokens_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
    for b, row in enumerate(rows):
        tokens_BT[b, : len(row)] = torch.tensor(row, dtype=torch.int64)
    length_B = torch.tensor([len(row) for row in rows])
    mask_BT = None if (length_B == longest).all() else torch.arange(longest) < length_B[:, None]
    flat = [
        (b * longest + position, token, b, first)
        for b, targets in enumerate(targets_B)
        for position, token, first in targets
    ]
    columns = torch.tensor(flat, dtype=torch.int64).reshape(-1, 4)
    where_N, target_N, example_N, first_N = columns.unbind(dim=1)
    return Pass(
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        where_N=where_N.contiguous(),
        target_N=target_N.contiguous(),
        example_N=example_N.contiguous(),
        first_N=first_N.bool(),
    )
