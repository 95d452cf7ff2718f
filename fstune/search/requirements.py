"""What a search needs of this machine, asked before its first trial: each lack is refused with why.

The cluster that a search may join is asked in `cluster`; what arms stand on, in `trainable`.
"""

import os
from pathlib import Path

import torch

from fstune.arms.inputs import checkpoint_config
from fstune.errors import InputError
from fstune.machine import arm_device
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


def shapes(spec: SearchSpec) -> ModelConfig:
    """The shapes of a resolved spec's model.

    Raises:
        InputError: a checkpoint that cannot be read.
    """
    return spec.model.init or checkpoint_config(Path(spec.model.checkpoint or ""))
