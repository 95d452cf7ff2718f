"""A search in MLflow: a parent run, a run per trial, baseline and variant side by side.

The only place that imports MLflow. Everything logged comes from the records, so that a search which
was killed is brought up to date by logging its records again: what is there already is left alone.

    parent run   tags fstune.search, fstune.search_id, fstune.spec_digest, commit, code, device,
                 python, version.<package>; the spec as written and as resolved, the report as JSON
                 and, at the end, as HTML, the table as CSV, and a description in Markdown
    trial run    params: the candidate's settings; tags fstune.trial, fstune.verdict, fstune.state,
                 fstune.reason, fstune.rungs, fstune.arm.seed<k>.baseline and .variant
    metrics      baseline/<metric>, variant/<metric>, delta/<metric>, delta/<metric>_low and _high,
                 all at the same optimiser steps, mean over the seeds of the rung;
                 confirm/… the same of a confirmation, with the tag fstune.confirmed, its verdict
    arm runs     two beneath each trial's, fstune.role baseline and variant: the same curves under
                 one name, arm/<metric>, so that MLflow draws both on one axis
"""

import json
import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

import model
from fstune.errors import InputError
from fstune.files import whole_file
from fstune.results.folder import SearchFolder
from fstune.results.records import Confirmation, RungRecord, SearchEnd, TrialRecord
from fstune.specs.sections import SearchSpec
from fstune.tracking.points import arm_points, confirmation_points, rung_points


