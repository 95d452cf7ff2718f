"""How the code is laid out: rooms of a size, one meaning a name, files and functions kept short."""

import ast
import re
import statistics
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from model.mechanisms import registry

ROOT = Path(__file__).parents[1]
PACKAGES = ("fstune", "model", "tasks")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
ROOMS = sorted({path.parent for path in MODULES})

MOST_MODULES = 17
LONGEST_FILE = 500
P90_FILE, P90_FUNCTION = 371, 24

# `from model.wkv import wkv7` is how the operator is had.
SHOWS_SOMETHING = {"model/wkv"}
# A command is called like what it runs.
COMMANDS = {"fstune/cli/commands.py", "fstune/cli/preparation.py"}
MEANS_TWO_THINGS = {
    # model and tasks know neither each other nor the service, so that each has its own.
    *("Shape", "Tokenizer", "require"),
    # One interface, several behind it.
    *("get", "names", "obstacle", "problems"),
    # Ordinary verbs, each clear beside its module's name; two of Triton's are its own.
    *("load", "keep", "take", "main"),
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public_names(tree: ast.Module) -> set[str]:
    """Classes, functions and constants that a module defines; no type variables."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_") and len(name) > 1}


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_a_room_is_small_enough_to_be_looked_over(room):
    modules = [path for path in MODULES if path.parent == room and path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_a_room_says_what_lives_in_it_and_shows_nothing_else(room):
    tree = TREES[room / "__init__.py"]
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1 or named(room) in SHOWS_SOMETHING


def test_a_file_does_not_repeat_its_rooms_name_nor_is_it_a_place_for_anything():
    for path in MODULES:
        room = path.parent.name
        assert not path.stem.startswith((f"{room}_", f"{room.removesuffix('s')}_")), path
        assert path.stem not in ("utils", "common", "helpers", "misc"), path


def test_a_public_name_means_one_thing():
    defined = defaultdict(set)
    for path, tree in TREES.items():
        if named(path) not in COMMANDS:
            for name in public_names(tree):
                defined[name].add(named(path))
    twice = {name: sorted(paths) for name, paths in defined.items() if len(paths) > 1}
    assert {name: paths for name, paths in twice.items() if name not in MEANS_TWO_THINGS} == {}
    assert set(twice) >= MEANS_TWO_THINGS, "an exception that is none any more"


def test_files_and_functions_are_short():
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES]
    functions = [
        node.end_lineno - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert max(lines) <= LONGEST_FILE
    assert statistics.quantiles(lines, n=10)[-1] <= P90_FILE
    assert statistics.quantiles(functions, n=10)[-1] <= P90_FUNCTION


def test_every_room_is_installed():
    """What `pip install` without `-e` would leave out is found missing only by users."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {named(room).replace("/", ".") for room in ROOMS}
    assert set(written["tool"]["setuptools"]["packages"]) == rooms | {"search_spaces"}


def test_the_service_names_no_mechanism():
    """A second mechanism is a folder of `model/mechanisms`, or a package of somebody's."""
    words = "|".join(name.replace("_", "[ _-]?") for name in registry.names())
    naming = {
        named(path)
        for path in MODULES
        if path.parts[len(ROOT.parts)] == "fstune"
        and re.search(words, path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    assert naming == {"fstune/__init__.py"}
