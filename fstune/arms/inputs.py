"""What an arm stands on: the model's shapes, its tokenizer, the tokenised splits, their digests.

Gathered once per process and context, and shared by all arms of it. Paths are absolute here; a spec
looks files up when it is resolved.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fstune.arms.arm import ArmSpec, Seeds
from fstune.errors import InputError
from fstune.files import file_digest
from fstune.specs.settings import (
    ArmEvaluation,
    ArmSettings,
    EvaluatedSplit,
    TrainSettings,
    VariedSeeds,
)
from model.checkpoint import read_config
from model.config import ModelConfig
from model.tokenizer import Tokenizer, for_vocabulary
from tasks import registry
from tasks.example import Split, TaskError
from tasks.guesses import guess_scores
from tasks.metrics import Metric
from tasks.scoring import Scoring
from tasks.splits import load_split
from tasks.task import TaskSettings


@dataclass(frozen=True, eq=False)
class ArmInputs:
    """The content behind the names in an arm's settings."""

    config: ModelConfig
    tokenizer: Tokenizer
    checkpoint_digest: str | None
    train: Split
    evaluated: Split
    """The validation split; in a confirmation the test split."""
    metrics: tuple[Metric, ...]
    scoring: Scoring

    def guesses(self, task: TaskSettings) -> dict[str, dict[str, float]]:
        """What chance and trivial strategies score on the evaluated split, by strategy and metric.

        Args:
            task: the settings of the task that was gathered.
        """
        known = registry.get(task.name)
        return guess_scores(known, task, self.tokenizer, self.train, self.evaluated)

    def arm(
        self, settings: ArmSettings, seed_index: int, varied: VariedSeeds | None = None
    ) -> ArmSpec:
        """The arm of these settings and repetition `seed_index`.

        Args:
            settings: for which this was gathered.
            seed_index: the repetition.
            varied: what repetitions differ in beside the training rows; all if absent.
        """
        return ArmSpec(
            settings=settings,
            seeds=Seeds.derive(settings.train.seed, seed_index, varied),
            checkpoint_digest=self.checkpoint_digest,
            train_digest=self.train.digest,
            evaluated_digest=self.evaluated.digest,
            task_version=registry.get(settings.task.name).version,
        )


def checkpoint_config(path: Path) -> ModelConfig:
    """Shapes of the model in a checkpoint, from its tensors.

    Raises:
        InputError: if it cannot be read as an RWKV-7 model.
    """
    try:
        return read_config(path)
    except (OSError, ValueError) as error:
        raise InputError(f"model.checkpoint: {error}") from error


def checkpoint_layers(path: Path) -> int:
    """The number of layers of the model in a checkpoint.

    Raises:
        InputError: as of `checkpoint_config`.
    """
    return checkpoint_config(path).num_layers


def gather(settings: ArmSettings, cache: Path, split: EvaluatedSplit = "validation") -> ArmInputs:
    """ArmInputs of an arm; what was gathered in this process is not gathered again.

    Args:
        settings: the arm's; only `model` and `task` matter.
        cache: folder of the tokenised splits.
        split: what the arms are evaluated on.

    Raises:
        InputError: if the checkpoint or the data cannot be used, with what there was.
    """
    rest = {"train": TrainSettings(), "evaluation": ArmEvaluation()}
    context = settings.without().model_copy(update=rest)
    path = settings.model.checkpoint
    # Arms read the file each for itself: one that became another stands for other arms.
    digest = None if path is None else _digest_of(Path(path))
    return _gather(context.model_dump_json(), digest, cache, split)


def _digest_of(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"model.checkpoint: {error}") from error
    return _digest_at(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest_at(path: Path, size: int, changed_ns: int) -> str:
    """SHA-256 of a file; size and time of change are there to notice that it became another."""
    return file_digest(path)


@lru_cache(maxsize=32)
def _gather(
    settings_json: str, checkpoint_digest: str | None, cache: Path, split: EvaluatedSplit
) -> ArmInputs:
    settings = ArmSettings.model_validate_json(settings_json)
    path = settings.model.checkpoint
    config = settings.model.init or checkpoint_config(Path(path or ""))
    task = registry.get(settings.task.name)
    try:
        tokenizer = for_vocabulary(config.vocab_size, settings.model.tokenizer)
    except ValueError as error:
        raise InputError(f"model.tokenizer: {error}") from error
    try:
        train = load_split(task, settings.task, "train", tokenizer, cache, ())
        evaluated = load_split(task, settings.task, split, tokenizer, cache, ())
        scorer = task.scorer(settings.task, tokenizer)
    except TaskError as error:
        raise InputError(str(error)) from error
    except ValueError as error:
        raise InputError(f"task {task.name} with this model: {error}") from error
    return ArmInputs(
        config=config,
        tokenizer=tokenizer,
        checkpoint_digest=checkpoint_digest,
        train=train,
        evaluated=evaluated,
        metrics=task.measured(settings.task),
        scoring=Scoring(scorer, task.generation(settings.task, tokenizer), task.scored_at_once),
    )
