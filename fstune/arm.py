"""Arms: the values that everything else hands on.

What fully determines a training run (`ArmSettings`, `Seeds`, `ArmSpec` with its digest), what an
evaluation of it yields (`Outcome`), and the only way to set two of those side by side (`Pair`).
Nothing here trains, stores or reads files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.config import FutureSeed, ModelConfig
from tasks.metrics import Measures
from tasks.registry import settings_types

if TYPE_CHECKING:
    from tasks.task import TaskSettings
else:
    # The type of a task's settings follows from its `name`, one dataclass per registered task.
    TaskSettings = Annotated[settings_types(), Field(discriminator="name")]

ARM_FORMAT = 2
"""Part of every arm's digest. Raise it with any change of what an arm computes or stores."""


Scalar = bool | int | float | str
"""A value that a space may vary."""


class Section(BaseModel):
    """Base of all settings: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSettings(Section):
    """Where the model comes from and how it computes."""

    checkpoint: str | None = None
    """An official RWKV-7 `.pth` or `.safetensors` file, looked for in the data folders."""
    init: ModelConfig | None = None
    """Shapes of a new model, instead of a checkpoint."""
    precision: Literal["float32", "bf16"] = "float32"
    """Compute precision; master weights, optimiser state and the recurrence stay float32."""
    tokenizer: Literal["world", "bytes"] | None = None
    """Overrides the choice by vocabulary size (65536: world, 256: bytes)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoint is None) == (self.init is None):
            raise ValueError("exactly one of `checkpoint` and `init` must be given")
        return self


class TrainSettings(Section):
    """One arm's optimisation."""

    optimizer: Literal["adamw"] = "adamw"
    parameters: Literal["all", "gates"] = "all"
    """What is trained; gates: Future-Seed's alone, on a checkpoint. A baseline then stays the model
    as it came, and is evaluated at the same steps."""
    lr: float = Field(3e-5, gt=0, allow_inf_nan=False)
    """Learning rate of the model; the gates have their own (`future_seed.alpha_lr`)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    """On matrices only; never on gates, norms and other vectors."""
    batch_size: int = Field(8, ge=1)
    """Examples per optimiser step; `probe` for the most that fit into memory."""
    grad_clip: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Largest norm of the model's gradient; 0 is none."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes after the warm-up."""
    lr_warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises; the first has a rate of 0."""
    lr_total_steps: int | None = Field(None, ge=1)
    """Where a decaying schedule ends; the last rung's steps if absent."""
    first_token_weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Weight of an answer's first token in the loss (1: the mean over all target tokens)."""
    seed: int = Field(0, ge=0)
    """Base of the seed streams; seed k of a rung is derived from it and k."""


EvaluatedSplit = Literal["validation", "test"]
"""What an arm is evaluated on: test in a confirmation, and in nothing else."""


class VariedSeeds(Section):
    """What differs between the repetitions of a comparison, both of whose arms share it."""

    order: bool = True
    """In which order the training examples come."""
    data: bool = True
    """Which rows are trained on, where there are more than `task.train_size`. Validation and test
    stay."""
    init: bool = True
    """How a new model's weights begin."""
    generation: bool = True
    """What sampled answers draw."""


class ArmSettings(Section):
    """Everything that a spec says about one arm."""

    model: ModelSettings
    task: TaskSettings
    train: TrainSettings = TrainSettings()
    future_seed: FutureSeed | None = None
    """The mechanism; absent in a baseline."""


def canonical_json(value: object) -> str:
    """The one text of a JSON value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value's canonical text, shortened to 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def derive_seed(base: int, stream: str, index: int) -> int:
    """A seed for stream `stream` (say "order") number `index`; streams never meet."""
    text = f"{base}/{stream}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


@dataclass(frozen=True)
class Seeds:
    """The streams of chance of one arm; the data have theirs in the task's settings."""

    index: int
    init: int
    order: int
    generation: int

    @classmethod
    def derive(cls, base: int, index: int, varied: VariedSeeds | None = None) -> Self:
        """Seeds of repetition `index` (0-based) under the spec's base seed.

        Args:
            base: the spec's seed.
            index: the repetition.
            varied: what repetitions differ in; the rest has repetition 0's. All if absent.
        """
        moves = varied or VariedSeeds()
        return cls(
            index,
            init=derive_seed(base, "init", index if moves.init else 0),
            order=derive_seed(base, "order", index if moves.order else 0),
            generation=derive_seed(base, "generation", index if moves.generation else 0),
        )


@dataclass(frozen=True)
class ArmSpec:
    """One training run, fully determined: settings, seeds, and the content they stand for."""

    settings: ArmSettings
    seeds: Seeds
    checkpoint_digest: str | None
    """SHA-256 of the checkpoint file; None for a model from scratch."""
    train_digest: str
    """Digest of the tokenised training split."""
    evaluated_digest: str
    """Digest of the tokenised split that the arm is evaluated on: validation, or test."""
    task_version: int
    """Of the task's rows, template and scoring: outcomes of another one are not reused."""

    def as_json(self) -> dict[str, object]:
        """What the digest covers. File names do not count, file contents do."""
        settings = self.settings.model_dump(mode="json")
        settings["model"].pop("checkpoint")
        # File contents are in the digests; a test split is nothing that an arm sees.
        settings["task"].pop("files", None)
        settings["task"].pop("test_size")
        # Younger than the arms that have all trained: theirs stay the digests they are.
        if settings["train"]["parameters"] == "all":
            settings["train"].pop("parameters")
        return {"format": ARM_FORMAT, **asdict(self), "settings": settings}

    @property
    def digest(self) -> str:
        return digest_of(self.as_json())


@dataclass(frozen=True)
class Outcome:
    """One evaluation of one arm: every example of a split, once, in the split's order."""

    arm: str
    """Digest of the arm."""
    seed_index: int
    examples: str
    """Digest of the evaluated split."""
    step: int
    measures: Measures
    """What the task's metrics are computed from, by name, one number per example."""
    predictions: tuple[str, ...]
    """What was predicted for the first examples, as text: enough to see a constant answer."""
    diagnostics: Mapping[str, float]
    """What else there was to see, by the names in `fstune.diagnostics`."""
    events: tuple[str, ...]
    """What happened to the arm up to this step beside training, a line each."""
    train_tokens: int
    """Tokens trained on up to this step."""
    train_wall_s: float
    """Seconds of training up to this step."""
    eval_wall_s: float
    """Seconds of this evaluation."""
    ended_at: float
    """When the evaluation ended, in seconds since the epoch."""


@dataclass(frozen=True)
class Pair:
    """A baseline's and a variant's outcome at one step, on the same examples and seed.

    A delta is computed from pairs alone, so that one between unequal budgets cannot be written.

    Raises:
        ValueError: if steps, seeds or examples differ.
    """

    baseline: Outcome
    variant: Outcome

    def __post_init__(self) -> None:
        for name in ("step", "seed_index", "examples"):
            baseline, variant = getattr(self.baseline, name), getattr(self.variant, name)
            if baseline != variant:
                raise ValueError(
                    f"a pair has one {name}, got {baseline} for the baseline and {variant} for "
                    "the variant"
                )

    @property
    def step(self) -> int:
        return self.variant.step
