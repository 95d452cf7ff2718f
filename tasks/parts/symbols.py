"""Examples written symbol by symbol: every character of a prompt is one token of its own.

What generated tasks have in common: the check of their alphabets, the tokens of characters, and
the two forms of an example, filled in place or answered after the prompt. A text is never
tokenised as a whole, since a vocabulary may merge neighbours (World merges pairs of digits).
"""

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tasks.example import Example, TaskError, Tokenizer
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, Metric
from tasks.task import S, Task, require

DIGITS = "0123456789"
BASE_36 = DIGITS + "abcdefghijklmnopqrstuvwxyz"


class SymbolTask(Task[S]):
    """What tasks of drawn symbols declare alike."""

    licence = "none needed: generated"
    origin = "generated from data_seed"
    metrics: ClassVar[tuple[Metric, ...]] = (TOKEN_ACCURACY, NLL, EXACT_MATCH)
    primary_metric = "token_accuracy"

    @abstractmethod
    def wanted_symbols(self, settings: S) -> str:
        """The symbols that a target may be."""

    def alphabet(self, settings: S, tokenizer: Tokenizer) -> tuple[int, ...]:
        symbols = self.wanted_symbols(settings)
        tokens = _character_tokens(self.name, symbols, tokenizer)
        return tuple(tokens[symbol] for symbol in symbols)


class Symbols:
    """Makes examples out of characters that are one token each."""

    def __init__(self, task: str, characters: str, tokenizer: Tokenizer) -> None:
        """Looks up the token of each of `characters`.

        Raises:
            TaskError: a character that is not exactly one token of its own.
        """
        self._tokens = _character_tokens(task, characters, tokenizer)

    def answered(self, prompt: str, answer: str) -> Example:
        """An answer after the prompt."""
        return Example(prompt=self.tokens(prompt), answer=self.tokens(answer))

    def filled(self, before: str, seen: str, wanted: str, after: str, mask: str) -> Example:
        """Targets inside the prompt, wherever `seen` shows the mask instead of what is `wanted`."""
        masked = [index for index, character in enumerate(seen) if character == mask]
        return Example(
            prompt=self.tokens(before + seen + after),
            target_positions=tuple(len(before) + index for index in masked),
            target_tokens=self.tokens([wanted[index] for index in masked]),
        )

    def tokens(self, characters: Sequence[str]) -> tuple[int, ...]:
        """The tokens of characters, one each."""
        return tuple(self._tokens[character] for character in characters)


def check_alphabet(alphabet: str, separators: str, mask: str = "", name: str = "alphabet") -> None:
    """Refuses symbols that could not be told from each other, from separators or from the mask.

    Raises:
        ValueError: the rule and the value.
    """
    symbols = set(alphabet)
    require(
        len(symbols) >= 2 and len(symbols) == len(alphabet),
        f"{name} has at least 2 characters and none twice",
        repr(alphabet),
    )
    masked = f"neither the mask {mask!r} nor any" if mask else "none"
    require(
        not symbols & {*separators, mask},
        f"{name} holds {masked} of {separators!r}",
        repr(alphabet),
    )


def check_mask(mask: str, separators: str) -> None:
    """Refuses a mask that is not one character or separates something.

    Raises:
        ValueError: the rule and the value.
    """
    require(
        len(mask) == 1 and mask not in separators,
        f"mask is one character and none of {separators!r}",
        repr(mask),
    )


def check_words(count: int, width: int, alphabet: str, what: str) -> None:
    """Refuses more different words than there are.

    Raises:
        ValueError: the rule and the value.
    """
    most = len(alphabet) ** width
    require(
        count <= most, f"{what} of {width} symbols among {len(alphabet)}: at most {most}", count
    )


def draw_word(stream: random.Random, alphabet: str, width: int) -> str:
    """A word of `width` symbols."""
    return "".join(stream.choices(alphabet, k=width))


def draw_words(stream: random.Random, alphabet: str, width: int, count: int) -> list[str]:
    """`count` different words of `width` symbols each, in random order."""
    words: dict[str, None] = {}
    while len(words) < count:
        words[draw_word(stream, alphabet, width)] = None
    return list(words)


def _character_tokens(task: str, characters: str, tokenizer: Tokenizer) -> Mapping[str, int]:
    tokens: dict[str, int] = {}
    for character in characters:
        encoded = tokenizer.encode(character)
        if len(encoded) != 1:
            raise TaskError(
                f"{task}: every character must be one token, but {character!r} is "
                f"{len(encoded)} tokens of the tokenizer {tokenizer.name}: "
                "choose another alphabet or mask"
            )
        tokens[character] = encoded[0]
    if len(set(tokens.values())) != len(tokens):
        raise TaskError(
            f"{task}: the tokenizer {tokenizer.name} gives two of {characters!r} one token"
        )
    return tokens
