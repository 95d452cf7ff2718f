import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from arm_cases import made, rung_record, spec
from mlflow.tracking import MlflowClient
from mlflow_cases import DATASETS, ENVIRONMENT, points, wanted_points

from fstune.errors import InputError
from fstune.results.deltas import Delta
from fstune.results.records import Comparison, Confirmation, CurvePoint, EndRecord, SearchEnd
from fstune.tracking.points import rung_points
from fstune.tracking.tracker import Tracker, local_uri

if TYPE_CHECKING:
    from fstune.results.folder import SearchFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of runs; making its store takes seconds, so that all tests here share it."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def client(runs) -> MlflowClient:
    return MlflowClient(local_uri(runs))


class Tracked:
    """A search of its own in the shared store."""

    def __init__(self, runs: Path, folder: Path, name: str) -> None:
        self.spec = spec(folder).model_copy(update={"name": name})
        self.records: SearchFolder = made(runs, self.spec)
        self.runs = runs
        self.tracker = self.opened()

    def opened(self) -> Tracker:
        """A tracker as a process makes it that begins or goes on with the search."""
        tracker = Tracker(self.records, self.spec, self.runs, local_uri(self.runs))
        tracker.open(ENVIRONMENT, DATASETS)
        return tracker

    def suggest(self, number: int) -> None:
        self.records.write_candidate(number, {"future_seed.alpha": -1.0 - number})

    def reach(self, number: int, rung: int) -> None:
        self.records.write_rung(number, rung_record(rung, 0.25 + 0.01 * number))

    def end(self, number: int, state: Any = "completed") -> None:
        self.records.write_end(number, EndRecord(state, "for a reason"))

    def sync(self, number: int, tracker: Tracker | None = None) -> None:
        trial = self.records.trial(number)
        assert trial is not None
        (tracker or self.tracker).sync(trial)


@pytest.fixture
def search(runs, tmp_path, request) -> Tracked:
    return Tracked(runs, tmp_path, request.node.name[:60].replace("[", "-").rstrip("]"))


def all_runs(client: MlflowClient, search: Tracked) -> list[Any]:
    experiment = client.get_experiment_by_name(search.spec.name)
    return list(client.search_runs([experiment.experiment_id]))


def found_runs(client: MlflowClient, search: Tracked) -> list[Any]:
    """The search's runs without those of arms: its parent first, then its trials by number."""
    found = [run for run in all_runs(client, search) if "fstune.role" not in run.data.tags]
    return sorted(found, key=lambda run: int(run.data.tags.get("fstune.trial", -1)))


def arm_runs(client: MlflowClient, search: Tracked) -> list[Any]:
    """The runs of arms, by trial and role."""
    found = [run for run in all_runs(client, search) if "fstune.role" in run.data.tags]
    return sorted(found, key=lambda run: (int(run.data.tags["fstune.trial"]), run.info.run_name))


def assert_as_recorded(client: MlflowClient, search: Tracked) -> None:
    """One run per trial, one point per step, and the records' numbers."""
    trials = search.records.trials()
    parent, *children = found_runs(client, search)
    assert [int(run.data.tags["fstune.trial"]) for run in children] == [t.number for t in trials]
    for run, trial in zip(children, trials, strict=True):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert points(client, run) == wanted_points(trial.rungs)
        assert run.data.params == {k: str(v) for k, v in trial.candidate.items()}
    reached = [(run, trial) for run, trial in zip(children, trials, strict=True) if trial.rungs]
    arms = arm_runs(client, search)
    assert [
        (run.data.tags["mlflow.parentRunId"], run.data.tags["fstune.role"]) for run in arms
    ] == [(run.info.run_id, role) for run, _ in reached for role in ("baseline", "variant")]
    for run, (_, trial) in zip(arms, (each for each in reached for _ in range(2)), strict=True):
        role = run.data.tags["fstune.role"]
        wanted = wanted_points(trial.rungs)
        # Under names without the role, or MLflow would draw each arm on an axis of its own.
        assert points(client, run) == {
            key.replace(f"{role}/", "arm/"): values
            for key, values in wanted.items()
            if key.startswith(f"{role}/")
        }
        assert run.info.status == "FINISHED"


