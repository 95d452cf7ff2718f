"""From plain values to settings, by the types of the settings and nothing looser."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter

T = TypeVar("T")


_adapter: Callable[[object], TypeAdapter[Any]] = cache(TypeAdapter)


def checked(kind: type[T], values: JsonValue | Mapping[str, JsonValue]) -> T:
    """Values as a `kind`: text is no number, 1 is not true, and an unknown key is an error.

    Pydantic's strict mode lets a list be a tuple in JSON alone, hence the way through JSON.

    Raises:
        pydantic.ValidationError: all that is wrong with the values.
    """
    value: T = _adapter(kind).validate_json(json.dumps(values), strict=True)
    return value
