"""A batch to the model's losses and guesses at its targets, a piece of the logits at a time.

What a whole split scores is in `evaluation`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from model.mechanisms.acting import Acting
from model.rwkv7 import RWKV7
from model.state import State
from tasks.batch import Batch, Pass

LOGITS_AT_ONCE = 2**25
"""Logits that exist at a time, 128 MB in float32."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated or trained: a model, and the mechanisms that act in it."""

    model: RWKV7
    acting: Mapping[str, Acting]
    """By the mechanism's name; empty in an arm without one."""
    device: torch.device
    precision: Literal["float32", "bf16"]

    def compute(self) -> AbstractContextManager[object]:
        """The context of the forward pass: bf16 autocast, or nothing."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


@dataclass(frozen=True)
class TokenScores:
    """One value per scored token of a batch: those in the prompts, then those of the answers."""

    nll_N: Tensor
    """float32, nats."""
    predicted_N: Tensor
    """int64; the most likely token."""
    correct_N: Tensor
    """bool; the most likely token is the one wanted."""
    example_N: Tensor
    """int64; row of the batch."""
    first_N: Tensor
    """bool; an answer's first token."""


@dataclass(frozen=True)
class _Reading:
    """What the model has of a batch's prompts."""

    x_BTC: Tensor
    state: State


def token_scores(subject: Subject, batch: Batch) -> TokenScores:
    """Losses at the batch's targets; logits are computed there and nowhere else."""
    with subject.compute():
        return _token_scores(subject, batch, _read(subject, batch))


def _read(subject: Subject, batch: Batch) -> _Reading:
    prompt = batch.prompt
    x_BTC, state = subject.model.hidden(
        prompt.tokens_BT, mask_BT=prompt.mask_BT, acting=list(subject.acting.values())
    )
    return _Reading(x_BTC, state)


def _token_scores(subject: Subject, batch: Batch, reading: _Reading) -> TokenScores:
    model = subject.model
    passes = [batch.prompt]
    read = [reading.x_BTC.flatten(0, 1)[batch.prompt.where_N]]
    if batch.answer is not None:
        answer = batch.answer
        x_BTC, _ = model.hidden(answer.tokens_BT, state=reading.state, mask_BT=answer.mask_BT)
        passes.append(answer)
        read.append(x_BTC.flatten(0, 1)[answer.where_N])
    target_N = torch.cat([part.target_N for part in passes])
    nll_N, predicted_N = _at_targets(model, torch.cat(read), target_N)
    return TokenScores(
        nll_N=nll_N,
        predicted_N=predicted_N,
        correct_N=predicted_N == target_N,
        example_N=torch.cat([part.example_N for part in passes]),
        first_N=torch.cat([part.first_N for part in passes]),
    )


def _at_targets(model: RWKV7, x_NC: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and argmax at each target, a piece of the targets at a time.

    A piece's logits are made again in the backward pass where there are several pieces: at 65,536
    tokens of vocabulary they would take more memory than the rest of a step.
    """
    piece = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    if len(target_N) <= piece:
        return _losses(model, x_NC, target_N)
    found = [
        checkpoint(_losses, model, x_nC, target_n, use_reentrant=False)
        for x_nC, target_n in zip(
            torch.split(x_NC, piece), torch.split(target_N, piece), strict=True
        )
    ]
    return torch.cat([nll_n for nll_n, _ in found]), torch.cat([best_n for _, best_n in found])


def _losses(model: RWKV7, x_NC: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    logits_NV = model.project(x_NC).float()
    return cross_entropy(logits_NV, target_N, reduction="none"), logits_NV.argmax(dim=1)


def _logits(model: RWKV7, x_BTC: Tensor, part: Pass) -> Tensor:
    return model.project(x_BTC.flatten(0, 1)[part.where_N])
