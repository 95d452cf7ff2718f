"""What this machine has: device, cores, versions, code. Recorded with every search."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import model
import tasks

PACKAGES = (
    *("fstune", "torch", "ray", "optuna", "mlflow", "datasets", "transformers", "numpy"),
    "pyrwkv-tokenizer",
)


MATMUL_TOLERANCE = 1e-6
"""Float32 sums of 256 products err by 4e-7 either way; rounding to bf16 would err by 3e-3."""


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
    """Versions, device, and commit and digest of the code, as tags."""
    facts = {f"version.{name}": importlib.metadata.version(name) for name in PACKAGES}
    return facts | {
        "device": describe_device(),
        "python": platform.python_version(),
        "commit": commit_of(Path(__file__).parent),
        "code": code_digest(Path(__file__).parent, *map(Path, (*model.__path__, *tasks.__path__))),
    }


def use_fast_matmul() -> bool:
    """Let float32 matrix products on a CPU go through oneDNN, where that keeps their accuracy.

    PyTorch does so under the name "medium" precision; on AMD cores it is about twice as fast as the
    default and just as exact. On a CPU with bf16 units "medium" may really round to bf16: a probe
    against float64 then puts the default back.

    Returns:
        Whether it is on.
    """
    torch.set_float32_matmul_precision("medium")
    if _matmul_error() <= MATMUL_TOLERANCE:
        return True
    torch.set_float32_matmul_precision("highest")
    return False


def _matmul_error() -> float:
    """Relative error (Frobenius norm) of a float32 matrix product against float64."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 256, 256, generator=generator, dtype=torch.float64).float()
    exact = left.double() @ right.double()
    return float((left @ right - exact).norm() / exact.norm())


def commit_of(folder: Path) -> str:
    """The commit that a folder's sources are of; "unknown" where no repository tracks them.

    A repository that only lies around them, as around a virtual environment, does not count.
    """
    if not _git(folder, "ls-files", "."):
        return "unknown"
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=12") or "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; nothing where there is no git, or it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def code_digest(*packages: Path) -> str:
    """SHA-256 of the Python sources of packages, shortened to 16 digits."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(package.parent)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:16]
