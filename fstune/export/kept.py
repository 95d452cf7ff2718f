"""A trained arm's model: read from its checkpoint, and kept as files if it is a confirmed winner.

MLflow loads the files by `pyfunc`; `tracking` puts them on a run.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fstune.arms.inputs import gather
from fstune.arms.store import ArmStore
from fstune.arms.trainer import CHECKPOINT_FILE
from fstune.files import write_atomic
from fstune.results.folder import SearchFolder
from fstune.results.ranking import ranked
from fstune.specs.settings import ArmSettings
from model.checkpoint import assemble, load, save, save_gates
from model.future_seed import Gates
from model.rwkv7 import RWKV7
from tasks import registry

FILES = {
    "weights": "model.safetensors",
    "gates": "gates.safetensors",
    "description": "description.json",
}
"""The official layout, Future-Seed's settings and gates, and how to run the model; by what each is.
Without Future-Seed there is no file of gates."""


@dataclass(frozen=True)
class TrainedModel:
    """An arm's model as training left it, in float32."""

    step: int
    model: RWKV7
    gates: Gates | None
    """None without Future-Seed."""


def read_checkpoint(folder: Path, settings: ArmSettings) -> TrainedModel:
    """The model in an arm's checkpoint."""
    path = folder / CHECKPOINT_FILE
    # Mapped: the optimiser's moments, two thirds of the file, are never read.
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _trained(saved["step"], assemble(saved["model"], path), saved["gates"], settings)


def read_kept(folder: Path, settings: ArmSettings) -> TrainedModel:
    """The model that `keep` has kept."""
    step = json.loads((folder / FILES["description"]).read_text())["step"]
    model = load(folder / FILES["weights"])
    # By the arm's settings: folders of version 0.1.0 have none in the file's metadata.
    gates = None if settings.future_seed is None else load_file(folder / FILES["gates"])
    return _trained(step, model, gates, settings)


def _trained(
    step: int, model: RWKV7, saved_gates: Mapping[str, Tensor] | None, settings: ArmSettings
) -> TrainedModel:
    gates = None
    if settings.future_seed is not None:
        gates = Gates(model.config, settings.future_seed)
        gates.load_state_dict(saved_gates or {})
    return TrainedModel(step, model, gates)


def keep(
    digest: str, settings: ArmSettings, store: ArmStore, records: SearchFolder, number: int
) -> None:
    """Keep an arm's newest weights beside its trial's records.

    Args:
        digest: the arm; nothing is kept where its checkpoint is gone.
        settings: the arm's.
        store: where its checkpoint is.
        records: the search's.
        number: the trial.
    """
    checkpoint = store.latest_checkpoint(digest)
    if checkpoint is None:
        return
    trained = read_checkpoint(checkpoint[1], settings)
    origin = {"search": records.name, "trial": number, "arm": digest, "step": trained.step}
    description = origin | _how_to_run(settings, records.cache)
    target = records.model_folder(number)
    target.mkdir(parents=True, exist_ok=True)
    save(trained.model, target / FILES["weights"])
    if trained.gates is not None:
        save_gates(trained.gates, target / FILES["gates"])
    # Last: with it the folder is whole.
    write_atomic(target / FILES["description"], json.dumps(description, indent=1).encode())


def _how_to_run(settings: ArmSettings, cache: Path) -> dict[str, object]:
    """What a program has to know that runs the model without the search."""
    tokenizer = gather(settings, cache, "test").tokenizer
    generation = registry.get(settings.task.name).generation(settings.task, tokenizer)
    return {
        "tokenizer": tokenizer.name,
        "precision": settings.model.precision,
        "future_seed": settings.model_dump(mode="json")["future_seed"],
        "max_new_tokens": None if generation is None else generation.max_new_tokens,
        "stop": [] if generation is None else generation.stop,
    }


def kept_winner(records: SearchFolder) -> dict[str, Path]:
    """The files of the best confirmed gain, if it was kept; those of the others are deleted."""
    trials = [trial for trial in ranked(records.trials()) if trial.verdict == "gain"]
    folders = [records.model_folder(trial.number) for trial in trials]
    for folder in folders[1:]:
        shutil.rmtree(folder, ignore_errors=True)
    if not folders or not (folders[0] / FILES["description"]).exists():
        return {}
    found = {what: folders[0] / name for what, name in FILES.items()}
    return {what: path for what, path in found.items() if path.exists()}
