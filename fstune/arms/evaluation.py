"""The whole of a split, every example once, scored example by example.

The prompt is read with the mechanisms that act in the model, answers from the state that it leaves.

Letters: N scored tokens of a batch, V vocabulary, C width.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fstune.arms.loss import Subject, _logits, _read, _Reading, _token_scores
from model.generation import Decoding, generate
from tasks.batch import Batch, collate
from tasks.example import Example, Split, Tokenizer
from tasks.metrics import CORRECT, NLL_SUM, TOTAL, Measures, gathered
from tasks.scoring import Generation, Prediction, Scoring

PADDED_TOKENS_PER_BATCH = 16_384
"""Size of an evaluation batch; it bounds memory and changes results by float rounding alone."""


PREDICTIONS_KEPT = 12
"""Examples whose predictions are kept as text with an evaluation."""


def _choice_nll(subject: Subject, batch: Batch, reading: _Reading) -> list[list[float]]:
    """Negative log-likelihood of each choice of each example, in nats."""
    choices = batch.choices
    if choices is None:
        return [[] for _ in range(batch.num_examples)]
    model = subject.model
    last_BV = model.project(reading.x_BTC.flatten(0, 1)[batch.last_B]).float()
    nll_R = cross_entropy(last_BV[choices.prompt_R], choices.first_R, reduction="none")
    nll_R = nll_R.double().cpu()
    if choices.rest is not None:
        rest = choices.rest
        state = reading.state.take(choices.prompt_R)
        x_RTC, _ = model.hidden(rest.tokens_BT, state=state, mask_BT=rest.mask_BT)
        nll_N = cross_entropy(_logits(model, x_RTC, rest).float(), rest.target_N, reduction="none")
        # On the CPU: a GPU adds up in an order that changes from run to run.
        nll_R.index_add_(0, rest.example_N.cpu(), nll_N.double().cpu())
    found: list[list[float]] = [[] for _ in range(batch.num_examples)]
    for b, nll in zip(choices.prompt_R.tolist(), nll_R.tolist(), strict=True):
        found[b].append(nll)
    return found


def _generated(
    subject: Subject,
    batch: Batch,
    reading: _Reading,
    wanted: Generation | None,
    indices: list[int],
    seed: int,
) -> list[tuple[tuple[int, ...], ...]]:
    """The answers to each example of a batch: the greedy one, then the drawn ones."""
    if wanted is None:
        return [()] * batch.num_examples
    last_BC = reading.x_BTC.flatten(0, 1)[batch.last_B]
    stop, most = wanted.stop, wanted.max_new_tokens
    greedy = generate(subject.model, last_BC, reading.state, Decoding(most, stop))
    rows = torch.arange(batch.num_examples).repeat_interleave(wanted.samples).to(subject.device)
    drawn = generate(
        subject.model,
        last_BC[rows],
        reading.state.take(rows),
        Decoding(most, stop, wanted.temperature, wanted.top_p),
        # By example, not by place in a batch: batches follow the machine's memory.
        [(seed, index, sample) for index in indices for sample in range(wanted.samples)],
    )
    return [
        (first, *drawn[b * wanted.samples : (b + 1) * wanted.samples])
        for b, first in enumerate(greedy)
    ]


@dataclass(frozen=True)
class Evaluation:
    """What the whole of a split yields."""

    measures: Measures
    """By name, one number per example, in the split's order."""
    predictions: tuple[str, ...]
    """The first examples' answers as text: as written out, else the argmax at each target."""
    answers: Mapping[str, float]
    """How alike they are, over all examples; names in `fstune.arms.diagnostics`."""


def _said(prediction: Prediction) -> tuple[int, ...]:
    """The answer as written out, else the argmax at each target."""
    return prediction.generated[0] if prediction.generated else prediction.tokens


