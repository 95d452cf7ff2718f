"""What passkey and needle have in common: digits hidden in a text, asked for after it or before it.

Lengths and depths of the settings make a grid whose cells take turns, so that each has its share of
every split. A prompt has exactly its cell's tokens; the hidden sentence stands between two others
of the text, as near to its cell's depth as they allow. Digits are one token each. `retrieved` is
the exact answer under teacher forcing, which is what greedy decoding would write: as soon as one
digit is not the argmax, both go wrong.
"""

import json
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, product
from typing import ClassVar, Literal, TypeVar

from tasks.example import Example, TaskError, Tokenizer
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, Metric
from tasks.parts.notes import filled
from tasks.parts.symbols import DIGITS, Symbols, SymbolTask
from tasks.scoring import Prediction, Scorer
from tasks.task import TaskSettings, require

RETRIEVED = replace(EXACT_MATCH, name="retrieved", summary="1 where every digit is the argmax")

LENGTH = "length"
"""Measure: tokens of the example's prompt."""
DEPTH = "depth"
"""Measure: where in the text the digits stand, 0 for its front and 1 for its end."""


@dataclass(frozen=True, kw_only=True)
class HaystackSettings(TaskSettings):
    """Where digits are hidden."""

    order: Literal["query_last", "query_first"] = "query_last"
    """Where the query stands; query_first is the control."""
    lengths: tuple[int, ...] = (1024, 2048, 4096)
    """Tokens of a prompt; each goes with each of `depths`, in turn."""
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Where in the text the digits stand, from 0 for its front to 1 for its end."""
    digits: int
    """Digits to retrieve, each one token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        orders = HaystackTask.orders
        require(self.order in orders, f"order is one of {', '.join(orders)}", repr(self.order))
        for name, values in (("lengths", self.lengths), ("depths", self.depths)):
            unequal = len(values) >= 1 and len(set(values)) == len(values)
            require(unequal, f"{name} has at least one value and none twice", list(values))
        require(min(self.lengths) >= 1, "lengths >= 1", list(self.lengths))
        within = all(0 <= depth <= 1 for depth in self.depths)
        require(within, "0 <= depths <= 1", list(self.depths))
        require(self.digits >= 1, "digits >= 1", self.digits)

    def cell(self, number: int) -> tuple[int, float]:
        """Length and depth of the example of that number."""
        cells = list(product(self.lengths, self.depths))
        return cells[number % len(cells)]


H = TypeVar("H", bound=HaystackSettings)


class HaystackTask(SymbolTask[H]):
    """What both tasks declare alike."""

    orders = ("query_last", "query_first")
    needs_future = False
    metrics: ClassVar[tuple[Metric, ...]] = (RETRIEVED, TOKEN_ACCURACY, NLL)
    primary_metric = RETRIEVED.name
    groups = (LENGTH, DEPTH)

    def wanted_symbols(self, settings: H) -> str:
        del settings
        return DIGITS

    def scorer(self, settings: H, tokenizer: Tokenizer) -> Scorer:
        del settings, tokenizer

        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            del prediction
            cell: dict[str, float] = json.loads(example.reference)
            return {name: float(cell[name]) for name in (LENGTH, DEPTH)}

        return measure


class Hiding:
    """Makes examples of a task: hides sentences with digits in a text and asks for one of them."""

    def __init__(self, task: str, settings: HaystackSettings, tokenizer: Tokenizer) -> None:
        """Looks up the digits' tokens.

        Raises:
            TaskError: a digit that is not one token.
        """
        self._task = task
        self._settings = settings
        self._tokenizer = tokenizer
        self._symbols = Symbols(task, DIGITS, tokenizer)

    def sentence(self, before: str, digits: str) -> list[int]:
        """Tokens of a sentence that ends with digits; `before` begins with the space before it."""
        encode = self._tokenizer.encode
        return [*encode(before), *self._symbols.tokens(digits), *encode(".")]

    def example(
        self,
        number: int,
        text: Iterable[list[int]],
        hidden: Sequence[list[int]],
        query: tuple[str, str, str],
        stream: random.Random,
    ) -> Example:
        """The example of that number.

        Args:
            number: says which cell it is of.
            text: sentences, more than fit.
            hidden: the sentence that is asked for, then others, which stand anywhere.
            query: the question, the beginning of its answer, and the digits that complete it.
            stream: random numbers, to place the others.

        Raises:
            TaskError: if the length leaves no room, or the text does not suffice.
        """
        length, depth = self._settings.cell(number)
        encode = self._tokenizer.encode
        question, beginning, digits = query
        header, gap = encode("Text:"), encode("\n\n")
        asked, closing = encode(f"Question: {question}\n\n"), encode(f"Answer: {beginning}")
        fixed = sum(map(len, (header, gap, asked, closing, *hidden)))
        if fixed > length:
            raise TaskError(
                f"{self._task}: lengths >= {fixed} must hold for the query and what is hidden, "
                f"got {length}"
            )
        advice = "give data with more text, or smaller lengths"
        around = filled(text, length - fixed, f"{self._task}: the texts", advice)
        context = [header, *_hidden_in(around, hidden, depth, stream), gap]
        parts = [*context, asked] if self._settings.order == "query_last" else [asked, *context]
        return Example(
            prompt=tuple(chain(*parts, closing)),
            answer=self._symbols.tokens(digits),
            reference=json.dumps({LENGTH: length, DEPTH: depth}),
        )


def _hidden_in(
    around: Sequence[list[int]], hidden: Sequence[list[int]], depth: float, stream: random.Random
) -> list[list[int]]:
    """The first of `hidden` at its depth between the sentences around it, the others anywhere."""
    ends = [0, *accumulate(map(len, around))]
    wanted = depth * ends[-1]
    after = bisect_left(ends, wanted)
    place = min((max(after - 1, 0), after), key=lambda index: abs(ends[index] - wanted))
    asked, *others = hidden
    places = [stream.randrange(len(ends)) for _ in others]
    # Among others at its own place it is the first as often as its depth allows: a rule that takes
    # the first of all is right by chance only.
    leads = stream.random() >= depth
    pieces: list[list[int]] = []
    for index in range(len(ends)):
        here = [tokens for tokens, at in zip(others, places, strict=True) if at == index]
        if index == place:
            here = [asked, *here] if leads else [*here, asked]
        pieces += [*here, *around[index : index + 1]]
    return pieces
