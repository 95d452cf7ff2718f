"""A search on a terminal: how it is watched, as bars and a forest or as lines, and its events.

Everything shown is read from the records and the arm store, so that a search looks the same from
inside, from another terminal (`fstune status`) and afterwards. In a pipe or a file there are no
bars: each event becomes a line. Tables of results are in `table`. No torch, no Ray.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fstune.report.phrases import at_rung, describe_candidate, interval
from fstune.report.progress import Snapshot
from fstune.results.folder import SearchFolder
from fstune.results.reader import TrialReader
from fstune.results.records import RungRecord, TrialRecord
from fstune.specs.sections import SearchSpec

REFRESH_S = 1.0


LATEST = 6
"""Events of note that a snapshot has."""


@dataclass(frozen=True)
class Event:
    """Something that happened, in a line."""

    text: str
    of_note: bool
    """Whether it is told above the bars too, not only where there are none."""


class View:
    """Where one search stands, read anew each time."""

    def __init__(self, records: SearchFolder, spec: SearchSpec) -> None:
        self._records = records
        self._spec = spec
        self._store = records.store
        self._reader = TrialReader(records)
        self._events: dict[tuple[int, int], list[Event]] = {}

    def __call__(self) -> Snapshot:
        return Snapshot(self._reader.trials(), self._spec, time.time(), self._records.unsent)

    def events(self) -> list[Event]:
        """All that has happened, trial by trial."""
        return [event for trial in self._reader.trials() for event in self._events_of(trial)]

    def _events_of(self, trial: TrialRecord) -> Iterator[Event]:
        who = f"trial {trial.number}"
        if trial.is_alias:
            yield Event(f"{who} reuses trial {trial.equals}, equal to it in effect", True)
            return
        yield Event(f"{who}: {describe_candidate(trial.candidate)}", False)
        for rung in trial.rungs:
            yield from self._events_at(trial.number, rung)
        if trial.end is not None:
            yield Event(f"{who} {trial.end.state}: {trial.end.reason.splitlines()[0]}", True)

    def _events_at(self, number: int, rung: RungRecord) -> list[Event]:
        key = (number, rung.rung)
        if key not in self._events:
            self._events[key] = [*self._mishaps(number, rung), *self._reached(number, rung)]
        return self._events[key]

    def _mishaps(self, number: int, rung: RungRecord) -> Iterator[Event]:
        """What happened to the arms beside training, out of memory above all."""
        for pair in rung.arms:
            for arm in (pair.baseline, pair.variant):
                outcome = self._store.outcome(arm, rung.steps)
                name = "baseline" if arm == pair.baseline else "variant"
                for event in () if outcome is None else outcome.events:
                    yield Event(f"trial {number}, {name} of seed {pair.seed}: {event}", True)

    def _reached(self, number: int, rung: RungRecord) -> Iterator[Event]:
        metric = self._spec.metric().name
        reached = f"trial {number} at {at_rung(rung.steps, rung.seeds)}"
        if rung.reused:
            yield Event(f"{reached}: {rung.reused} of {2 * rung.seeds} arms reused", True)
        text = f"{reached}: Δ {metric} {interval(rung.deltas[metric])}, {rung.verdict}"
        yield Event(text, False)


def snapshot(records: SearchFolder, spec: SearchSpec, in_full: bool) -> Group:
    """What `live` shows, once: for a search that runs elsewhere or ran before.

    Args:
        records: the search's.
        spec: the search's.
        in_full: with the latest events and the whole forest, not the three best alone.
    """
    view = View(records, spec)
    standing = replace(view(), afar=True)
    if not in_full:
        return Group(replace(standing, most=3), Text())
    of_note = [event.text for event in view.events() if event.of_note][-LATEST:]
    told = [Text(text, no_wrap=True, overflow="ellipsis") for text in of_note]
    return Group(standing, *([Text("\nlatest events", style="bold"), *told] if told else []))


@contextlib.contextmanager
def live(console: Console, view: View) -> Iterator[None]:
    """Show where a search stands for as long as the context lasts.

    On a terminal bars and a forest renew themselves, with events of note above them. Elsewhere
    every event is a line with its time. What had happened before is not told again.
    """
    told = {event.text for event in view.events()}
    draws = console.is_terminal and not console.is_dumb_terminal

    def tell() -> None:
        for event in view.events():
            if event.text not in told:
                told.add(event.text)
                if draws and event.of_note:
                    console.print(Text(event.text, no_wrap=True, overflow="ellipsis"))
                elif not draws:
                    line = f"{time.strftime('%H:%M:%S')} {event.text}"
                    console.print(line, highlight=False, markup=False, soft_wrap=True)

    with contextlib.ExitStack() as stack:
        if not draws:
            stack.callback(tell)
            stack.enter_context(_every_second(tell))
            yield
            return
        shown = Live(
            get_renderable=view,
            console=console,
            # Events and bars come from one thread: with another one that draws, Rich now and then
            # takes a line that was told for one of the bars' and draws over it.
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # what Ray prints belongs in the log, not above the bars
            redirect_stderr=False,
        )

        def draw() -> None:
            tell()
            shown.refresh()

        stack.enter_context(shown)
        stack.callback(draw)
        stack.enter_context(_every_second(draw))
        yield


@contextlib.contextmanager
def _every_second(act: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(REFRESH_S):
            act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def quietly(log: Path) -> Iterator[Console]:
    """Send all that Ray, MLflow and Optuna write to a log file; yield a console on the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file:
        terminal, error = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with os.fdopen(os.dup(terminal), "w") as out:
                yield Console(file=out)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(terminal, 1)
            os.dup2(error, 2)
            os.close(terminal)
            os.close(error)
