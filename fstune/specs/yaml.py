"""YAML text to plain values, with the line of every key: the only place that parses YAML.

YAML 1.2's core schema: `yes`, `no`, `on` and `off` are text, `1e-4` is a number, dates stay text.
Refused, each with its line: a repeated key, a key that is no plain text, anchors and aliases,
tags of one's own, more than one document. What a spec means is none of this module's business.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import JsonValue
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fstune.errors import SpecError

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of a document down to a value."""


_TAG = "tag:yaml.org,2002:"


_DOMAIN_KEYS = ("choice", "uniform", "log_uniform", "int_uniform", "when")
"""What `--set space.PATH.KEY=…` may mean below a path, which itself has dots."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with YAML 1.2's idea of what a plain word means."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own way to replace them

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not supported: write the value out", mark
            )
        return super().compose_node(parent, index)


for _kind_of_scalar, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):
    _Loader.add_implicit_resolver(  # "\0" stands for the empty scalar, as PyYAML has it: "".
        _TAG + _kind_of_scalar,
        re.compile(rf"(?:{_pattern})\Z"),
        [first.strip("\0") for first in _first],
    )


@dataclass
class Document:
    """A parsed file: its value, where each part of it stands, and what was wrong with it."""

    source: str
    """What the lines call the file."""
    value: dict[str, JsonValue] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """1-based line of every key and list entry."""
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    """What was set from outside the file, and the words that did it."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Place and text of each."""
    unread: set[KeyPath] = field(default_factory=set)
    """What could not be read, and is null in the value."""

    def place(self, path: KeyPath) -> str:
        """Where `path`, or the nearest thing around it, stands: `file:line` or `--set …`."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.overrides:
                return f"--set {self.overrides[path[:end]]}"
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return f"{self.source}:{self.lines.get((), 1)}"

    def known(self, path: KeyPath) -> bool:
        """Whether `path` could be read; what is wrong with the rest was told already."""
        return not any(path[:end] in self.unread for end in range(len(path) + 1))

    def override(self, assignment: str) -> None:
        """Sets one value from `path=value`, the value in YAML; what is wrong becomes a problem."""
        path, equals, text = assignment.partition("=")
        assignment = " ".join(assignment.split())
        if not equals or not path:
            self._refuse(assignment, "must be written as path=value")
            return
        try:
            node = _compose(text, "value")
        except SpecError as error:
            self._refuse(assignment, error.problems[0].partition(": ")[2])
            return
        reader = Document("value")
        value = None if node is None else _Reader(reader).read(node, ())
        if reader.problems:
            self._refuse(assignment, reader.problems[0][1])
            return
        self._set(assignment, path.split("."), value)

    def _set(self, assignment: str, parts: list[str], value: JsonValue) -> None:
        node: JsonValue = self.value
        keys: KeyPath = ()
        while True:
            found = _next_key(node, keys, parts)
            if found is None:
                name = ".".join(map(str, keys))
                has = f", it has 0 to {len(node) - 1}" if isinstance(node, list) and node else ""
                self._refuse(assignment, f"{name}: has no part {parts[0]!r}{has}")
                return
            key, parts = found
            keys = (*keys, key)
            child = _child(node, key)
            if not parts:
                break
            if child is None:
                child = {}
                _put(node, key, child)
                self.overrides[keys] = assignment
            node = child
        _put(node, key, value)
        for known in [known for known in self.lines if known[: len(keys)] == keys]:
            del self.lines[known]
        self.overrides[keys] = assignment

    def _refuse(self, assignment: str, text: str) -> None:
        self.problems.append((f"--set {assignment}", text))


def _next_key(
    node: JsonValue, keys: KeyPath, parts: list[str]
) -> tuple[str | int, list[str]] | None:
    """The key of `node` that the rest of a dotted path begins with, and what is left of it."""
    if isinstance(node, list):
        fits = parts[0].isdecimal() and int(parts[0]) < len(node)
        return (int(parts[0]), parts[1:]) if fits else None
    if not isinstance(node, dict):
        return None
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in node:
            return ".".join(parts[:end]), parts[end:]
    if keys == ("space",) and parts[-1] in _DOMAIN_KEYS and len(parts) > 1:
        return ".".join(parts[:-1]), parts[-1:]
    if keys in (("space",), ("baseline",)) or (len(keys) == 2 and keys[0] == "points"):
        return ".".join(parts), []
    return parts[0], parts[1:]


def _child(node: JsonValue, key: str | int) -> JsonValue:
    if isinstance(node, list) and isinstance(key, int):
        return node[key]
    return node.get(str(key)) if isinstance(node, dict) else None


def _put(node: JsonValue, key: str | int, value: JsonValue) -> None:
    if isinstance(node, list) and isinstance(key, int):
        node[key] = value
    elif isinstance(node, dict):
        node[str(key)] = value


def read(path: Path) -> Document:
    """Reads a YAML file whose top is a mapping.

    Raises:
        SpecError: the file cannot be read, is no YAML, is empty or holds something else at its top.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError([f"{path}:{line}: is not UTF-8 text; save the file as UTF-8"]) from error
    node = _compose(text, str(path))
    if node is None:
        raise SpecError([f"{path}:1: is empty, a spec has at least `name`, `model` and `task`"])
    document = Document(str(path))
    try:
        value = _Reader(document).read(node, ())
    except RecursionError as error:
        raise SpecError([f"{path}: is nested too deeply"]) from error
    if not isinstance(value, dict):
        line = node.start_mark.line + 1
        raise SpecError(
            [f"{path}:{line}: a spec is `key: value` lines at its top, got {_kind(node)}"]
        )
    document.value = value
    return document


