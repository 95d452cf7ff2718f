"""What a search needs of this machine, asked before its first trial: each lack is refused with why.

What may suffice and may not, as the space on the disk, is told and not refused.

The cluster that a search may join is asked in `cluster`; what arms stand on, in `trainable`.
"""

import os
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from fstune.arms.inputs import checkpoint_config
from fstune.arms.memory import Step, checkpoint_bytes
from fstune.errors import InputError
from fstune.machine import arm_device
from fstune.search.probe import heaviest
from fstune.specs.sections import SearchSpec
from model.config import ModelConfig
from model.wkv.choice import obstacle_to


def require_machine(spec: SearchSpec) -> None:
    """Refuse what this machine lacks; of GPUs a cluster may have more.

    Raises:
        InputError: says what is asked for, what is here, and why no more.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    found = arm_device(spec.resources.gpus)
    if found.refusal is not None:
        raise InputError(found.refusal)
    name, bf16 = spec.model.wkv, spec.model.precision == "bf16"
    if name == "auto":
        return
    obstacle = obstacle_to(name, torch.device(found.kind), shapes(spec).head_size, bf16)
    if obstacle is not None:
        why = f" ({found.why})" if found.kind == "cpu" else ""
        raise InputError(
            f"model.wkv: {name} cannot run here: {obstacle}{why}; leave the line out to use what "
            "can"
        )


@dataclass(frozen=True)
class DiskNeed:
    """What the checkpoints of a search take on the disk of its runs, and what is free there."""

    each: int
    """Bytes of the largest arm's checkpoint."""
    arms: int
    """The most arms that have one at a time, if none of them is stored yet."""
    free: int
    """Bytes."""

    @property
    def suffices(self) -> bool:
        """Whether all of them fit."""
        return self.arms * self.each <= self.free

    def __str__(self) -> str:
        needed = f"up to {_size(self.arms * self.each)} for checkpoints"
        return f"{needed} ({self.arms} arms of {_size(self.each)}), {_size(self.free)} free"


def disk_need(spec: SearchSpec, runs: Path) -> DiskNeed:
    """What a resolved spec's search needs of the disk that the folder of runs is on."""
    _, variant = spec.settings(heaviest(spec))
    step = Step.of(variant.model.init or shapes(spec), variant, checkpoint_layers=False)
    folder = runs.resolve()
    while not folder.exists():
        folder = folder.parent
    return DiskNeed(checkpoint_bytes(step), _arms_kept(spec), shutil.disk_usage(folder).free)


def require_disk(spec: SearchSpec, runs: Path) -> None:
    """Refuse a search of which not even the first arm's checkpoint can be written.

    Raises:
        InputError: says how much is needed and free.
    """
    need = disk_need(spec, runs)
    if need.each > need.free:
        raise InputError(
            f"the disk of {runs} is too small: {need}; free some, or name a folder elsewhere with "
            "--runs"
        )


def _arms_kept(spec: SearchSpec) -> int:
    """The most arms that have a checkpoint at a time; one more is being written, or several."""
    resources, rungs = spec.resources, spec.rungs
    climbs = spec.search.scheduler != "none"
    factor = spec.search.reduction_factor if climbs else 1
    reach = [max(1, spec.search.trials // factor**index) for index in range(len(rungs))]
    stay = [low - high for low, high in pairwise([*reach, 0])]
    of_all: int = sum(count * rung.seeds for count, rung in zip(stay, rungs, strict=True))
    at_once = resources.concurrent_trials
    waits = spec.search.scheduler == "asha_promote" or resources.keep_checkpoints == "all"
    variants = of_all if waits else min(of_all, at_once * rungs[-1].seeds)
    # A baseline stays until the search has ended: another candidate may be compared with it.
    baselines = rungs[-1].seeds if spec.has_one_baseline() else of_all
    return variants + baselines + at_once * resources.arms_at_once


def _size(count: int) -> str:
    """Bytes in words: 1 GB is 10⁹."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def shapes(spec: SearchSpec) -> ModelConfig:
    """The shapes of a resolved spec's model.

    Raises:
        InputError: a checkpoint that cannot be read.
    """
    return spec.model.init or checkpoint_config(Path(spec.model.checkpoint or ""))
