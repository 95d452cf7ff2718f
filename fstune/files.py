"""Files and folders written whole or not at all; digests of contents and of values, and seeds.

A reader, or a kill at any moment, sees all of what is written here or none of it.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def canonical_json(value: object) -> str:
    """The one text of a JSON value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value's canonical text, shortened to 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def derive_seed(base: int, stream: str, index: int) -> int:
    """A seed for stream `stream` (say "order") number `index`; streams never meet."""
    text = f"{base}/{stream}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


RUNS = Path("mlruns")
"""Folder of all that runs write, below the working directory."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft to write a file to, which becomes `path` when the context ends well.

    The draft is called as the file is, and is not there yet.
    """
    with _draft_of(path) as draft:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the context ends well.

    A folder that stands at `path` is deleted first; a kill in between leaves neither.
    """
    with _draft_of(path) as draft:
        draft.mkdir()
        yield draft
        if path.exists():
            shutil.rmtree(path)
        draft.replace(path)


@contextlib.contextmanager
def _draft_of(path: Path) -> Iterator[Path]:
    """A place for a draft in a hidden folder beside `path`, on the same file system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=f".{path.name}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder) / path.name


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, whole or not at all, readable by people."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashedFile(io.BufferedWriter):
    """A new file whose SHA-256 is made while it is written, by a thread beside the writing.

    What is written may not be changed in place: there is no seeking back.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.size = 0
        """Bytes written so far."""
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "hash")

    def write(self, data: "ReadableBuffer", /) -> int:
        # The caller may reuse its memory once this returns: the thread is waited for.
        hashed = self._thread.submit(self._hash.update, data)
        written = super().write(data)
        hashed.result()
        self.size += written
        return written

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek: what is hashed on its way is written once")

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        super().close()
        self._thread.shutdown()

    @property
    def digest(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal, as of `file_digest`."""
        return self._hash.hexdigest()
