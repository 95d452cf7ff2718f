"""rightcopy: a masked span is filled in place with what stands to its right.

`L=40718273|M=________|R=55019364`: at every position of M the model must predict the symbol that R
holds there. A left-to-right pass sees nothing of R when it is at M, so that its best score is
chance; generated, one token per character. After the masked-infill task of the same name in the
Future-Seed notes.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.example import EXACT_MATCH, NLL, TOKEN_ACCURACY, Example, TaskError, Tokenizer
from tasks.sources import Generated, Row
from tasks.task import Builder, Task, TaskSettings, require

_SEPARATORS = "=|"
_FRAME = "LMR" + _SEPARATORS


@dataclass(frozen=True, kw_only=True)
class RightCopySettings(TaskSettings):
    """Settings of rightcopy."""

    name: Literal["rightcopy"] = "rightcopy"
    """Which task it is."""
    length: int = 8
    """Symbols of each of the three spans."""
    alphabet: str = "0123456789"
    """Symbols to draw from; each is one token."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length >= 1, "length >= 1", self.length)
        require(
            len(self.mask) == 1 and self.mask not in _SEPARATORS,
            f"mask is one character and none of {_SEPARATORS!r}",
            repr(self.mask),
        )
        symbols = set(self.alphabet)
        require(
            len(symbols) >= 2 and len(symbols) == len(self.alphabet),
            "alphabet has at least 2 characters and none twice",
            repr(self.alphabet),
        )
        require(
            not symbols & {*_SEPARATORS, self.mask},
            f"alphabet holds neither the mask {self.mask!r} nor any of {_SEPARATORS!r}",
            repr(self.alphabet),
        )


class RightCopy(Task[RightCopySettings]):
    """Copies a span from the right into the masked span before it."""

    name = "rightcopy"
    version = 1
    summary = "fill a masked span in place with what stands to its right"
    licence = "none needed: generated"
    origin = "generated from data_seed"
    needs_future = True
    metrics = (TOKEN_ACCURACY, NLL, EXACT_MATCH)
    primary_metric = "token_accuracy"
    Settings = RightCopySettings

    def source(self, settings: RightCopySettings) -> Generated:
        def draw(stream: random.Random) -> Row:
            left, right = (
                "".join(stream.choices(settings.alphabet, k=settings.length)) for _ in range(2)
            )
            return {"left": left, "right": right}

        return Generated(draw=draw, group_fields=("left", "right"))

    def builder(self, settings: RightCopySettings, tokenizer: Tokenizer) -> Builder:
        tokens = _character_tokens(_FRAME + settings.mask + settings.alphabet, tokenizer)
        masked = settings.mask * settings.length
        first = len("L=|M=") + settings.length
        positions = tuple(range(first, first + settings.length))

        def build(row: Row) -> Example:
            text = f"L={row['left']}|M={masked}|R={row['right']}"
            return Example(
                prompt=tuple(tokens[character] for character in text),
                target_positions=positions,
                target_tokens=tuple(tokens[character] for character in row["right"]),
            )

        return build


def _character_tokens(characters: str, tokenizer: Tokenizer) -> Mapping[str, int]:
    """The token of each character.

    Raises:
        TaskError: a character that is not exactly one token of its own.
    """
    tokens: dict[str, int] = {}
    for character in characters:
        encoded = tokenizer.encode(character)
        if len(encoded) != 1:
            raise TaskError(
                f"rightcopy: every character must be one token, but {character!r} is "
                f"{len(encoded)} tokens of the tokenizer {tokenizer.name}: "
                "choose another alphabet or mask"
            )
        tokens[character] = encoded[0]
    if len(set(tokens.values())) != len(tokens):
        raise TaskError(
            f"rightcopy: the tokenizer {tokenizer.name} gives two of {characters!r} one token"
        )
    return tokens
