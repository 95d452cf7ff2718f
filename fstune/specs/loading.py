"""Specs: from a YAML file to a frozen `SearchSpec`, with every rule checked on the way.

The one way into the service for what a user writes. All problems of a file are told at once, each
in one line: file and line, path, rule, value. Nothing here knows torch, Ray, MLflow or Optuna.
"""

import dataclasses
import difflib
import importlib.resources
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from fstune.errors import InputError, SpecError
from fstune.files import write_atomic
from fstune.specs import effects as spec_effects
from fstune.specs import rules as spec_rules
from fstune.specs import yaml as yaml_reader
from fstune.specs.messages import Problem, explain
from fstune.specs.rules import PartialSpec
from fstune.specs.sections import PROBE, Rung, SearchSpec, schema, section_types, setting_docs
from fstune.specs.space import Domain
from fstune.specs.words import nearest_or_all
from tasks import registry

if TYPE_CHECKING:
    from tasks.registry import AnyTask
    from tasks.task import TaskSettings


__all__ = [
    "Rung",
    "SearchSpec",
    "asks_probe",
    "find",
    "load",
    "locate",
    "read_resolved",
    "resolve_files",
    "schema",
    "setting_docs",
    "shipped",
    "task_with_files",
    "write_resolved",
]


def shipped() -> tuple[str, ...]:
    """Names of the searches that come with fstune."""
    folder = importlib.resources.files("search_spaces")
    files = (Path(entry.name) for entry in folder.iterdir())
    return tuple(sorted(file.stem for file in files if file.suffix == ".yaml"))


