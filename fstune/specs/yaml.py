"""YAML text to plain values, with the line of every key: the only place that parses YAML.

YAML 1.2's core schema: `yes`, `no`, `on` and `off` are text, `1e-4` is a number, dates stay text.
Refused, each with its line: a repeated key, a key that is no plain text, anchors and aliases,
tags of one's own, more than one document. What a spec means is none of this module's business.
"""

import re
from dataclasses import dataclass, field

import yaml
from pydantic import JsonValue
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fstune.errors import SpecError

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of a document down to a value."""


_TAG = "tag:yaml.org,2002:"


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
    """A parsed text: its value, where each part of it stands, and what was wrong with it."""

    source: str
    """What the places call the text."""
    value: JsonValue = None
    top: str = "nothing"
    """What the text is at its top: nothing, a mapping, a list or a single value."""
    places: dict[KeyPath, str] = field(default_factory=dict)
    """Where every key and list entry stands: `source:line`, lines counted from 1."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Place and text of each."""
    unread: set[KeyPath] = field(default_factory=set)
    """What could not be read, and is null in the value."""

    def place(self, path: KeyPath) -> str:
        """Where `path`, or the nearest thing around it, stands."""
        around = (path[:end] for end in range(len(path), -1, -1))
        return next((self.places[at] for at in around if at in self.places), f"{self.source}:1")

    def known(self, path: KeyPath) -> bool:
        """Whether `path` could be read; what is wrong with the rest was told already."""
        return not any(path[:end] in self.unread for end in range(len(path) + 1))


def parse(text: str, source: str) -> Document:
    """Reads one YAML document, which may be empty.

    Raises:
        SpecError: the text is no YAML, or nested too deeply; where, and why.
    """
    document = Document(source)
    node = _compose(text, source)
    if node is not None:
        document.top = _kind(node)
        try:
            document.value = _Reader(document).read(node, ())
        except RecursionError as error:
            raise SpecError([f"{source}: is nested too deeply"]) from error
    return document


def decode(content: bytes, source: str) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        SpecError: it is not UTF-8; in which line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError([f"{source}:{line}: is not UTF-8 text; save the file as UTF-8"]) from error


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
    """Turns composed nodes into values, noting places and problems in a document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def read(self, node: Node, path: KeyPath) -> JsonValue:
        self._document.places.setdefault(path, self._place(node))
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
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._document.unread.add(path)
                self._refuse(key_node, path, f"a key must be a single word, got {_kind(key_node)}")
                continue
            key = str(key_node.value)
            if key in values:
                first = lines[key]
                self._refuse(key_node, (*path, key), f"repeated key, first given in line {first}")
                continue
            lines[key] = _line(key_node)
            self._document.places[(*path, key)] = self._place(key_node)
            values[key] = self.read(value_node, (*path, key))
        return values

    def _place(self, node: Node) -> str:
        return f"{self._document.source}:{_line(node)}"

    def _refuse(self, node: Node, path: KeyPath, text: str) -> None:
        name = ".".join(map(str, path))
        told = f"{name}: {text}" if name else text
        self._document.problems.append((self._place(node), told))


def _line(node: Node) -> int:
    line: int = node.start_mark.line + 1
    return line


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
