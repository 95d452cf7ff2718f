"""The settings of one arm: model, task, training and what is evaluated.

The other sections of a spec are in `sections`.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.config import FutureSeed, ModelConfig
from tasks.registry import settings_types

if TYPE_CHECKING:
    from tasks.task import TaskSettings as TaskSettings
else:
    # The type of a task's settings follows from its `name`, one dataclass per registered task.
    TaskSettings = Annotated[settings_types(), Field(discriminator="name")]


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
