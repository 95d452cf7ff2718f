"""hotpot: HotpotQA in the distractor setting: ten paragraphs, two of them needed, a short answer.

The question stands after the context (question_last, where a left-to-right model reads the context
without knowing what for) or before it (question_first, the control). Both orders of a row hold the
very same context: what does not fit is chosen once, counted from the end that is far from the
question where it stands last. First go whole paragraphs without supporting facts, then tokens of
what remains; question and answer are never touched. An answer ends with its line. Pieces
are tokenised one by one, so that a paragraph's tokens do not depend on its neighbours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

from tasks.example import Example, Tokenizer
from tasks.parts.answers import CLOSED, reference
from tasks.parts.collected import AnsweringSettings, AnsweringTask
from tasks.parts.text import one_line
from tasks.sources import Row, Shape
from tasks.task import Builder, Dropped, Material, require


@dataclass(frozen=True, kw_only=True)
class HotpotSettings(AnsweringSettings):
    """Settings of hotpot."""

    name: Literal["hotpot"] = "hotpot"
    """Which task it is."""
    max_prompt_tokens: int = 2048
    """Longer prompts lose context: distractors first, then tokens."""
    min_prompt_tokens: int = 0
    """Rows whose untrimmed prompt is shorter are left out."""
    hub: str = "hotpotqa/hotpot_qa"
    hub_config: str = "distractor"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_prompt_tokens >= 0, "min_prompt_tokens >= 0", self.min_prompt_tokens)
        Hotpot.check_columns(self.columns)


class Hotpot(AnsweringTask[HotpotSettings]):
    """Answers a question from two of ten paragraphs."""

    name = "hotpot"
    version = 3
    summary = "answer a question whose evidence lies in two of ten paragraphs"
    licence = "CC BY-SA 4.0"
    origin = "HotpotQA, distractor setting: hub hotpotqa/hotpot_qa, or local JSONL by `files`"
    closed = CLOSED
    Settings = HotpotSettings
    fields: ClassVar[Mapping[str, Shape]] = {
        "question": "text",
        "answer": "text",
        "context": {"title": ["text"], "sentences": [["text"]]},
        "supporting_facts": {"title": ["text"]},
    }
    group_fields = ("question",)
    # The hub's test rows have no answers.
    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "validation"}

    def builder(
        self, settings: HotpotSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        header = tokenizer.encode("Context:\n")
        closing, line_end = tokenizer.encode("Answer:"), tokenizer.encode("\n")

        def build(row: Row) -> Example | Dropped:
            answer = tokenizer.encode(f" {one_line(row['answer'])}")
            question = tokenizer.encode(f"Question: {one_line(row['question'])}\n\n")
            fixed = len(header) + len(question) + len(closing)
            reason = _unfit(row, len(answer), fixed, settings)
            if reason:
                return Dropped(reason)
            paragraphs = [
                Paragraph(tokenizer.encode(text), supports) for text, supports in _paragraphs(row)
            ]
            if not any(paragraph.supports for paragraph in paragraphs):
                return Dropped("contexts without a supporting paragraph")
            untrimmed = fixed + sum(len(paragraph.tokens) for paragraph in paragraphs)
            if untrimmed < settings.min_prompt_tokens:
                return Dropped(f"prompts under {settings.min_prompt_tokens} tokens")
            context = header + trimmed(paragraphs, settings.max_prompt_tokens - fixed)
            question_last = settings.order == "question_last"
            parts = (context, question) if question_last else (question, context)
            return Example(
                prompt=tuple(chain(*parts, closing)),
                answer=(*answer, *line_end),
                reference=reference([row["answer"]]),
            )

        return build


@dataclass(frozen=True)
class Paragraph:
    """A tokenised paragraph of the context."""

    tokens: list[int]
    supports: bool
    """Whether it holds a supporting fact."""


def trimmed(paragraphs: list[Paragraph], budget: int) -> list[int]:
    """The context's tokens, at most `budget` of them.

    Drops paragraphs without supporting facts from the front, whole, for as long as it is too long;
    then cuts tokens off the front.
    """
    length = sum(len(paragraph.tokens) for paragraph in paragraphs)
    kept: list[int] = []
    for paragraph in paragraphs:
        if length > budget and not paragraph.supports:
            length -= len(paragraph.tokens)
        else:
            kept += paragraph.tokens
    return kept[max(0, len(kept) - budget) :]


def _unfit(row: Row, answer_length: int, fixed_length: int, settings: HotpotSettings) -> str:
    """Why question, answer or form of a row do not allow an example; empty if they do."""
    if not row["answer"].strip():
        return "empty answers"
    if answer_length > settings.max_answer_tokens:
        return f"answers over {settings.max_answer_tokens} tokens"
    if fixed_length > settings.max_prompt_tokens:
        return f"questions that alone need over {settings.max_prompt_tokens} tokens"
    if len(row["context"]["title"]) != len(row["context"]["sentences"]):
        return "contexts whose titles and paragraphs differ in number"
    return ""


def _paragraphs(row: Row) -> Iterator[tuple[str, bool]]:
    """Each paragraph's text, and whether it holds a supporting fact."""
    supporting = set(row["supporting_facts"]["title"])
    context = row["context"]
    for title, sentences in zip(context["title"], context["sentences"], strict=True):
        text = one_line(" ".join(sentences))
        yield f"{one_line(title)}: {text}\n\n", title in supporting