def test_a_trials_run_holds_the_numbers_of_its_record(search, client):
    search.suggest(0)
    search.sync(0)
    search.reach(0, 0)
    search.sync(0)
    search.reach(0, 1)
    search.sync(0)
    assert_as_recorded(client, search)
    run = found_runs(client, search)[1]
    found = points(client, run)
    # Baseline, variant and delta stand at the same steps.
    assert {tuple(step for step, _, _ in values) for values in found.values()} == {(1, 2, 3, 4)}
    assert len(found) == 15
    tags = run.data.tags
    assert tags["fstune.rungs"] == "2"
    assert tags["fstune.arm.seed1.baseline"] == "base1"
    assert tags["fstune.arm.seed1.variant"] == "variant1"
    assert run.info.status == "RUNNING"


@pytest.mark.parametrize("state", ["completed", "stopped", "diverged", "failed"])
def test_a_trials_end_is_its_runs_end(search, client, state):
    search.suggest(0)
    search.reach(0, 0)
    search.end(0, state)
    search.sync(0)
    run = found_runs(client, search)[1]
    assert run.info.status == ("FAILED" if state == "failed" else "FINISHED")
    assert run.data.tags["fstune.state"] == state
    assert run.data.tags["fstune.reason"] == "for a reason"
    verdict = state if state in ("diverged", "failed") else "unconfirmed gain"
    assert run.data.tags["fstune.verdict"] == verdict


@pytest.mark.parametrize("broke_off", [False, True])
def test_a_confirmations_verdict_is_the_trials(search, client, broke_off):
    search.suggest(0)
    for rung in range(2):
        search.reach(0, rung)
    search.end(0)
    search.sync(0)
    assert found_runs(client, search)[1].data.tags["fstune.verdict"] == "unconfirmed gain"
    record = rung_record(1, verdict="gain")
    names = [field.name for field in dataclasses.fields(Comparison)]
    comparison = Comparison(**{name: getattr(record, name) for name in names})
    search.records.write_confirmation(0, Confirmation(None if broke_off else comparison, 1e9))
    search.sync(0)
    run = found_runs(client, search)[1]
    verdict = "diverged" if broke_off else "gain"
    assert search.records.trial(0).verdict == verdict
    assert run.data.tags["fstune.verdict"] == run.data.tags["fstune.confirmed"] == verdict
    assert ("confirm/delta/nll" in run.data.metrics) != broke_off


def test_a_reason_of_many_pages_is_no_obstacle(search, client):
    search.suggest(0)
    search.records.write_end(0, EndRecord("failed", "missing: a tensor\n" * 2000))
    search.sync(0)
    run = found_runs(client, search)[1]
    assert run.info.status == "FAILED"
    assert run.data.tags["fstune.reason"].startswith("missing: a tensor\nmissing")


def test_logging_again_adds_nothing(search, client):
    for number in range(2):
        search.suggest(number)
        search.reach(number, 0)
        search.sync(number)
        search.sync(number)
    search.end(0)
    search.sync(0)
    again = search.opened()
    for number in range(2):
        search.sync(number, again)
    assert_as_recorded(client, search)


def test_the_parent_run_holds_the_search(search, client, runs):
    for _ in range(2):
        search.opened().describe()
    assert len(found_runs(client, search)) == 1
    parent = found_runs(client, search)[0]
    assert parent.info.run_name == search.spec.name
    tags = parent.data.tags
    assert tags["fstune.search"] == search.spec.name
    assert tags["fstune.spec_digest"] == search.spec.digest
    assert ENVIRONMENT.items() <= tags.items()
    inputs = [(one.dataset.name, one.dataset.digest) for one in parent.inputs.dataset_inputs]
    assert sorted(inputs) == [(name, digest[:36]) for name, digest in DATASETS.items()]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["spec.json"]
    experiment = client.get_experiment_by_name(search.spec.name)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    where = experiment.artifact_location
    assert where == (runs / "artifacts" / search.spec.name).as_uri()


