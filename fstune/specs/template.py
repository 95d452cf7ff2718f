"""A spec to begin with: every setting there is, with what it is for, for a task and a model.

Names, descriptions and defaults are read off the spec's own JSON schema; of its own this module has
only the values that a first search starts from. A setting at its default stands in the file behind
a `#`, so that taking the `#` away changes nothing yet.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fstune.errors import InputError
from fstune.specs.loading import known_task
from fstune.specs.sections import LOOKS, mechanism_settings, plain_name, schema
from model.mechanisms import registry as mechanisms

if TYPE_CHECKING:
    from model.mechanisms.mechanism import AnyMechanism
    from tasks.registry import AnyTask


SCHEMA_FILE = "fstune.schema.json"
"""Beside the spec, for the editor that reads it."""


_WIDTH = 98


_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")


_WORDS_OF_YAML = ("true", "false", "null")


Node = Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """The model that a search is to begin from."""

    checkpoint: str | None = None
    """Name of a checkpoint file; a small new model if None."""
    num_layers: int = 2
    """Of the model."""
    mechanism: str = mechanisms.names()[0]
    """What is searched."""


def write_new(name: str, task: str, start: Start, path: Path) -> None:
    """Write a spec, and the schema beside it that lets editors complete and check it.

    Raises:
        InputError: no such task, a name that is none, or a file that exists or cannot be written.
    """
    try:
        plain_name(name)
    except ValueError as error:
        raise InputError(f"NAME: {error}") from error
    if path.exists():
        raise InputError(f"{path}: exists; name another file with --out")
    text = new_spec(name, task, start, path.name)
    try:
        path.write_text(text, encoding="utf-8")
        beside = path.with_name(SCHEMA_FILE)
        beside.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def new_spec(name: str, task: str, start: Start, file: str) -> str:
    """The text of a spec that may be run as it is.

    Args:
        name: of the search.
        task: its registered name.
        start: the model.
        file: what the text calls its own file.

    Raises:
        InputError: no such task.
    """
    known = known_task(task)
    whole = schema()
    values = _first_values(name, task, start)
    page = _Page(whole, known, start.mechanism)
    if page.needs_files:
        values["task"]["files"] = {"train": "train.jsonl", "validation": "validation.jsonl"}
    lines = [
        f"# yaml-language-server: $schema={SCHEMA_FILE}",
        f"# A search on {task}: {known.summary}.",
        "#",
        f"#   fstune search {file}",
        "#",
        "# `#key: value` is a setting at its default: take the # away to change it, and those of",
        "# the section around it.",
    ]
    return "\n".join([*lines, *page.sections(whole, values)]) + "\n"


def _first_values(name: str, task: str, start: Start) -> dict[str, Any]:
    """What a first search starts from: a few minutes on a CPU, or an hour on a GPU."""
    new = start.checkpoint is None
    shapes = {"num_layers": start.num_layers, "width": 64, "head_size": 32, "vocab_size": 256}
    steps = ((30, 1), (60, 1), (120, 3)) if new else ((50, 1), (150, 2), (400, 3))
    return {
        "name": name,
        "model": {"init": shapes} if new else {"checkpoint": start.checkpoint},
        "task": {"name": task, "train_size": 1024, "validation_size": 128, "test_size": 128},
        "train": {"lr": 4e-3, "weight_decay": 0.0, "batch_size": 16} if new else {"lr": 3e-5},
        "rungs": [{"steps": count, "seeds": seeds} for count, seeds in steps],
        "space": _first_space(start),
        "search": {"trials": 8 if new else 24},
        "confirm": {"finalists": 1, "seeds": LOOKS[-1]},
        **({"resources": {"arms_at_once": 2, "cpu_threads": 1}} if new else {}),
    }


def _first_space(start: Start) -> dict[str, Any]:
    """What the mechanism has searched first, by path."""
    name, new = start.mechanism, start.checkpoint is None
    space = {}
    for setting, domain in known_mechanism(name).first_space(start.num_layers, new).items():
        space[f"{name}.{setting}"] = {**domain}
        if "when" in domain:
            when = {f"{name}.{other}": value for other, value in domain["when"].items()}
            space[f"{name}.{setting}"]["when"] = when
    return space


def known_mechanism(name: str) -> "AnyMechanism":
    """The mechanism of that name.

    Raises:
        InputError: there is none; names all.
    """
    try:
        return mechanisms.get(name)
    except ValueError as error:
        raise InputError(str(error)) from error


class _Page:
    """Lines for the sections of a schema."""

    def __init__(self, whole: Node, task: "AnyTask", mechanism: str) -> None:
        self._mechanism = mechanism
        self._definitions: Node = whole["$defs"]
        tasks = whole["properties"]["task"]["discriminator"]["mapping"]
        self._task: Node = {"$ref": tasks[task.name]}
        self._metrics = ", ".join(metric.name for metric in task.metrics)

    @property
    def needs_files(self) -> bool:
        """Whether its rows are the user's own: it reads files, and has no hub instead."""
        settings = self._inside(self._task)["properties"]
        return "files" in settings and settings.get("hub", {}).get("default") == ""

    def sections(self, whole: Node, values: Node) -> Iterator[str]:
        """The file: every section, those in `values` given, the others at their defaults."""
        for key, described in whole["properties"].items():
            inner = self._inside(self._task if key == "task" else described)
            yield ""
            yield from self._comment(key, described, "")
            if key in values:
                yield from self._given(key, inner, values[key], "")
            elif inner:
                yield f"#{key}:"
                yield from (f"#{line}" for line in self._settings(inner, {}, "  ", mark=""))
            else:
                yield f"#{key}: {_flow(described['default'])}"

    def _settings(self, node: Node, values: Node, indent: str, mark: str = "#") -> Iterator[str]:
        """Every setting of a section; `mark` stands before those that are not given."""
        for key, described in node["properties"].items():
            yield from self._comment(key, described, indent)
            if key in values:
                yield from self._given(key, self._inside(described), values[key], indent)
            else:
                # A dataclass's default factory is in no schema: an empty mapping is all there are.
                empty: Node | None = {} if described.get("type") == "object" else None
                yield f"{indent}{mark}{key}: {_flow(described.get('default', empty))}"

    def _given(self, key: str, inner: Node, value: Any, indent: str) -> Iterator[str]:
        if inner and isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from self._settings(inner, value, indent + "  ")
        elif isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from (f"{indent}  {path}: {_flow(each)}" for path, each in value.items())
        elif isinstance(value, list):
            yield f"{indent}{key}:"
            yield from (f"{indent}  - {_flow(each)}" for each in value)
        else:
            yield f"{indent}{key}: {_flow(value)}"

    def _inside(self, described: Node) -> Node:
        """The section that a setting holds; empty for a single value, a list or a free mapping."""
        for part in (described, *described.get("anyOf", ())):
            if "$ref" in part:
                found: Node = self._definitions[part["$ref"].rpartition("/")[2]]
                return found
        return {}

    def _comment(self, key: str, described: Node, indent: str) -> Iterator[str]:
        inner = self._inside(described)
        text = described.get("description") or inner.get("description", "")
        words = [*text.split(), *_choices(described)]
        if key == "metric":
            words.append(f"Here: {self._metrics}.")
        if inner and indent:
            words.append(f"Its keys: {', '.join(inner['properties'])}.")
        yield from _wrapped(" ".join(words), f"{indent}# ")
        if key == "space":
            yield from self._space_help()

    def _space_help(self) -> Iterator[str]:
        """What may be varied by which path, and how its values are given."""
        yield "# Values are given by one of"
        for key, described in self._definitions["Domain"]["properties"].items():
            yield from _wrapped(f"- {key}: {described['description']}", "# ")
        yield "# The mechanism's settings are"
        kind = mechanism_settings(self._mechanism).__name__
        yield from self._paths(self._definitions[kind], self._mechanism)
        others = [name for name in mechanisms.names() if name != self._mechanism]
        yield from _wrapped(
            f"of other mechanisms those below {', '.join(f'{name}.…' for name in others)},", "# "
        )
        yield "# and any setting of model, task or train may be varied too, as train.lr."

    def _paths(self, node: Node, section: str) -> Iterator[str]:
        for key, described in node["properties"].items():
            inner = self._inside(described)
            path = f"{section}.{key}"
            words = [*described.get("description", "").split(), *_choices(described)]
            shown = f"- {path}" if inner else f"- {path} ({_flow(described['default'])})"
            yield from _wrapped(f"{shown}: {' '.join(words)}" if words else shown, "# ")
            if inner:
                yield from self._paths(inner, path)


def _choices(described: Node) -> Iterator[str]:
    for part in (described, *described.get("anyOf", ())):
        if "enum" in part:
            yield f"One of {', '.join(map(_flow, part['enum']))}."


def _wrapped(text: str, prefix: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix)


def _flow(value: object) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value not in _WORDS_OF_YAML:
        return value
    return json.dumps(value, ensure_ascii=False)
