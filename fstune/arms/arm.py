"""Arms: the values that everything else hands on.

What fully determines a training run (`ArmSettings`, `Seeds`, `ArmSpec` with its digest), what an
evaluation of it yields (`Outcome`), and the only way to set two of those side by side (`Pair`).
Nothing here trains, stores or reads files.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

from fstune.files import derive_seed, digest_of
from fstune.specs.settings import ArmSettings, VariedSeeds
from model.optimizers import registry as optimizers
from tasks.metrics import Measures

ARM_FORMAT = 2
"""Part of every arm's digest. Raise it with any change of what an arm computes or stores."""


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
        if not settings["evaluation"]:
            settings.pop("evaluation")
        # Only the settings of the optimiser that there is; given or not, they are the same.
        for name in optimizers.names():
            settings["train"].pop(name, None)
        own = self.settings.train.of_optimizer
        if own is not None:
            settings["train"][self.settings.train.optimizer] = asdict(own)
        return {"format": ARM_FORMAT, **asdict(self), "settings": settings}

    @property
    def digest(self) -> str:
        return digest_of(self.as_json())


@dataclass(frozen=True)
class Progress:
    """Where an arm is."""

    arm: str
    """Digest of the arm."""
    doing: Literal["train", "evaluate", "wait"]
    """It waits while another process has the arm."""
    step: int
    to_step: int
    loss: float | None = None
    seed: int | None = None
    """Index of the arm's seed."""
    role: str = ""
    """baseline or variant, where the arm is one of a pair."""


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
    """What else there was to see, by the names in `diagnostics`."""
    events: tuple[str, ...]
    """What happened to the arm up to this step beside training, a line each."""
    train_tokens: int
    """Tokens that the arm was trained on up to this evaluation, those of branches included."""
    train_wall_s: float
    """Seconds of training up to this evaluation, those of branches included."""
    eval_wall_s: float
    """Seconds of this evaluation."""
    ended_at: float
    """When the evaluation ended, in seconds since the epoch."""
    backends: tuple[str, ...] = ()
    """What computed the recurrence up to this step, by name; none in outcomes from before it was
    kept."""


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
