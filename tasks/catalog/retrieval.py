"""retrieval, retrieval_a2q and copy_a2q: a value for its key, the key for its value, a copy.

retrieval answers after the prompt: `ab=4071;cd=5501;Q=cd;A=` wants 5501. With query_last the pairs
are read before it is known which one matters; query_first is the control, with the same characters.
retrieval_a2q is the question in place: in `Q=__;ab=4071;cd=5501;A=5501` the masked key is wanted
where it stands, before all that tells it. copy_a2q is the same without pairs: `Q=____;A=k3x9`.
After the probes of these names in the Future-Seed notes.
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
    draw_word,
    draw_words,
)
from tasks.sources import Generated, Row
from tasks.task import Builder, Material, TaskSettings, require

_SEPARATORS = "=;"
_FRAME = "QA" + _SEPARATORS


@dataclass(frozen=True, kw_only=True)
class _PairsSettings(TaskSettings):
    """What both forms of retrieval have."""

    pairs: int = 10
    """Pairs of a key and a value to look through."""
    key_width: int = 2
    """Symbols of a key."""
    value_width: int = 6
    """Symbols of a value."""
    key_alphabet: str = BASE_36
    """Symbols of keys; each is one token."""
    value_alphabet: str = DIGITS
    """Symbols of values; each is one token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pairs >= 2, "pairs >= 2", self.pairs)
        require(self.key_width >= 1, "key_width >= 1", self.key_width)
        require(self.value_width >= 1, "value_width >= 1", self.value_width)
        check_alphabet(self.key_alphabet, _SEPARATORS, name="key_alphabet")
        check_alphabet(self.value_alphabet, _SEPARATORS, name="value_alphabet")
        check_words(self.pairs, self.key_width, self.key_alphabet, "pairs with keys")
        check_words(self.pairs, self.value_width, self.value_alphabet, "pairs with values")

    @property
    def symbols(self) -> str:
        """Symbols of keys and values."""
        return self.key_alphabet + self.value_alphabet


def _drawn_pairs(settings: _PairsSettings) -> Generated:
    """Pairs whose keys differ and whose values differ, and the index of the one that matters."""

    def draw(stream: random.Random) -> Row:
        keys = draw_words(stream, settings.key_alphabet, settings.key_width, settings.pairs)
        values = draw_words(stream, settings.value_alphabet, settings.value_width, settings.pairs)
        return {"keys": keys, "values": values, "asked": stream.randrange(settings.pairs)}

    return Generated(draw=draw, group_fields=("keys", "values"))


def _listed(keys: Sequence[str], values: Sequence[str]) -> str:
    return "".join(f"{key}={value};" for key, value in zip(keys, values, strict=True))


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings(_PairsSettings):
    """Settings of retrieval."""

    name: Literal["retrieval"] = "retrieval"
    """Which task it is."""
    order: Literal["query_last", "query_first"] = "query_last"
    """Where the asked key stands; query_first is the control."""

    def __post_init__(self) -> None:
        super().__post_init__()
        orders = Retrieval.orders
        require(self.order in orders, f"order is one of {', '.join(orders)}", repr(self.order))


class Retrieval(SymbolTask[RetrievalSettings]):
    """Looks up the value of a key, after the prompt."""

    name = "retrieval"
    version = 1
    summary = "give the value of a key that stands among others"
    orders = ("query_last", "query_first")
    needs_future = False
    Settings = RetrievalSettings

    def source(self, settings: RetrievalSettings) -> Generated:
        return _drawn_pairs(settings)

    def wanted_symbols(self, settings: RetrievalSettings) -> str:
        return settings.value_alphabet

    def builder(
        self, settings: RetrievalSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.symbols, tokenizer)

        def build(row: Row) -> Example:
            listed = _listed(row["keys"], row["values"])
            query = f"Q={row['keys'][row['asked']]};"
            last = settings.order == "query_last"
            prompt = f"{listed}{query}A=" if last else f"{query}{listed}A="
            return symbols.answered(prompt, row["values"][row["asked"]])

        return build


@dataclass(frozen=True, kw_only=True)
class RetrievalA2QSettings(_PairsSettings):
    """Settings of retrieval_a2q."""

    name: Literal["retrieval_a2q"] = "retrieval_a2q"
    """Which task it is."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mask(self.mask, _SEPARATORS)
        check_alphabet(self.key_alphabet, _SEPARATORS, self.mask, "key_alphabet")
        check_alphabet(self.value_alphabet, _SEPARATORS, self.mask, "value_alphabet")


class RetrievalA2Q(SymbolTask[RetrievalA2QSettings]):
    """Fills in the key of the value that the prompt ends with."""

    name = "retrieval_a2q"
    version = 1
    summary = "fill in, before a list of pairs, the key of the value that stands after it"
    needs_future = True
    Settings = RetrievalA2QSettings

    def source(self, settings: RetrievalA2QSettings) -> Generated:
        return _drawn_pairs(settings)

    def wanted_symbols(self, settings: RetrievalA2QSettings) -> str:
        return settings.key_alphabet

    def builder(
        self, settings: RetrievalA2QSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.mask + settings.symbols, tokenizer)
        masked = settings.mask * settings.key_width

        def build(row: Row) -> Example:
            key, value = row["keys"][row["asked"]], row["values"][row["asked"]]
            after = f";{_listed(row['keys'], row['values'])}A={value}"
            return symbols.filled("Q=", masked, key, after, settings.mask)

        return build


@dataclass(frozen=True, kw_only=True)
class CopyA2QSettings(TaskSettings):
    """Settings of copy_a2q."""

    name: Literal["copy_a2q"] = "copy_a2q"
    """Which task it is."""
    length: int = 8
    """Symbols to copy."""
    alphabet: str = BASE_36
    """Symbols to draw from; each is one token."""
    mask: str = "_"
    """The character that stands where a symbol is wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length >= 1, "length >= 1", self.length)
        check_mask(self.mask, _SEPARATORS)
        check_alphabet(self.alphabet, _SEPARATORS, self.mask)


class CopyA2Q(SymbolTask[CopyA2QSettings]):
    """Copies an answer from the end of the prompt to its beginning."""

    name = "copy_a2q"
    version = 1
    summary = "fill in a question that is the answer at the end of the prompt"
    needs_future = True
    Settings = CopyA2QSettings

    def source(self, settings: CopyA2QSettings) -> Generated:
        def draw(stream: random.Random) -> Row:
            return {"copied": draw_word(stream, settings.alphabet, settings.length)}

        return Generated(draw=draw, group_fields=("copied",))

    def wanted_symbols(self, settings: CopyA2QSettings) -> str:
        return settings.alphabet

    def builder(
        self, settings: CopyA2QSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + settings.mask + settings.alphabet, tokenizer)
        masked = settings.mask * settings.length

        def build(row: Row) -> Example:
            return symbols.filled("Q=", masked, row["copied"], f";A={row['copied']}", settings.mask)

        return build
