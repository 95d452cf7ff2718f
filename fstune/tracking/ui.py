"""MLflow's own user interface over a folder of runs, as a process of its own.

One worker and no job service: up in seconds, one process instead of fifteen. MLflow itself is
imported in that process only.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from fstune.errors import FstuneError, InputError
from fstune.tracking.tracker import local_uri

HOST = "127.0.0.1"


DEFAULT_PORT = 5000


READY_WITHIN_S = 60.0


STOPPED_WITHIN_S = 5.0


def serve(runs: Path, port: int | None, tell: Callable[[str], None]) -> None:
    """Serve the runs' store until SIGINT or SIGTERM, then stop every process that was started.

    Args:
        runs: the folder of all that runs write.
        port: where to listen; None for 5000, or a free one if that is taken.
        tell: called with a line once the pages can be opened.

    Raises:
        InputError: if the folder has no store, or the port that was asked for is taken.
        FstuneError: if the server ends by itself; names its log.
    """
    store = runs.resolve() / "mlflow.db"
    if not store.exists():
        raise InputError(f"{store}: there is no MLflow store; `fstune search` makes one")
    chosen = _port(port)
    log = runs.resolve() / "ui.log"
    with _stoppable() as stopped, log.open("wb") as file:
        server = subprocess.Popen(
            _command(runs.resolve(), chosen),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,  # a group of its own, to be stopped whole
        )
        try:
            url = f"http://{HOST}:{chosen}"
            if _wait_until_ready(server, url, stopped):
                tell(f"MLflow: {url} (Ctrl-C stops it)")
            while not stopped() and server.poll() is None:
                time.sleep(0.1)
            if not stopped():
                raise FstuneError(f"MLflow's server ended with {server.returncode}; see {log}")
        finally:
            _stop(server)


def _command(runs: Path, port: int) -> list[str]:
    where = [local_uri(runs), str(runs / "artifacts"), HOST, str(port)]
    return [sys.executable, "-m", "fstune.tracking.ui_server", *where]


def _port(wanted: int | None) -> int:
    """The port that was asked for, the default one, or a free one."""
    if _is_free(wanted or DEFAULT_PORT):
        return wanted or DEFAULT_PORT
    if wanted is not None:
        raise InputError(f"--port {wanted}: something listens there; leave it out for a free one")
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are only just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _wait_until_ready(
    server: "subprocess.Popen[bytes]", url: str, stopped: Callable[[], bool]
) -> bool:
    """Whether the server answers; False if it ended or was stopped first."""
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and server.poll() is None and not stopped():
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    return False


@contextlib.contextmanager
def _stoppable() -> "Iterator[Callable[[], bool]]":
    """Note SIGINT and SIGTERM instead of dying of them; yields whether one came."""
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, _: came.append(number)) for each in signals]
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The group outlives its leader as long as a worker does.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOPPED_WITHIN_S)
