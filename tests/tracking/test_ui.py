"""`fstune ui` as a user meets it: a process that serves, and leaves nothing behind."""

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from fstune.errors import InputError
from fstune.tracking.tracker import local_uri
from fstune.tracking.ui import HOST, _port, serve


@pytest.fixture
def taken() -> int:
    """A port that something listens on."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield other.getsockname()[1]


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name the folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to see processes")
def test_it_serves_the_runs_and_stops_whole(tmp_path):
    MlflowClient(local_uri(tmp_path)).create_experiment("seen-in-the-ui")
    command = [sys.executable, "-m", "fstune.cli", "ui", "--runs", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ui:
        try:
            assert ui.stdout is not None
            url = ui.stdout.readline().split()[1]
            assert url.startswith(f"http://{HOST}:")
            with urllib.request.urlopen(url, timeout=20) as page:
                assert b"<title>MLflow</title>" in page.read()
            search = f"{url}/api/2.0/mlflow/experiments/search?max_results=10"
            with urllib.request.urlopen(search, timeout=20) as found:
                assert b"seen-in-the-ui" in found.read()
            assert len(processes_of(tmp_path)) >= 2
        finally:
            ui.send_signal(signal.SIGTERM)
        assert ui.wait(timeout=20) == 0
    assert processes_of(tmp_path) == []


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"mlflow\.db: there is no MLflow store"):
        serve(tmp_path, None, print)


def test_a_port_that_is_taken_is_refused_or_avoided(taken, monkeypatch):
    with pytest.raises(InputError, match=f"--port {taken}: something listens there"):
        _port(taken)
    monkeypatch.setattr("fstune.tracking.ui.DEFAULT_PORT", taken)
    other = _port(None)
    assert other != taken
    with socket.socket() as free:
        free.bind((HOST, other))