def _compose(text: str, source: str) -> Node | None:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError([f"{source}:{line}: is not text: {error.reason}"]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise SpecError([f"{source}:{line}: is not YAML: {words}"]) from error
    except RecursionError as error:
        raise SpecError([f"{source}: is nested too deeply"]) from error


def _kind(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return "a mapping" if isinstance(node, MappingNode) else "a single value"


class _Reader:
    """Turns composed nodes into values, noting lines and problems in a document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def read(self, node: Node, path: KeyPath) -> JsonValue:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag.startswith(_TAG):
            try:
                return _scalar(node.tag.removeprefix(_TAG), node.value)
            except ValueError as error:
                self._document.unread.add(path)
                self._refuse(node, path, str(error))
                return None
        self._document.unread.add(path)
        self._refuse(node, path, f"tags are not supported, got {node.tag.removeprefix(_TAG)}")
        return None

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, JsonValue]:
        values: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._document.unread.add(path)
                self._refuse(key_node, path, f"a key must be a single word, got {_kind(key_node)}")
                continue
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in values:
                first = self._document.lines[(*path, key)]
                self._refuse(key_node, (*path, key), f"repeated key, first given in line {first}")
                continue
            self._document.lines[(*path, key)] = line
            values[key] = self.read(value_node, (*path, key))
        return values

    def _refuse(self, node: Node, path: KeyPath, text: str) -> None:
        place = f"{self._document.source}:{node.start_mark.line + 1}"
        name = ".".join(map(str, path))
        self._document.problems.append((place, f"{name}: {text}" if name else text))


def _scalar(kind: str, text: str) -> JsonValue:
    """The value of a scalar that was resolved, or said to be, of this kind."""
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        try:
            return int(text if base == 10 else text[2:], base)
        except ValueError as error:
            raise ValueError(f"is no whole number, got {text[:40]!r}") from error
    if kind == "float":
        special = text.lower().lstrip("+-") in (".inf", ".nan")
        try:
            return float(text.replace(".", "", 1) if special else text)
        except ValueError as error:
            raise ValueError(f"is no number, got {text[:40]!r}") from error
    if kind == "str":
        text.encode()  # A lone surrogate, "\ud800", has no place in any file: UnicodeEncodeError.
        return text
    raise ValueError(f"tags are not supported, got {kind}")
