"""The command line as a user meets it: what it prints, and its exit code."""

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from arm_cases import SPEC, made, rung_record, spec

from fstune import api
from fstune.cli.commands import main
from fstune.cli.task_page import declarations
from fstune.cli.terminal import resume_command
from fstune.results.records import EndRecord
from fstune.search.lifecycle import Search
from fstune.specs.loading import shipped
from tasks import registry

OWN_VARIABLES = ("FSTUNE_DATA", "FSTUNE_RUNS", "MLFLOW_TRACKING_URI", "COLUMNS")
ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "ray", "mlflow", "optuna", "numpy", "pydantic", "datasets", "transformers"]


class Done(NamedTuple):
    """What a command has told."""

    stdout: str
    stderr: str


@pytest.fixture
def fstune(tmp_path, monkeypatch, capfd) -> Callable[..., Done]:
    """Runs a command in this process, in the test's folder, and holds it to an exit code.

    A new interpreter would take a second for each, and four where a command gets as far as Ray.
    """
    for name in OWN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def fstune(*arguments: object, code: int = 0) -> Done:
        with pytest.raises(SystemExit) as caught:
            main(list(map(str, arguments)))
        told = Done(*capfd.readouterr())
        assert (caught.value.code or 0) == code, told
        return told

    return fstune


@pytest.fixture
def refusal(fstune) -> Callable[..., list[str]]:
    """The lines on stderr of a command that exits with 2 and has nothing else to say."""

    def refusal(*arguments: object) -> list[str]:
        told = fstune(*arguments, code=2)
        assert told.stdout == ""
        return told.stderr.splitlines()

    return refusal


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Python does with these arguments in a process of its own."""
    own = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=own | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder of runs with one search that has ended."""
    runs = tmp_path / "mlruns"
    made_of = spec(tmp_path)
    records = made(runs, made_of)
    for number, mean in enumerate((0.2, 0.3)):
        records.write_candidate(number, {"future_seed.alpha": -1.0 - number})
        records.write_rung(number, rung_record(0, mean))
        records.write_end(number, EndRecord("completed", "reached the last rung"))
    return runs


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path):
    code = f"""if True:
        import sys
        from fstune.cli.commands import main
        try:
            main(["--help"])
        finally:
            print("heavy:", sorted(set({HEAVY}) & set(sys.modules)))
    """
    done = in_a_process(tmp_path, "-c", code)
    assert "heavy: []" in done.stdout
    for command in ("search", "resume", "status", "report", "ui", "tasks", "doctor", "schema"):
        assert f" {command} " in done.stdout


def test_the_version_is_that_of_the_package(fstune):
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert fstune("--version").stdout == f"fstune {written}\n"


def test_no_argument_shows_the_help_and_a_wrong_command_exits_2(fstune):
    assert "Usage: fstune [OPTIONS]" in fstune(code=2).stdout
    assert "No such command 'frobnicate'" in fstune("frobnicate", code=2).stderr


def test_a_bad_spec_exits_2_with_every_problem_in_a_line(tmp_path):
    text = SPEC.replace("lr: 1e-2", "lr: -1, lrr: 2").replace("trials: 4", "trials: 0")
    (tmp_path / "bad.yaml").write_text(text)
    done = in_a_process(tmp_path, "-m", "fstune.cli", "search", "bad.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("bad.yaml:") for line in lines)
    assert "train.lr: " in lines[0]
    assert "lrr" in lines[1]
    assert "search.trials: " in lines[2]
    assert not (tmp_path / "mlruns").exists()


def test_an_unknown_shipped_spec_exits_2_with_the_nearest(refusal):
    (line,) = refusal("search", "quickstat")
    assert "did you mean 'quickstart'?" in line
    assert ", ".join(shipped()) in line


@pytest.mark.parametrize("command", ["status", "report", "resume"])
def test_an_unknown_search_exits_2_with_the_known_ones(runs, refusal, command):
    (line,) = refusal(command, "smal")
    assert "no search is called 'smal'" in line
    assert line.endswith("known: small")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trian.lr=3", "did you mean 'train'?"),
        ("train.lr=-1", "--set train.lr=-1"),
        ("train.lr", "path=value"),
    ],
)
def test_a_bad_override_exits_2(override, told, refusal):
    (line,) = refusal("search", "quickstart", "--set", override)
    assert told in line


