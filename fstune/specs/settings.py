"""The settings of one arm: model, task, training and what is evaluated.

The other sections of a spec are in `sections`.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from model.config import ModelConfig, WkvBackend
from model.mechanisms import registry as mechanisms
from model.optimizers import registry as optimizers
from tasks.registry import settings_types

if TYPE_CHECKING:
    from tasks.task import TaskSettings as TaskSettings

    OptimizerName = str
else:
    # The type of a task's settings follows from its `name`, one dataclass per registered task.
    TaskSettings = Annotated[settings_types(), Field(discriminator="name")]
    OptimizerName = Literal[optimizers.names()]


Scalar = bool | int | float | str
"""A value that a space may vary."""


class Section(BaseModel):
    """Base of all settings: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    unsaid: ClassVar[Mapping[str, object]] = {}
    """Settings that are younger than stored specs and arms, with the values that these had without
    saying so: they go unsaid, so that digests stay what they are."""

    @model_serializer(mode="wrap")
    def _without_what_goes_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if k not in self.unsaid or v != self.unsaid[k]}


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
    wkv: WkvBackend = "auto"
    """Back end of the recurrence; auto takes the quickest that runs, which on a GPU is measured and
    may be another one on another machine."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoint is None) == (self.init is None):
            raise ValueError("exactly one of `checkpoint` and `init` must be given")
        return self

    unsaid = MappingProxyType({"wkv": "auto"})


class _TrainSettings(Section):
    """One arm's optimisation."""

    optimizer: OptimizerName = "adamw"
    """Of the model; one with settings of its own has them in the section `train.<its name>`."""
    parameters: Literal["all", "gates"] = "all"
    """What is trained; gates: the mechanism's parameters alone, on a checkpoint. A baseline then
    stays the model as it came, and is evaluated at the same steps."""
    lr: float = Field(3e-5, gt=0, allow_inf_nan=False)
    """Learning rate of the model; a mechanism's parameters have their own."""
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

    @model_serializer(mode="wrap")
    def _without_defaults_of_optimizers(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """An optimiser's section that is not given goes unsaid, as in specs from before it."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if not (v is None and k in optimizers.names())}

    @property
    def of_optimizer(self) -> Any:
        """The settings of the optimiser's own; None where it has none."""
        kind = optimizers.get(self.optimizer).Settings
        given = getattr(self, self.optimizer, None)
        return kind() if given is None and kind is not None else given


def _own_sections() -> Mapping[str, Any]:
    """A field for each optimiser that has settings of its own."""
    kinds = {name: optimizers.get(name).Settings for name in optimizers.names()}
    return {
        name: (kind | None, Field(None, description=f"Settings of the optimizer {name}."))
        for name, kind in kinds.items()
        if kind is not None
    }


if TYPE_CHECKING:
    TrainSettings = _TrainSettings
else:
    TrainSettings = create_model(
        "TrainSettings",
        __base__=_TrainSettings,
        __doc__=_TrainSettings.__doc__,
        __module__=__name__,
        **_own_sections(),
    )


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


class EvaluatedWeights(Section):
    """Which weights of an arm are evaluated: as training left them, or come to rest."""

    weights: Literal["last", "mean"] = "last"
    """What is evaluated, and exported: the weights after the last step, or their exponential mean
    over all steps, which rattles less at a constant learning rate."""
    mean_decay: float = Field(0.97, gt=0, lt=1)
    """mean: what weight a step's weights keep with every step after it; 0.97 looks back over some
    33 steps."""
    cooldown: float = Field(0.0, ge=0, lt=1)
    """Share of a rung's steps over which all learning rates fall to 0 in a branch, which is
    evaluated at the rung and left there; training goes on from where it began. 0 is none."""

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is off goes unsaid, as in specs and arms from before it."""
        values: dict[str, Any] = handler(self)
        unsaid = {"weights", "mean_decay"} if self.weights == "last" else set()
        unsaid |= {"cooldown", "cooled_at"} if self.cooldown == 0 else set()
        return {name: value for name, value in values.items() if name not in unsaid}

    def cooled_steps(self, rung: int) -> int:
        """The steps of the branch at a rung of so many steps."""
        return round(self.cooldown * rung)

    def is_cooling(self, step: int, rungs: Iterable[int]) -> bool:
        """Whether a branch is on its way after so many steps, at whose end a rung is.

        Nothing else is evaluated there: the arm itself is there only if a later rung wants it.

        Args:
            step: the steps.
            rungs: those of all rungs.
        """
        return any(rung - self.cooled_steps(rung) < step <= rung for rung in rungs)


class ArmEvaluation(EvaluatedWeights):
    """How one arm is evaluated; at which steps a branch cools is its rungs' to say."""

    cooled_at: tuple[int, ...] = ()
    """Steps at which a branch is evaluated, rising; at all others it is the arm as it trains."""

    def branches_at(self, step: int) -> int:
        """Where the branch begins that is evaluated at `step`; that step itself if none is."""
        return step - self.cooled_steps(step) if step in self.cooled_at else step


class OfMechanisms(Section):
    """Base of what has a section for each mechanism, None where it has not that mechanism."""

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A mechanism that is off goes unsaid, but for those that always were said to be off."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v is not None or k not in _unsaid()}


@cache
def _unsaid() -> frozenset[str]:
    """Mechanisms that nothing is said of where they are off."""
    names = mechanisms.names()
    return frozenset(name for name in names if not mechanisms.get(name).written_when_off)


class _ArmSettings(OfMechanisms):
    """Everything that a spec says about one arm; a section for each mechanism that it has."""

    model: ModelSettings
    task: TaskSettings
    train: TrainSettings = TrainSettings()
    evaluation: ArmEvaluation = ArmEvaluation()

    @property
    def mechanisms(self) -> dict[str, Any]:
        """The settings of each mechanism that the arm has, by its name."""
        found = {name: getattr(self, name) for name in mechanisms.names()}
        return {name: settings for name, settings in found.items() if settings is not None}

    def without(self) -> Self:
        """The same arm without any mechanism."""
        return self.model_copy(update=dict.fromkeys(mechanisms.names()))


if TYPE_CHECKING:
    ArmSettings = _ArmSettings
else:
    ArmSettings = create_model(
        "ArmSettings",
        __base__=_ArmSettings,
        __doc__=_ArmSettings.__doc__,
        __module__=__name__,
        **{
            name: (mechanisms.get(name).Settings | None, Field(None)) for name in mechanisms.names()
        },
    )
