"""A short search as a user runs it, in a process of its own, to be killed and looked at."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from fstune.cli.commands import app

SPEC = """
name: small
model: {init: {num_layers: 2, width: 32, head_size: 16, vocab_size: 256}}
task: {name: rightcopy, length: 3, train_size: 256, validation_size: 32, test_size: 32}
train: {lr: 4e-3, batch_size: 8}
evaluation: {every: 3}
rungs:
  - {steps: 6, seeds: 1}
  - {steps: 12, seeds: 2}
space:
  future_seed.alpha: {uniform: [-3.0, 3.0]}
  future_seed.norm: {choice: [true, false]}
objective: {metric: nll}
search: {trials: 6, reduction_factor: 2, scheduler: asha}
confirm: {finalists: 1, looks: fixed, seeds: 2}
resources: {gpus: 0, cpu_threads: 1}
"""
NAME = "small"
PATIENCE_S = 150


@dataclass
class Place:
    """A folder in which the search is run."""

    folder: Path
    spec: str = SPEC

    @property
    def runs(self) -> Path:
        return self.folder / "mlruns"

    @property
    def records(self) -> Path:
        return self.runs / "searches" / NAME

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start fstune with these arguments here; its output goes to a file."""
        (self.folder / "small.yaml").write_text(self.spec)
        command = [sys.executable, "-m", "fstune.cli", *arguments, "--runs", str(self.runs)]
        # Not what other tests, or MLflow in this process, have put there.
        elsewhere = ("FSTUNE_DATA", "FSTUNE_RUNS", "MLFLOW_TRACKING_URI")
        environment = {name: at for name, at in os.environ.items() if name not in elsewhere}
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def search(self) -> subprocess.Popen[bytes]:
        return self.start("search", "small.yaml")

    def resume(self) -> subprocess.Popen[bytes]:
        return self.start("resume", NAME)

    def output(self) -> str:
        return (self.folder / "output.txt").read_text() + self.log()

    def log(self) -> str:
        path = self.records / "log.txt"
        return path.read_text() if path.exists() else ""

    def evaluations(self) -> dict[str, int]:
        """Every stored evaluation with the time at which it was written."""
        files = self.runs.glob("arms/*/evaluations/0*.npz")
        return {str(path.relative_to(self.runs)): path.stat().st_mtime_ns for path in files}

    def workers(self) -> list[int]:
        """Process ids that report progress."""
        paths = self.records.glob("trials/*/progress.json")
        return [json.loads(path.read_text())["pid"] for path in paths]

    def report(self) -> dict[str, Any]:
        """The report as JSON."""
        result: dict[str, Any] = json.loads(self._print_report("json"))
        return result

    def table(self) -> list[str]:
        """The lines of the report's table."""
        return self._print_report("table").splitlines()

    def _print_report(self, form: str) -> str:
        arguments = ["report", NAME, "--format", form, "--runs", str(self.runs)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    def tracked(self) -> dict[str, Any]:
        """What MLflow holds of the search, run by run."""
        client = MlflowClient(f"sqlite:///{self.runs / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(NAME)
        assert experiment is not None
        runs = {}
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            name = run.data.tags.get("fstune.trial", "parent")
            name = f"{name}{run.data.tags.get('fstune.role', '')}"
            assert name not in runs, f"two runs of {name}"
            history = {
                key: [
                    (point.step, point.value)
                    for point in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            }
            tags = {k: v for k, v in run.data.tags.items() if k.startswith("fstune.")}
            tags.pop("fstune.search_id", None)  # every search has its own
            runs[name] = (run.info.status, run.data.params, tags, history)
        return runs


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Wait until something holds; False if the process ended before."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if holds():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    raise TimeoutError(f"waited for {PATIENCE_S} s")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the driver alone; Ray's own processes are left to notice."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
