"""What a search needs of this machine, asked before its first trial: each lack is refused with why.

The cluster that a search may join is asked in `cluster`; what arms stand on, in `trainable`.
"""

import os

from fstune.errors import InputError
from fstune.machine import arm_device
from fstune.specs.sections import SearchSpec


def require_machine(spec: SearchSpec) -> None:
    """Refuse what this machine lacks; of GPUs a cluster may have more.

    Raises:
        InputError: says what is asked for, what is here, and why no more.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    refusal = arm_device(spec.resources.gpus).refusal
    if refusal is not None:
        raise InputError(refusal)
