"""arc: ARC-Challenge, science questions with three to five labelled options.

The options stand before the question (options_first, where a left-to-right model reads them without
knowing what for) or after it (question_first, the control); both orders have the same pieces. The
answer is the label alone, and a question counts as solved where the right label is the likeliest of
its own labels. Labels are letters or digits, as the rows have them.
"""

import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

from tasks.example import Example, Split, TaskError, Tokenizer
from tasks.metrics import NLL, TOKEN_ACCURACY, mean_of
from tasks.parts.collected import CollectedSettings, CollectedTask
from tasks.parts.text import one_line
from tasks.scoring import Prediction, Scorer
from tasks.sources import Row, Shape
from tasks.task import Builder, Dropped, Guess, Material, require

_WORD = re.compile(r"\w+")

OPTION_ACCURACY = mean_of(
    "option_accuracy",
    True,
    "1 where the right label is the likeliest of the question's labels",
    worst=0.0,
)


@dataclass(frozen=True, kw_only=True)
class ArcSettings(CollectedSettings):
    """Settings of arc."""

    name: Literal["arc"] = "arc"
    """Which task it is."""
    order: Literal["options_first", "question_first"] = "options_first"
    """What stands first; question_first is the control."""
    max_prompt_tokens: int = 512
    """Rows whose prompt is longer are left out: every option is needed."""
    hub: str = "allenai/ai2_arc"
    hub_config: str = "ARC-Challenge"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.order in Arc.orders, f"order is one of {', '.join(Arc.orders)}", self.order)
        Arc.check_columns(self.columns)


class Arc(CollectedTask[ArcSettings]):
    """Chooses among options."""

    name = "arc"
    version = 2
    summary = "choose the right one of three to five options of a science question"
    licence = "CC BY-SA 4.0"
    origin = "AI2 ARC, Challenge set: hub allenai/ai2_arc, or local JSONL by `files`"
    orders = ("options_first", "question_first")
    needs_future = False
    metrics = (OPTION_ACCURACY, TOKEN_ACCURACY, NLL)
    primary_metric = OPTION_ACCURACY.name
    Settings = ArcSettings
    fields: ClassVar[Mapping[str, Shape]] = {
        "question": "text",
        "choices": {"text": ["text"], "label": ["text"]},
        "answerKey": "text",
    }
    group_fields = ("question",)
    hub_splits: ClassVar[Mapping[str, str]] = {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }

    def marks(self, settings: ArcSettings) -> Callable[[Row], Set[str]]:
        """The question's words: the official splits share one in other punctuation."""
        return lambda row: {" ".join(_WORD.findall(row["question"].casefold()))}

    def builder(self, settings: ArcSettings, tokenizer: Tokenizer, material: Material) -> Builder:
        header, closing = tokenizer.encode("Options:\n"), tokenizer.encode("\nAnswer:")
        gap = tokenizer.encode("\n")

        def build(row: Row) -> Example | Dropped:
            reason = _unfit(row)
            if reason:
                return Dropped(reason)
            listed = sorted(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
            options = [tokenizer.encode(f"{label}. {one_line(text)}\n") for label, text in listed]
            question = tokenizer.encode(f"Question: {one_line(row['question'])}\n")
            block = list(chain(header, *options))
            options_first = settings.order == "options_first"
            parts = (block, gap, question) if options_first else (question, gap, block)
            prompt = tuple(chain(*parts, closing))
            if len(prompt) > settings.max_prompt_tokens:
                return Dropped(f"prompts over {settings.max_prompt_tokens} tokens")
            labels = [label for label, _ in listed]
            return Example(
                prompt=prompt,
                answer=_label_tokens(row["answerKey"].strip(), tokenizer),
                choices=tuple(_label_tokens(label, tokenizer) for label in labels),
                reference=json.dumps({"longest": _longest(listed)}),
            )

        return build

    def scorer(self, settings: ArcSettings, tokenizer: Tokenizer) -> Scorer:
        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            # Of equally likely labels none is chosen: a constant model would win by its tie-break.
            right = prediction.choice_nll[example.choices.index(example.answer)]
            others = list(prediction.choice_nll)
            others.remove(right)
            return {OPTION_ACCURACY.name: float(right < min(others))}

        return measure

    def trivial(
        self, settings: ArcSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        def longest(example: Example) -> Prediction:
            place = json.loads(example.reference)["longest"]
            return Prediction(
                tokens=example.choices[place],
                choice_nll=tuple(float(at != place) for at in range(len(example.choices))),
            )

        return {"longest option": longest}


def _label_tokens(label: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    tokens = tuple(tokenizer.encode(f" {label}"))
    if not tokens:
        raise TaskError(f"arc: the tokenizer {tokenizer.name} has no tokens for label {label!r}")
    return tokens


def _longest(listed: list[tuple[str, str]]) -> int:
    """Place of the option with the most characters, the first of equals."""
    return max(range(len(listed)), key=lambda place: (len(listed[place][1]), -place))


def _unfit(row: Row) -> str:
    """Why a row is no question; empty if it is."""
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    if len(labels) != len(texts) or len(set(labels)) != len(labels):
        return "rows whose labels and options do not match"
    if len(labels) < 2:
        return "rows with fewer than two options"
    if row["answerKey"].strip() not in labels:
        return "rows whose answer is none of the options"
    if not all(map(str.strip, [row["question"], *texts])):
        return "rows with an empty question or option"
    return ""