def local_uri(runs: Path) -> str:
    """MLflow's SQLite store in a folder of runs; MLflow refuses its file store since 3.17."""
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """A server's address as it may be shown and kept: without a name and a password in it."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


_SEARCH, _TRIAL, _RUNGS = "fstune.search", "fstune.trial", "fstune.rungs"


_STATE = "fstune.state"


_VERDICT, _ROLE, _REASON = "fstune.verdict", "fstune.role", "fstune.reason"


_IDENTITY = "fstune.search_id"


_PARENT = "mlflow.parentRunId"


_DESCRIPTION = "mlflow.note.content"


_MODEL = "fstune.model"


_NEEDS = ("mlflow", "torch", "numpy", "pydantic", "safetensors", "pyrwkv-tokenizer")
"""What a winner needs to run, of the versions that it was trained with."""


_STATUS = {
    SearchEnd.FINISHED: "FINISHED",
    SearchEnd.STOPPED: "KILLED",
    SearchEnd.FAILED: "FAILED",
}
"""What MLflow calls the end of a run."""


# MLflow's pages take an experiment for work on prompts and agents unless it says what it is.
_TRAINING = {"mlflow.experimentKind": "custom_model_development"}


# By itself MLflow tries seven times with growing pauses and 120 s each, so that a call to a server
# that is down takes minutes (`sender` tries again); and prints an address for every run.
_MANNERS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "120",
}


def client_of(uri: str) -> MlflowClient:
    """A client that gives up on a server soon; nothing is sent to one yet.

    Raises:
        InputError: if MLflow cannot use the URI.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    try:
        _make_database(uri)
        client = MlflowClient(uri)
        mlflow.set_tracking_uri(uri)  # a model is logged by MLflow's fluent functions
        return client
    except (MlflowException, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--tracking-uri {uri}: MLflow cannot use it: {reason}") from error


def _make_database(uri: str) -> None:
    """Make a SQLite store that is not there yet, whole or not at all, by one process at a time.

    MLflow makes one in dozens of steps: a kill between two, or another process that does the same,
    leaves a file that it never reads again.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or "?" in uri or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            return
        with whole_file(path) as draft:
            MlflowClient(f"sqlite:///{draft}")


class Tracker:
    """The MLflow runs of one search."""

    def __init__(self, records: SearchFolder, spec: SearchSpec, runs: Path, uri: str) -> None:
        self._records = records
        self._spec = spec
        self._runs = runs
        self._uri = uri
        self._parent = ""
        self._experiment = ""
        self._connected: MlflowClient | None = None
        self._trials: dict[int, str] = {}
        self._arms: dict[int, dict[str, str]] = {}
        self._rungs: dict[int, int] = {}
        self._ended: dict[int, str] = {}

    @property
    def uri(self) -> str:
        """Where the runs are."""
        return self._uri

    def open(self, environment: Mapping[str, str], datasets: Mapping[str, str]) -> None:
        """Make the parent run, or find the one that was there before; and its trials' runs.

        Args:
            environment: versions, device and code, for tags.
            datasets: digest of each split, by its name.
        """
        client = self._client
        experiment = client.get_experiment_by_name(self._spec.name)
        if experiment is None:
            folder = self._runs.resolve() / "artifacts" / self._spec.name
            artifacts = folder.as_uri() if self._uri.startswith("sqlite:") else None
            experiment_id = client.create_experiment(self._spec.name, artifacts, tags=_TRAINING)
        else:
            experiment_id = experiment.experiment_id
        self._experiment = experiment_id
        # By identity, not by name: on a shared server others may run the same spec.
        identity = {_IDENTITY: self._records.make_identity()}
        tags = identity | {_SEARCH: self._spec.name, "fstune.spec_digest": self._spec.digest}
        known = self._search(_tagged(identity))
        if known:
            parent = self._only(known)
        else:
            tags |= environment
            parent = client.create_run(experiment_id, tags=tags, run_name=self._spec.name)
        self._parent = parent.info.run_id
        client.log_inputs(self._parent, [_dataset(*item) for item in datasets.items()])
        client.update_run(self._parent, RunStatus.to_string(RunStatus.RUNNING))
        self._know_children()

    def describe(self) -> None:
        """Put what the search was made from on its run.

        Apart from `open`: files may go to another place than figures, which may be out of reach.
        """
        for path in self._records.made_from():
            self._client.log_artifact(self._parent, str(path))

    def sync(self, trial: TrialRecord) -> None:
        """Bring one trial's run up to its record."""
        run_id = self._run_of(trial)
        for rung in trial.rungs[self._rungs.get(trial.number, 0) :]:
            self._log_rung(run_id, trial.number, rung)
        if trial.confirmation is not None:
            self._log_confirmation(run_id, trial.confirmation)
        # One that failed may have been tried again, and ended otherwise.
        if trial.end is not None and self._ended.get(trial.number) != trial.end.state:
            tags = {_VERDICT: trial.verdict, _STATE: trial.end.state, _REASON: trial.end.reason}
            self._set_tags(run_id, tags)
            failed = trial.end.state == "failed"
            self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")
            self._ended[trial.number] = trial.end.state

    def _log_rung(self, run_id: str, number: int, rung: RungRecord) -> None:
        tags = [RunTag(_RUNGS, str(rung.rung + 1))] + [
            RunTag(f"fstune.arm.seed{pair.seed}.{name}", digest)
            for pair in rung.arms
            for name, digest in (("baseline", pair.baseline), ("variant", pair.variant))
        ]
        # Timestamps come from the record: should a kill fall between metrics and tags, logging
        # the same points again leaves one of each.
        self._log_arms(number, rung)
        self._client.log_batch(run_id, metrics=rung_points(rung), tags=tags)
        self._rungs[number] = rung.rung + 1

    def _log_confirmation(self, run_id: str, confirmation: Confirmation) -> None:
        # Its verdict is the trial's, whose end was logged before.
        tags = [RunTag(tag, confirmation.verdict) for tag in ("fstune.confirmed", _VERDICT)]
        points = confirmation_points(confirmation)
        self._client.log_batch(run_id, metrics=points, tags=tags)

    def close(self, end: SearchEnd, report: Path | None) -> None:
        """End the parent run and every open one as the search has ended."""
        status = _STATUS[end]
        self._know_children()
        for trial in self._records.trials():
            self.sync(trial)
            if trial.end is None:
                self._client.set_terminated(self._trials[trial.number], status)
        if report is not None:
            self._client.log_artifact(self._parent, str(report))
        self._client.set_terminated(self._parent, status)

    def publish(self, files: Sequence[Path], description: str) -> None:
        """Put files on the parent run, and a text in Markdown above them."""
        for path in files:
            self._client.log_artifact(self._parent, str(path))
        self._set_tags(self._parent, {_DESCRIPTION: description})

    def log_winner(self, files: Mapping[str, Path]) -> None:
        """Put a confirmed winner on the parent run, as a model that `mlflow.pyfunc` loads.

        Args:
            files: `weights`, `description` and one for each mechanism, as `export.kept` has them.
        """
        if _MODEL in self._client.get_run(self._parent).data.tags:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own types on import
            import mlflow.pyfunc  # takes seconds, for what most searches never have
        from mlflow.models import Model

        served = Path(__file__).parents[1] / "export" / "pyfunc.py"
        logged = Model.log(
            artifact_path=None,  # the older name of what follows
            name="winner",
            flavor=mlflow.pyfunc,
            run_id=self._parent,
            model_id=self._client.create_logged_model(
                self._experiment, "winner", self._parent
            ).model_id,
            python_model=str(served),
            artifacts={what: str(path) for what, path in files.items()},
            code_paths=[str(Path(model.__path__[0]))],
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDS],
            metadata=json.loads(files["description"].read_text()),
        )
        self._set_tags(self._parent, {_MODEL: logged.model_uri})

    def connect(self) -> None:
        """Make a client of the server, or open the database; sends nothing to a server.

        Raises:
            InputError: if MLflow cannot use the URI.
        """
        self._connected = client_of(self._uri)

    @property
    def _client(self) -> MlflowClient:
        if self._connected is None:
            self.connect()
        assert self._connected is not None
        return self._connected

    def _know_children(self) -> None:
        """Which trial has which runs, how many rungs are logged there, and how it ended."""
        self._trials, self._arms, self._rungs, self._ended = {}, {}, {}, {}
        of_trial: dict[int, list[Run]] = {}
        for run in self._search(_tagged({_PARENT: self._parent})):
            of_trial.setdefault(int(run.data.tags[_TRIAL]), []).append(run)
        for number, found in of_trial.items():
            run = self._only(found)
            self._trials[number] = run.info.run_id
            self._rungs[number] = int(run.data.tags.get(_RUNGS, 0))
            # A stop ends runs too; only that of a trial which ended has a state.
            if _STATE in run.data.tags and run.info.status in ("FINISHED", "FAILED"):
                self._ended[number] = run.data.tags[_STATE]

    def _search(self, wanted: str) -> list[Run]:
        found: list[Run] = []
        page = None
        while True:
            runs = self._client.search_runs([self._experiment], wanted, page_token=page)
            found += runs
            page = runs.token
            if not page:
                return found

    def _only(self, runs: Sequence[Run]) -> Run:
        """The first of several runs of one thing; the others are deleted.

        A request whose answer was lost is made again, and a server that was only slow then carries
        out both.
        """
        first, *others = sorted(runs, key=lambda run: run.info.start_time)
        for run in others:
            self._client.delete_run(run.info.run_id)
        return first

    def _run_of(self, trial: TrialRecord) -> str:
        if trial.number not in self._trials:
            tags = {_PARENT: self._parent, _SEARCH: self._spec.name, _TRIAL: str(trial.number)}
            run = self._client.create_run(
                self._experiment, tags=tags, run_name=f"trial {trial.number}"
            )
            self._trials[trial.number] = run.info.run_id
            self._arms[trial.number] = {}  # nothing is beneath a run that is new
        run_id = self._trials[trial.number]
        if not self._rungs.get(trial.number):
            params = [Param(name, str(value)) for name, value in trial.candidate.items()]
            self._client.log_batch(run_id, params=params)
        return run_id

    def _log_arms(self, number: int, rung: RungRecord) -> None:
        """Put both arms' curves up to a rung on a run each."""
        for role, run_id in self._arms_of(number).items():
            self._client.log_batch(run_id, metrics=arm_points(rung, role))

    def _arms_of(self, number: int) -> dict[str, str]:
        """The runs of a trial's baseline and variant, by role; made where they are missing."""
        parent = {_PARENT: self._trials[number]}
        if number not in self._arms:
            known: dict[str, list[Run]] = {}
            for run in self._search(_tagged(parent)):
                known.setdefault(run.data.tags[_ROLE], []).append(run)
            self._arms[number] = {
                role: self._over(self._only(runs)) for role, runs in known.items()
            }
        for role in (each for each in ("baseline", "variant") if each not in self._arms[number]):
            tags = parent | {_SEARCH: self._spec.name, _TRIAL: str(number), _ROLE: role}
            name = f"trial {number} {role}"
            run = self._client.create_run(self._experiment, tags=tags, run_name=name)
            self._arms[number][role] = self._over(run)
        return self._arms[number]

    def _over(self, arm: Run) -> str:
        """An arm's run, ended: what is logged there has happened, whatever becomes of the trial."""
        if arm.info.status == "RUNNING":
            self._client.set_terminated(arm.info.run_id, "FINISHED")
        return str(arm.info.run_id)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _tagged(tags: Mapping[str, str]) -> str:
    """MLflow's query for runs with these tags."""
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def _dataset(name: str, digest: str) -> DatasetInput:
    # MLflow takes digests of at most 36 characters.
    return DatasetInput(Dataset(name, digest[:36], "fstune", "{}"))
