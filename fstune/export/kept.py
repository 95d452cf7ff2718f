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
from fstune.arms.trainer import CHECKPOINT_FILE, evaluated_states
from fstune.files import write_atomic
from fstune.results.folder import SearchFolder
from fstune.results.ranking import ranked
from fstune.specs.settings import ArmSettings
from model.checkpoint import assemble, load, save, save_mechanism
from model.mechanisms import registry as mechanisms
from model.mechanisms.acting import Acting
from model.rwkv7 import RWKV7
from tasks import registry

FILES = {"weights": "model.safetensors", "description": "description.json"}
"""The official layout, and how to run the model; by what each is. Beside them each mechanism has a
file under its name, with its settings and parameters."""


@dataclass(frozen=True)
class TrainedModel:
    """An arm's model as it was evaluated, in float32."""

    step: int
    model: RWKV7
    acting: dict[str, Acting]
    """Its mechanisms, by name."""


def read_checkpoint(folder: Path, settings: ArmSettings) -> TrainedModel:
    """The model that was evaluated, in an arm's checkpoint or a branch's weights."""
    path = folder / CHECKPOINT_FILE
    # Mapped: the optimiser's moments, two thirds of the file, are never read.
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    model, states = evaluated_states(saved, settings.mechanisms)
    return _trained(saved["step"], assemble(model, path), states, settings)


def read_kept(folder: Path, settings: ArmSettings) -> TrainedModel:
    """The model that `keep` has kept."""
    step = json.loads((folder / FILES["description"]).read_text())["step"]
    model = load(folder / FILES["weights"])
    # By the arm's settings: folders of version 0.1.0 have none in the file's metadata.
    states = {name: load_file(_mechanism_file(folder, name)) for name in settings.mechanisms}
    return _trained(step, model, states, settings)


def _mechanism_file(folder: Path, name: str) -> Path:
    """A mechanism's file; in version 0.1.0, which had one mechanism, it was called gates."""
    path = folder / f"{name}.safetensors"
    return path if path.exists() else folder / "gates.safetensors"


def _trained(
    step: int, model: RWKV7, states: Mapping[str, Mapping[str, Tensor]], settings: ArmSettings
) -> TrainedModel:
    acting = {}
    for name, own in settings.mechanisms.items():
        acting[name] = mechanisms.get(name).build(model.config, own)
        acting[name].load_state_dict(states[name])
    return TrainedModel(step, model, acting)


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
    checkpoint = store.latest_weights(digest, settings.evaluation.cooldown > 0)
    if checkpoint is None:
        return
    trained = read_checkpoint(checkpoint[1], settings)
    origin = {"search": records.name, "trial": number, "arm": digest, "step": trained.step}
    description = origin | _how_to_run(settings, records.cache)
    target = records.model_folder(number)
    target.mkdir(parents=True, exist_ok=True)
    save(trained.model, target / FILES["weights"])
    for name, acting in trained.acting.items():
        save_mechanism(acting, name, target / f"{name}.safetensors")
    # Last: with it the folder is whole.
    write_atomic(target / FILES["description"], json.dumps(description, indent=1).encode())


def _how_to_run(settings: ArmSettings, cache: Path) -> dict[str, object]:
    """What a program has to know that runs the model without the search."""
    tokenizer = gather(settings, cache, "test").tokenizer
    generation = registry.get(settings.task.name).generation(settings.task, tokenizer)
    return {
        "tokenizer": tokenizer.name,
        "precision": settings.model.precision,
        "mechanisms": list(settings.mechanisms),
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
    described = json.loads((folders[0] / FILES["description"]).read_text())
    files = {what: folders[0] / name for what, name in FILES.items()}
    # A folder of version 0.1.0 says nothing of them: its model is run by that version's code.
    names = described.get("mechanisms", [])
    return files | {name: _mechanism_file(folders[0], name) for name in names}
