"""nameindex and middlematch: a name of a list, by its place or by its neighbours.

`N=ab,cd,ef;Q=I=2;A=` wants cd, and so does `N=ab,cd,ef;Q=L=ab,R=ef;A=`. With query_last the names
are read before it is known which one matters; query_first is the control, with the same characters.
After the probes of these names in the Future-Seed notes, which have them from arXiv:2512.14982.
"""

import random
from dataclasses import dataclass
from typing import Literal

from tasks.example import Example, Tokenizer
from tasks.parts.symbols import (
    BASE_36,
    DIGITS,
    Symbols,
    SymbolTask,
    check_alphabet,
    check_words,
    draw_words,
)
from tasks.sources import Generated, Row
from tasks.task import Builder, Material, TaskSettings, require

_SEPARATORS = "=;,"
_ORDERS = ("query_last", "query_first")


@dataclass(frozen=True, kw_only=True)
class _ListSettings(TaskSettings):
    """What both have."""

    order: Literal["query_last", "query_first"] = "query_last"
    """Where the question stands; query_first is the control."""
    names: int
    """Names in the list, none twice."""
    name_width: int = 2
    """Symbols of a name."""
    alphabet: str = BASE_36
    """Symbols of names; each is one token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.order in _ORDERS, f"order is one of {', '.join(_ORDERS)}", repr(self.order))
        require(self.names >= 3, "names >= 3", self.names)
        require(self.name_width >= 1, "name_width >= 1", self.name_width)
        check_alphabet(self.alphabet, _SEPARATORS)
        check_words(self.names, self.name_width, self.alphabet, "names")


def _drawn_list(settings: _ListSettings, first: int, last: int) -> Generated:
    """Names, and the index of the one that is asked for, first <= asked <= last."""

    def draw(stream: random.Random) -> Row:
        names = draw_words(stream, settings.alphabet, settings.name_width, settings.names)
        return {"names": names, "asked": stream.randint(first, last)}

    return Generated(draw=draw, group_fields=("names",))


def _prompt(settings: _ListSettings, row: Row, query: str) -> str:
    listed = f"N={','.join(row['names'])};"
    asked = f"Q={query};"
    return f"{listed}{asked}A=" if settings.order == "query_last" else f"{asked}{listed}A="


@dataclass(frozen=True, kw_only=True)
class NameIndexSettings(_ListSettings):
    """Settings of nameindex."""

    name: Literal["nameindex"] = "nameindex"
    """Which task it is."""
    names: int = 64
    """Names in the list, none twice."""


class NameIndex(SymbolTask[NameIndexSettings]):
    """Gives the name at a place of a list."""

    name = "nameindex"
    version = 1
    summary = "give the name that stands at a numbered place of a list"
    orders = _ORDERS
    needs_future = False
    Settings = NameIndexSettings

    def source(self, settings: NameIndexSettings) -> Generated:
        return _drawn_list(settings, 0, settings.names - 1)

    def wanted_symbols(self, settings: NameIndexSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: NameIndexSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        characters = "NQIA" + _SEPARATORS + DIGITS + settings.alphabet
        symbols = Symbols(self.name, characters, tokenizer)
        width = len(str(settings.names))

        def build(row: Row) -> Example:
            # Counted from 1 and as wide as the largest, so that all prompts are equally long.
            query = f"I={row['asked'] + 1:0{width}d}"
            return symbols.answered(_prompt(settings, row, query), row["names"][row["asked"]])

        return build


@dataclass(frozen=True, kw_only=True)
class MiddleMatchSettings(_ListSettings):
    """Settings of middlematch."""

    name: Literal["middlematch"] = "middlematch"
    """Which task it is."""
    names: int = 96
    """Names in the list, none twice."""


class MiddleMatch(SymbolTask[MiddleMatchSettings]):
    """Gives the name between two others."""

    name = "middlematch"
    version = 1
    summary = "give the name that stands between two others in a list"
    orders = _ORDERS
    needs_future = False
    Settings = MiddleMatchSettings

    def source(self, settings: MiddleMatchSettings) -> Generated:
        return _drawn_list(settings, 1, settings.names - 2)

    def wanted_symbols(self, settings: MiddleMatchSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: MiddleMatchSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        characters = "NQLRA" + _SEPARATORS + settings.alphabet
        symbols = Symbols(self.name, characters, tokenizer)

        def build(row: Row) -> Example:
            left, middle, right = row["names"][row["asked"] - 1 : row["asked"] + 2]
            return symbols.answered(_prompt(settings, row, f"L={left},R={right}"), middle)

        return build
