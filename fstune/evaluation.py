"""The whole of a split, every example once, scored example by example.

Also the one place where a batch becomes losses at its targets: prompt pass with Future-Seed, answer
pass from the carried state without it. Training uses the same function.

Letters: N scored tokens of a batch, V vocabulary, C width.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.future_seed import FutureSeed, Gates
from model.rwkv7 import RWKV7
from tasks.batch import Batch, Pass, collate
from tasks.example import Split

PADDED_TOKENS_PER_BATCH = 16_384
"""Size of an evaluation batch; it bounds memory and changes results by float rounding alone."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated or trained: a model and, if the mechanism is on, its gates."""

    model: RWKV7
    future_seed: FutureSeed | None
    gates: Gates | None
    device: torch.device
    precision: Literal["float32", "bf16"]

    def compute(self) -> AbstractContextManager[object]:
        """The context of the forward pass: bf16 autocast, or nothing."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


@dataclass(frozen=True)
class TokenScores:
    """One value per scored token of a batch."""

    nll_N: Tensor
    """float32, nats."""
    correct_N: Tensor
    """bool; the most likely token is the one wanted."""
    example_N: Tensor
    """int64; row of the batch."""
    first_N: Tensor
    """bool; an answer's first token."""


def token_scores(subject: Subject, batch: Batch) -> TokenScores:
    """Losses at the batch's targets; logits are computed there and nowhere else."""
    model = subject.model
    with subject.compute():
        prompt = batch.prompt
        x_BTC, state = model.hidden(
            prompt.tokens_BT,
            mask_BT=prompt.mask_BT,
            future_seed=subject.future_seed,
            gates=subject.gates,
        )
        passes = [prompt]
        logits = [_logits(model, x_BTC, prompt)]
        if batch.answer is not None:
            answer = batch.answer
            x_BTC, _ = model.hidden(answer.tokens_BT, state=state, mask_BT=answer.mask_BT)
            passes.append(answer)
            logits.append(_logits(model, x_BTC, answer))
    logits_NV = torch.cat(logits).float()
    target_N = torch.cat([part.target_N for part in passes])
    return TokenScores(
        nll_N=torch.nn.functional.cross_entropy(logits_NV, target_N, reduction="none"),
        correct_N=logits_NV.argmax(dim=1) == target_N,
        example_N=torch.cat([part.example_N for part in passes]),
        first_N=torch.cat([part.first_N for part in passes]),
    )


def _logits(model: RWKV7, x_BTC: Tensor, part: Pass) -> Tensor:
    return model.project(x_BTC.flatten(0, 1)[part.where_N])


@dataclass(frozen=True)
class Scores:
    """One value per example of a split, in its order."""

    nll_sum: NDArray[np.float64]
    correct: NDArray[np.int64]
    total: NDArray[np.int64]


def evaluate(subject: Subject, split: Split) -> Scores:
    """Score every example of the split once, without gradients."""
    nll_sum = np.zeros(len(split))
    correct = np.zeros(len(split), dtype=np.int64)
    total = np.zeros(len(split), dtype=np.int64)
    with torch.inference_mode():
        for indices in _batches(split):
            scores = token_scores(subject, collate(split, indices).to(subject.device))
            row_N = np.asarray(indices)[scores.example_N.cpu().numpy()]
            np.add.at(nll_sum, row_N, scores.nll_N.double().cpu().numpy())
            np.add.at(correct, row_N, scores.correct_N.cpu().numpy())
            np.add.at(total, row_N, 1)
    return Scores(nll_sum, correct, total)


def _batches(split: Split) -> Iterator[list[int]]:
    """Indices of examples of like length, so that little is padded."""
    length = split.prompt_lengths
    batch: list[int] = []
    for index in np.argsort(-length, kind="stable").tolist():
        if batch and (len(batch) + 1) * length[batch[0]] > PADDED_TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
