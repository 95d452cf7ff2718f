"""Values and names as a spec's messages write them: YAML of one line, the nearest known name."""

import difflib
from collections.abc import Sequence


def show(value: object) -> str:
    """A value as a spec would write it, shortened."""
    text = _written(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _written(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_written(each)}' for key, each in value.items())}}}"
    return repr(value)


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known name is near.

    Of paths below one section, only what comes after the section is compared: all of
    `train.…` would be near one another.
    """
    section = name[: name.rfind(".") + 1]
    below = [path.removeprefix(section) for path in known if path.startswith(section)]
    if below:
        near = difflib.get_close_matches(name.removeprefix(section), below, n=1, cutoff=0.5)
        return f"; did you mean {section + near[0]!r}?" if near else ""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest_or_all(name: str, known: Sequence[str]) -> str:
    """As `nearest`; where no known name is near, `; known are …`."""
    return nearest(name, known) or f"; known are {', '.join(known)}"
