"""pydantic's findings in plain words, and the names that a spec may use.

Known names are read from the types of the settings themselves, so that there is one list of them.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from fstune.specs.space import Domain
from fstune.specs.words import nearest, nearest_or_all, show
from fstune.specs.yaml import KeyPath


@dataclass(frozen=True)
class Problem:
    """A rule that a spec breaks."""

    path: KeyPath
    """Keys from the top of the spec to what is wrong."""
    text: str

    def line(self, place: str) -> str:
        """The line that tells it."""
        name = ".".join(map(str, self.path))
        return f"{place}: {name}: {self.text}" if name else f"{place}: {self.text}"


_WORDS = {
    "missing": "must be given",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than": "must be over {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be under {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be finite",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} {entries}",
    "too_long": "must have {max_length} entries",
    "dict_type": "must hold `key: value` lines",
    "model_type": "must hold `key: value` lines",
    "model_attributes_type": "must hold `key: value` lines",
    "dataclass_type": "must hold `key: value` lines",
    "union_tag_not_found": "must have a `name` (`fstune tasks` lists them)",
    "union_tag_invalid": "must be one of {expected_tags}",
}


_NO_MAPPING = ("dict_type", "model_type", "model_attributes_type", "dataclass_type")


_NO_NUMBER = ("int_type", "float_type")


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def explain(
    error: ValidationError, at: KeyPath, annotation: object, value: JsonValue
) -> list[Problem]:
    """Problems of the part of a spec at `at`, whose type is `annotation`, once each."""
    found = error.errors(include_url=False)
    problems = (
        _explain(details, at, annotation, value)
        for details in found
        if not _follows(details, found)
    )
    return list(dict.fromkeys(problems))


def _follows(details: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether a list is told to be too short for its entries that are told to be wrong."""
    if details["type"] != "too_short":
        return False
    at = details["loc"]
    return any(other["loc"][: len(at)] == at != other["loc"] for other in found)


def _explain(details: ErrorDetails, at: KeyPath, annotation: object, value: JsonValue) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    keys = _keys(details["loc"], value, missing=kind == "missing")
    path = (*at, *keys)
    if kind in _UNKNOWN_KEY:
        known = list(_known(annotation, keys[:-1], value))
        name = str(keys[-1])
        return Problem(path, f"is not a known key{nearest_or_all(name, known)}")
    if kind == "value_error":
        text = str(context.get("error", details["msg"]))
        path = (*path, *_named(text, details["input"]))
        text = text.removeprefix(f"{path[-1]}: ") if path else text
        return Problem(path, _with_value(text, details["input"]))
    if kind == "missing" and keys and isinstance(keys[-1], int):
        return Problem(path[:-1], f"must have 2 entries{_ends(path[:-1])}, got 1")
    words = _WORDS.get(kind)
    entries = "entry" if context.get("min_length") == 1 else "entries"
    text = words.format(**context, entries=entries) if words else details["msg"].lower()
    if kind == "too_long":
        text += _ends(path)
    if kind == "missing":
        return Problem(path, text)
    got = details["input"]
    if kind == "union_tag_invalid":
        path, got = (*path, "name"), context.get("tag")
    mend = _mend(kind, text, annotation, keys, value, got)
    return Problem(path, f"{text}, got {_brief(got)}{mend}")


def _ends(path: KeyPath) -> str:
    return ", low and high" if str(path[-1]).endswith("uniform") else ""


def _mend(
    kind: str, text: str, annotation: object, keys: KeyPath, value: JsonValue, got: object
) -> str:
    """What to write instead, where that can be told."""
    if kind in ("literal_error", "union_tag_invalid") and isinstance(got, str):
        return nearest(got, re.findall(r"'([^']*)'", text))
    if kind in _NO_NUMBER and isinstance(got, str) and _is_number(got):
        return "; write it without quotes"
    if kind in _NO_MAPPING and got is not None:
        if isinstance(got, list) and all(isinstance(each, dict) for each in got):
            return "; write its keys without dashes"
        wanted = list(_known(annotation, keys, value))
        if wanted == list(members(Domain)):
            return f"; did you mean {{choice: {show(got if isinstance(got, list) else [got])}}}?"
        return f"; known are {', '.join(wanted)}" if wanted else ""
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _keys(location: tuple[int | str, ...], value: JsonValue, *, missing: bool) -> KeyPath:
    """A location without what is no key of the value: names of union members and the like."""
    keys: list[int | str] = []
    node: object = value
    for part in location:
        inside = dict(enumerate(node)) if isinstance(node, list) else node
        if isinstance(inside, dict) and part in inside:
            keys.append(part)
            node = inside[part]
    if missing:
        keys.append(location[-1])
    return tuple(keys)


def _named(text: str, value: object) -> KeyPath:
    """The key inside `value` that a rule's text names first, so that its line can be told."""
    if not isinstance(value, dict):
        return ()
    named = (word for word in re.findall(r"\w+", text) if word in value)
    return tuple(named)[:1]


def _with_value(text: str, value: object) -> str:
    if ", got " in text or isinstance(value, dict):
        return text
    return f"{text}, got {_brief(value)}"


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return "`key: value` lines" if value else "{}"
    return "nothing" if value is None else show(value)


def members(annotation: object) -> Mapping[str, object]:
    """The keys that a type has, each with its type; none for single values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: info.annotation for name, info in annotation.model_fields.items()}
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        return {item.name: hints[item.name] for item in dataclasses.fields(annotation)}
    found: dict[str, object] = {}
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            found.update(members(part))
    return found


def setting_paths(annotation: object, prefix: str) -> Iterator[str]:
    """Paths of the settings below a type, those that hold other settings left out."""
    below = members(annotation)
    if not below:
        yield prefix
    for name, part in below.items():
        yield from setting_paths(part, f"{prefix}.{name}")


def _known(annotation: object, keys: KeyPath, value: JsonValue) -> Iterator[str]:
    """The keys that there may be at `keys` below a value of this type."""
    for key in keys:
        annotation = members(annotation).get(str(key)) or _item(annotation)
    yield from members(annotation)


def _item(annotation: object) -> object:
    """The type of the entries of a list or mapping."""
    entries = [part for part in typing.get_args(annotation) if part not in (..., str)]
    return entries[0] if entries else None
