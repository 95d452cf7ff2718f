"""A search's own records: the truth from which it is shown, resumed and rebuilt.

    <runs>/searches/<name>/spec.json               the resolved spec
    <runs>/searches/<name>/spec.yaml               the user's text
    <runs>/searches/<name>/environment.json        versions, device, code; environment-002.json and
                                                   so on where it went on with others
    <runs>/searches/<name>/guesses.json            what chance and trivial strategies score
    <runs>/searches/<name>/trials/0003/candidate.json
    <runs>/searches/<name>/trials/0003/rung-0.json
    <runs>/searches/<name>/trials/0003/end.json
    <runs>/searches/<name>/trials/0003/confirmation.json
    <runs>/searches/<name>/trials/0003/model/      weights of a confirmed gain
    <runs>/searches/<name>/finalists.json          which trials are confirmed
    <runs>/searches/<name>/trials/0003/progress.json   where it is right now; not part of the truth
    <runs>/searches/<name>/mlflow.txt              the server it is sent to, if not the local store
    <runs>/searches/<name>/unsent.txt              why MLflow lacks something, while it does
    <runs>/searches/<name>/tune/                   Ray Tune's own files
    <runs>/searches/<name>/log.txt                 what Ray, MLflow and Optuna had to say

Every record is written once. Writing it again is allowed if it says the same, which is how a replay
is held to what happened. No torch, no Ray.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from fstune.errors import InputError, StoreError
from fstune.files import write_atomic, write_json
from fstune.results.records import (
    Confirmation,
    EndRecord,
    Finalists,
    RungRecord,
    Suggestion,
    TrialRecord,
)
from fstune.specs.settings import Scalar


class SearchFolder:
    """The folder of one search."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name

    @classmethod
    def find(cls, runs: Path, name: str) -> "SearchFolder":
        """The records of a search that exists.

        Raises:
            InputError: if there is none of that name; lists those that there are.
        """
        records = cls(runs / "searches" / name)
        if not records.spec.exists():
            known = ", ".join(search_names(runs)) or "none; --runs DIR names another folder"
            raise InputError(f"no search is called {name!r} in {runs}; known: {known}")
        return records

    @property
    def runs(self) -> Path:
        """The folder of all that runs write."""
        return self.root.parent.parent

    @property
    def cache(self) -> Path:
        """Tokenised splits, shared by all searches."""
        return self.runs / "cache"

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def identity(self) -> str:
        """Tells this search from every other, whatever its name; made when first asked for."""
        path = self.root / "identity"
        if not path.exists():
            write_atomic(path, uuid.uuid4().hex.encode())
        return path.read_text()

    @property
    def user_spec(self) -> Path:
        return self.root / "spec.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def environments(self) -> list[Path]:
        """What the search was made on, and what else it went on with."""
        return sorted(self.root.glob("environment*.json"), key=lambda path: path.stem)

    def write_environment(self, facts: Mapping[str, str]) -> bool:
        """Note what the search goes on with, if that is not the latest known; whether it was not.

        Args:
            facts: versions, device and code.
        """
        known = self.environments
        if known and json.loads(known[-1].read_text(encoding="utf-8")) == facts:
            return False
        name = f"environment-{len(known) + 1:03d}.json" if known else self.environment.name
        write_json(self.root / name, facts)
        return True

    @property
    def tune(self) -> Path:
        return self.root / "tune"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    def model(self, number: int) -> Path:
        """Folder of a confirmed gain's weights."""
        return self._folder(number) / "model"

    @property
    def tracked_at(self) -> str | None:
        """The MLflow server that the search was last sent to; None for the store in its folder."""
        path = self.root / "mlflow.txt"
        return path.read_text() if path.exists() else None

    def write_tracked_at(self, uri: str | None) -> None:
        path = self.root / "mlflow.txt"
        if uri is None:
            path.unlink(missing_ok=True)
        else:
            write_atomic(path, uri.encode())

    @property
    def unsent(self) -> str:
        """Why MLflow lacks something of the records; empty where it lacks nothing."""
        path = self.root / "unsent.txt"
        return path.read_text() if path.exists() else ""

    def write_unsent(self, reason: str) -> None:
        path = self.root / "unsent.txt"
        if reason:
            write_atomic(path, reason.encode())
        else:
            path.unlink(missing_ok=True)

    def trial(self, number: int) -> TrialRecord | None:
        """The trial, or None if it was never suggested."""
        folder = self._folder(number)
        suggestion = _read(folder / "candidate.json", _SUGGESTION)
        if suggestion is None:
            return None
        if suggestion.equals is not None:
            same = self.trial(suggestion.equals) if suggestion.equals in range(number) else None
            if same is None:
                raise StoreError(
                    f"{folder / 'candidate.json'} is damaged: trial {suggestion.equals}, which it "
                    "equals, is none before it"
                )
            return replace(
                same,
                number=number,
                candidate=suggestion.candidate,
                equals=same.number,
                confirmation=None,
                progress=None,
            )
        end = self.end(number)
        return TrialRecord(
            number=number,
            candidate=suggestion.candidate,
            rungs=list(self._rungs(number)),
            end=end,
            confirmation=self.confirmation(number),
            progress=None if end else _read(folder / "progress.json", _PROGRESS),
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
            if trial.rungs and trial.equals is None:
                return trial
            number += 1
        return None

    def rung(self, number: int, rung: int) -> RungRecord | None:
        return _read(self._folder(number) / f"rung-{rung}.json", _RUNG)

    def end(self, number: int) -> EndRecord | None:
        return _read(self._folder(number) / "end.json", _END)

    def failed_in_a_row(self) -> list[int]:
        """The latest of the trials that have ended, as far back as they failed."""
        streak = []
        numbers = (int(folder.name) for folder in self.root.glob("trials/[0-9]*"))
        for number in sorted(numbers, reverse=True):
            end = self.end(number)
            if end is not None and end.state != "failed":
                break
            if end is not None:
                streak.append(number)
        return streak

    def reopen(self, number: int) -> None:
        """Forget how a trial ended, so that it is tried again."""
        (self._folder(number) / "end.json").unlink(missing_ok=True)

    def confirmation(self, number: int) -> Confirmation | None:
        return _read(self._folder(number) / "confirmation.json", _CONFIRMATION)

    def write_confirmation(self, number: int, record: Confirmation) -> None:
        """Keep a finalist's confirmation: one look, so that the first stays."""
        if self.confirmation(number) is None:
            write_json(self._folder(number) / "confirmation.json", asdict(record))

    def guesses(self) -> dict[str, dict[str, float]]:
        """What chance and trivial strategies score on the validation split, by metric."""
        return _read(self.root / "guesses.json", _GUESSES) or {}

    def write_guesses(self, guesses: Mapping[str, Mapping[str, float]]) -> None:
        write_json(self.root / "guesses.json", guesses)

    def finalists(self) -> list[int] | None:
        """Numbers of the trials that are confirmed; None before they were chosen."""
        chosen = _read(self.root / "finalists.json", _FINALISTS)
        return None if chosen is None else chosen.numbers

    @property
    def num_finalists(self) -> int:
        """How many trials share a confirmation's level, tried already or not.

        Those that were chosen; where that is not known any more, those that were tried.
        """
        chosen = self.finalists()
        return len(list(self.root.glob("trials/*/confirmation.json")) if chosen is None else chosen)

    def write_finalists(self, numbers: Sequence[int]) -> None:
        write_json(self.root / "finalists.json", asdict(Finalists(list(numbers))))

    def write_candidate(
        self, number: int, candidate: Mapping[str, Scalar], equals: int | None = None
    ) -> None:
        path = self._folder(number) / "candidate.json"
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
            write_json(self._folder(number) / f"rung-{record.rung}.json", asdict(record))
        elif stored.facts() != record.facts():
            raise StoreError(f"trial {number}, rung {record.rung} came out differently this time")

    def write_end(self, number: int, record: EndRecord) -> None:
        """Note why the trial goes no further; the first reason stays."""
        path = self._folder(number) / "end.json"
        if not path.exists():
            write_json(path, asdict(record))
        self.clear_progress(number)

    def write_progress(self, number: int, progress: Mapping[str, object]) -> None:
        write_json(self._folder(number) / "progress.json", dict(progress))

    def clear_progress(self, number: int) -> None:
        """Note that nothing is being done for a trial now."""
        (self._folder(number) / "progress.json").unlink(missing_ok=True)

    def _folder(self, number: int) -> Path:
        return self.root / "trials" / f"{number:04d}"

    def _rungs(self, number: int) -> Iterator[RungRecord]:
        rung = 0
        while (record := self.rung(number, rung)) is not None:
            yield record
            rung += 1


def search_names(runs: Path) -> Sequence[str]:
    """The searches that a folder of runs holds."""
    return sorted(path.parent.name for path in runs.glob("searches/*/spec.json"))


# Made once: making one takes longer than reading a record, and views read all of them every second.
_SUGGESTION = TypeAdapter(Suggestion)


_RUNG = TypeAdapter(RungRecord)


_END = TypeAdapter(EndRecord)


_CONFIRMATION = TypeAdapter(Confirmation)


_FINALISTS = TypeAdapter(Finalists)


_GUESSES = TypeAdapter(dict[str, dict[str, float]])


_PROGRESS = TypeAdapter(dict[str, object])


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


class TrialReader:
    """Reads a search's trials again and again; what is said of an ended one's rungs only once."""

    def __init__(self, records: SearchFolder) -> None:
        self._records = records
        self._ended: dict[int, TrialRecord] = {}

    def trials(self) -> list[TrialRecord]:
        """All trials in the order in which they were suggested."""
        trials: list[TrialRecord] = []
        while (trial := self._trial(len(trials))) is not None:
            trials.append(trial)
        return trials

    def _trial(self, number: int) -> TrialRecord | None:
        trial = self._ended.get(number) or self._records.trial(number)
        if trial is None or trial.end is None:
            return trial
        if trial.equals is None and trial.confirmation is None:
            trial = replace(trial, confirmation=self._records.confirmation(number))
        self._ended[number] = trial
        return trial
