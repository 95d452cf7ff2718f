"""A search while it runs: its lock, its signals, a full disk, and Tune's settings.

What it runs is in `lifecycle`.
"""

import contextlib
import errno
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from filelock import FileLock, Timeout

from fstune.errors import InputError, SearchFailedError
from fstune.results.folder import SearchFolder

TUNE_SETTINGS = {
    # A snapshot after every event, not every 10 s or more: a resumed search then repeats little.
    "TUNE_GLOBAL_CHECKPOINT_S": "0.5",
    # The records and MLflow hold what Tune's CSV, JSON and TensorBoard loggers would write again.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


@dataclass
class Session:
    """Ray and MLflow, for as long as a search is held."""

    status: str = "KILLED"
    """What the search's runs end as in MLflow, unless the session comes to another."""


@contextlib.contextmanager
def _held(records: SearchFolder) -> Iterator[None]:
    """Keep other processes from the search; a kill lets go of it.

    Raises:
        InputError: if another process has it.
    """
    lock = FileLock(records.root / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{records.name} is running in another process; see `fstune status {records.name}`"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _telling_of_a_full_disk(records: SearchFolder) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _out_of_space(error):
            raise
        raise SearchFailedError(
            f"{records.name} stopped, since no space is left on the disk of {records.runs}; what "
            f"was stored is whole. Free some, then `fstune resume {records.name}`"
        ) from error


def _out_of_space(error: BaseException | None) -> bool:
    """Whether an exception comes from a full disk, here or in a worker."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM end a search as Ctrl-C does: Tune saves its state on SIGINT alone."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
