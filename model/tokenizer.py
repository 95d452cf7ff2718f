"""Text to token ids and back, behind one interface; chosen by the size of the vocabulary.

Knows two: `world`, RWKV's own (65536 ids, greedy longest match), and `bytes` (256 ids, UTF-8).
"""

import ast
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol


class Tokenizer(Protocol):
    """What every tokenizer has."""

    name: str
    """`world` or `bytes`."""
    vocab_size: int
    """Ids are below this."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Iterable[int]) -> str:
        """The text; bytes that are no UTF-8, and ids without a text, come out as U+FFFD."""
        ...

    def spelled(self, token: int) -> bytes:
        """What an id stands for; nothing for one that has no text."""
        ...


class ByteTokenizer:
    """The UTF-8 bytes of the text."""

    name = "bytes"
    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Iterable[int]) -> str:
        # A model may have more ids than bytes, and say them.
        parts = (self.spelled(token) or b"\xff" for token in tokens)
        return b"".join(parts).decode(errors="replace")

    def spelled(self, token: int) -> bytes:
        return bytes([token]) if token < self.vocab_size else b""


class WorldTokenizer:
    """RWKV's World vocabulary (rwkv_vocab_v20230424); id 0 ends a text and decodes to nothing."""

    name = "world"
    vocab_size = 65536

    def __init__(self) -> None:
        from pyrwkv_tokenizer import RWKVTokenizer

        self._tokenizer = RWKVTokenizer()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def decode(self, tokens: Iterable[int]) -> str:
        # The library's own decode panics where a token ends inside a character.
        parts = (b"" if token == 0 else self._bytes.get(token, b"\xff") for token in tokens)
        return b"".join(parts).decode(errors="replace")

    def spelled(self, token: int) -> bytes:
        return self._bytes.get(token, b"")

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        """What each id stands for; a line of the file is: id, Python literal, length in bytes."""
        entries = {}
        for line in Path(self._tokenizer.vocab_filepath).read_text(encoding="utf-8").split("\n"):
            if line:
                token, rest = line.split(" ", 1)
                value = ast.literal_eval(rest.rsplit(" ", 1)[0])
                entries[int(token)] = value.encode() if isinstance(value, str) else value
        return entries


_KNOWN: dict[str, tuple[int, Callable[[], Tokenizer]]] = {
    "world": (WorldTokenizer.vocab_size, WorldTokenizer),
    "bytes": (ByteTokenizer.vocab_size, ByteTokenizer),
}


def for_vocabulary(vocab_size: int, name: str | None = None) -> Tokenizer:
    """The tokenizer of a model.

    Args:
        vocab_size: the model's number of ids; 65536 is `world`, 256 is `bytes`.
        name: overrides the choice.

    Raises:
        ValueError: for a size that has no tokenizer, an unknown name, or ids beyond the vocabulary.
    """
    sizes = ", ".join(f"{size} ({known})" for known, (size, _) in _KNOWN.items())
    if name is None:
        matching = [make for size, make in _KNOWN.values() if size == vocab_size]
        if not matching:
            raise ValueError(
                f"no tokenizer is known for a vocabulary of {vocab_size}, only for {sizes}; "
                "name the one that it was made with"
            )
        return matching[0]()
    if name not in _KNOWN:
        raise ValueError(f"unknown tokenizer {name!r}; known are {', '.join(_KNOWN)}")
    size, make = _KNOWN[name]
    if size > vocab_size:
        raise ValueError(
            f"tokenizer {name} has {size} ids, the model's vocabulary only {vocab_size}; "
            "leave it out for the one that fits"
        )
    return make()
