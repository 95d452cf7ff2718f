"""The trials of a search that runs, for who looks again and again: a terminal, MLflow's sender.

What is in the records is `fstune.records`' affair; here it is only not read twice.
"""

from dataclasses import replace

from fstune.records import SearchRecords, TrialRecord


class TrialReader:
    """Reads a search's trials again and again; what is said of an ended one's rungs only once."""

    def __init__(self, records: SearchRecords) -> None:
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
