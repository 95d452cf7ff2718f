"""What this machine has: device, cores, versions, commit. Recorded with every search."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

PACKAGES = ("fstune", "torch", "ray", "optuna", "mlflow", "datasets", "transformers", "numpy")

WORKER_VARIABLES = {
    # glibc hands large blocks back to the system after every step, and faulting them in again costs
    # up to four fifths of a memory-heavy step on a CPU; keep them.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device() -> str:
    """The device that a search would use, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"
    return f"CPU, {cores()} cores ({platform.processor() or platform.machine()})"


def describe() -> dict[str, str]:
    """Versions, device and commit, as tags."""
    facts = {f"version.{name}": importlib.metadata.version(name) for name in PACKAGES}
    return facts | {
        "device": describe_device(),
        "python": platform.python_version(),
        "commit": _commit(Path(__file__).parent),
    }


def workbench_facts() -> dict[str, str]:
    """What arms are computed with here, and why."""
    precision = "float32; bf16 on request (`model.precision`)"
    if torch.cuda.is_available():
        kernel = "chunked, in torch: there is no GPU kernel yet"
    else:
        kernel = "chunked, in torch; the loop for fewer than 4 tokens"
    return {"cores": str(cores()), "WKV kernel": kernel, "precision": precision}


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
