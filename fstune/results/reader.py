"""A search's trials for readers that poll: a live view, and the thread that sends to MLflow."""

from dataclasses import replace

from fstune.results.folder import SearchFolder
from fstune.results.records import TrialRecord


class TrialReader:
    """Reads a search's trials again and again, and those that have ended only once.

    A confirmation may follow an end; it is looked for until it is there.
    """

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
        if not trial.is_alias and trial.confirmation is None:
            trial = replace(trial, confirmation=self._records.confirmation(number))
        self._ended[number] = trial
        return trial
