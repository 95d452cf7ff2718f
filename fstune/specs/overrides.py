"""`--set path=value`: values from outside a spec's file, laid over it before it is checked.

The parts of a path are divided by dots, and so are the keys of some sections: which these are is
told by the caller. A value is YAML. What is wrong becomes a problem of the document.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from fstune.errors import SpecError
from fstune.specs.yaml import Document, KeyPath, parse

Keyed = Mapping[tuple[str, ...], tuple[str, ...]]
"""Sections that are keyed by paths of settings, and the keys that each of their values may have.

A section is named by the keys that lead to it, with `*` for any index of a list.
"""


def override(document: Document, assignment: str, keyed: Keyed) -> None:
    """Sets one value of a document from `path=value`.

    Args:
        document: what is changed; the place of what was set becomes `--set path=value`.
        assignment: the path in dots, and the value in YAML.
        keyed: where a key has dots of its own.
    """
    path, equals, text = assignment.partition("=")
    place = f"--set {' '.join(assignment.split())}"
    try:
        if not equals or not path:
            raise ValueError("must be written as path=value")
        value = _value(text)
        keys = _keys(document.value, path.split("."), keyed)
    except ValueError as error:
        document.problems.append((place, str(error)))
    else:
        _put(document, keys, value, place)


def _value(text: str) -> JsonValue:
    """What a text means in YAML.

    Raises:
        ValueError: it is none.
    """
    try:
        document = parse(text, "value")
    except SpecError as error:
        raise ValueError(error.problems[0].partition(": ")[2]) from error
    if document.problems:
        raise ValueError(document.problems[0][1])
    return document.value


def _keys(value: JsonValue, parts: list[str], keyed: Keyed) -> KeyPath:
    """The keys and indices that a dotted path means below a value.

    Raises:
        ValueError: it leads into a single value, or beyond the end of a list.
    """
    keys: KeyPath = ()
    while parts:
        if isinstance(value, list):
            if not (parts[0].isdecimal() and int(parts[0]) < len(value)):
                has = f", it has 0 to {len(value) - 1}" if value else ""
                raise ValueError(f"{'.'.join(map(str, keys))}: has no part {parts[0]!r}{has}")
            index, parts = int(parts[0]), parts[1:]
            keys, value = (*keys, index), value[index]
        elif isinstance(value, dict):
            key, parts = _next_key(value, parts, _keys_of_values(keys, keyed))
            keys, value = (*keys, key), value.get(key)
        else:
            raise ValueError(f"{'.'.join(map(str, keys))}: has no part {parts[0]!r}")
        if value is None and parts:
            value = {}
    return keys


def _keys_of_values(keys: KeyPath, keyed: Keyed) -> tuple[str, ...] | None:
    """What a value of the section at `keys` may hold; None where the section is not keyed so."""
    return keyed.get(tuple("*" if isinstance(key, int) else key for key in keys))


def _next_key(
    node: Mapping[str, JsonValue], parts: list[str], below: tuple[str, ...] | None
) -> tuple[str, list[str]]:
    """The key that the rest of a dotted path begins with, and what is left of it."""
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in node:
            return ".".join(parts[:end]), parts[end:]
    if below is None:
        return parts[0], parts[1:]
    if parts[-1] in below and len(parts) > 1:
        return ".".join(parts[:-1]), parts[-1:]
    return ".".join(parts), []


def _put(document: Document, keys: KeyPath, value: JsonValue, place: str) -> None:
    """Puts a value where `keys` lead, with the mappings that are missing on the way."""
    node = document.value
    for depth, key in enumerate(keys[:-1], start=1):
        child = _child(node, key)
        if child is None:
            child = {}
            _set(node, key, child)
            document.places[keys[:depth]] = place
        node = child
    _set(node, keys[-1], value)
    for known in [known for known in document.places if known[: len(keys)] == keys]:
        del document.places[known]
    document.places[keys] = place


def _child(node: JsonValue, key: str | int) -> JsonValue:
    if isinstance(node, list) and isinstance(key, int):
        return node[key]
    return node.get(str(key)) if isinstance(node, dict) else None


def _set(node: JsonValue, key: str | int, value: JsonValue) -> None:
    if isinstance(node, list) and isinstance(key, int):
        node[key] = value
    elif isinstance(node, dict):
        node[str(key)] = value
