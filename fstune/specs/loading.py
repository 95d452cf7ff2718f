"""Specs: from a YAML file to a frozen `SearchSpec`, with every rule checked on the way.

The one way into the service for what a user writes: the file is read once, and what it said goes
on as a value. All problems of a file are told at once, each in one line: file and line, path, rule,
value. Nothing here knows torch, Ray, MLflow or Optuna.
"""

import dataclasses
import importlib.resources
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import JsonValue, ValidationError

from fstune.errors import InputError, SpecError
from fstune.files import write_atomic
from fstune.specs import effects, rules
from fstune.specs.messages import Problem, explain
from fstune.specs.overrides import override
from fstune.specs.rules import PartialSpec
from fstune.specs.sections import PROBE, SearchSpec, section_types
from fstune.specs.space import Domain
from fstune.specs.strict import checked
from fstune.specs.words import nearest, nearest_or_all
from fstune.specs.yaml import Document, decode, parse
from tasks import registry

if TYPE_CHECKING:
    from tasks.registry import AnyTask
    from tasks.task import TaskSettings


_KEYED_BY_PATH: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("space",): tuple(Domain.model_fields),
    ("baseline",): (),
    ("points", "*"): (),
}
"""Sections whose keys are paths of settings, dots and all, and what each of their values holds."""


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
    mend = nearest(path.name.removesuffix(".yaml"), shipped()) or ";"
    what = "a folder, neither" if path.is_dir() else "neither"
    raise InputError(
        f"{spec}: {what} a file nor a shipped search{mend} shipped are {', '.join(shipped())}"
    )


@dataclass(frozen=True)
class Loaded:
    """What a spec's file says, and the text in which it says it."""

    spec: SearchSpec
    """Every rule on it is checked, but for those that need its files (see `resolved`)."""
    path: Path
    """The file that was read."""
    text: bytes
    """The file's content as it was parsed, to the byte; what `--set` changed is in `spec` alone."""
    probes: bool
    """Whether the largest batch that fits is asked for (`train.batch_size: probe`) and not known
    yet; the batch size is then 1."""

    def places(self, data_dirs: Sequence[Path]) -> list[Path]:
        """Where relative names of files are looked for: the data folders, then beside the spec."""
        return [*data_dirs, self.path.resolve().parent]

    def resolved(self, data_dirs: Sequence[Path], num_layers: Callable[[Path], int]) -> "Loaded":
        """With every file's absolute path, and the rules checked that need the checkpoint.

        Args:
            data_dirs: where relative names are looked for, before the spec's own folder.
            num_layers: reads the number of layers off a checkpoint.

        Raises:
            InputError: files that are nowhere, one line each.
            SpecError: values that the checkpoint's number of layers rules out.
        """
        spec = _resolved(self.spec, self.places(data_dirs))
        if spec.model.checkpoint is not None:
            # Only depth is new: what needs no checkpoint was checked in the load.
            partial = PartialSpec(self.spec, num_layers=num_layers(Path(spec.model.checkpoint)))
            problems = effects.problems(partial)
            if problems:
                raise SpecError([problem.line(spec.name) for problem in problems])
        return dataclasses.replace(self, spec=spec)

    def with_batch_size(self, batch_size: int) -> "Loaded":
        """With the batch size that was found, in place of the one that was asked for.

        No other rule is run again: a batch size has no say in any.

        Raises:
            SpecError: the baseline was given this very size as its difference.
        """
        path = "train.batch_size"
        if self.spec.baseline.get(path) == batch_size:
            text = f"has no effect: it is {batch_size} in both arms"
            raise SpecError([Problem(("baseline", path), text).line(self.spec.name)])
        train = self.spec.train.model_copy(update={"batch_size": batch_size})
        spec = self.spec.model_copy(update={"train": train})
        return dataclasses.replace(self, spec=spec, probes=False)


