"""What a search logs arrives whole, once and in order, whatever the server does meanwhile."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arm_cases import made, rung_record, spec
from mlflow.tracking import MlflowClient
from mlflow_cases import DATASETS, ENVIRONMENT, points, wanted_points
from tracking_server import Server, silent_server

from fstune.errors import InputError
from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord, SearchEnd
from fstune.tracking import sender as sending
from fstune.tracking.sender import Beginning, Ending, Sender
from fstune.tracking.tracker import Tracker, local_uri

PATIENCE_S = 100


@pytest.fixture
def records(tmp_path) -> SearchFolder:
    return made(tmp_path / "mlruns", spec(tmp_path))


def sender(records: SearchFolder, folder: Path, uri: str | None = None) -> Sender:
    tracker = Tracker(records, spec(folder), records.runs, uri or local_uri(records.runs))
    made_of = Sender(tracker, records, Beginning(ENVIRONMENT, DATASETS))
    made_of.start()
    made_of.wait_until_connected()
    return made_of


def happen(records: SearchFolder, number: int) -> None:
    """A trial with both rungs, and its end."""
    records.write_candidate(number, {"future_seed.alpha": -1.0 - number})
    for rung in range(2):
        records.write_rung(number, rung_record(rung, 0.25 + 0.01 * number))
    records.write_end(number, EndRecord("completed", "reached the last rung"))


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited for {PATIENCE_S} s"
        time.sleep(0.05)


def assert_all_arrived(uri: str, records: SearchFolder, status: str = "FINISHED") -> None:
    """One run per trial beside the parent, every point once, in the order of the trials."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    parent = next(run for run in runs if "fstune.trial" not in run.data.tags)
    arms = [run for run in runs if "fstune.role" in run.data.tags]
    trials = [run for run in runs if run is not parent and run not in arms]
    assert parent.info.status == status
    expected = records.trials()
    assert [int(run.data.tags["fstune.trial"]) for run in trials] == list(range(len(expected)))
    for run, trial in zip(trials, expected, strict=True):
        assert points(client, run) == wanted_points(trial.rungs)
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "delta/nll")]
        assert steps == sorted(steps)
        assert run.info.status == "FINISHED"
    of_trial = [run.data.tags["mlflow.parentRunId"] for run in arms]
    assert of_trial == [run.info.run_id for run in trials for _ in range(2)]
    for run in arms:
        curve = wanted_points(expected[int(run.data.tags["fstune.trial"])].rungs)
        assert points(client, run)["arm/nll"] == curve[f"{run.data.tags['fstune.role']}/nll"]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"spec.json", "page.html"} <= files
    assert parent.data.tags["mlflow.note.content"] == "told"
    assert records.unsent == ""


@pytest.fixture
def ending(tmp_path) -> Ending:
    page = tmp_path / "page.html"
    page.write_text("page")
    return Ending(SearchEnd.FINISHED, None, [page], "told")


def test_what_is_recorded_is_sent_without_being_asked(records, tmp_path, ending):
    sends = sender(records, tmp_path)
    happen(records, 0)
    client = MlflowClient(local_uri(records.runs))
    until(
        lambda: (
            (found := client.get_experiment_by_name("small"))
            and len(client.search_runs([found.experiment_id])) == 4
        )
    )
    happen(records, 1)
    sends.finish(ending)
    assert_all_arrived(local_uri(records.runs), records)


def test_a_uri_that_mlflow_cannot_use_is_refused_and_nothing_is_sent(records, tmp_path):
    tracker = Tracker(records, spec(tmp_path), records.runs, "htp://somewhere")
    sends = Sender(tracker, records, Beginning(ENVIRONMENT, DATASETS))
    sends.start()
    with pytest.raises(InputError, match="--tracking-uri htp://somewhere"):
        sends.wait_until_connected()
    assert not sends.is_connected()
    assert not (records.root / "identity").exists(), "no run was looked for"


def test_a_server_that_never_answers_holds_nothing_up(records, tmp_path, ending, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with silent_server() as uri:
        sends = sender(records, tmp_path, uri)
        # The thread hangs in a request, and what is recorded meanwhile waits on disk.
        happen(records, 0)
        until(lambda: records.unsent)
        sends.finish(ending)
    assert records.unsent.startswith(f"{uri}: ")
    assert "timed out" in records.unsent
    # What is missing is sent when the search is resumed.
    again = sender(records, tmp_path)
    happen(records, 1)
    again.finish(ending)
    assert_all_arrived(local_uri(records.runs), records)


def test_a_password_is_kept_nowhere(records, tmp_path, ending, monkeypatch):
    monkeypatch.setattr(sending, "AT_END_S", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with silent_server() as uri:
        sends = sender(records, tmp_path, uri.replace("//", "//me:secret@"))
        sends.finish(ending)
        assert records.unsent.startswith(f"{uri}: it took more than")
    until(lambda: "it took more than" not in records.unsent)
    kept = [path for path in records.runs.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"secret" in path.read_bytes() for path in kept)


def test_an_end_waits_no_longer_than_it_may(records, tmp_path, ending, monkeypatch):
    monkeypatch.setattr(sending, "AT_END_S", 0.1)
    with silent_server() as uri:
        sends = sender(records, tmp_path, uri.replace("//", "//me:secret@"))
        sends.finish(ending)
        assert records.unsent.startswith(f"{uri}: it took more than"), "without the password"
    until(lambda: "it took more than" not in records.unsent)  # the thread has ended too


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_is_killed_and_comes_back_gets_everything(records, tmp_path, server, ending):
    sends = sender(records, tmp_path, server.uri)
    stop = threading.Event()

    def work() -> None:
        """Trial upon trial, whether the server lives or not."""
        while not stop.wait(0.4):
            happen(records, len(records.trials()))

    working = threading.Thread(target=work)
    working.start()
    try:
        until(lambda: len(records.trials()) > 10)  # so that the kill comes amid requests
        server.kill()
        until(lambda: records.unsent)
        server.start()
        until(lambda: len(records.trials()) > 20)
    finally:
        stop.set()
        working.join()
    sends.finish(ending)
    assert_all_arrived(server.uri, records)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_freezes_makes_no_run_twice(records, tmp_path, server, ending, monkeypatch):
    # A frozen server's kernel takes requests whose senders give up; awake, it carries them out.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    sends = sender(records, tmp_path, server.uri)
    for number in range(8):
        server.signal(signal.SIGSTOP)
        happen(records, number)
        time.sleep(3)  # some requests time out
        server.signal(signal.SIGCONT)
        time.sleep(2)
    sends.finish(ending)
    assert_all_arrived(server.uri, records)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_is_down_at_the_end_gets_the_rest_later(records, tmp_path, server, ending):
    sends = sender(records, tmp_path, server.uri)
    happen(records, 0)
    client = MlflowClient(server.uri)
    until(lambda: client.get_experiment_by_name("small"))
    server.kill()
    happen(records, 1)
    sends.finish(ending)
    assert server.uri in records.unsent
    server.start()
    sender(records, tmp_path, server.uri).finish(ending)
    assert_all_arrived(server.uri, records)
