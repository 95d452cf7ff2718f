"""What holds while a search or its confirmation runs: its lock, its signals, Ray and MLflow.

What is run is in `lifecycle` and `confirmation`.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from filelock import Timeout

from fstune.errors import InputError, SearchFailedError
from fstune.machine import fault_of
from fstune.results.folder import SearchFolder
from fstune.results.records import SearchEnd
from fstune.search.cluster import start_ray, stop_ray
from fstune.specs.sections import SearchSpec
from fstune.tracking.sender import Ending, Sender

_TUNE_SETTINGS = {
    # Tune's snapshots are not read: one a day is as few as it can be told to write.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # The records and MLflow hold what Tune's CSV, JSON and TensorBoard loggers would write again.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


@dataclass
class Session:
    """One run of a search, from taking its lock to letting go of it."""

    end: SearchEnd = SearchEnd.STOPPED
    """How it ended; whoever runs something to its end says so here."""


@contextlib.contextmanager
def held(records: SearchFolder) -> Iterator[None]:
    """Keep other processes from the search; a kill lets go of it.

    Raises:
        InputError: if another process has it.
    """
    lock = records.lock
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
def ray_running(spec: SearchSpec) -> Iterator[None]:
    """Ray, started or joined, and ended again.

    Raises:
        InputError: if a cluster refuses the connection.
    """
    os.environ.update(_TUNE_SETTINGS)
    try:
        start_ray(spec)
        with sigterm_as_sigint():  # Ray's start puts a handler of its own in place
            yield
    finally:
        stop_ray()


@contextlib.contextmanager
def mlflow_told(sender: Sender, ending: Callable[[], Ending]) -> Iterator[None]:
    """MLflow kept up to date, from a thread that is still connecting when the context begins.

    Args:
        sender: the thread, not yet started.
        ending: called when the context ends, for what is sent last.
    """
    sender.start()
    try:
        yield
    finally:
        if sender.is_connected():
            sender.finish(ending())


@contextlib.contextmanager
def machine_explained(records: SearchFolder) -> Iterator[None]:
    """Say what to do where a full disk or the like, here or at a worker, ends the search.

    Raises:
        SearchFailedError: instead of the error that the machine has caused.
    """
    try:
        yield
    except SearchFailedError:
        raise
    except Exception as error:
        fault = fault_of(error)
        if fault is None:
            raise
        raise stopped_by_the_machine(records, fault) from error


def stopped_by_the_machine(records: SearchFolder, fault: str) -> SearchFailedError:
    """What is told where a fault of the machine ends a search."""
    return SearchFailedError(
        f"{records.name} stopped, since {fault}; what was stored in {records.runs} is whole. When "
        f"that is mended, `fstune resume {records.name}`"
    )


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM end a search as Ctrl-C does: Tune saves its state on SIGINT alone."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
