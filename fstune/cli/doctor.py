"""What `fstune doctor` finds: what this machine has, and whether it has what a spec needs."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from fstune.arms.inputs import checkpoint_layers
from fstune.errors import InputError
from fstune.machine import WORKER_VARIABLES, arm_device, cores, use_fast_matmul
from fstune.search.cluster import gpus_per_trial, require_cluster
from fstune.search.requirements import disk_need, require_disk, require_machine, shapes
from fstune.specs.loading import find, load
from fstune.specs.sections import SearchSpec
from model.tokenizer import for_vocabulary
from model.wkv.choice import survey
from tasks.sandbox.enclosure import refusal


def workbench_facts() -> dict[str, str]:
    """What arms are computed with here, and why."""
    found = arm_device(None)
    gpu = found.why if found.refusal is None else found.refusal
    kernels = {f"WKV {name}": value for name, value in survey(torch.device(found.kind)).items()}
    # As every worker does it.
    matmul = (
        "oneDNN, checked against float64"
        if use_fast_matmul()
        else "PyTorch's default: the faster ones err too much here"
    )
    return {
        "gpu": gpu,
        "cores": str(cores()),
        **kernels,
        "precision": "float32; bf16 on request (`model.precision`)",
        "float32 matrix products on the CPU": matmul,
        "malloc of the workers": " ".join(f"{k}={v}" for k, v in WORKER_VARIABLES.items()),
        "programs that a model writes": refusal() or "can be run shut in (`task.execute: true`)",
    }


MISSING, REFUSED = "missing", "refused"
"""Facts that `fstune search` would refuse a spec for."""


def needs(spec_name: str, data_dirs: Sequence[Path], runs: Path) -> dict[str, str]:
    """What a spec needs, whether it is there, and what will be used.

    Args:
        spec_name: a file, or the name of a shipped search.
        data_dirs: where its files are looked for.
        runs: folder of all that runs write.
    """
    loaded = load(find(spec_name))
    facts = {"spec": str(loaded.path)}
    try:
        spec = loaded.resolved(data_dirs, checkpoint_layers).spec
    except InputError as error:
        return facts | {MISSING: str(error)}
    config = shapes(spec)
    if spec.model.checkpoint is not None:
        facts["checkpoint"] = spec.model.checkpoint
    tokenizer = for_vocabulary(config.vocab_size, spec.model.tokenizer)
    facts |= {
        "model": f"{config.num_layers} layers of width {config.width}, {config.num_heads} heads",
        "vocabulary": f"{config.vocab_size} entries: tokenizer {tokenizer.name}",
        "WKV back end": spec.model.wkv,
        "gpus": f"{gpus_per_trial(spec):g} per trial",
        f"disk of {runs}": str(disk_need(spec, runs)),
    }
    refusals = list(_refusals(spec, runs))
    return facts | ({REFUSED: "\n".join(refusals)} if refusals else {})


def _refusals(spec: SearchSpec, runs: Path) -> Iterator[str]:
    """What a search would be refused for before its first trial."""
    for require in (require_machine, require_cluster, partial(require_disk, runs=runs)):
        try:
            require(spec)
        except InputError as error:
            yield str(error)
