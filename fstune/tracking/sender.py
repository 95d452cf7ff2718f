"""Keeps MLflow up to date with a search from a thread of its own, so that training never waits.

The records on disk are the buffer: the thread reads them again and again and sends what the server
lacks (`tracker` says what that is). While the server cannot be reached nothing is lost and
nothing is sent twice: after every failure the thread looks up anew what the server has. What is
missing at the end is noted in the records; `fstune resume` sends it.
"""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from fstune.results.folder import SearchFolder
from fstune.results.reader import TrialReader
from fstune.results.records import SearchEnd, TrialRecord
from fstune.tracking.tracker import Tracker, shown_uri

PERIOD_S = 1.0
"""Between two looks at the records."""


LONGEST_PAUSE_S = 30.0
"""Between two attempts to reach a server; the pause doubles from `PERIOD_S`."""


AT_END_S = 120.0
"""How long the end of a search waits for a server that answers, but slowly."""


@dataclass(frozen=True)
class Beginning:
    """What is logged on the parent run first."""

    environment: Mapping[str, str]
    datasets: Mapping[str, str]


@dataclass(frozen=True)
class Ending:
    """What is logged on the parent run last."""

    end: SearchEnd
    report: Path | None = None
    files: Sequence[Path] = ()
    description: str = ""
    winner: Mapping[str, Path] = field(default_factory=dict)
    """Files of a confirmed winner, if there is one (`export.kept`)."""


class Sender:
    """The thread, from `start` to `finish`."""

    def __init__(self, tracker: Tracker, records: SearchFolder, beginning: Beginning) -> None:
        self._tracker = tracker
        self._records = records
        self._reader = TrialReader(records)
        self._beginning = beginning
        self._ending: Ending | None = None
        self._opened = self._described = False
        self._sent: dict[int, tuple[object, ...]] = {}
        self._failure = ""
        self._asked_to_end = threading.Event()
        self._connected: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to connect and to send; returns at once."""
        self._thread.start()

    def wait_until_connected(self) -> None:
        """Wait until there is a client, which takes MLflow's import; nothing need be sent yet.

        Raises:
            InputError: if MLflow cannot use the tracking URI; nothing is sent then.
        """
        self._connected.result()

    def is_connected(self) -> bool:
        """Wait as `wait_until_connected` does; whether MLflow can use the tracking URI."""
        return self._connected.exception() is None

    def finish(self, ending: Ending) -> None:
        """Send what is missing, and wait for that as long as the server answers.

        One that does not answer is tried once more.
        """
        self._ending = ending
        self._asked_to_end.set()
        self._thread.join(AT_END_S)
        if self._thread.is_alive():
            self._note(f"it took more than {AT_END_S:.0f} s")

    def _run(self) -> None:
        try:
            self._tracker.connect()
        except Exception as error:  # noqa: BLE001  # raised again in the thread that waits for it
            self._connected.set_exception(error)
        else:
            self._connected.set_result(None)
            self._send_until_the_end()

    def _send_until_the_end(self) -> None:
        pause_s = PERIOD_S
        while True:
            ending = self._ending
            try:
                self._send(ending)
            except Exception as error:  # noqa: BLE001  # MLflow lets out whatever a transport raises
                # Whether the failed request was carried out is not known: all is looked up anew.
                self._opened = False
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._note(_root(error))
            else:
                pause_s = PERIOD_S
                self._note("")
            if ending is not None:
                return
            self._asked_to_end.wait(pause_s)

    def _send(self, ending: Ending | None) -> None:
        if not self._opened:
            self._tracker.open(self._beginning.environment, self._beginning.datasets)
            self._sent.clear()
            self._opened = True
        for trial in self._reader.trials():
            state = _state(trial)
            if self._sent.get(trial.number) != state:
                self._tracker.sync(trial)
                self._sent[trial.number] = state
        if not self._described:
            self._tracker.describe()
            self._described = True
        if ending is not None:
            self._tracker.close(ending.end, ending.report)
            self._tracker.publish(ending.files, ending.description)
            if ending.winner:
                self._tracker.log_winner(ending.winner)

    def _note(self, failure: str) -> None:
        """Keep in the records whether MLflow lacks something, and why."""
        first_line = failure.splitlines()[0] if failure else ""
        if first_line != self._failure:
            self._failure = first_line
            at = time.strftime("%Y-%m-%d %H:%M:%S")
            # Standard output is the search's log file while it runs.
            print(f"fstune: {at} MLflow: {first_line or 'up to date again'}")  # noqa: T201
        server = shown_uri(self._tracker.uri)
        with contextlib.suppress(OSError):  # a full disk: what is sent does not depend on the note
            self._records.write_unsent(f"{server}: {first_line}" if first_line else "")


def _root(error: BaseException) -> str:
    """What a chain of exceptions began with: a transport wraps "connection refused" many times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"


def _state(trial: TrialRecord) -> tuple[object, ...]:
    """Changes whenever there is something to send of a trial."""
    return (len(trial.rungs), trial.end, trial.confirmation is not None)
