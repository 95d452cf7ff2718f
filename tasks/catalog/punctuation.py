"""punctuation and punctuation_inplace: the marks and cases that a transcript has lost.

A text is a run of whole sentences of one paragraph. punctuation shows it without marks and in lower
case and wants it rewritten after the prompt. punctuation_inplace wants, at every word's own last
token, one label that says which mark follows the word and how it is cased, which the words to its
right decide as much as those to its left. With `fill_to`, prompts begin with other paragraphs; a
text of which they hold a sentence is left out. After the task of this name in the Future-Seed
notes, whose notes held the clean target in 3 to 7 prompts of 100.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal, TypeVar

from tasks.catalog.punctuation_marks import (
    MARK_F1,
    MARKS,
    RESTORATION,
    Case,
    Word,
    aligned,
    is_marked,
    is_word,
    plain,
    restored,
    transcript,
    words,
)
from tasks.example import Example, Split, Tokenizer
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, Metric
from tasks.parts.answers import normalised, to_the_line_end, written_line
from tasks.parts.collected import CollectedSettings, CollectedTask
from tasks.parts.notes import filled
from tasks.parts.symbols import Symbols
from tasks.parts.text import sentences
from tasks.scoring import Generation, Prediction, Scorer
from tasks.sources import Row, Shape
from tasks.streams import stream_of
from tasks.task import Builder, Dropped, Guess, Material, require

_MATERIAL = 512
"""At most so many paragraphs fill prompts."""
_TELLING_WORDS = 5
"""Shorter sentences may stand in the notes: they occur anywhere."""


@dataclass(frozen=True, kw_only=True)
class _PunctuationSettings(CollectedSettings):
    """What both forms have."""

    hub: str = "Salesforce/wikitext"
    hub_config: str = "wikitext-2-raw-v1"
    min_chars: int = 64
    """Texts are at least so long."""
    max_chars: int = 220
    """Sentences are taken for as long as they make no longer text."""
    max_prompt_tokens: int = 512
    """Texts whose prompt is longer, without other paragraphs, are left out."""
    fill_to: int = 0
    """Tokens of every prompt, reached with other paragraphs before the text; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_chars >= 1, "min_chars >= 1", self.min_chars)
        ordered = self.min_chars <= self.max_chars
        require(ordered, f"max_chars >= min_chars = {self.min_chars}", self.max_chars)
        full = self.fill_to == 0 or self.fill_to >= self.max_prompt_tokens
        require(full, "fill_to is 0 or at least max_prompt_tokens", self.fill_to)
        _PunctuationTask.check_columns(self.columns)


P = TypeVar("P", bound=_PunctuationSettings)


class _PunctuationTask(CollectedTask[P]):
    """What both forms have."""

    licence = "that of the text; WikiText: CC BY-SA 4.0"
    origin = "paragraphs of hub Salesforce/wikitext, or of local JSONL by `files`"
    metrics: ClassVar[tuple[Metric, ...]] = (*RESTORATION, TOKEN_ACCURACY, NLL, EXACT_MATCH)
    primary_metric = MARK_F1.name
    fields: ClassVar[Mapping[str, Shape]] = {"text": "text"}
    group_fields = ("text",)
    hub_splits: ClassVar[Mapping[str, str]] = {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }

    def material(self, settings: P) -> int:
        return _MATERIAL if settings.fill_to else 0

    def group_name(self, settings: P) -> Callable[[Row], str]:
        """The text that is taken of a paragraph: others may begin alike."""

        def name(row: Row) -> str:
            return normalised(_taken(row, settings) or row["text"])

        return name