def test_runs_of_requests_that_came_through_twice_are_one(search, client):
    search.suggest(0)
    search.reach(0, 0)
    search.sync(0)
    parent, first = found_runs(client, search)
    for run in (parent, first, *arm_runs(client, search)):
        tags = {k: v for k, v in run.data.tags.items() if k.startswith(("fstune.", "mlflow.p"))}
        client.create_run(run.info.experiment_id, tags=tags)
    search.reach(0, 1)
    search.sync(0, search.opened())
    assert [run.info.run_id for run in found_runs(client, search)] == [
        parent.info.run_id,
        first.info.run_id,
    ]
    assert_as_recorded(client, search)


def test_a_uri_that_mlflow_does_not_know_is_refused(search):
    tracker = Tracker(search.records, search.spec, search.runs, "htp://somewhere")
    with pytest.raises(InputError, match="--tracking-uri htp://somewhere: MLflow cannot use it"):
        tracker.connect()


MAKER = """if True:
    import sys
    from fstune.tracking import client_of
    print("ready", flush=True)
    sys.stdin.readline()
    print(client_of(sys.argv[1]).create_experiment(sys.argv[2]), flush=True)
"""


def maker(uri: str, name: str) -> "subprocess.Popen[str]":
    """A process that makes the store, and an experiment in it, as soon as it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, uri, name],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_searches_that_make_the_store_at_once_make_one(tmp_path):
    makers = [maker(local_uri(tmp_path), name) for name in ("one", "two", "three")]
    for process in makers:
        assert process.stdout.readline() == "ready\n"
    for process in makers:
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0] for process in makers) == ["1\n", "2\n", "3\n"]


def test_a_kill_between_metrics_and_tags_leaves_one_point_per_step(search, client):
    search.suggest(0)
    search.sync(0)
    search.reach(0, 0)
    run = found_runs(client, search)[1]
    logged = rung_points(search.records.rung(0, 0))
    client.log_batch(run.info.run_id, metrics=logged)
    client.log_batch(run.info.run_id, metrics=logged[:4])
    search.sync(0, search.opened())
    assert_as_recorded(client, search)


def test_a_long_curve_is_logged_whole(search, client):
    deltas = {"nll": Delta(3.0, 2.5, -0.5, -0.6, -0.4, False)}
    curve = [CurvePoint(step, 1e9 + step, deltas) for step in range(1, 302)]
    search.suggest(0)
    search.records.write_rung(0, dataclasses.replace(rung_record(0), curve=curve))
    search.sync(0)
    assert len(points(client, found_runs(client, search)[1])["delta/nll_low"]) == 301


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (SearchEnd.FINISHED, "FINISHED"),
        (SearchEnd.STOPPED, "KILLED"),
        (SearchEnd.FAILED, "FAILED"),
    ],
)
def test_closing_leaves_no_run_running(search, client, end, status, tmp_path):
    for number in range(3):
        search.suggest(number)
        search.sync(number)
    search.reach(0, 0)
    search.end(0)
    search.reach(1, 0)
    report = tmp_path / "report.json"
    report.write_text("{}")
    search.tracker.close(end, report)
    found = found_runs(client, search)
    assert [run.info.status for run in found] == [status, "FINISHED", status, status]
    assert_as_recorded(client, search)
    names = [file.path for file in client.list_artifacts(found[0].info.run_id)]
    assert "report.json" in names


def test_the_reports_files_and_words_are_on_the_parent_run(search, client, tmp_path):
    files = [tmp_path / "report.html", tmp_path / "report.csv"]
    for file in files:
        file.write_text("told")
    search.tracker.close(SearchEnd.FINISHED, None)
    search.tracker.publish(files, "# What it found\n" + "words " * 3000)
    parent, *_ = found_runs(client, search)
    assert parent.info.status == "FINISHED"
    names = [file.path for file in client.list_artifacts(parent.info.run_id)]
    assert {"report.html", "report.csv"} <= set(names)
    assert parent.data.tags["mlflow.note.content"].startswith("# What it found\nwords")


TABLE = Path(__file__).parents[2] / "docs" / "mlflow.md"


def test_the_table_for_readers_has_every_name_and_no_other(search, client, tmp_path):
    rows = re.findall(r"^\|.*\|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)[2:]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[2])}
    search.suggest(0)
    search.reach(0, 0)
    search.end(0)
    confirmed = rung_record(1)
    names = [field.name for field in dataclasses.fields(Comparison)]
    comparison = Comparison(**{name: getattr(confirmed, name) for name in names})
    search.records.write_confirmation(0, Confirmation(comparison, 1e9))
    search.sync(0)
    search.records.write_user_spec(b"name: small")
    search.records.write_environment(ENVIRONMENT)
    search.tracker.describe()
    files = [tmp_path / f"report.{kind}" for kind in ("json", "html", "csv")]
    for file in files:
        file.write_text("told")
    search.tracker.close(SearchEnd.FINISHED, files[0])
    search.tracker.publish(files[1:], "told")
    parent, trial = found_runs(client, search)
    arm, _ = arm_runs(client, search)
    logged = {file.path for file in client.list_artifacts(parent.info.run_id)}
    for run in (parent, trial, arm):
        logged |= {name for name in run.data.tags if not name.startswith("mlflow.")}
        logged |= set(run.data.params) | set(run.data.metrics)
    general = {
        r"seed\d+": "seed<k>",
        r"^version\..*": "version.<package>",
        r"(token_accuracy|nll|exact_match)": "<metric>",
        r"^confirm/.*": "confirm/…",
    }
    for pattern, name in general.items():
        logged = {re.sub(pattern, name, each) for each in logged}
    # Known from elsewhere: `environment` names it, and `test_winner` has a winner.
    assert listed - {"python", "winner", "fstune.model"} == logged


def test_a_search_that_was_stopped_goes_on_in_its_runs(search, client):
    for number in range(2):
        search.suggest(number)
    search.reach(0, 0)
    search.end(0)
    search.sync(0)
    search.tracker.close(SearchEnd.STOPPED, None)
    resumed = search.opened()
    assert found_runs(client, search)[0].info.status == "RUNNING"
    search.reach(1, 0)
    search.end(1)
    search.sync(1, resumed)
    resumed.close(SearchEnd.FINISHED, None)
    found = found_runs(client, search)
    assert [run.info.status for run in found] == ["FINISHED"] * 3
    assert_as_recorded(client, search)


def test_a_trial_that_failed_and_was_tried_again_ends_anew(search, client):
    search.suggest(0)
    search.end(0, "failed")
    search.sync(0)
    search.records.reopen(0)
    search.tracker.close(SearchEnd.FAILED, None)
    search.reach(0, 0)
    search.end(0, "completed")
    search.opened().close(SearchEnd.FINISHED, None)
    run = found_runs(client, search)[1]
    assert run.info.status == "FINISHED"
    assert run.data.tags["fstune.state"] == "completed"
    assert run.data.tags["fstune.verdict"] == "unconfirmed gain"
    assert_as_recorded(client, search)


def test_a_trials_run_ends_when_the_trial_did(search, client):
    search.suggest(0)
    search.reach(0, 0)
    search.end(0)
    search.sync(0)
    ended = found_runs(client, search)[1].info.end_time
    time.sleep(0.01)
    search.sync(0)
    search.tracker.close(SearchEnd.FINISHED, None)
    assert found_runs(client, search)[1].info.end_time == ended
