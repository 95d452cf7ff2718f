"""squad: SQuAD v1.1, a question on a passage of Wikipedia whose answer is a span of it.

The question stands after the context (question_last) or before it (question_first, the control);
both orders of a row have the same pieces. With `fill_to` the passage stands among others from other
articles, so that every prompt has exactly that many tokens: whole passages that do not hold the
answer, the last one cut. Where the true one stands follows from the row. Question, answer and the
true passage are never cut. The prompt of a row does not depend on other rows, but for the articles
that are put aside as material.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import ClassVar, Literal

from tasks.example import Example, Tokenizer
from tasks.parts.answers import normalised, reference
from tasks.parts.collected import AnsweringSettings, AnsweringTask
from tasks.parts.notes import filled
from tasks.parts.text import one_line
from tasks.sources import Row, Shape
from tasks.streams import stream_of
from tasks.task import Builder, Dropped, Material, require

_MATERIAL = 512
"""At most so many rows' passages fill prompts."""


@dataclass(frozen=True, kw_only=True)
class SquadSettings(AnsweringSettings):
    """Settings of squad."""

    name: Literal["squad"] = "squad"
    """Which task it is."""
    max_prompt_tokens: int = 512
    """Rows whose passage and question are longer are left out."""
    fill_to: int = 0
    """Tokens of every prompt, reached with passages of other articles; 0 for none of them."""
    hub: str = "rajpurkar/squad"
    hub_config: str = "plain_text"

    def __post_init__(self) -> None:
        super().__post_init__()
        filled = self.fill_to == 0 or self.fill_to >= self.max_prompt_tokens
        require(filled, "fill_to is 0 or at least max_prompt_tokens", self.fill_to)
        Squad.check_columns(self.columns)


class Squad(AnsweringTask[SquadSettings]):
    """Answers a question from a passage."""

    name = "squad"
    version = 2
    summary = "answer a question with a span of a passage, alone or among other passages"
    licence = "CC BY-SA 4.0"
    origin = "SQuAD v1.1: hub rajpurkar/squad, or local JSONL by `files`"
    Settings = SquadSettings
    fields: ClassVar[Mapping[str, Shape]] = {
        "title": "text",
        "context": "text",
        "question": "text",
        "answers": {"text": ["text"]},
    }
    group_fields = ("title",)
    row_fields = ("context", "question")
    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "validation"}

    def material(self, settings: SquadSettings) -> int:
        return _MATERIAL if settings.fill_to else 0

    def builder(self, settings: SquadSettings, tokenizer: Tokenizer, material: Material) -> Builder:
        header, closing = tokenizer.encode("Context:\n"), tokenizer.encode("Answer:")
        line_end = tuple(tokenizer.encode("\n"))
        others = {normalised(row["context"]): _passage(row, tokenizer) for row in material}

        def build(row: Row) -> Example | Dropped:
            gold = [answer for answer in row["answers"]["text"] if answer.strip()]
            if not gold:
                return Dropped("rows without an answer")
            answer = tuple(tokenizer.encode(f" {one_line(gold[0])}"))
            if len(answer) > settings.max_answer_tokens:
                return Dropped(f"answers over {settings.max_answer_tokens} tokens")
            question = tokenizer.encode(f"Question: {one_line(row['question'])}\n\n")
            passage = _passage(row, tokenizer)
            fixed = len(header) + len(question) + len(closing)
            if fixed + len(passage) > settings.max_prompt_tokens:
                return Dropped(f"passages and questions over {settings.max_prompt_tokens} tokens")
            context = [passage]
            if settings.fill_to:
                room = settings.fill_to - fixed - len(passage)
                fitting = _fitting(others, row, gold)
                if sum(map(len, fitting)) < room <= sum(map(len, others.values())):
                    return Dropped("answers that too many other passages hold")
                context = _among_others(row, passage, fitting, room)
            parts = [list(chain(header, *context)), question]
            if settings.order == "question_first":
                parts.reverse()
            return Example(
                prompt=tuple(chain(*parts, closing)),
                answer=answer + line_end,
                reference=reference(gold),
            )

        return build


def _passage(row: Row, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(f"{one_line(row['context'])}\n\n")


def _fitting(others: dict[str, list[int]], row: Row, gold: Sequence[str]) -> list[list[int]]:
    """Passages without any of the gold answers, in an order that follows from the row."""
    answers = [normalised(answer) for answer in gold]
    fitting = [
        tokens for text, tokens in others.items() if not any(answer in text for answer in answers)
    ]
    _stream(row).shuffle(fitting)
    return fitting


def _among_others(
    row: Row, passage: list[int], others: Sequence[list[int]], room: int
) -> list[list[int]]:
    """The passage among so many tokens of others.

    Raises:
        TaskError: if the others do not suffice.
    """
    advice = "give data with more articles, or a smaller fill_to"
    filling = filled(others, room, "squad: the passages", advice)
    place = _stream(row).randint(0, len(filling))
    return [*filling[:place], passage, *filling[place:]]


def _stream(row: Row) -> Random:
    return stream_of(f"{row['context']}\0{row['question']}")
