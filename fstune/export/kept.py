"""The model of a confirmed winner: its weights kept as files, for MLflow to hold.

How those files are loaded is `fstune.winner_model`'s affair; putting them on a run, `tracking`'s.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from fstune.arms.inputs import gather
from fstune.arms.store import ArmStore
from fstune.arms.trainer import CHECKPOINT_FILE
from fstune.files import write_atomic
from fstune.results.folder import SearchFolder
from fstune.results.ranking import ranked
from fstune.specs.settings import ArmSettings
from model.checkpoint import save
from model.rwkv7 import RWKV7
from tasks import registry

FILES = {
    "weights": "model.safetensors",
    "gates": "gates.safetensors",
    "description": "description.json",
}
"""The official layout, the gates by their own names, and how it is to be run; by what each is."""


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
    step, folder = checkpoint
    saved = torch.load(folder / CHECKPOINT_FILE, map_location="cpu", weights_only=True)
    materials = gather(settings, records.cache, "test")
    model = RWKV7(materials.config)
    model.load_state_dict(saved["model"])
    task = registry.get(settings.task.name)
    generation = task.generation(settings.task, materials.tokenizer)
    mechanism = settings.model_dump(mode="json")["future_seed"]
    description = {
        "search": records.name,
        "trial": number,
        "arm": digest,
        "step": step,
        "tokenizer": materials.tokenizer.name,
        "precision": settings.model.precision,
        "future_seed": mechanism,
        "max_new_tokens": None if generation is None else generation.max_new_tokens,
        "stop": [] if generation is None else generation.stop,
    }
    target = records.model(number)
    target.mkdir(parents=True, exist_ok=True)
    save(model, target / FILES["weights"])
    save_file(saved["gates"] or {}, target / FILES["gates"])
    write_atomic(target / FILES["description"], json.dumps(description, indent=1).encode())


def kept_winner(records: SearchFolder) -> dict[str, Path]:
    """The files of the best confirmed gain, if it was kept; those of the others are deleted."""
    trials = [trial for trial in ranked(records.trials()) if trial.verdict == "gain"]
    folders = [records.model(trial.number) for trial in trials]
    for folder in folders[1:]:
        shutil.rmtree(folder, ignore_errors=True)
    found = {what: folder / name for folder in folders[:1] for what, name in FILES.items()}
    return found if all(path.exists() for path in found.values()) else {}