def load(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Reads a spec, once, and checks all of its rules; those on files are in `Loaded.resolved`.

    Args:
        path: the YAML file.
        overrides: `path=value`, as given to `--set`; each value is YAML.

    Raises:
        SpecError: every problem of the file and of the overrides.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    document = parse(decode(content, str(path)), str(path))
    _require_sections(document)
    for assignment in overrides:
        override(document, assignment, _KEYED_BY_PATH)
    values, probes = _without_probe(document.value)
    _require_sound(document, values)
    return Loaded(checked(SearchSpec, values), path, content, probes)


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


def task_with_files(task: "TaskSettings", data_dirs: Sequence[Path]) -> "TaskSettings":
    """A task's settings with every data file's absolute path.

    Raises:
        InputError: a file that is nowhere.
    """
    return _with_files(task, lambda name: str(locate(name, data_dirs)))


def write_resolved(spec: SearchSpec, path: Path) -> None:
    """Stores a spec as JSON, defaults included; whole or not at all."""
    write_atomic(path, (spec.model_dump_json(indent=1) + "\n").encode())


def read_resolved(path: Path) -> SearchSpec:
    """Reads what `write_resolved` stored.

    Raises:
        SpecError: the file is not readable as a spec.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and isinstance(values.get("confirm"), dict):
            values["confirm"].setdefault("looks", "fixed")  # which goes unsaid
        return SearchSpec.model_validate_json(json.dumps(values), strict=True)
    except json.JSONDecodeError as error:
        raise SpecError([f"{path}: is not a resolved spec: {error}"]) from error
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


def _require_sections(document: Document) -> None:
    """Raises SpecError where a document has no sections at its top."""
    if document.top == "nothing":
        text = "is empty, a spec has at least `name`, `model` and `task`"
    elif not isinstance(document.value, dict):
        text = f"a spec is `key: value` lines at its top, got {document.top}"
    else:
        return
    raise SpecError([f"{document.place(())}: {text}"])


def _without_probe(value: JsonValue) -> tuple[dict[str, JsonValue], bool]:
    """A spec's values with a batch size of 1 where it is to be probed, and whether it is."""
    assert isinstance(value, dict)
    train = value.get("train")
    if isinstance(train, dict) and train.get("batch_size") == PROBE:
        # Whatever fits later: the rules hold for any size.
        return {**value, "train": {**train, "batch_size": 1}}, True
    return value, False


def _require_sound(document: Document, values: Mapping[str, JsonValue]) -> None:
    """Raises SpecError with every problem of a document, and of the values that it came to."""
    partial, problems = _partial(values)
    problems += rules.problems(partial) + effects.problems(partial)
    lines = [f"{place}: {text}" for place, text in document.problems]
    lines += [
        problem.line(document.place(problem.path))
        for problem in problems
        if document.known(problem.path)
    ]
    if lines:
        raise SpecError(sorted(dict.fromkeys(lines), key=_line_number))


def _line_number(line: str) -> int:
    number = line.partition(": ")[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def _partial(values: Mapping[str, JsonValue]) -> tuple[PartialSpec, list[Problem]]:
    """What is valid of a file's values, and what is wrong with the rest."""
    fields = SearchSpec.model_fields
    valid: dict[str, object] = {}
    problems = [
        Problem((name,), f"is not a known key{nearest_or_all(name, list(fields))}")
        for name in values
        if name not in fields
    ]
    for name, info in fields.items():
        if name in values:
            section: Any = Annotated[info.annotation, info]
            try:
                valid[name] = checked(section, values[name])
            except ValidationError as error:
                shape = _task_type(values[name]) if name == "task" else info.annotation
                problems += explain(error, (name,), shape, values[name])
        elif info.is_required():
            problems.append(Problem((name,), "must be given"))
    broken = fields.keys() & {str(problem.path[0]) for problem in problems}
    paths: tuple[str, ...] = ()
    space = values.get("space")
    if "space" in broken and isinstance(space, dict):
        valid["space"], paths = _valid_domains(space)
    spec = SearchSpec.model_construct(**valid)  # type: ignore[arg-type]
    return PartialSpec(spec, frozenset(broken), paths), problems


def _task_type(value: JsonValue) -> object:
    name = value.get("name") if isinstance(value, dict) else None
    return section_types(name)["task"] if name in registry.names() else None


def _valid_domains(space: Mapping[str, JsonValue]) -> tuple[dict[str, Domain], tuple[str, ...]]:
    """The domains of a space that are valid, and the paths of those that are not."""
    domains: dict[str, Domain] = {}
    broken: list[str] = []
    for path, value in space.items():
        try:
            domains[path] = checked(Domain, value)
        except ValidationError:
            broken.append(path)
    return domains, tuple(broken)


def _resolved(spec: SearchSpec, places: Sequence[Path]) -> SearchSpec:
    """The spec with every file's absolute path.

    Raises:
        InputError: files that are nowhere, one line each.
    """
    missing: list[str] = []

    def find_one(name: str) -> str:
        try:
            return str(locate(name, places))
        except InputError as error:
            missing.append(str(error))
            return name

    model = spec.model
    if model.checkpoint is not None:
        model = model.model_copy(update={"checkpoint": find_one(model.checkpoint)})
    task = _with_files(spec.task, find_one)
    if missing:
        raise InputError("\n".join(missing))
    return spec.model_copy(update={"model": model, "task": task})


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
