"""What tasks on collected data have in common: where rows come from, and answers in words.

Two bases: `CollectedTask` for rows from the hub or from files, and `AnsweringTask` for those that
ask a question whose answer is written out.
"""

from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeVar

from tasks.example import Tokenizer
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, Metric
from tasks.parts.answers import ANSWER_EM, ANSWER_F1, answer_scorer, to_the_line_end
from tasks.scoring import Generation, Scorer
from tasks.sources import Files, Row, Shape, Source
from tasks.task import Task, TaskSettings, require


@dataclass(frozen=True, kw_only=True)
class RowsSettings(TaskSettings):
    """Where rows come from."""

    hub: str = ""
    """Data set on the Hugging Face hub; empty where there is none."""
    hub_config: str = ""
    """Configuration of the data set on the hub."""
    hub_revision: str = ""
    """Commit of the data set on the hub; empty for its newest."""
    files: Files | None = None
    """Local JSONL files to read instead of the hub."""
    columns: dict[str, str] = field(default_factory=dict)
    """The data's column for a field of the task, where the two are called differently."""


@dataclass(frozen=True, kw_only=True)
class CollectedSettings(RowsSettings):
    """Where the rows of examples come from, and how long these may be."""

    max_prompt_tokens: int
    """The most tokens of a prompt; the task says what becomes of a longer one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.hub) or self.files is not None, "files or hub is given", "neither")
        require(self.max_prompt_tokens >= 1, "max_prompt_tokens >= 1", self.max_prompt_tokens)


def placed(declared: Source, settings: RowsSettings) -> Source:
    """The source with the rows' whereabouts of the settings."""
    return replace(
        declared,
        hub=settings.hub,
        config=settings.hub_config,
        revision=settings.hub_revision,
        files=settings.files,
        columns=settings.columns,
    )


def check_columns(columns: Mapping[str, str], fields: Collection[str]) -> None:
    """Refuses columns for fields that there are not.

    Raises:
        ValueError: the rule and the names.
    """
    unknown = sorted(set(columns) - set(fields))
    require(not unknown, f"columns names fields among {', '.join(fields)}", unknown)


C = TypeVar("C", bound=CollectedSettings)


class CollectedTask(Task[C]):
    """A task whose rows somebody collected."""

    fields: ClassVar[Mapping[str, Shape]]
    """The fields of a row that the task reads."""
    group_fields: ClassVar[tuple[str, ...]]
    row_fields: ClassVar[tuple[str, ...]] = ()
    hub_splits: ClassVar[Mapping[str, str]]

    def source(self, settings: C) -> Source:
        declared = Source(
            fields=self.fields,
            group_fields=self.group_fields,
            row_fields=self.row_fields,
            hub_splits=self.hub_splits,
            material=self.material(settings),
            group_name=self.group_name(settings),
            marks=self.marks(settings),
            hub="",
            config="",
        )
        return placed(declared, settings)

    def material(self, settings: C) -> int:
        """At most so many rows are quoted in prompts."""
        del settings
        return 0

    def group_name(self, settings: C) -> Callable[[Row], str] | None:
        """What names a row's group, where its group fields alone do not (`Source.group_name`)."""
        del settings
        return None

    def marks(self, settings: C) -> Callable[[Row], Set[str]] | None:
        """What near-copies of a row share with it, if anything (`Source.marks`)."""
        del settings
        return None

    @classmethod
    def check_columns(cls, columns: Mapping[str, str]) -> None:
        """Refuses columns for fields that there are not.

        Raises:
            ValueError: the rule and the names.
        """
        check_columns(columns, cls.fields)


@dataclass(frozen=True, kw_only=True)
class AnsweringSettings(CollectedSettings):
    """How a question and its answer are put."""

    order: Literal["question_last", "question_first"] = "question_last"
    """Where the question stands; question_first is the control."""
    max_answer_tokens: int = 24
    """Rows whose answer is longer are left out."""
    generate: bool = True
    """Whether evaluations write answers out, for answer_em and answer_f1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        orders = AnsweringTask.orders
        require(self.order in orders, f"order is one of {', '.join(orders)}", repr(self.order))
        require(self.max_answer_tokens >= 1, "max_answer_tokens >= 1", self.max_answer_tokens)


A = TypeVar("A", bound=AnsweringSettings)


class AnsweringTask(CollectedTask[A]):
    """A question on a text, answered in words."""

    orders = ("question_last", "question_first")
    needs_future = False
    metrics = (TOKEN_ACCURACY, NLL, EXACT_MATCH, ANSWER_EM, ANSWER_F1)
    primary_metric = TOKEN_ACCURACY.name
    closed: ClassVar[frozenset[str]] = frozenset()
    """Answers that score nothing unless they are met exactly, normalised."""

    def measured(self, settings: A) -> tuple[Metric, ...]:
        written = () if settings.generate else (ANSWER_EM, ANSWER_F1)
        return tuple(metric for metric in self.metrics if metric not in written)

    def scorer(self, settings: A, tokenizer: Tokenizer) -> Scorer | None:
        return answer_scorer(tokenizer, self.closed) if settings.generate else None

    def generation(self, settings: A, tokenizer: Tokenizer) -> Generation | None:
        # The end of the line comes on top of the longest answer.
        most = settings.max_answer_tokens + 1
        return to_the_line_end(tokenizer, most) if settings.generate else None