def find(spec: str) -> Path:
    """The file that a command line means: a path, or the name of a shipped search.

    Raises:
        InputError: it is neither.
    """
    path = Path(spec)
    if path.is_file():
        return path
    name = spec.removesuffix(".yaml")
    if name in shipped():
        return Path(str(importlib.resources.files("search_spaces").joinpath(f"{name}.yaml")))
    near = difflib.get_close_matches(path.name.removesuffix(".yaml"), shipped(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = "a folder, neither" if path.is_dir() else "neither"
    raise InputError(
        f"{spec}: {what} a file nor a shipped search; {hint}shipped are {', '.join(shipped())}"
    )


def load(path: Path, overrides: Sequence[str] = ()) -> SearchSpec:
    """Reads a spec and checks all of its rules; those on files are in `resolve_files`.

    Where the largest batch that fits is asked for, the batch size is 1 until it was probed.

    Args:
        path: the YAML file.
        overrides: `path=value`, as given to `--set`; each value is YAML.

    Raises:
        SpecError: every problem of the file and of the overrides.
    """
    document = _document(path, overrides)
    probing = _section_to_probe(document.value)
    if probing is not None:
        probing["batch_size"] = 1  # whatever fits later: all other rules hold for any size
    draft, problems = _draft(document.value)
    problems += spec_rules.problems(draft) + spec_effects.problems(draft)
    lines = [f"{place}: {text}" for place, text in document.problems]
    lines += [
        problem.line(document.place(problem.path))
        for problem in problems
        if document.known(problem.path)
    ]
    if lines:
        raise SpecError(sorted(dict.fromkeys(lines), key=_line_number))
    return SearchSpec.model_validate_json(json.dumps(document.value), strict=True)


def _line_number(line: str) -> int:
    number = line.partition(": ")[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def _draft(values: Mapping[str, JsonValue]) -> tuple[PartialSpec, list[Problem]]:
    """What is valid of a file's values, and what is wrong with the rest."""
    fields = SearchSpec.model_fields
    valid: dict[str, object] = {}
    problems: list[Problem] = []
    for name in values:
        if name not in fields:
            mend = nearest_or_all(name, list(fields))
            problems.append(Problem((name,), f"is not a known key{mend}"))
    for name, info in fields.items():
        if name not in values:
            if info.is_required():
                problems.append(Problem((name,), "must be given"))
            continue
        shape = _task_type(values[name]) if name == "task" else info.annotation
        try:
            valid[name] = _field(name).validate_json(json.dumps(values[name]), strict=True)
        except ValidationError as error:
            problems += explain(error, (name,), shape, values[name])
    broken = {
        name
        for name, info in fields.items()
        if name not in valid and (name in values or info.is_required())
    }
    paths: list[str] = []
    space = values.get("space")
    if "space" in broken and isinstance(space, dict):
        valid["space"], paths = _valid_domains(space)
    spec = SearchSpec.model_construct(**valid)  # type: ignore[arg-type]
    return PartialSpec(spec, frozenset(broken), tuple(paths)), problems


@cache
def _field(name: str) -> TypeAdapter[object]:
    """Checks one section by itself."""
    info = SearchSpec.model_fields[name]
    annotation: Any = Annotated[info.annotation, info]
    adapter: TypeAdapter[object] = TypeAdapter(annotation)
    return adapter


def _task_type(value: JsonValue) -> object:
    name = value.get("name") if isinstance(value, dict) else None
    return section_types(name)["task"] if name in registry.names() else None


def _valid_domains(space: Mapping[str, JsonValue]) -> tuple[dict[str, Domain], list[str]]:
    """The domains of a space that are valid, and the paths of those that are not."""
    domains: dict[str, Domain] = {}
    broken: list[str] = []
    for path, value in space.items():
        try:
            domains[path] = Domain.model_validate_json(json.dumps(value), strict=True)
        except ValidationError:
            broken.append(path)
    return domains, broken


def locate(name: str, data_dirs: Sequence[Path]) -> Path:
    """The file that a spec names: absolute, or below one of the data folders.

    Raises:
        InputError: it is nowhere; tells every place that was looked at.
    """
    path = Path(name)
    places = [path] if path.is_absolute() else [folder / path for folder in data_dirs]
    for place in places:
        if place.is_file():
            return place.resolve()
    looked = ", ".join(
        f"{place.absolute()}{' (a folder)' if place.is_dir() else ''}" for place in places
    )
    hint = "" if path.is_absolute() else "; --data DIR or FSTUNE_DATA names more folders"
    raise InputError(f"{name}: there is no such file; looked for it at {looked or 'nowhere'}{hint}")


def asks_probe(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Whether a spec wants the largest batch that fits (`train.batch_size: probe`)."""
    return _section_to_probe(_document(path, overrides).value) is not None


def _section_to_probe(value: JsonValue) -> dict[str, JsonValue] | None:
    """The section `train`, if its batch size is to be probed."""
    train = value.get("train") if isinstance(value, dict) else None
    return train if isinstance(train, dict) and train.get("batch_size") == PROBE else None


def _document(path: Path, overrides: Sequence[str]) -> yaml_reader.Document:
    document = yaml_reader.read(path)
    for override in overrides:
        document.override(override)
    return document


def resolve_files(
    spec: SearchSpec, data_dirs: Sequence[Path], num_layers: Callable[[Path], int]
) -> SearchSpec:
    """The spec with every file's absolute path, and the rules checked that need the checkpoint.

    Args:
        spec: a loaded spec.
        data_dirs: where relative names are looked for, in this order.
        num_layers: reads the number of layers off a checkpoint.

    Raises:
        InputError: files that are nowhere, one line each.
        SpecError: values that the checkpoint's number of layers rules out.
    """
    missing: list[str] = []

    def find_one(name: str) -> str:
        try:
            return str(locate(name, data_dirs))
        except InputError as error:
            missing.append(str(error))
            return name

    model = spec.model
    if model.checkpoint is not None:
        model = model.model_copy(update={"checkpoint": find_one(model.checkpoint)})
    task = _with_files(spec.task, find_one)
    if missing:
        raise InputError("\n".join(missing))
    if model.checkpoint is not None:
        draft = PartialSpec(spec, num_layers=num_layers(Path(model.checkpoint)))
        problems = spec_effects.problems(draft)
        if problems:
            raise SpecError([problem.line(spec.name) for problem in problems])
    return spec.model_copy(update={"model": model, "task": task})


def task_with_files(task: "TaskSettings", data_dirs: Sequence[Path]) -> "TaskSettings":
    """A task's settings with every data file's absolute path.

    Raises:
        InputError: a file that is nowhere.
    """
    return _with_files(task, lambda name: str(locate(name, data_dirs)))


def _with_files(task: "TaskSettings", find_one: Callable[[str], str]) -> "TaskSettings":
    files = getattr(task, "files", None)
    if files is None:
        return task
    found = {split: find_one(file) for split, file in _files(files) if file}
    return dataclasses.replace(task, files=dataclasses.replace(files, **found))  # type: ignore[call-arg]


def _files(files: object) -> Iterator[tuple[str, str]]:
    """Split and file name of a task's setting `files`."""
    assert dataclasses.is_dataclass(files)
    for item in dataclasses.fields(files):
        yield item.name, getattr(files, item.name)


def write_resolved(spec: SearchSpec, path: Path) -> None:
    """Stores a spec as JSON, defaults included; whole or not at all."""
    write_atomic(path, (spec.model_dump_json(indent=1) + "\n").encode())


def read_resolved(path: Path) -> SearchSpec:
    """Reads what `write_resolved` stored.

    Raises:
        SpecError: the file is not readable as a spec.
    """
    try:
        return SearchSpec.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        where = ".".join(map(str, details["loc"]))
        raise SpecError([f"{path}: is not a resolved spec: {where}: {details['msg']}"]) from error


def known_task(name: str) -> "AnyTask":
    """The task of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    try:
        return registry.get(name)
    except ValueError as error:
        raise InputError(str(error)) from error
