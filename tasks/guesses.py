"""What a split's metrics are worth: the scores of chance and of strategies that understand nothing.

Computed on the actual split through the task's own scorer, so that they mean what the model's
scores mean. The strategies of one task are its own (`Task.trivial`); chance and majority are here.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from tasks.example import Example, Split, Tokenizer
from tasks.metrics import CORRECT, NLL_SUM, TOTAL, Metric, gathered
from tasks.scoring import Prediction, Scorer
from tasks.task import Guess, TaskSettings

if TYPE_CHECKING:
    from tasks.registry import AnyTask

CHANCE = "chance"
MAJORITY = "majority"

CHANCE_ROUNDS = 20
"""Blind guesses per example: with 300 examples of one target the standard error of a chance level
of 0.25 is 0.6 points."""


def guess_scores(
    task: "AnyTask", settings: TaskSettings, tokenizer: Tokenizer, train: Split, evaluated: Split
) -> dict[str, dict[str, float]]:
    """Scores by strategy and metric; metrics of likelihoods are left out, a guess has none.

    Args:
        task: whose the splits are.
        settings: the task's.
        tokenizer: the splits'.
        train: what a strategy may know.
        evaluated: what is guessed at.
    """
    guesses: dict[str, tuple[Guess, int]] = {
        name: (guess, 1) for name, guess in task.trivial(settings, tokenizer, train).items()
    }
    guesses[MAJORITY] = (majority(train), 1)
    blind = _blind(task.alphabet(settings, tokenizer), evaluated)
    if blind is not None:
        guesses[CHANCE] = (blind, CHANCE_ROUNDS)
    metrics = [metric for metric in task.measured(settings) if NLL_SUM not in metric.needs]
    scorer = task.scorer(settings, tokenizer)
    return {
        name: _scores(guess, rounds, evaluated, metrics, scorer)
        for name, (guess, rounds) in sorted(guesses.items())
    }


def majority(train: Split) -> Guess:
    """Says what the training split most often wants: as token, as choice and as whole answer."""
    answers = Counter(train.example(index).answer for index in range(len(train)))
    tokens = Counter(train.answer_tokens.tolist()) + Counter(train.target_tokens.tolist())
    answer, token = commonest(answers), commonest(tokens)

    def guess(example: Example) -> Prediction:
        return Prediction(
            tokens=(token,) * _targets(example),
            choice_nll=tuple(float(choice != answer) for choice in example.choices),
            generated=(answer,),
        )

    return guess


_T = TypeVar("_T", int, tuple[int, ...])


def commonest(counts: Counter[_T]) -> _T:
    """The most common; of equally common ones the smallest, so that order does not matter."""
    return min(counts, key=lambda value: (-counts[value], value))


def _blind(alphabet: Sequence[int] | None, evaluated: Split) -> Guess | None:
    """Chooses among all that is possible; None where that is open."""
    chooses = len(evaluated.choice_ends) > 0
    if alphabet is None and not chooses:
        return None
    rng = random.Random("chance")  # a fixed stream: the same level wherever it is computed

    def guess(example: Example) -> Prediction:
        tokens = tuple(rng.choices(alphabet or (-1,), k=_targets(example)))
        nll = tuple(rng.random() for _ in example.choices)
        inside = len(example.target_positions)
        if alphabet is None and nll:
            chosen = example.choices[nll.index(min(nll))]
            tokens = (*tokens[:inside], *chosen, *tokens[inside:])[: len(tokens)]
        return Prediction(tokens=tokens, choice_nll=nll, generated=(tokens[inside:],))

    return guess


def _targets(example: Example) -> int:
    return len(example.target_positions) + len(example.answer)


def _scores(
    guess: Guess,
    rounds: int,
    split: Split,
    metrics: Sequence[Metric],
    scorer: Scorer | None,
) -> dict[str, float]:
    def rows() -> Iterator[dict[str, float]]:
        for _ in range(rounds):
            for index in range(len(split)):
                example = split.example(index)
                prediction = guess(example)
                wanted = (*example.target_tokens, *example.answer)
                hits = sum(a == b for a, b in zip(prediction.tokens, wanted, strict=True))
                basic = {CORRECT: float(hits), TOTAL: float(len(wanted))}
                yield basic | dict(scorer(example, prediction) if scorer else {})

    measures = gathered(list(rows()))
    return {metric.name: metric.score(measures) for metric in metrics}