def test_a_checkpoint_that_is_missing_is_named_with_the_places_looked_at(
    tmp_path, monkeypatch, refusal
):
    name = "rwkv7-g1d-0.1b-20260129-ctx8192.pth"
    (line,) = refusal("search", "hotpot_len4096", "--data", "one", "--data", "two")
    assert line.startswith(f"{name}: there is no such file; looked for it at ")
    for folder in (tmp_path / "one", tmp_path / "two", "search_spaces"):
        assert f"{folder}/{name}" in line
    monkeypatch.setenv("FSTUNE_DATA", f"{tmp_path}/three{os.pathsep}{tmp_path}/four")
    (line,) = refusal("search", "hotpot_len4096")
    for folder in (tmp_path / "three", tmp_path / "four", "search_spaces"):
        assert f"{folder}/{name}" in line
    assert not (tmp_path / "mlruns").exists()


def test_a_gpu_that_is_not_there_exits_2(tmp_path, refusal):
    (line,) = refusal("search", "quickstart", "--set", "resources.gpus=64")
    assert line.startswith("resources.gpus: 64 asked, ")
    assert not (tmp_path / "mlruns").exists()


def test_a_search_that_exists_is_not_begun_again(runs, refusal):
    (line,) = refusal("search", "spec.yaml")
    assert "a search called 'small' exists" in line
    assert "fstune resume small" in line


def test_a_search_is_not_gone_on_with_as_if_it_were_another(tmp_path, runs, refusal):
    more = ("--set", "train.lr=1", "--set", "search.trials=9", "--set", "resources.gpus=0")
    first, *changed, mend = refusal("search", "spec.yaml", "--resume", *more)
    assert first == "small was made from another spec:"
    assert {line.split(":")[0].strip() for line in changed} == {
        "train.lr",
        "search.trials",
        "resources.gpus",
    }
    assert "fstune resume small" in mend
    assert api.prepare("spec.yaml", resume=True).spec == spec(tmp_path)


def test_what_to_type_next_names_the_folder_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_of = spec(tmp_path)
    wanted = {"mlruns": "", "o t/mlruns": f" --runs '{tmp_path}/o t/mlruns'"}
    for folder, runs in wanted.items():
        records = made(tmp_path / folder, made_of)
        search = Search(made_of, records, (tmp_path / folder).resolve(), "")
        assert resume_command(search) == f"fstune resume small{runs}"


def test_too_few_data_exit_2_with_what_there_was(tmp_path, refusal):
    text = SPEC.replace("length: 2, train_size: 10", "length: 1, alphabet: ab, train_size: 10")
    (tmp_path / "spec.yaml").write_text(text)
    (line,) = refusal("search", "spec.yaml")
    assert "rightcopy train: 10 examples asked" in line


