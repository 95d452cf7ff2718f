"""A search's own records: the truth from which it is shown, resumed and rebuilt.

Where each lies is in `paths`. Every record is written once. Writing it again is allowed if it says
the same, which is how a replay is held to what happened. No torch, no Ray.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, TypeVar

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from fstune.arms.store import ArmStore
from fstune.errors import InputError, StoreError
from fstune.files import write_atomic, write_json
from fstune.results.learning import Grounds
from fstune.results.paths import SearchPaths, search_names
from fstune.results.records import (
    Confirmation,
    EndRecord,
    Finalists,
    LookRecord,
    RungRecord,
    Suggestion,
    TrialProgress,
    TrialRecord,
)
from fstune.results.verdict import FIRST_KEPT_RULES, VERDICT_RULES
from fstune.specs.loading import read_resolved, write_resolved
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import EvaluatedSplit, Scalar


class SearchFolder:
    """The folder of one search, and the arms of the folder of runs that it is in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name
        self.runs = root.parent.parent
        self.cache = self.runs / "cache"
        self.store = ArmStore(self.runs / "arms")
        self._paths = SearchPaths(root)
        self._spec: SearchSpec | None = None

    @classmethod
    def find(cls, runs: Path, name: str) -> "SearchFolder":
        """The folder of a search that exists.

        Raises:
            InputError: if there is none of that name; lists those that there are.
        """
        records = cls(runs / "searches" / name)
        if not records.exists:
            known = ", ".join(search_names(runs)) or "none; --runs DIR names another folder"
            raise InputError(f"no search is called {name!r} in {runs}; known: {known}")
        return records

    @property
    def exists(self) -> bool:
        """Whether the search was made: its resolved spec is written last."""
        return self._paths.spec.exists()

    def spec(self) -> SearchSpec:
        """The resolved spec; read once, since it is written once.

        Raises:
            SpecError: if it cannot be read.
        """
        if self._spec is None:
            self._spec = read_resolved(self._paths.spec)
        return self._spec

    def spec_text(self) -> str:
        """The resolved spec as JSON."""
        return self._paths.spec.read_text(encoding="utf-8")

    def write_spec(self, spec: SearchSpec) -> None:
        """Write the rules that the search is decided by, and the resolved spec: now it exists."""
        _write_text(self._paths.rules, str(VERDICT_RULES))
        write_resolved(spec, self._paths.spec)

    @property
    def rules(self) -> int:
        """Version of the verdict rules that the search began with, and is gone on with."""
        return int(_text(self._paths.rules) or FIRST_KEPT_RULES)

    def grounds(self, split: EvaluatedSplit = "validation") -> Grounds:
        """What the search's comparisons on a split are judged by."""
        return Grounds(self.rules, self.guesses(split))

    def write_user_spec(self, text: bytes) -> None:
        """Keep the spec as the user wrote it."""
        write_atomic(self._paths.user_spec, text)

    def environments(self) -> list[dict[str, str]]:
        """Versions, device and code that the search was made with, and then went on with."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in self._paths.environments]

    def write_environment(self, facts: Mapping[str, str]) -> None:
        """Note what the search goes on with, if that is not the latest known.

        Args:
            facts: versions, device and code.
        """
        known = self.environments() if self.exists else []
        if not known or known[-1] != facts:
            write_json(self._paths.environment(len(known)), facts)

    def made_from(self) -> list[Path]:
        """The files that say what the search was made from: specs and environments."""
        paths = (self._paths.spec, self._paths.user_spec, *self._paths.environments)
        return [path for path in paths if path.exists()]

    def make_identity(self) -> str:
        """What tells this search from every other, whatever its name; made if there is none."""
        path = self._paths.identity
        if not path.exists():
            write_atomic(path, uuid.uuid4().hex.encode())
        return path.read_text()

    @property
    def lock(self) -> FileLock:
        """Held by the process that runs the search."""
        return FileLock(self._paths.lock)

    @property
    def log_file(self) -> Path:
        """Where Ray, MLflow and Optuna write to while the search runs."""
        return self._paths.log

    @property
    def tune_folder(self) -> Path:
        """Where Ray Tune writes."""
        return self._paths.tune

    def model_folder(self, number: int) -> Path:
        """Where the weights of a confirmed gain are kept."""
        return self._paths.model(number)

    def report_file(self, form: Literal["json", "html", "csv"]) -> Path:
        """Where the search's own report is written."""
        return self._paths.report(form)

    @property
    def tracked_at(self) -> str | None:
        """The MLflow server that the search was last sent to; None for the store in its folder."""
        return _text(self._paths.tracked_at)

    def write_tracked_at(self, uri: str | None) -> None:
        _write_text(self._paths.tracked_at, uri)

    @property
    def unsent(self) -> str:
        """Why MLflow lacks something of the records; empty where it lacks nothing."""
        return _text(self._paths.unsent) or ""

    def write_unsent(self, reason: str) -> None:
        _write_text(self._paths.unsent, reason or None)

    def trial(self, number: int) -> TrialRecord | None:
        """The trial, or None if it was never suggested."""
        suggestion = _read(self._paths.candidate(number), _SUGGESTION)
        if suggestion is None:
            return None
        if suggestion.equals is not None:
            return self._alias(number, suggestion.candidate, suggestion.equals)
        end = self.end(number)
        return TrialRecord(
            number=number,
            candidate=suggestion.candidate,
            rungs=list(self._rungs(number)),
            end=end,
            confirmation=self.confirmation(number),
            looks=list(self._looks(number)),
            progress=None if end else self._progress(number),
        )

    def _alias(self, number: int, candidate: dict[str, Scalar], equals: int) -> TrialRecord:
        """A trial with the rungs and the end of the one before it that does the same."""
        original = self.trial(equals) if equals in range(number) else None
        if original is None:
            raise StoreError(
                f"{self._paths.candidate(number)} is damaged: trial {equals}, which it equals, is "
                "none before it"
            )
        return replace(
            original,
            number=number,
            candidate=candidate,
            equals=equals,
            confirmation=None,
            looks=[],
            progress=None,
        )

    def trials(self) -> list[TrialRecord]:
        """All trials in the order in which they were suggested."""
        trials: list[TrialRecord] = []
        while (trial := self.trial(len(trials))) is not None:
            trials.append(trial)
        return trials

    def first_compared(self) -> TrialRecord | None:
        """The first trial that has reached a rung by itself."""
        number = 0
        while (trial := self.trial(number)) is not None:
            if trial.rungs and not trial.is_alias:
                return trial
            number += 1
        return None

    def rung(self, number: int, rung: int) -> RungRecord | None:
        return _read(self._paths.rung(number, rung), _RUNG)

    def end(self, number: int) -> EndRecord | None:
        return _read(self._paths.end(number), _END)

    def failed_in_a_row(self) -> list[int]:
        """The latest of the trials that have ended, as far back as they failed."""
        streak = []
        for number in reversed(self._paths.numbers):
            end = self.end(number)
            if end is not None and end.state != "failed":
                break
            if end is not None:
                streak.append(number)
        return streak

    def reopen(self, number: int) -> None:
        """Forget how a trial ended, so that it is tried again."""
        self._paths.end(number).unlink(missing_ok=True)

    def confirmation(self, number: int) -> Confirmation | None:
        return _read(self._paths.confirmation(number), _CONFIRMATION)

    def write_look(self, number: int, look: int, record: LookRecord) -> None:
        """Keep a look at a finalist's confirmation, from 1; the first date of each stays."""
        path = self._paths.look(number, look)
        stored = _read(path, _LOOK)
        if stored is None:
            write_json(path, asdict(record))
        elif stored.at != record.at:
            raise StoreError(f"trial {number}, look {look} came out differently this time")

    def _looks(self, number: int) -> Iterator[LookRecord]:
        look = 1
        while (record := _read(self._paths.look(number, look), _LOOK)) is not None:
            yield record
            look += 1

    def write_confirmation(self, number: int, record: Confirmation) -> None:
        """Keep a finalist's confirmation: there is one per search, so that the first stays."""
        if self.confirmation(number) is None:
            write_json(self._paths.confirmation(number), asdict(record))

    def guesses(self, split: EvaluatedSplit = "validation") -> dict[str, dict[str, float]]:
        """What chance and trivial strategies score on a split, by metric; empty where unknown."""
        return _read(self._paths.guesses(split), _GUESSES) or {}

    def write_guesses(
        self, guesses: Mapping[str, Mapping[str, float]], split: EvaluatedSplit = "validation"
    ) -> None:
        write_json(self._paths.guesses(split), guesses)

    def finalists(self) -> list[int] | None:
        """Numbers of the trials that are confirmed; None before they were chosen."""
        chosen = _read(self._paths.finalists, _FINALISTS)
        return None if chosen is None else chosen.numbers

    @property
    def num_finalists(self) -> int:
        """How many trials share a confirmation's level, tried already or not.

        Those that were chosen; where that is not known any more, those that were tried.
        """
        chosen = self.finalists()
        return len(self._paths.confirmations if chosen is None else chosen)

    def write_finalists(self, numbers: Sequence[int]) -> None:
        write_json(self._paths.finalists, asdict(Finalists(list(numbers))))

    def write_candidate(
        self, number: int, candidate: Mapping[str, Scalar], equals: int | None = None
    ) -> None:
        path = self._paths.candidate(number)
        stored = _read(path, _SUGGESTION)
        if stored is None:
            write_json(path, asdict(Suggestion(dict(candidate), equals)))
        elif stored.candidate != candidate:
            raise StoreError(
                f"trial {number} of {self.name} was {stored.candidate}, now {dict(candidate)}"
            )

    def write_rung(self, number: int, record: RungRecord) -> None:
        stored = self.rung(number, record.rung)
        if stored is None:
            write_json(self._paths.rung(number, record.rung), asdict(record))
        elif stored.facts() != record.facts():
            raise StoreError(f"trial {number}, rung {record.rung} came out differently this time")

    def write_end(self, number: int, record: EndRecord) -> None:
        """Note why the trial goes no further; the first reason stays."""
        path = self._paths.end(number)
        if not path.exists():
            write_json(path, asdict(record))
        self.clear_progress(number)

    def _progress(self, number: int) -> TrialProgress | None:
        """Where a trial is, as far as that can be read: it is no part of the truth."""
        with contextlib.suppress(OSError, StoreError):
            return _read(self._paths.progress(number), _PROGRESS)
        return None

    def write_progress(self, number: int, progress: TrialProgress) -> None:
        """Note where a trial is; it is no part of the truth, and a disk that refuses ends nothing.

        (`clear_progress` likewise.)
        """
        with contextlib.suppress(OSError):
            write_json(self._paths.progress(number), asdict(progress))

    def clear_progress(self, number: int) -> None:
        """Note that nothing is being done for a trial now."""
        with contextlib.suppress(OSError):
            self._paths.progress(number).unlink(missing_ok=True)

    def _rungs(self, number: int) -> Iterator[RungRecord]:
        rung = 0
        while (record := self.rung(number, rung)) is not None:
            yield record
            rung += 1


# Made once: making one takes longer than reading a record, and views read all of them every second.
_SUGGESTION = TypeAdapter(Suggestion)
_RUNG = TypeAdapter(RungRecord)
_END = TypeAdapter(EndRecord)
_LOOK = TypeAdapter(LookRecord)
_CONFIRMATION = TypeAdapter(Confirmation)
_FINALISTS = TypeAdapter(Finalists)
_GUESSES = TypeAdapter(dict[str, dict[str, float]])
_PROGRESS = TypeAdapter(TrialProgress)

T = TypeVar("T")


def _read(path: Path, kind: TypeAdapter[T]) -> T | None:
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        raise StoreError(f"{path} is damaged: {fault}; put back a copy of it") from error


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _write_text(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, text.encode())