@dataclass(frozen=True, kw_only=True)
class PunctuationSettings(_PunctuationSettings):
    """Settings of punctuation."""

    name: Literal["punctuation"] = "punctuation"
    """Which task it is."""
    max_answer_tokens: int = 180
    """Texts that are longer are left out."""
    generate: bool = True
    """Whether evaluations write texts out, for the scores of marks and cases."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_answer_tokens >= 1, "max_answer_tokens >= 1", self.max_answer_tokens)


class Punctuation(_PunctuationTask[PunctuationSettings]):
    """Rewrites a text with its marks and cases."""

    name = "punctuation"
    version = 2
    summary = "rewrite a text that has lost its punctuation and case"
    needs_future = False
    Settings = PunctuationSettings

    def measured(self, settings: PunctuationSettings) -> tuple[Metric, ...]:
        written = () if settings.generate else RESTORATION
        return tuple(metric for metric in self.metrics if metric not in written)

    def generation(self, settings: PunctuationSettings, tokenizer: Tokenizer) -> Generation | None:
        # The end of the line comes on top of the longest answer.
        most = settings.max_answer_tokens + 1
        return to_the_line_end(tokenizer, most) if settings.generate else None

    def scorer(self, settings: PunctuationSettings, tokenizer: Tokenizer) -> Scorer | None:
        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            written = written_line(tokenizer, prediction.generated[0])
            return restored(aligned(words(example.reference), words(written)))

        return measure if settings.generate else None

    def trivial(
        self, settings: PunctuationSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        """`copy` writes what it reads; `one_sentence` adds a capital in front and a period."""

        def written(example: Example, pieces: Sequence[str]) -> Prediction:
            wanted = [_tokens(piece, tokenizer) for piece in example.reference.split()]
            said = [_tokens(piece, tokenizer) for piece in pieces]
            # Each word where the true one stands, as under teacher forcing.
            placed = (
                (tokens + [-1] * len(true))[: len(true)]
                for true, tokens in zip(wanted, said, strict=True)
            )
            end = example.answer[-1]
            return Prediction((*chain(*placed), end), generated=((*chain(*said), end),))

        def copy(example: Example) -> Prediction:
            return written(example, transcript(example.reference))

        def one_sentence(example: Example) -> Prediction:
            first, *rest = transcript(example.reference)
            *between, last = [first.capitalize(), *rest]
            return written(example, [*between, f"{last}."])

        return {"copy": copy, "one_sentence": one_sentence}

    def builder(
        self, settings: PunctuationSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        frame = _Frame(settings, tokenizer, material)
        closing = tokenizer.encode("\n\nTask: Restore punctuation and casing.\n\nAnswer:")
        line_end = tokenizer.encode("\n")

        def build(row: Row) -> Example | Dropped:
            text = _taken(row, settings)
            if text is None:
                return _nothing_taken(settings)
            answer = [token for piece in text.split() for token in _tokens(piece, tokenizer)]
            if len(answer) > settings.max_answer_tokens:
                return Dropped(f"texts over {settings.max_answer_tokens} tokens")
            shown = [token for piece in transcript(text) for token in _tokens(piece, tokenizer)]
            before = frame.before(text, len(shown) + len(closing))
            if isinstance(before, Dropped):
                return before
            return Example(
                prompt=(*before, *shown, *closing), answer=(*answer, *line_end), reference=text
            )

        return build


@dataclass(frozen=True, kw_only=True)
class PunctuationInPlaceSettings(_PunctuationSettings):
    """Settings of punctuation_inplace."""

    name: Literal["punctuation_inplace"] = "punctuation_inplace"
    """Which task it is."""
    stride: int = 1
    """Words from one that is labelled to the next; 1 labels all of them. With more, the others
    stand around it as evidence, which the control shuffled_future can permute."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.stride >= 1, "stride >= 1", self.stride)
        require(
            self.stride > 1 or self.control != "shuffled_future",
            "stride > 1 with control shuffled_future, which leaves labelled words in place,",
            self.stride,
        )

    def labelled(self, text: str) -> list[Word]:
        """The words of a text that get a label."""
        return words(text)[:: self.stride]


_MARK_OF = ("", *MARKS)
_CASE_OF: tuple[Case, ...] = ("lower", "capital", "other")
# Seven marks, none among them, by three cases: letter n is of mark n mod 7 and case n mod 3.
_LABELS = "ABCDEFGHIJKLMNOPQRSTU"
_MEANING = {
    label: (_MARK_OF[number % 7], _CASE_OF[number % 3]) for number, label in enumerate(_LABELS)
}
_LABEL_OF = {meaning: label for label, meaning in _MEANING.items()}


