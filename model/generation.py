"""Answers written out token by token from the state that a prompt left behind.

Greedy, or drawn at a temperature from the smallest set of tokens with a given probability (nucleus
sampling: Holtzman et al., arXiv 1904.09751). Future-Seed acts in the prompt pass alone, so that it
has no part in here. What a row gets does not depend on the rows beside it: every drawn row has a
random stream of its own, and rows that have ended leave the batch.

Letters: B prompts, R rows (answers under way), V vocabulary, C width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.rwkv7 import RWKV7
from model.state import State


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen, and when an answer ends."""

    max_new_tokens: int
    stop: tuple[tuple[int, ...], ...] = ()
    """Token sequences that end an answer; they are no part of it."""
    temperature: float = 0.0
    """0 takes the most likely token; otherwise logits are divided by it before drawing."""
    top_p: float = 1.0
    """Draws among the most likely tokens that together have this probability."""

    def __post_init__(self) -> None:
        for holds, rule, got in (
            (self.max_new_tokens >= 1, "max_new_tokens >= 1", self.max_new_tokens),
            (all(self.stop), "a stop has at least one token", self.stop),
            (self.temperature >= 0, "temperature >= 0", self.temperature),
            (0 < self.top_p <= 1, "0 < top_p <= 1", self.top_p),
        ):
            if not holds:
                raise ValueError(f"{rule} must hold, got {got}")


@dataclass
class _Answer:
    """One row's answer so far."""

    tokens: list[int]
    stream: np.random.Generator | None

    def ended_by(self, decoding: Decoding) -> bool:
        """Whether the last token ends it; a stop is then taken off."""
        for stop in decoding.stop:
            if tuple(self.tokens[-len(stop) :]) == stop:
                del self.tokens[-len(stop) :]
                return True
        return len(self.tokens) == decoding.max_new_tokens


@torch.no_grad()
def generate(
    model: RWKV7,
    last_BC: Tensor,
    state: State,
    decoding: Decoding,
    seeds: Sequence[Sequence[int]] | None = None,
) -> list[tuple[int, ...]]:
    """One answer for each row.

    Args:
        model: what writes.
        last_BC: final hidden values at each prompt's last token (`RWKV7.hidden`).
        state: the state after the prompts.
        decoding: how.
        seeds: of each row's random stream, as NumPy takes them; needed where tokens are drawn.

    Returns:
        The answers' tokens, without the stop.

    Raises:
        ValueError: if tokens are drawn and a row has no seed.
    """
    num_rows = last_BC.shape[0]
    if decoding.temperature > 0 and (seeds is None or len(seeds) != num_rows):
        given = "none" if seeds is None else str(len(seeds))
        raise ValueError(f"a seed for each of {num_rows} rows is needed to draw, got {given}")
    draws = seeds if decoding.temperature > 0 else None
    answers = [
        _Answer([], None if draws is None else np.random.default_rng(list(draws[row])))
        for row in range(num_rows)
    ]
    open_rows = list(range(num_rows))
    last_RC = last_BC
    while open_rows:
        tokens = _choose(model.project(last_RC).float(), [answers[r] for r in open_rows], decoding)
        going: list[int] = []
        for place, (row, token) in enumerate(zip(open_rows, tokens, strict=True)):
            answers[row].tokens.append(token)
            if not answers[row].ended_by(decoding):
                going.append(place)
        if not going:
            break
        if len(going) < len(open_rows):
            state = state.take(torch.tensor(going, device=last_BC.device))
        open_rows = [open_rows[place] for place in going]
        read_R1 = torch.tensor([[tokens[place]] for place in going], device=last_BC.device)
        x_R1C, state = model.hidden(read_R1, state=state)
        last_RC = x_R1C[:, 0]
    return [tuple(answer.tokens) for answer in answers]


def _choose(logits_RV: Tensor, answers: Sequence[_Answer], decoding: Decoding) -> list[int]:
    if decoding.temperature == 0:
        return logits_RV.argmax(dim=1).tolist()
    probability_RV, token_RV = torch.softmax(logits_RV.double() / decoding.temperature, 1).sort(
        dim=1, descending=True, stable=True
    )
    below_RV = probability_RV.cumsum(dim=1)
    # The first token that reaches top_p is the last that may be drawn.
    allowed_R = (below_RV - probability_RV < decoding.top_p).sum(dim=1)
    chosen = []
    for row, answer in enumerate(answers):
        assert answer.stream is not None
        below_V = below_RV[row, : int(allowed_R[row])].cpu().numpy()
        place = np.searchsorted(below_V, answer.stream.random() * below_V[-1], side="right")
        chosen.append(int(token_RV[row, min(int(place), len(below_V) - 1)]))
    return chosen
