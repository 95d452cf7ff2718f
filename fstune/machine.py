"""What this machine has: device, cores, versions, code. Recorded with every search.

Which device an arm gets, and why no GPU, is said by `arm_device` alone. Whether a search may run is
judged in `search.requirements`.
"""

import errno
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import torch

import model
import tasks

PACKAGES = (
    *("fstune", "torch", "ray", "optuna", "mlflow", "datasets", "transformers", "numpy"),
    "pyrwkv-tokenizer",
)


MATMUL_TOLERANCE = 1e-6
"""Float32 sums of 256 products err by 4e-7 either way; rounding to bf16 would err by 3e-3."""


_FAULTS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the quota on the disk is used up",
    errno.EFBIG: "a file would be larger than this process may write",
    errno.EIO: "the disk cannot be read or written",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ESTALE: "a file on the network is gone",
}


def fault_of(error: BaseException | None) -> str | None:
    """What is wrong with the machine if an error comes of that, and not of what was tried."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FAULTS:
            where = f" ({error.filename})" if error.filename else ""
            return f"{_FAULTS[error.errno]}{where}"
        error = error.__cause__ or error.__context__
    return None


WORKER_VARIABLES = {
    # glibc hands large blocks back to the system after every step, and faulting them in again costs
    # up to four fifths of a memory-heavy step on a CPU; keep them.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}


VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
"""Ray, schedulers and users say by this variable which GPUs a process has."""


class ArmDevice(NamedTuple):
    """Where arms are computed in this process."""

    kind: Literal["cuda", "cpu"]
    why: str
    """Which GPUs there are, or why there is none, in words."""
    refusal: str | None = None
    """What is wrong where more was asked for than there is, and what would be right."""


def arm_device(gpus: int | None) -> ArmDevice:
    """The device that arms get in this process, and why no GPU.

    Args:
        gpus: how many are asked for, as `resources.gpus` says it: None is one where there is one.
            GPUs that CUDA_VISIBLE_DEVICES names are then asked for too: whoever set it, as Ray does
            in its workers, counts on them.
    """
    if gpus == 0:
        return ArmDevice("cpu", "no GPU is asked for (resources.gpus: 0)")
    obstacle = gpu_obstacle()
    there = 0 if obstacle else torch.cuda.device_count()
    why = obstacle or f"{there} × {torch.cuda.get_device_name(0)}"
    kind: Literal["cuda", "cpu"] = "cuda" if there else "cpu"
    if gpus is not None and there < gpus:
        told = f"resources.gpus: {gpus} asked, {there} here"
        because = f" ({obstacle})" if obstacle else ""
        mend = "leave the line out to use what there is"
        return ArmDevice(kind, why, f"{told}{because}; {mend}")
    if obstacle and (named := _named_gpus()):
        mend = "unset it, or set resources.gpus: 0 to train on the CPU"
        told = f"{VISIBLE_GPUS}={named} names GPUs, and none can be used: {obstacle}; {mend}"
        return ArmDevice(kind, why, told)
    return ArmDevice(kind, why)


def gpu_obstacle() -> str | None:
    """Why PyTorch can use no GPU in this process, with what would mend it; None if it can."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    if torch.version.cuda is None and torch.version.hip is None:
        wheel = f"PyTorch {torch.__version__} is built without CUDA"
        return f"{wheel}; install a CUDA wheel (https://pytorch.org/get-started/locally)"
    if VISIBLE_GPUS in os.environ and not _named_gpus():
        return f"{VISIBLE_GPUS}={os.environ[VISIBLE_GPUS]} hides all GPUs; unset it to see them"
    return f"PyTorch finds none: {_of_the_driver([str(each.message) for each in caught])}"


def _named_gpus() -> str:
    """The GPUs that CUDA_VISIBLE_DEVICES names; empty where it says nothing, or hides all."""
    named = os.environ.get(VISIBLE_GPUS, "").strip()
    # CUDA reads the list up to the first that is none; Ray and others write these for no GPU.
    return "" if named.startswith("-") or named in ("NoDevFiles", "none", "void") else named


def _of_the_driver(warned: list[str]) -> str:
    """What the driver lacks, in PyTorch's words: no driver, one that is too old, no device."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        warned = [*warned, str(error)]
    return " ".join(warned[-1].split()) if warned else "no reason is given"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device() -> str:
    """The device that a search would use, in words."""
    device = arm_device(None)
    if device.kind == "cuda":
        return device.why
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
