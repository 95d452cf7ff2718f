"""Files written whole or not at all, and digests of contents and of values."""

import hashlib
import json
import os
import tempfile
from pathlib import Path


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


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically, readable by people."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
