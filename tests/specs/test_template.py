"""A spec to begin with loads as it is, and says of every setting what it is for."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fstune.cli import commands as cli
from fstune.errors import InputError
from fstune.specs.loading import load, shipped
from fstune.specs.sections import SearchSpec, schema
from fstune.specs.template import SCHEMA_FILE, Start, new_spec, write_new
from model.tokenizer import for_vocabulary
from tasks import registry
from tasks.sources import Source
from tasks.splits import load_split

STARTS = {"new": Start(), "deep": Start("rwkv7.pth", 12), "shallow": Start("rwkv7.pth", 2)}
AT_ITS_DEFAULT = re.compile(r"^(\s*)#((?:  )*[a-z_]+:)", re.MULTILINE)


def written(folder: Path, text: str) -> Path:
    path = folder / "new.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("task", "start"),
    [*((task, "new") for task in registry.names()), ("hotpot", "deep"), ("squad", "shallow")],
)
def test_it_loads_at_once_and_the_same_with_every_default_written_out(tmp_path, task, start):
    text = new_spec("mine", task, STARTS[start], "new.yaml")
    made = load(written(tmp_path, text)).spec
    assert (made.name, made.task_name) == ("mine", task)
    assert made.model.checkpoint == STARTS[start].checkpoint
    whole, count = AT_ITS_DEFAULT.subn(r"\1\2", text)
    assert count > 30
    assert load(written(tmp_path, whole)).spec == made


def test_it_names_every_setting_with_its_description():
    text = new_spec("mine", "hotpot", Start(), "new.yaml")
    keys = set(re.findall(r"^#? *#?([a-z_]+):", text, re.MULTILINE))
    values = json.loads(load_text(text).model_dump_json())
    assert keys >= set(SearchSpec.model_fields)
    for section in ("model", "task", "train", "search", "objective", "resources", "evaluation"):
        assert keys >= set(values[section])
    words = " ".join(re.sub(r"^[ #]+", "", line) for line in text.splitlines())
    for section in ("TrainSettings", "SearchSettings", "HotpotSettings", "FutureSeed", "Domain"):
        for key, described in schema()["$defs"][section]["properties"].items():
            assert " ".join(described.get("description", "").split()) in words, key


def load_text(text: str) -> SearchSpec:
    return SearchSpec.model_validate(yaml.safe_load(text.replace("3e-05", "3.0e-05")))


@pytest.mark.parametrize("task", ["rightcopy", "sudoku", "hotpot"])
def test_an_editor_that_checks_it_by_its_schema_finds_nothing(tmp_path, task):
    jsonschema = pytest.importorskip("jsonschema")
    path = tmp_path / "mine.yaml"
    write_new("mine", task, Start(), path)
    first = path.read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    told = json.loads((tmp_path / named).read_text())
    assert told == schema()
    content = yaml.safe_load(path.read_text())
    jsonschema.validate(content, told)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | {"serach": {}}, told)


@pytest.mark.parametrize("task", registry.names())
def test_a_generated_task_has_the_examples_that_it_asks_for(tmp_path, task):
    chosen = load(written(tmp_path, new_spec("mine", task, Start(), "new.yaml"))).spec
    known = registry.get(task)
    source = known.source(chosen.task)
    if isinstance(source, Source) or source.quotes is not None:
        pytest.skip("its rows are collected")
    tokenizer = for_vocabulary(256, chosen.model.tokenizer)
    for split in ("train", "validation", "test"):
        found = load_split(known, chosen.task, split, tokenizer, tmp_path, ())
        assert len(found) == chosen.task.size(split)


@pytest.mark.parametrize(
    ("name", "task", "told"),
    [
        ("my search", "rightcopy", "NAME: must be letters, digits, _ and - only, got 'my search'"),
        ("mine", "rightcpy", "did you mean 'rightcopy'"),
        ("there", "rightcopy", "there.yaml: exists; name another file with --out"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, name, task, told):
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(InputError, match=re.escape(told)):
        write_new(name, task, Start(), tmp_path / f"{name}.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_the_command_writes_it_and_says_what_comes_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["new", "mine", "--task", "rightcopy", "--out", "a.yaml"])
    assert done.exit_code == 0, done.output
    assert "fstune search a.yaml" in done.output
    assert load(tmp_path / "a.yaml").spec.name == "mine"
    assert (tmp_path / SCHEMA_FILE).exists()
    assert "#   fstune search a.yaml" in (tmp_path / "a.yaml").read_text()


def completed(*words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    variables = {
        "_FSTUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["fstune", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = CliRunner().invoke(cli.app, [], prog_name="fstune", env=variables)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output.split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a spec of one's own, and searches in two folders of runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSTUNE_RUNS", raising=False)
    (tmp_path / "own").mkdir()
    for path in ("quick.yaml", "own/deep.yaml", "own/notes.txt"):
        (tmp_path / path).touch()
    for path in ("mlruns/searches/first", "mlruns/searches/second", "other/searches/third"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "spec.json").touch()
    return tmp_path


def test_a_shell_completes_specs_searches_and_tasks(here, monkeypatch):
    assert completed("sea") == ["search"]
    assert completed("search", "qui") == ["quickstart", "quick.yaml"]
    assert completed("search", "own/") == ["own/deep.yaml"]
    assert set(completed("doctor", "")) == {*shipped(), "quick.yaml", "own/", "mlruns/", "other/"}
    assert completed("report", "") == ["first", "second"]
    assert completed("status", "s") == ["second"]
    assert completed("resume", "--runs", "other", "") == ["third"]
    monkeypatch.setenv("FSTUNE_RUNS", "other")
    assert completed("confirm", "") == ["third"]
    assert completed("tasks", "sudoku") == ["sudoku", "sudoku_after"]
    assert completed("new", "mine", "--task", "hot") == ["hotpot"]


def test_a_tab_imports_nothing_heavy(here):
    code = """if True:
        import sys
        from fstune.cli.commands import main
        sys.argv = ["fstune"]
        try:
            main()
        finally:
            print(sorted({"torch", "ray", "mlflow", "optuna"} & set(sys.modules)))
    """
    variables = {"_FSTUNE_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        env=os.environ
        | variables
        | {"COMP_WORDS": "fstune search q", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == ["quickstart", "quick.yaml", "[]"], done.stderr
