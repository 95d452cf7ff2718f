"""One choice of backend for processes that share a folder: who measures a class first decides.

Two processes that measure side by side may choose differently, and the arms of a pair would then be
computed differently. A choice holds for one kind of device and one set of versions. How it is made
is in `model.wkv.choice`.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

_FOLDERS: list[Path] = []


def share_choices(folder: Path) -> None:
    """Let this process agree with all that share the folder, from its next choice on."""
    _FOLDERS[:] = [folder]


def agreed(question: str, answer: Callable[[], str]) -> str:
    """What the first process answered; this one's answer if it is the first, or shares no folder.

    Args:
        question: names what is chosen; the device and versions are added.
        answer: called at most once.
    """
    if not _FOLDERS:
        return answer()
    name = hashlib.sha256(json.dumps([question, *_machine()]).encode()).hexdigest()[:16]
    path = _FOLDERS[0] / f"wkv-{name}.json"
    if not path.exists():
        _write_once(path, answer())
    return path.read_text(encoding="utf-8")


def _machine() -> list[str]:
    """What another choice may follow from: device, and versions of what computes."""
    found = [str(torch.__version__)]
    if torch.cuda.is_available():
        found.append(torch.cuda.get_device_name())
    for package in ("triton", "fla-core"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return found


def _write_once(path: Path, text: str) -> None:
    """Write a file whole, unless another process was quicker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            draft.replace(path)
