"""What a model says about an example, and how a task turns that into measures.

Most tasks are scored by their target tokens alone and declare nothing here. A task that is about
something else asks for it: an example with `choices` has the likelihood of each compared, a task
with a `Generation` has answers written out, and its scorer sees all of it.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from tasks.example import Example


@dataclass(frozen=True)
class Generation:
    """How answers are written out after a prompt."""

    max_new_tokens: int
    stop: tuple[tuple[int, ...], ...] = ()
    """Token sequences that end an answer and are no part of it."""
    samples: int = 0
    """Answers drawn at random beside the greedy one."""
    temperature: float = 1.0
    """Of the drawn ones."""
    top_p: float = 1.0
    """The drawn ones take the smallest set of tokens with at least this probability."""


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one example."""

    tokens: tuple[int, ...]
    """The argmax at each target, those in the prompt first, each after the true tokens before."""
    choice_nll: tuple[float, ...] = ()
    """Negative log-likelihood of each of the example's choices, summed over its tokens, in nats."""
    generated: tuple[tuple[int, ...], ...] = ()
    """The greedy answer, then the drawn ones; empty where the task has nothing written out."""


Scorer: TypeAlias = Callable[[Example, Prediction], Mapping[str, float]]
"""The measures of one example beside those that every task has; the same names for all examples."""


@dataclass(frozen=True)
class Scoring:
    """How a task's examples are scored beyond their target tokens."""

    scorer: Scorer | None = None
    generation: Generation | None = None
    at_once: int = 1
    """Examples that are measured at the same time, where a scorer waits for other processes."""

    def measures(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> list[Mapping[str, float]]:
        """What the scorer says of each example; nothing where there is none."""
        if self.scorer is None:
            return [{} for _ in examples]
        if self.at_once == 1:
            return list(map(self.scorer, examples, predictions))
        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(self.scorer, examples, predictions))
