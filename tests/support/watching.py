"""What this process does, watched from outside the code: files opened, functions called."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_watchers: list[Callable[[Path], None]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watchers and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0])).absolute()
        for watcher in tuple(_watchers):
            watcher(path)


sys.addaudithook(_audit)  # Python has no way to take one away again.


@dataclass
class Count:
    count: int = 0


@contextlib.contextmanager
def _watched(watcher: Callable[[Path], None]) -> Iterator[None]:
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextlib.contextmanager
def opens(path: Path) -> Iterator[Count]:
    """How often a file is opened, by any thread."""
    found = Count()

    def count(opened: Path) -> None:
        found.count += opened == path

    with _watched(count):
        yield found


@contextlib.contextmanager
def on_open(folder: Path, act: Callable[[], object]) -> Iterator[None]:
    """Do something once, just before the first file below a folder is opened."""
    left = [act]

    def watch(opened: Path) -> None:
        if left and folder in opened.parents:
            left.pop()()

    with _watched(watch):
        yield
    assert not left, f"nothing in {folder} was opened"


@contextlib.contextmanager
def calls(function: Callable[..., object]) -> Iterator[Count]:
    """How often a function is called, by this thread."""
    found, code = Count(), function.__code__  # type: ignore[attr-defined]

    def count(frame: FrameType, event: str, _: object) -> None:
        found.count += event == "call" and frame.f_code is code

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield found
    finally:
        sys.setprofile(before)
