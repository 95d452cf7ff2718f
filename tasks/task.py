"""What a task is: where its rows come from, how a row becomes an example, how it is scored.

One task is one file with one subclass of `Task`. Everything that tasks have in common (sizes,
splits, controls, drops, caching, rendering) is outside it: here, in `tasks.splits`,
`tasks.sources`, `tasks.controls` and `tasks.guesses`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar, get_args

from tasks.example import Example, Split, Tokenizer
from tasks.metrics import Metric
from tasks.scoring import Generation, Prediction, Scorer
from tasks.sources import Generated, Row, Source

SplitName: TypeAlias = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)


def require(holds: bool, rule: str, got: object) -> None:
    """Refuses a setting.

    Raises:
        ValueError: the rule and the value, unless the rule holds.
    """
    if not holds:
        raise ValueError(f"{rule} must hold, got {got}")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings that every task has."""

    name: str
    """Which task it is; each has its own."""
    train_size: int
    """Examples to train on; a larger number adds examples and changes no earlier one."""
    validation_size: int
    """Examples that every evaluation scores; they do not depend on the other sizes."""
    test_size: int = 0
    """Examples kept for the confirmation; 0 for none."""
    data_seed: int = 0
    """Draws or orders the rows."""
    train_sample: int = 0
    """Which sample of its rows train is; the other splits do not depend on it."""
    control: Literal["none", "shuffled_future", "repeat_prompt"] = "none"
    """What is done to every prompt: its tokens to the right of the first target, targets left out,
    are permuted, so that a real effect of the future must vanish; or the prompt stands twice, the
    cheap alternative to a second look."""

    # Read by pydantic where a spec is checked; nothing here imports it.
    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        require(self.train_size >= 1, "train_size >= 1", self.train_size)
        require(self.validation_size >= 1, "validation_size >= 1", self.validation_size)
        require(self.test_size >= 0, "test_size >= 0", self.test_size)
        require(self.data_seed >= 0, "data_seed >= 0", self.data_seed)
        require(self.train_sample >= 0, "train_sample >= 0", self.train_sample)

    def size(self, split: SplitName) -> int:
        """Examples asked of a split."""
        return {
            "train": self.train_size,
            "validation": self.validation_size,
            "test": self.test_size,
        }[split]


@dataclass(frozen=True)
class Dropped:
    """A row that gives no example."""

    reason: str
    """Completes a count: "80 …", as in "answers over 24 tokens"."""


Builder: TypeAlias = Callable[[Row], Example | Dropped]
Material: TypeAlias = Sequence[Row]
"""Rows put aside for notes and distractors (`Source.material`): they give no example themselves."""
Guess: TypeAlias = Callable[[Example], Prediction]
"""Answers an example by a rule that understands nothing."""
S = TypeVar("S", bound=TaskSettings)


class Task(ABC, Generic[S]):
    """A task's declarations and its two own steps: `source` and `builder`."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised with every change of rows, template, trimming or scoring; part of a cached split's key
    and of an arm's digest."""
    summary: ClassVar[str]
    licence: ClassVar[str]
    """Of the data."""
    origin: ClassVar[str]
    """Where the data come from, for people."""
    orders: ClassVar[tuple[str, ...]] = ()
    """Values of the setting `order`, the default first; empty where there is only one."""
    needs_future: ClassVar[bool]
    """Whether a target precedes its evidence, so that only a second look can give it."""
    metrics: ClassVar[tuple[Metric, ...]]
    primary_metric: ClassVar[str]
    """The one that counts where the settings say no other (`primary`)."""
    scored_at_once: ClassVar[int] = 1
    """Examples that the scorer may measure at the same time (`Scoring.at_once`)."""
    groups: ClassVar[tuple[str, ...]] = ()
    """Measures that tell kinds of examples apart (a length, a depth), for looking at each kind."""
    Settings: type[S]

    @abstractmethod
    def source(self, settings: S) -> Source | Generated:
        """Where the rows come from, and what no two splits may share."""

    @abstractmethod
    def builder(self, settings: S, tokenizer: Tokenizer, material: Material) -> Builder:
        """What turns a row into an example; checks the tokenizer once, not row by row."""

    def measured(self, settings: S) -> tuple[Metric, ...]:
        """The metrics that these settings yield; a task that leaves some out says so here."""
        del settings
        return self.metrics

    def primary(self, settings: S) -> str:
        """The name of the metric that counts with these settings."""
        del settings
        return self.primary_metric

    def scorer(self, settings: S, tokenizer: Tokenizer) -> Scorer | None:
        """What measures an example beyond its target tokens; None for nothing."""
        del settings, tokenizer
        return None

    def generation(self, settings: S, tokenizer: Tokenizer) -> Generation | None:
        """How answers are written out for the scorer; None where none are."""
        del settings, tokenizer
        return None

    def alphabet(self, settings: S, tokenizer: Tokenizer) -> tuple[int, ...] | None:
        """The tokens among which a blind guess at a target chooses; None for an open answer."""
        del settings, tokenizer
        return None

    def trivial(self, settings: S, tokenizer: Tokenizer, train: Split) -> Mapping[str, Guess]:
        """Strategies that understand nothing, by name, beside the majority's (`tasks.guesses`)."""
        del settings, tokenizer, train
        return {}

    def render(self, example: Example, tokenizer: Tokenizer) -> str:
        """The example as the model sees it: ⟦seen → wanted⟧ in the prompt, ⟦answer⟧ after it."""
        pieces: list[str] = []
        end = 0
        for first, last in _runs(example.target_positions):
            wanted = example.target_tokens[
                example.target_positions.index(first) : example.target_positions.index(last) + 1
            ]
            seen = tokenizer.decode(example.prompt[first : last + 1])
            pieces.append(tokenizer.decode(example.prompt[end:first]))
            pieces.append(f"⟦{seen} → {tokenizer.decode(wanted)}⟧")
            end = last + 1
        pieces.append(tokenizer.decode(example.prompt[end:]))
        if example.answer:
            pieces.append(f"⟦{tokenizer.decode(example.answer)}⟧")
        return "".join(pieces)


def _runs(positions: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last of each run of neighbouring positions."""
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position - 1:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return runs
