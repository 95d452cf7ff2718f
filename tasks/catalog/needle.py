"""needle: a number that belongs to a name, hidden in real text.

The text is whole sentences in their order, from a random place of the split's own documents on.
Somewhere between them stands `The number of Tovaki is 4071826.`, which the query asks for; with
`distractors`, other names have numbers elsewhere in it. Names are made up of syllables, and one
that is asked for feeds one split; neither they nor the numbers occur in the documents. After the
needle-in-a-haystack test in the form of RULER (Hsieh et al., arXiv 2404.06654, section 3).
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.example import Example, Split, TaskError, Tokenizer
from tasks.parts.collected import RowsSettings, check_columns, placed
from tasks.parts.haystack import HaystackSettings, HaystackTask, Hiding
from tasks.parts.symbols import DIGITS, draw_word
from tasks.parts.text import detokenised, one_line, sentences
from tasks.scoring import Prediction
from tasks.sources import Generated, Row, Source
from tasks.task import Builder, Dropped, Guess, Material, require

_CONSONANTS, _VOWELS, _SYLLABLES = "bdfgjklmnprstvz", "aeiou", 3
_SHORTEST_STOCK = 2**18
"""Tokens of text that are read at the least, if there are so many."""
_LENGTHS_IN_STOCK = 4
"""So many times the longest prompt is read."""

_TEXT = Source(
    fields={"text": "text"},
    group_fields=("text",),
    hub="",
    config="",
    hub_splits={"train": "train", "validation": "validation", "test": "test"},
)


@dataclass(frozen=True, kw_only=True)
class NeedleSettings(HaystackSettings, RowsSettings):
    """Settings of needle."""

    name: Literal["needle"] = "needle"
    """Which task it is."""
    digits: int = 7
    distractors: int = 0
    """Other names whose numbers stand in the same text."""
    hub: str = "Salesforce/wikitext"
    hub_config: str = "wikitext-2-raw-v1"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.distractors >= 0, "distractors >= 0", self.distractors)
        check_columns(self.columns, _TEXT.fields)


class Needle(HaystackTask[NeedleSettings]):
    """Retrieves a number from real text."""

    name = "needle"
    version = 2
    summary = "retrieve a number that is hidden in a long real text, alone or among others"
    licence = "that of the text; WikiText: CC BY-SA 4.0"
    origin = "generated from data_seed, in text of hub Salesforce/wikitext, or of `files`"
    Settings = NeedleSettings

    def source(self, settings: NeedleSettings) -> Generated:
        numbers = itertools.count()

        def draw(stream: random.Random) -> Row:
            names: dict[str, None] = {}
            while len(names) <= settings.distractors:
                names[_name(stream)] = None
            return {
                "name": next(iter(names)),
                "others": list(names)[1:],
                "values": [draw_word(stream, DIGITS, settings.digits) for _ in names],
                "seed": stream.getrandbits(64),
            }

        def finish(row: Row) -> Row:
            return {**row, "number": next(numbers)}

        return Generated(
            draw=draw, group_fields=("name",), finish=finish, quotes=placed(_TEXT, settings)
        )

    def trivial(
        self, settings: NeedleSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        """`any_number`: the first number of so many digits in the prompt, whoever's it is."""
        digits = set(self.alphabet(settings, tokenizer))

        def guess(example: Example) -> Prediction:
            isdigit = (token in digits for token in example.prompt)
            runs = itertools.groupby(
                zip(isdigit, example.prompt, strict=True), lambda pair: pair[0]
            )
            numbers = (tuple(token for _, token in run) for among, run in runs if among)
            fitting = (number for number in numbers if len(number) == settings.digits)
            return Prediction(next(fitting))

        return {"any_number": guess} if settings.distractors else {}

    def builder(
        self, settings: NeedleSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        hiding = Hiding(self.name, settings, tokenizer)
        stock = _Stock(material, tokenizer, max(settings.lengths))

        def build(row: Row) -> Example | Dropped:
            stream = random.Random(row["seed"])
            names, values = [row["name"], *row["others"]], row["values"]
            if any(stock.holds(word) for word in (*names, *values)):
                return Dropped("names or numbers that the text holds")
            hidden = [
                hiding.sentence(f" The number of {name} is ", value)
                for name, value in zip(names, values, strict=True)
            ]
            query = (
                f"What is the number of {names[0]}?",
                f"The number of {names[0]} is ",
                values[0],
            )
            return hiding.example(row["number"], stock.anywhere(stream), hidden, query, stream)

        return build


def _name(stream: random.Random) -> str:
    syllables = (stream.choice(_CONSONANTS) + stream.choice(_VOWELS) for _ in range(_SYLLABLES))
    return "".join(syllables).capitalize()


class _Stock:
    """Tokenised sentences of the first documents."""

    def __init__(self, material: Material, tokenizer: Tokenizer, longest: int) -> None:
        """Reads as much as prompts of `longest` tokens need for variety.

        Raises:
            TaskError: if there is no text at all.
        """
        wanted = max(_SHORTEST_STOCK, _LENGTHS_IN_STOCK * longest)
        self._sentences: list[list[int]] = []
        texts: list[str] = []
        read = 0
        for row in material:
            line = one_line(row["text"])
            # WikiText's headings.
            if line.startswith("= "):
                continue
            for sentence in filter(None, sentences(detokenised(line))):
                self._sentences.append(tokenizer.encode(f" {sentence}"))
                texts.append(sentence)
                read += len(self._sentences[-1])
            if read >= wanted:
                break
        if not self._sentences:
            raise TaskError("needle: a split has no text of its own: give data with more documents")
        self._text = "\n".join(texts)

    def holds(self, word: str) -> bool:
        """Whether the text has the word in it."""
        return word in self._text

    def anywhere(self, stream: random.Random) -> Iterator[list[int]]:
        """Every sentence once, from a random one on."""
        first = stream.randrange(len(self._sentences))
        order: Sequence[int] = range(first - len(self._sentences), first)
        return (self._sentences[index] for index in order)