def test_tasks_lists_every_task(fstune):
    text = fstune("tasks").stdout
    assert all(name in text for name in registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_a_task_is_shown_with_its_settings_and_metrics(name, fstune):
    text = fstune("tasks", name).stdout
    task = registry.get(name)
    assert task.summary in text
    assert task.licence in text
    assert all(metric.name in text for metric in task.metrics)
    assert "train_size" in text
    settings = [line for line in text.splitlines() if line.startswith("setting ")]
    assert len(settings) == len(dataclasses.fields(task.Settings)) - 1
    assert not [line for line in settings if ":  (default" in line]
    assert text.splitlines()[-1].startswith("example: ") or "⟦" in text


def test_a_task_is_shown_with_the_sizes_of_its_searches(fstune):
    lines = fstune("tasks", "hotpot").stdout.splitlines()
    sizes = [line.partition(":")[0] for line in lines if line.startswith("sizes in ")]
    assert sizes == ["sizes in hotpot_len4096", "sizes in hotpot_tiny"]
    assert "sizes in hotpot_len4096: train 700, validation 140, test 140" in lines
    assert "sizes in sudoku_after" not in declarations(registry.get("sudoku"))


def test_a_task_is_shown_with_one_of_its_examples_and_its_target(fstune):
    text = fstune("tasks", "rightcopy", "--spec", "quickstart").stdout
    example = text.splitlines()[-1]
    masked, _, wanted = example.partition("⟦")[2].partition("⟧")[0].partition(" → ")
    assert set(masked) == {"_"}
    assert example.endswith(f"R={wanted}")


def test_an_example_of_another_task_is_refused(refusal):
    (line,) = refusal("tasks", "sudoku", "--spec", "quickstart")
    assert "its task is rightcopy, not sudoku" in line


def test_a_task_whose_data_are_elsewhere_is_shown_without_an_example(fstune, refusal):
    text = fstune("tasks", "hotpot").stdout
    assert text.splitlines()[-1].startswith("example: hotpot/train.jsonl: there is no such file")
    (line,) = refusal("tasks", "hotpot", "--spec", "hotpot_tiny")
    assert "--data DIR" in line


def test_an_unknown_task_exits_2_with_the_nearest(refusal):
    (line,) = refusal("tasks", "hotpo")
    assert "did you mean 'hotpot'?" in line


def test_the_schema_is_json(fstune):
    schema = json.loads(fstune("schema").stdout)
    assert {"name", "model", "task", "rungs", "space"} <= set(schema["properties"])


def test_doctor_tells_device_and_versions(fstune):
    text = fstune("doctor").stdout
    assert "device: " in text
    assert "version.torch: " in text


def test_doctor_exits_1_where_a_search_would_be_refused(tmp_path, fstune, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    told = fstune("doctor", path).stdout
    assert "refused:" not in told
    assert "disk of mlruns: up to " in told
    path.write_text(f"{SPEC}resources: {{gpus: 99}}\n")
    lines = fstune("doctor", path, code=1).stdout.splitlines()
    assert lines[-1].startswith("refused: resources.gpus: 99 asked, ")
    assert "\nmissing: " in fstune("doctor", "hotpot_tiny", code=1).stdout


def test_a_report_is_a_table_or_json(tmp_path, runs, fstune):
    table = fstune("report", "small").stdout
    assert max(map(len, table.splitlines())) <= 80
    assert [line.split()[0] for line in table.splitlines()[1::3]] == ["1", "0"]
    assert "+0.3000 [+0.2950, +0.3100]" in table
    found = json.loads(fstune("report", "small", "--format", "json").stdout)
    made_of = spec(tmp_path)
    assert found["spec_digest"] == made_of.digest
    assert found["best"] == 1
    assert found["trials"][1]["rungs"][0]["delta"]["token_accuracy"]["mean"] == 0.3


def test_a_report_is_a_text_or_a_page_with_figures(tmp_path, runs, fstune):
    text = fstune("report", "small", "--format", "markdown").stdout
    assert text.startswith("# small\n")
    assert "| 1 | unconfirmed gain | 2 | 1 | 0.1000 | 0.4000 | +0.3000 |" in text
    done = fstune("report", "small", "--format", "html", "--figures", "drawn")
    page = tmp_path / done.stdout.strip()
    assert page == runs / "searches" / "small" / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "drawn" / "forest.svg").exists()


def test_a_tracking_uri_that_mlflow_does_not_know_is_refused_before_anything(tmp_path, refusal):
    (tmp_path / "small.yaml").write_text(SPEC)
    (line,) = refusal("search", "small.yaml", "--tracking-uri", "htp://somewhere")
    assert line.startswith("--tracking-uri htp://somewhere: MLflow cannot use it: ")
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("report", "small", "--figures", "spec.yaml"), "spec.yaml: File exists"),
        (("report", "small", "--figures", "spec.yaml/drawn"), "spec.yaml/drawn: Not a directory"),
        (("search", "quickstart", "--runs", "spec.yaml"), "spec.yaml/cache: Not a directory"),
    ],
)
def test_a_folder_that_can_be_none_is_named(runs, refusal, arguments, told):
    (line,) = refusal(*arguments)
    assert line.endswith(told)


def test_a_port_that_can_be_none_is_refused(runs, fstune):
    (runs / "mlflow.db").touch()
    assert "65535" in fstune("ui", "--port", 70000, code=2).stderr


def test_the_ui_needs_a_store(refusal):
    (line,) = refusal("ui", "--runs", "nowhere")
    assert "there is no MLflow store" in line


def test_status_shows_one_search_or_all(runs, fstune, monkeypatch):
    for arguments in ((), ("small",)):
        assert "small  2 of 4 trials ended" in fstune("status", *arguments).stdout
    monkeypatch.chdir(runs.parent.parent)
    assert "small  2 of 4 trials ended" in fstune("status", "--runs", runs).stdout
    monkeypatch.setenv("FSTUNE_RUNS", "none")
    monkeypatch.setenv("COLUMNS", "200")
    elsewhere = fstune("status").stdout
    assert "no search in" in elsewhere
    assert "fstune search quickstart" in elsewhere
