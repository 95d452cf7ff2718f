"""The arms on disk: settings, evaluations and the latest checkpoint, by digest.

    <root>/<digest>/arm.json                   what the digest covers
    <root>/<digest>/evaluations/<step>.npz     an `Outcome`, every example of the split
    <root>/<digest>/checkpoints/<step>/        files of the trainer's, and manifest.json with hashes
    <root>/<digest>/cooled/<step>/             likewise, the weights of the last branch that cooled
    <root>/<digest>/diverged.json              where and how training ended, if it did
    <root>/<digest>/lock                       held while an arm is trained

Every write is atomic: what is there is whole. What a checkpoint's files hold is known to `trainer`
alone; nothing here trains or knows torch.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from fstune.arms.arm import ArmSpec, Outcome
from fstune.errors import StoreError
from fstune.files import HashedFile, file_digest, whole_file, whole_folder, write_json

MANIFEST = "manifest.json"


_CHECKPOINTS, _COOLED = "checkpoints", "cooled"


_MEASURE = "measure/"


@dataclass(frozen=True)
class Divergence:
    """The end of an arm whose loss was not finite."""

    step: int
    loss: str


class CheckpointDraft:
    """The files of a checkpoint that is being written, each hashed on its way to the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.hashes: dict[str, str] = {}
        """SHA-256 by name."""
        self.sizes: dict[str, int] = {}
        """Bytes written by name."""

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A new file to write to, from its beginning to its end."""
        with HashedFile(self._folder / name) as file:
            yield file
        self.hashes[name], self.sizes[name] = file.digest, file.size


class ArmStore:
    """Arms under one folder; safe for several processes on one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def register(self, arm: ArmSpec) -> str:
        """Make the arm's folder and return its digest.

        Raises:
            StoreError: if the folder holds other settings under the same digest.
        """
        digest = arm.digest
        path = self.root / digest / "arm.json"
        if not path.exists():
            write_json(path, arm.as_json())
        elif json.loads(path.read_text()) != json.loads(json.dumps(arm.as_json())):
            raise StoreError(f"{path} holds other settings than its digest says; move it away")
        return digest

    @contextlib.contextmanager
    def lock(self, digest: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the arm, so that no other process trains it; a kill releases it.

        Args:
            digest: the arm.
            on_wait: called once if another process holds the arm at this moment.
        """
        lock = FileLock(self.root / digest / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def outcome(self, digest: str, step: int) -> Outcome | None:
        """The stored evaluation at `step`, or None.

        Raises:
            StoreError: if its file is damaged.
        """
        path = self._evaluation(digest, step)
        try:
            return _read_outcome(digest, path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise StoreError(
                f"{path} is damaged: {type(error).__name__}: {error}; move it away, and the arm is "
                "evaluated again"
            ) from error

    def described(self, digest: str) -> dict[str, Any] | None:
        """What the arm's digest covers; None if it is not stored."""
        path = self.root / digest / "arm.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def evaluated_steps(self, digest: str) -> list[int]:
        """Steps with a stored evaluation, rising."""
        folder = self.root / digest / "evaluations"
        return sorted(int(path.stem) for path in folder.glob("[0-9]*.npz"))

    def save_outcome(self, outcome: Outcome) -> None:
        """Store an evaluation; one that is already there stays."""
        path = self._evaluation(outcome.arm, outcome.step)
        if path.exists():
            return
        names = {field.name for field in fields(Outcome)} - {"arm", "measures"}
        rest = json.dumps({name: getattr(outcome, name) for name in sorted(names)})
        measures = {f"{_MEASURE}{name}": values for name, values in outcome.measures.items()}
        arrays: dict[str, Any] = {"rest": np.array(rest), **measures}
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)

    def divergence(self, digest: str) -> Divergence | None:
        """How the arm ended, if its loss was not finite at some step."""
        path = self.root / digest / "diverged.json"
        return Divergence(**json.loads(path.read_text())) if path.exists() else None

    def save_divergence(self, digest: str, divergence: Divergence) -> None:
        write_json(self.root / digest / "diverged.json", divergence.__dict__)

    def latest_checkpoint(self, digest: str) -> tuple[int, Path] | None:
        """Step and folder of the newest checkpoint whose files match its manifest.

        A damaged one is passed over: the arm is then trained again from what is left.
        """
        return _latest(self.root / digest / _CHECKPOINTS)

    def latest_weights(self, digest: str, cooled: bool) -> tuple[int, Path] | None:
        """Step and folder of the newest weights that the arm was evaluated with.

        Args:
            digest: the arm.
            cooled: whether a branch is evaluated at its rungs; else the newest checkpoint has them.
        """
        return _latest(self.root / digest / (_COOLED if cooled else _CHECKPOINTS))

    def save_checkpoint(
        self, digest: str, step: int, write: Callable[["CheckpointDraft"], None]
    ) -> None:
        """Keep a checkpoint; the one before it goes only when this one is there in full.

        Args:
            digest: the arm.
            step: the optimiser step that it holds.
            write: writes the checkpoint's files into the draft it is given.

        Raises:
            StoreError: if a file is not as long as what was written to it.
        """
        _save(self.root / digest / _CHECKPOINTS, step, write)

    def save_cooled(
        self, digest: str, step: int, write: Callable[["CheckpointDraft"], None]
    ) -> None:
        """Keep a branch's weights, as `save_checkpoint` keeps a checkpoint.

        Those of a later step stay the arm's, and these are not kept.
        """
        folder = self.root / digest / _COOLED
        held = _latest(folder)
        if held is None or held[0] < step:
            _save(folder, step, write)

    def drop_checkpoints(self, digest: str) -> None:
        """Free the space of an arm that will not go on; its evaluations stay.

        One that a process trains at this moment, for another search, keeps what it has.
        """
        folders = [self.root / digest / name for name in (_CHECKPOINTS, _COOLED)]
        if not any(folder.exists() for folder in folders):
            return
        with contextlib.suppress(Timeout), FileLock(self.root / digest / "lock", timeout=0):
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def _evaluation(self, digest: str, step: int) -> Path:
        return self.root / digest / "evaluations" / f"{step:09d}.npz"


def _read_outcome(digest: str, path: Path) -> Outcome:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        rest = json.loads(str(data["rest"]))
        measures = {
            name.removeprefix(_MEASURE): data[name]
            for name in data.files
            if name.startswith(_MEASURE)
        }
    rest |= {name: tuple(value) for name, value in rest.items() if isinstance(value, list)}
    return Outcome(arm=digest, measures=measures, **rest)


def _latest(folder: Path) -> tuple[int, Path] | None:
    """Step and folder of the newest that is whole."""
    for path in sorted(folder.glob("[0-9]*"), reverse=True):
        if _is_whole(path):
            return int(path.name), path
    return None


def _save(folder: Path, step: int, write: Callable[[CheckpointDraft], None]) -> None:
    final = folder / f"{step:09d}"
    with whole_folder(final) as folder_of_draft:
        draft = CheckpointDraft(folder_of_draft)
        write(draft)
        write_json(folder_of_draft / MANIFEST, {"step": step, "files": draft.hashes})
    for name, size in draft.sizes.items():
        if (final / name).stat().st_size != size:
            raise StoreError(
                f"{final / name} is not the {size} bytes that were written; is the disk damaged or "
                "full?"
            )
    for path in folder.iterdir():
        if path.name < final.name:
            shutil.rmtree(path, ignore_errors=True)


def _is_whole(checkpoint: Path) -> bool:
    try:
        hashes: dict[str, str] = json.loads((checkpoint / MANIFEST).read_text())["files"]
        return all(file_digest(checkpoint / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