class _Answers:
    """Counts predictions, to tell a model that always says the same."""

    def __init__(self) -> None:
        self._said: Counter[tuple[int, ...]] = Counter()
        self._wanted: Counter[tuple[int, ...]] = Counter()
        self._empty = 0

    def add(self, example: Example, prediction: Prediction) -> None:
        answer = _said(prediction)
        self._said[answer] += 1
        self._empty += not answer
        self._wanted[(*example.target_tokens, *example.answer)] += 1

    def values(self) -> dict[str, float]:
        examples = self._said.total()
        return {
            "answers/most_common": max(self._said.values()) / examples,
            "answers/most_common_wanted": max(self._wanted.values()) / examples,
            "answers/empty": self._empty / examples,
        }


def evaluate(
    subject: Subject,
    split: Split,
    tokenizer: Tokenizer,
    scoring: Scoring,
    seed: int,
    padded_tokens: int = PADDED_TOKENS_PER_BATCH,
) -> Evaluation:
    """Score every example of the split once, without gradients.

    Args:
        subject: the model.
        split: the examples.
        tokenizer: of the task and the model.
        scoring: what the task wants beyond its target tokens.
        seed: of the answers that are drawn.
        padded_tokens: size of a batch of prompts; one of a longer prompt holds it alone.
    """
    answers = _Answers()
    rows: list[Mapping[str, float]] = [{}] * len(split)
    shown: list[str] = [""] * min(PREDICTIONS_KEPT, len(split))
    with torch.inference_mode(), subject.compute():
        for indices in _batches(split, padded_tokens):
            batch = collate(split, indices).to(subject.device)
            basic, predictions = zip(
                *_predicted(subject, batch, scoring, indices, seed), strict=True
            )
            examples = [split.example(index) for index in indices]
            more = scoring.measures(examples, predictions)
            for row, index in enumerate(indices):
                rows[index] = {**basic[row], **more[row]}
                answers.add(examples[row], predictions[row])
                if index < len(shown):
                    shown[index] = tokenizer.decode(_said(predictions[row]))
    return Evaluation(gathered(rows), tuple(shown), answers.values())


def _predicted(
    subject: Subject, batch: Batch, scoring: Scoring, indices: list[int], seed: int
) -> list[tuple[dict[str, float], Prediction]]:
    """Of each example of a batch, the measures that every task has, and what was predicted."""
    reading = _read(subject, batch)
    scores = _token_scores(subject, batch, reading)
    choice_nll = _choice_nll(subject, batch, reading)
    generated = _generated(subject, batch, reading, scoring.generation, indices, seed)
    B = batch.num_examples
    # On the CPU: a GPU adds up in an order that changes from run to run.
    example_N = scores.example_N.cpu()
    nll_B = torch.zeros(B, dtype=torch.float64)
    nll_B.index_add_(0, example_N, scores.nll_N.double().cpu())
    correct_B = torch.bincount(example_N, weights=scores.correct_N.double().cpu(), minlength=B)
    total_B = torch.bincount(example_N, minlength=B)
    order_N = torch.argsort(example_N, stable=True)
    tokens = torch.split(scores.predicted_N.cpu()[order_N], total_B.tolist())
    columns = (nll_B.tolist(), correct_B.tolist(), total_B.tolist())
    return [
        (
            {NLL_SUM: nll, CORRECT: correct, TOTAL: float(total)},
            Prediction(tuple(tokens[b].tolist()), tuple(choice_nll[b]), generated[b]),
        )
        for b, (nll, correct, total) in enumerate(zip(*columns, strict=True))
    ]


def largest_batch(split: Split, padded_tokens: int = PADDED_TOKENS_PER_BATCH) -> list[int]:
    """The batch of an evaluation that has the longest prompts."""
    return next(_batches(split, padded_tokens))


def _batches(split: Split, padded_tokens: int) -> Iterator[list[int]]:
    """Indices of examples of like length, so that little is padded."""
    length = split.prompt_lengths
    batch: list[int] = []
    for index in np.argsort(-length, kind="stable").tolist():
        if batch and (len(batch) + 1) * length[batch[0]] > padded_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
