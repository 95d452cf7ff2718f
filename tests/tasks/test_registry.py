"""Names to tasks, without importing what is not asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import registry

TASK = """\
from tasks.catalog.rightcopy import RightCopy

class Own(RightCopy):
    name = "own"
"""


def asked(statement: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """A statement about the registry in a process that has these folders in its path."""
    return subprocess.run(
        [sys.executable, "-c", f"from tasks import registry; {statement}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, folders), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


def package(folder: Path, entry: str, text: str = TASK) -> Path:
    """A package as it lies where it is installed, with one entry point and one module."""
    metadata = folder / f"{folder.name}-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[fstune.tasks]\n{entry}\n")
    (folder / f"{folder.name}.py").write_text(text)
    return folder


def test_an_installed_package_brings_its_task(tmp_path):
    folder = package(tmp_path / "mine", "own = mine:Own")
    done = asked("print(registry.get('own').summary, 'own' in registry.names())", folder)
    assert done.stdout.split() == [*registry.get("rightcopy").summary.split(), "True"], done.stderr
    assert "own" not in registry.names()


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (["arc = mine:Own"], "'arc' must be one task's, got tasks.catalog.arc:Arc and mine:"),
        (["own = mine:Own", "own = yours:Own"], "the task name 'own' must be one task's"),
        (["mine = mine:Own"], "the task at mine:Own must have the name 'mine', got 'own'"),
        (["own = mine:Task"], "AttributeError: module 'mine' has no attribute 'Task'"),
    ],
)
def test_a_package_that_brings_a_wrong_task_is_named(tmp_path, entries, told):
    names = ("mine", "yours")
    folders = [
        package(tmp_path / name, entry)
        for name, entry in zip(names[: len(entries)], entries, strict=True)
    ]
    done = asked("[registry.get(name) for name in registry.names()]", *folders)
    assert told in done.stderr


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(
        ValueError, match="'hotpott'; did you mean 'hotpot'\\? known: arc, constr, "
    ):
        registry.get("hotpott")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import tasks.registry", "numpy torch datasets tasks.task filelock"),
        ("import tasks.registry, tasks.splits; tasks.registry.get('hotpot')", "torch datasets"),
    ],
)
def test_tasks_import_nothing_heavy(statement, absent):
    code = f"import sys; {statement}; print(sorted(set('{absent}'.split()) & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