class PunctuationInPlace(_PunctuationTask[PunctuationInPlaceSettings]):
    """Labels each word of a transcript with its mark and case."""

    name = "punctuation_inplace"
    version = 1
    summary = "say at each word of a transcript which mark follows it and how it is cased"
    needs_future = True
    Settings = PunctuationInPlaceSettings

    def alphabet(
        self, settings: PunctuationInPlaceSettings, tokenizer: Tokenizer
    ) -> tuple[int, ...]:
        return Symbols(self.name, _LABELS, tokenizer).tokens(_LABELS)

    def scorer(self, settings: PunctuationInPlaceSettings, tokenizer: Tokenizer) -> Scorer:
        label = dict(zip(self.alphabet(settings, tokenizer), _LABELS, strict=True))

        def said(word: Word, token: int) -> Word | None:
            if token not in label:
                return None
            mark, case = _MEANING[label[token]]
            return Word(word.bare, mark, case)

        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            pairs = zip(settings.labelled(example.reference), prediction.tokens, strict=True)
            return restored((word, said(word, token)) for word, token in pairs)

        return measure

    def trivial(
        self, settings: PunctuationInPlaceSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        """`copy` gives every word no mark and lower case; `one_sentence` a capital and a period."""
        symbols = Symbols(self.name, _LABELS, tokenizer)
        neither, capital, period = (
            _LABEL_OF[meaning] for meaning in (("", "lower"), ("", "capital"), (".", "lower"))
        )

        def copy(example: Example) -> Prediction:
            return Prediction(symbols.tokens(neither * len(example.target_tokens)))

        def one_sentence(example: Example) -> Prediction:
            labels = [neither] * len(words(example.reference))
            labels[0], labels[-1] = capital, period
            return Prediction(symbols.tokens(labels[:: settings.stride]))

        return {"copy": copy, "one_sentence": one_sentence}

    def builder(
        self, settings: PunctuationInPlaceSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        frame = _Frame(settings, tokenizer, material)
        symbols = Symbols(self.name, _LABELS, tokenizer)

        def build(row: Row) -> Example | Dropped:
            text = _taken(row, settings)
            if text is None:
                return _nothing_taken(settings)
            shown: list[int] = []
            places: list[int] = []
            for piece in transcript(text):
                shown += _tokens(piece, tokenizer)
                if is_word(piece):
                    places.append(len(shown) - 1)
            before = frame.before(text, len(shown))
            if isinstance(before, Dropped):
                return before
            labels = [_LABEL_OF[word.mark, word.case] for word in settings.labelled(text)]
            return Example(
                prompt=(*before, *shown),
                target_positions=tuple(len(before) + place for place in places[:: settings.stride]),
                target_tokens=symbols.tokens(labels),
                reference=text,
            )

        return build


class _Frame:
    """What stands before a transcript."""

    def __init__(
        self, settings: _PunctuationSettings, tokenizer: Tokenizer, material: Material
    ) -> None:
        self._settings = settings
        notes = [plain(row["text"]) for row in material]
        self._notes = [tokenizer.encode(f"{note}\n") for note in notes]
        self._said = "\n".join(normalised(note) for note in notes)
        self._header = tokenizer.encode("Background notes:\n") if settings.fill_to else []
        gap = "\n\n" if settings.fill_to else ""
        self._transcript = tokenizer.encode(f"{gap}Noisy transcript:\n")

    def before(self, text: str, others: int) -> list[int] | Dropped:
        """What stands before the transcript.

        Args:
            text: what is to be restored.
            others: the prompt's other tokens.
        """
        fixed = len(self._header) + len(self._transcript) + others
        if fixed > self._settings.max_prompt_tokens:
            return Dropped(f"prompts over {self._settings.max_prompt_tokens} tokens")
        if self._settings.fill_to == 0:
            return self._transcript
        told = [normalised(sentence) for sentence in sentences(text)]
        if any(len(words(one)) >= _TELLING_WORDS and one in self._said for one in told):
            return Dropped("texts of which the notes hold a sentence")
        order = list(self._notes)
        stream_of(text).shuffle(order)
        room = self._settings.fill_to - fixed
        advice = "give data with more paragraphs, or a smaller fill_to"
        notes = filled(order, room, "punctuation: the notes", advice)
        return [*self._header, *chain(*notes), *self._transcript]


def _taken(row: Row, settings: _PunctuationSettings) -> str | None:
    """The first run of whole sentences that is neither too short nor too long."""
    for text in _runs(sentences(plain(row["text"])), settings.max_chars):
        if len(text) >= settings.min_chars and is_marked(text):
            return text
    return None


def _nothing_taken(settings: _PunctuationSettings) -> Dropped:
    least, most = settings.min_chars, settings.max_chars
    return Dropped(f"texts without marked sentences of {least} to {most} characters")


def _runs(parts: Sequence[str], most: int) -> Iterator[str]:
    """From each sentence on, as many whole ones as make no more than `most` characters."""
    for first in range(len(parts)):
        run = ""
        for part in parts[first:]:
            longer = f"{run} {part}".strip()
            if len(longer) > most:
                break
            run = longer
        yield run


def _tokens(piece: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(f" {piece}")
