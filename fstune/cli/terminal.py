"""What commands show while they work, and what they leave to be read afterwards."""

import contextlib
import logging
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from fstune.errors import FstuneError
from fstune.files import RUNS

if TYPE_CHECKING:
    from rich.console import Console

    from fstune.search.lifecycle import Search


def console() -> "Console":
    """Standard output, as wide and as colourful as it is."""
    from rich.console import Console

    return Console()


def say(text: str, style: str = "") -> None:
    """Print a line whole, whatever is in it: paths and commands are there to be copied."""
    console().print(text, style=style, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def working(what: str, quiet: bool = False) -> Iterator[None]:
    """Say what takes a while, on a terminal; and how far the building of a split is."""
    if quiet:
        yield
        return
    terminal = console()
    if not terminal.is_terminal:
        with _messages_of("tasks", lambda message: typer.echo(message, err=True)):
            yield
        return
    with (
        terminal.status(what) as status,
        _messages_of("tasks", lambda message: status.update(f"{what}: {message}")),
    ):
        yield


class _Handler(logging.Handler):
    """Hands messages on."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


@contextlib.contextmanager
def _messages_of(package: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Hand what a package logs to `tell` for as long as the context lasts."""
    logger, handler = logging.getLogger(package), _Handler(tell)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def run_live(search: "Search", quiet: bool) -> None:
    """Run a search under the live view; afterwards, or when stopped, say what to do next."""
    from fstune.report.live import View, live, quietly
    from fstune.report.table import result_table
    from fstune.search.requirements import disk_need
    from fstune.tracking.tracker import shown_uri

    records = search.records
    need = disk_need(search.spec, search.runs)
    if not need.suffices:
        say(f"the disk of {search.runs} may not suffice: {need}")
    view = View(records, search.spec)
    try:
        with (
            quietly(records.log_file) as terminal,
            contextlib.nullcontext() if quiet else live(terminal, view),
        ):
            search.run()
    except BaseException as error:
        _say_how_to_go_on(search, error)
        raise
    finally:
        console().print(result_table(records, search.spec))
    say_what_mlflow_lacks(search)
    if not quiet:
        say(f"records: {records.root}; MLflow: {shown_uri(search.tracking_uri)}")


def _say_how_to_go_on(search: "Search", error: BaseException) -> None:
    """After a search that was stopped or broke off; a `FstuneError` says it itself."""
    if isinstance(error, FstuneError):
        return
    stopped = isinstance(error, KeyboardInterrupt)
    told = (
        "stopped; nothing is lost"
        if stopped
        else f"the search broke off; see {search.records.log_file}"
    )
    say(f"{told}. Go on with: {resume_command(search)}")


def resume_command(search: "Search") -> str:
    """What to type to go on with a search."""
    runs = f" --runs {shlex.quote(str(search.runs))}" if search.runs != RUNS.resolve() else ""
    return f"fstune resume {search.spec.name}{runs}"


def say_what_mlflow_lacks(search: "Search") -> None:
    """Say what was not sent to MLflow yet, if anything, and how to send it."""
    if search.records.unsent:
        told = f"MLflow is behind ({search.records.unsent}); what it lacks is sent by"
        say(f"{told} {resume_command(search)}")
