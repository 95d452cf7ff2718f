"""What `fstune doctor` finds: what this machine has, and whether it has what a spec needs."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from fstune.arms.inputs import checkpoint_config, checkpoint_layers
from fstune.errors import InputError
from fstune.machine import WORKER_VARIABLES, cores, use_fast_matmul
from fstune.search.cluster import gpus_per_trial
from fstune.specs.loading import find, load
from model.tokenizer import for_vocabulary
from model.wkv.choice import survey
from tasks.sandbox.enclosure import refusal


def _matmul_seconds(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """The quickest of some matrix products."""
    left, right = torch.randn(2, 1024, 1024, device=device).to(dtype)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


_TAKE_BLOCKS = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
seconds = []
for _ in range(20):
    started = time.perf_counter()
    block = libc.malloc(2**26)
    libc.memset(block, 1, 2**26)
    libc.free(block)
    seconds.append(time.perf_counter() - started)
print(min(seconds))
"""
"""Takes, fills and frees 64 MiB, again and again; prints the quickest time in seconds."""


def _malloc_gain() -> str:
    """What `WORKER_VARIABLES` do for a process that takes large blocks, in words."""
    bare = {name: value for name, value in os.environ.items() if name not in WORKER_VARIABLES}
    seconds = []
    for environment in (bare, bare | WORKER_VARIABLES):
        command = [sys.executable, "-c", _TAKE_BLOCKS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return "not measured: this system's malloc cannot be reached"
        seconds.append(float(done.stdout))
    return f"64 MiB {seconds[0] / seconds[1]:.1f} times as fast to take and fill"


def workbench_facts() -> dict[str, str]:
    """What arms are computed with here, and why."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kernels = {f"WKV {name}": value for name, value in survey(device).items()}
    matmul = "PyTorch's default: the faster ones err too much here"
    if use_fast_matmul():
        fast = _matmul_seconds(torch.device("cpu"))
        torch.set_float32_matmul_precision("highest")
        gain = _matmul_seconds(torch.device("cpu")) / fast
        matmul = f"oneDNN, checked against float64; {gain:.1f} times as fast as PyTorch's default"
    if device.type == "cpu":
        use_fast_matmul()
    gain = _matmul_seconds(device) / _matmul_seconds(device, torch.bfloat16)
    malloc = " ".join(f"{name}={value}" for name, value in WORKER_VARIABLES.items())
    return {
        "cores": str(cores()),
        **kernels,
        "precision": "float32; bf16 on request (`model.precision`): its matrix products are "
        f"{gain:.1f} times as fast",
        "float32 matrix products on the CPU": matmul,
        "malloc of the workers": f"{malloc}: {_malloc_gain()}",
        "programs that a model writes": refusal() or "can be run shut in (`task.execute: true`)",
    }


def needs(spec_name: str, data_dirs: Sequence[Path]) -> dict[str, str]:
    """What a spec needs, whether it is there, and what will be used."""
    loaded = load(find(spec_name))
    facts = {"spec": str(loaded.path)}
    try:
        spec = loaded.resolved(data_dirs, checkpoint_layers).spec
    except InputError as error:
        return facts | {"missing": str(error)}
    config = spec.model.init
    if spec.model.checkpoint is not None:
        config = checkpoint_config(Path(spec.model.checkpoint))
        facts["checkpoint"] = spec.model.checkpoint
    assert config is not None
    tokenizer = for_vocabulary(config.vocab_size, spec.model.tokenizer)
    return facts | {
        "model": f"{config.num_layers} layers of width {config.width}, {config.num_heads} heads",
        "vocabulary": f"{config.vocab_size} entries: tokenizer {tokenizer.name}",
        "gpus": f"{gpus_per_trial(spec):g} per trial",
    }
