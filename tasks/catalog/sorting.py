"""kvsort, kvsort_after and permfill: a list is put in order, where it is not yet known or after it.

kvsort fills in place: in `M=____________|31:55,12:90,…` the mask wants the values in the order of
their keys, all of which stand to its right. kvsort_after is the control, the same characters with
the answer after the prompt: `31:55,12:90,…|Q=SORT|A=`. permfill gives the order as well: in
`M=__c_|O=<the alphabet, shuffled>|I=caxb` the mask wants the items I in the order of O, and some
positions of it (the anchors) are given. After the probes of these names in the Future-Seed notes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.example import Example, Tokenizer
from tasks.parts.symbols import (
    BASE_36,
    DIGITS,
    Symbols,
    SymbolTask,
    check_alphabet,
    check_mask,
    check_words,
    draw_words,
)
from tasks.sources import Generated, Row
from tasks.task import Builder, Material, TaskSettings, require

_SEPARATORS = "=|:,"
_FRAME = "MOISRTQA" + _SEPARATORS


@dataclass(frozen=True, kw_only=True)
class _KvSortSettings(TaskSettings):
    """What both forms of kvsort have."""

    pairs: int = 7
    """Pairs of a key and a value to sort."""
    key_width: int = 2
    """Symbols of a key."""
    value_width: int = 6
    """Symbols of a value."""
    alphabet: str = DIGITS
    """Symbols of keys and values, in the order by which keys are sorted; each is one token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pairs >= 2, "pairs >= 2", self.pairs)
        require(self.key_width >= 1, "key_width >= 1", self.key_width)
        require(self.value_width >= 1, "value_width >= 1", self.value_width)
        check_alphabet(self.alphabet, _SEPARATORS)
        check_words(self.pairs, self.key_width, self.alphabet, "pairs with keys")
        check_words(self.pairs, self.value_width, self.alphabet, "pairs with values")


def _drawn_pairs(settings: _KvSortSettings) -> Generated:
    def draw(stream: random.Random) -> Row:
        keys, values = (
            draw_words(stream, settings.alphabet, width, settings.pairs)
            for width in (settings.key_width, settings.value_width)
        )
        return {"keys": keys, "values": values}

    return Generated(draw=draw, group_fields=("keys", "values"))


def _listed(row: Row) -> str:
    return ",".join(f"{key}:{value}" for key, value in _pairs(row))


def _sorted_values(row: Row, alphabet: str) -> str:
    """The values, in the order of their keys."""
    ranked = sorted(_pairs(row), key=lambda pair: [alphabet.index(symbol) for symbol in pair[0]])
    return "".join(value for _, value in ranked)


def _pairs(row: Row) -> Sequence[tuple[str, str]]:
    return list(zip(row["keys"], row["values"], strict=True))


@dataclass(frozen=True, kw_only=True)
class KvSortSettings(_KvSortSettings):
    """Settings of kvsort."""

    name: Literal["kvsort"] = "kvsort"
    """Which task it is."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mask(self.mask, _SEPARATORS)
        check_alphabet(self.alphabet, _SEPARATORS, self.mask)


class KvSort(SymbolTask[KvSortSettings]):
    """Fills in the values of pairs that follow, sorted by key."""

    name = "kvsort"
    version = 1
    summary = "fill in, before a list of pairs, their values in the order of their keys"
    needs_future = True
    Settings = KvSortSettings

    def source(self, settings: KvSortSettings) -> Generated:
        return _drawn_pairs(settings)

    def wanted_symbols(self, settings: KvSortSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: KvSortSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.mask + settings.alphabet, tokenizer)
        masked = settings.mask * (settings.pairs * settings.value_width)

        def build(row: Row) -> Example:
            wanted = _sorted_values(row, settings.alphabet)
            return symbols.filled("M=", masked, wanted, f"|{_listed(row)}", settings.mask)

        return build


@dataclass(frozen=True, kw_only=True)
class KvSortAfterSettings(_KvSortSettings):
    """Settings of kvsort_after."""

    name: Literal["kvsort_after"] = "kvsort_after"
    """Which task it is."""


class KvSortAfter(SymbolTask[KvSortAfterSettings]):
    """Gives the values of pairs, sorted by key, after the prompt."""

    name = "kvsort_after"
    version = 1
    summary = "give the values of a list of pairs in the order of their keys"
    needs_future = False
    Settings = KvSortAfterSettings

    def source(self, settings: KvSortAfterSettings) -> Generated:
        return _drawn_pairs(settings)

    def wanted_symbols(self, settings: KvSortAfterSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: KvSortAfterSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.alphabet, tokenizer)

        def build(row: Row) -> Example:
            prompt = f"{_listed(row)}|Q=SORT|A="
            return symbols.answered(prompt, _sorted_values(row, settings.alphabet))

        return build


@dataclass(frozen=True, kw_only=True)
class PermFillSettings(TaskSettings):
    """Settings of permfill."""

    name: Literal["permfill"] = "permfill"
    """Which task it is."""
    items: int = 20
    """Symbols to put in order."""
    anchors: int = 2
    """Positions of the mask where the wanted symbol is given."""
    alphabet: str = BASE_36
    """Symbols that are ordered and drawn from; each is one token."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mask(self.mask, _SEPARATORS)
        check_alphabet(self.alphabet, _SEPARATORS, self.mask)
        most = len(self.alphabet)
        require(2 <= self.items <= most, f"2 <= items <= {most}", self.items)
        # With one position free, the items that are left over tell its symbol without any order.
        most = self.items - 2
        require(0 <= self.anchors <= most, f"0 <= anchors <= items - 2 = {most}", self.anchors)


class PermFill(SymbolTask[PermFillSettings]):
    """Fills in the items that follow, in an order that follows."""

    name = "permfill"
    version = 1
    summary = "fill in the items that stand to the right, in the order that stands to the right"
    needs_future = True
    Settings = PermFillSettings

    def source(self, settings: PermFillSettings) -> Generated:
        def draw(stream: random.Random) -> Row:
            order = stream.sample(settings.alphabet, k=len(settings.alphabet))
            return {
                "order": "".join(order),
                "items": "".join(stream.sample(settings.alphabet, k=settings.items)),
                "anchors": sorted(stream.sample(range(settings.items), k=settings.anchors)),
            }

        return Generated(draw=draw, group_fields=("order", "items"))

    def wanted_symbols(self, settings: PermFillSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: PermFillSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.mask + settings.alphabet, tokenizer)

        def build(row: Row) -> Example:
            wanted = "".join(sorted(row["items"], key=row["order"].index))
            seen = [settings.mask] * settings.items
            for position in row["anchors"]:
                seen[position] = wanted[position]
            after = f"|O={row['order']}|I={row['items']}"
            return symbols.filled("M=", "".join(seen), wanted, after, settings.mask)

        return build
