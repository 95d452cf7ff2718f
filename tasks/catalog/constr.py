"""constr: a masked span follows a rule whose parts stand on both sides of it.

In `P=40718273|M=________|R=51` the mask wants 35151515: the last symbol of P, then the two of R in
turn. Its first position is known from the left; all others only from the right, so that the best
left-to-right score is chance on them. After the masked-infill task of the same name in the
Future-Seed notes; here the two symbols of R always differ.
"""

import random
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from tasks.example import Example, Tokenizer
from tasks.parts.symbols import DIGITS, Symbols, SymbolTask, check_alphabet, check_mask, draw_word
from tasks.sources import Generated, Row
from tasks.task import Builder, Material, TaskSettings, require

_SEPARATORS = "=|"
_FRAME = "PMR" + _SEPARATORS


@dataclass(frozen=True, kw_only=True)
class ConstrSettings(TaskSettings):
    """Settings of constr."""

    name: Literal["constr"] = "constr"
    """Which task it is."""
    length: int = 16
    """Symbols of P and of the masked span."""
    alphabet: str = DIGITS
    """Symbols to draw from; each is one token."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length >= 2, "length >= 2", self.length)
        check_mask(self.mask, _SEPARATORS)
        check_alphabet(self.alphabet, _SEPARATORS, self.mask)


class Constr(SymbolTask[ConstrSettings]):
    """Fills in a span from its left neighbour and from two symbols to its right."""

    name = "constr"
    version = 1
    summary = "fill in a symbol from the left, then two from the right in turn"
    needs_future = True
    Settings = ConstrSettings

    def source(self, settings: ConstrSettings) -> Generated:
        def draw(stream: random.Random) -> Row:
            left = draw_word(stream, settings.alphabet, settings.length)
            return {"left": left, "turn": "".join(stream.sample(settings.alphabet, k=2))}

        return Generated(draw=draw, group_fields=("left", "turn"))

    def wanted_symbols(self, settings: ConstrSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: ConstrSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.mask + settings.alphabet, tokenizer)
        masked = settings.mask * settings.length

        def build(row: Row) -> Example:
            left, turn = row["left"], row["turn"]
            wanted = left[-1] + "".join(islice(cycle(turn), settings.length - 1))
            return symbols.filled(f"P={left}|M=", masked, wanted, f"|R={turn}", settings.mask)

        return build
