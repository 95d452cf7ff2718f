"""rightcopy: a masked span is filled in place with what stands to its right.

`L=40718273|M=________|R=55019364`: at every position of M the model must predict the symbol that R
holds there. A left-to-right pass sees nothing of R when it is at M, so that its best score is
chance; generated, one token per character. After the masked-infill task of the same name in the
Future-Seed notes.
"""

import random
from dataclasses import dataclass
from typing import Literal

from tasks.example import Example, Tokenizer
from tasks.parts.symbols import DIGITS, Symbols, SymbolTask, check_alphabet, check_mask, draw_word
from tasks.sources import Generated, Row
from tasks.task import Builder, Material, TaskSettings, require

_SEPARATORS = "=|"
_FRAME = "LMR" + _SEPARATORS


@dataclass(frozen=True, kw_only=True)
class RightCopySettings(TaskSettings):
    """Settings of rightcopy."""

    name: Literal["rightcopy"] = "rightcopy"
    """Which task it is."""
    length: int = 8
    """Symbols of each of the three spans."""
    alphabet: str = DIGITS
    """Symbols to draw from; each is one token."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length >= 1, "length >= 1", self.length)
        check_mask(self.mask, _SEPARATORS)
        check_alphabet(self.alphabet, _SEPARATORS, self.mask)


class RightCopy(SymbolTask[RightCopySettings]):
    """Copies a span from the right into the masked span before it."""

    name = "rightcopy"
    version = 1
    summary = "fill a masked span in place with what stands to its right"
    needs_future = True
    Settings = RightCopySettings

    def source(self, settings: RightCopySettings) -> Generated:
        def draw(stream: random.Random) -> Row:
            left, right = (draw_word(stream, settings.alphabet, settings.length) for _ in range(2))
            return {"left": left, "right": right}

        return Generated(draw=draw, group_fields=("left", "right"))

    def wanted_symbols(self, settings: RightCopySettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: RightCopySettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.mask + settings.alphabet, tokenizer)
        masked = settings.mask * settings.length

        def build(row: Row) -> Example:
            left, right = row["left"], row["right"]
            return symbols.filled(f"L={left}|M=", masked, right, f"|R={right}", settings.mask)

        return build
