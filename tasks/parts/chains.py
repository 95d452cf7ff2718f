"""What tasks on protein chains have in common: settings, windows, and prompts that ask of a chain.

Residues, and the numbers by which prompts ask for them, are one token per character; instructions
are text. Of a chain that is too long a window is taken, whose place follows from the residues.
Notes are residues of other chains, never what is wanted of them, so that no target can stand there.
"""

import random
import string
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeVar
from zlib import crc32

from tasks.example import Tokenizer
from tasks.parts.collected import CollectedSettings, CollectedTask
from tasks.parts.notes import filled
from tasks.parts.symbols import DIGITS, Symbols
from tasks.sources import Row
from tasks.task import Dropped, require

RESIDUES = string.ascii_uppercase
"""One-letter codes of IUPAC, those for unknown and rare residues among them."""

ORDERS = ("queries_last", "queries_first")
MATERIAL = 512
"""At most so many rows' residues fill prompts."""
_RUN, _RUNS = 24, 17
_NOTE_RESIDUES = 256
"""A note has at most so many residues, as in the earlier work."""


@dataclass(frozen=True, kw_only=True)
class ChainSettings(CollectedSettings):
    """Which chains are read, and how much of them."""

    hub_config: str = ""
    """Configuration of the data set on the hub; empty where it has one only."""
    min_residues: int = 96
    """Shorter chains are left out."""
    max_residues: int = 512
    """Of a longer chain a window of this many residues is taken."""
    max_prompt_tokens: int = 2048
    """Rows whose prompt, notes apart, is longer are left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.min_residues <= self.max_residues,
            f"1 <= min_residues <= max_residues = {self.max_residues}",
            self.min_residues,
        )


@dataclass(frozen=True, kw_only=True)
class AskedSettings(ChainSettings):
    """How parts of a chain are asked for."""

    order: Literal["queries_last", "queries_first"] = "queries_last"
    """Where the queries stand; queries_first is the control."""
    fill_to: int = 0
    """Tokens of every prompt, reached with notes: residues of chains that give no example, between
    the chain and the queries that come last; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.order in ORDERS, f"order is one of {', '.join(ORDERS)}", repr(self.order))
        require(
            self.fill_to == 0 or self.fill_to >= self.max_prompt_tokens,
            "fill_to is 0 or at least max_prompt_tokens",
            self.fill_to,
        )


C = TypeVar("C", bound=ChainSettings)


class ChainTask(CollectedTask[C]):
    """A task whose one group field is a chain's residues; splits share no near-copies of one."""

    def marks(self, settings: C) -> Callable[[Row], Set[str]]:
        (residues,) = self.group_fields
        return lambda row: marks_of(row[residues])


def marks_of(residues: str) -> frozenset[str]:
    """Some of a chain's runs of 24 residues, such that chains with 40 in common share one.

    Of every 17 neighbouring runs it is the one with the smallest hash: winnowing, by Schleimer,
    Wilkerson and Aiken (SIGMOD 2003). Tags that are put on a protein to purify it are shorter.
    """
    hashes = [crc32(residues[i : i + _RUN].encode()) for i in range(len(residues) - _RUN + 1)]
    chosen: set[int] = set()
    smallest = -1
    for last in range(max(0, min(_RUNS, len(hashes)) - 1), len(hashes)):
        first = max(0, last - _RUNS + 1)
        if smallest < first:
            smallest = min(range(first, last + 1), key=hashes.__getitem__)
        elif hashes[last] < hashes[smallest]:
            smallest = last
        chosen.add(smallest)
    return frozenset(residues[i : i + _RUN] for i in chosen)


def window(length: int, settings: ChainSettings, stream: random.Random) -> slice:
    """The part of so long a chain that an example shows: all of it, or a window at random."""
    start = stream.randint(0, max(0, length - settings.max_residues))
    return slice(start, start + settings.max_residues)


def unfit(residues: str, settings: ChainSettings) -> str:
    """Why a chain gives no example; empty if it does."""
    if len(residues) < settings.min_residues:
        return f"chains under {settings.min_residues} residues"
    if not set(residues) <= set(RESIDUES):
        return "chains with other characters than residues have"
    return ""


class Asked:
    """Prompts that show a chain and ask for parts of it."""

    def __init__(
        self,
        task: str,
        instruction: str,
        settings: AskedSettings,
        tokenizer: Tokenizer,
        material: Sequence[str],
    ) -> None:
        """Tokenises what all prompts have.

        Args:
            task: its name, for messages.
            instruction: what is wanted, one line.
            settings: the task's.
            tokenizer: has one token for each residue and digit.
            material: residues of the chains that notes show.

        Raises:
            TaskError: a character that is not one token of its own.
        """
        self._task, self._settings = task, settings
        self._symbols = Symbols(task, f"{RESIDUES}{DIGITS},-", tokenizer)
        # Each piece brings the empty line before it, so that a note may be cut anywhere.
        self._instruction = tokenizer.encode(instruction)
        self._chain = tokenizer.encode("\n\nSequence:\n")
        self._queries = tokenizer.encode("\n\nQueries, counted from 1:\n")
        self._closing = tokenizer.encode("\n\nAnswer:\n")
        note = tokenizer.encode("\n\nNote, another sequence:\n")
        self._notes = [
            [*note, *self._symbols.tokens(residues[:_NOTE_RESIDUES])]
            for residues in material
            if set(residues) <= set(RESIDUES)
        ]

    def prompt(
        self, residues: str, queries: str, stream: random.Random
    ) -> tuple[int, ...] | Dropped:
        """The prompt that asks for `queries` of a chain; `stream` chooses the notes."""
        shown = [*self._chain, *self._symbols.tokens(residues)]
        asked = [*self._queries, *self._symbols.tokens(queries)]
        length = sum(map(len, (self._instruction, shown, asked, self._closing)))
        if length > self._settings.max_prompt_tokens:
            return Dropped(f"prompts over {self._settings.max_prompt_tokens} tokens")
        notes: list[list[int]] = []
        if self._settings.fill_to:
            chosen = stream.sample(self._notes, len(self._notes))
            advice = "give data with more chains, or a smaller fill_to"
            room = self._settings.fill_to - length
            notes = filled(chosen, room, f"{self._task}: the notes", advice)
        body = [shown, *notes]
        parts = [*body, asked] if self._settings.order == "queries_last" else [asked, *body]
        return tuple(chain(self._instruction, *parts, self._closing))
