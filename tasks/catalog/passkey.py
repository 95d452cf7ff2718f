"""passkey: a pass key of some digits, hidden in a generated text that says nothing.

Filler sentences (`The lake is calm.`) are drawn at random; somewhere among them stands
`The pass key is 71432.`, which the query asks for. No key feeds two splits. After the passkey
retrieval of Mohtashami and Jaggi, arXiv 2305.16300, section 4.2.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tasks.example import Example, Tokenizer
from tasks.parts.haystack import HaystackSettings, HaystackTask, Hiding
from tasks.parts.symbols import DIGITS, draw_word
from tasks.sources import Generated, Row
from tasks.task import Builder, Material

_SUBJECTS = "grass sky sun lake road hill wind house river tree field stone moon rain sea path"
_STATES = "green blue yellow calm long high cold small wide old open grey bright soft deep dry"


@dataclass(frozen=True, kw_only=True)
class PasskeySettings(HaystackSettings):
    """Settings of passkey."""

    name: Literal["passkey"] = "passkey"
    """Which task it is."""
    digits: int = 5


class Passkey(HaystackTask[PasskeySettings]):
    """Retrieves a pass key from filler."""

    name = "passkey"
    version = 1
    summary = "retrieve a pass key that is hidden in a long text of filler"
    Settings = PasskeySettings

    def source(self, settings: PasskeySettings) -> Generated:
        numbers = itertools.count()

        def draw(stream: random.Random) -> Row:
            key = draw_word(stream, DIGITS, settings.digits)
            return {"key": key, "seed": stream.getrandbits(64)}

        def finish(row: Row) -> Row:
            return {**row, "number": next(numbers)}

        return Generated(draw=draw, group_fields=("key",), finish=finish, example_fields=("key",))

    def builder(
        self, settings: PasskeySettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        hiding = Hiding(self.name, settings, tokenizer)
        filler = [
            tokenizer.encode(f" The {subject} is {state}.")
            for subject in _SUBJECTS.split()
            for state in _STATES.split()
        ]
        beginning = "The pass key is "

        def drawn(stream: random.Random) -> Iterator[list[int]]:
            while True:
                yield stream.choice(filler)

        def build(row: Row) -> Example:
            stream = random.Random(row["seed"])
            key = hiding.sentence(f" {beginning}", row["key"])
            query = ("What is the pass key?", beginning, row["key"])
            return hiding.example(row["number"], drawn(stream), [key], query, stream)

        return build
