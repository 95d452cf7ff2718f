"""The table of all candidates, and that of the finalists: columns, rows, and how values are shown.

A new column is one line in `COLUMNS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fstune.report.phrases import confirmed_at, percent, short
from fstune.report.series import Sheet
from fstune.results.deltas import CONFIDENCE, Delta, confirmation_confidence
from fstune.results.records import Comparison, TrialRecord
from fstune.results.selection import false_discovery_adjusted
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar


@dataclass(frozen=True)
class Cell:
    """A value of the table, and how it is shown."""

    value: Scalar | None
    text: str

    @property
    def is_number(self) -> bool:
        """Whether it is read as a number."""
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)


@dataclass(frozen=True)
class Compared:
    """A trial with the comparison and the delta that a row is about."""

    trial: TrialRecord
    at: Comparison
    delta: Delta
    q_value: float | None = None
    """The p-value adjusted for all candidates; a confirmation has none."""


@dataclass(frozen=True)
class Column:
    """A column of the table; `form` is a format specification."""

    title: str
    value: Callable[[Compared], Scalar | None]
    form: str = ""
    hint: str = ""

    def cell(self, row: Compared | None) -> Cell:
        value = None if row is None else self.value(row)
        return Cell(value, "–" if value is None else f"{value:{self.form}}")


COLUMNS = (
    Column("steps", lambda row: row.at.steps, "d", "optimiser steps of both arms"),
    Column("seeds", lambda row: row.at.seeds, "d", "pairs of arms"),
    Column("baseline", lambda row: row.delta.baseline, ".4f", "mean over seeds and examples"),
    Column("variant", lambda row: row.delta.variant, ".4f", "mean over seeds and examples"),
    Column("Δ", lambda row: row.delta.mean, "+.4f", "variant minus baseline"),
    Column("low", lambda row: row.delta.low, "+.4f", "lower bound of the interval"),
    Column("high", lambda row: row.delta.high, "+.4f", "upper bound of the interval"),
    Column("p", lambda row: row.delta.p_value, ".2g", "of chance alone, for these seeds"),
    Column("q", lambda row: row.q_value, ".2g", "p adjusted for the number of candidates"),
    Column("agree", lambda row: row.delta.seeds_agree, "d", "seeds with the mean's sign"),
    Column("detectable", lambda row: _detectable(row), ".4f", "delta told from zero in 80 %"),
)


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first column names the trial."""

    caption: str
    header: list[tuple[str, str]]
    """Title and hint of each column."""
    rows: list[list[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, whatever is absent."""

        def holds_numbers(column: int) -> bool:
            present = [row[column] for row in self.rows if row[column].value is not None]
            return bool(present) and all(cell.is_number for cell in present)

        return [holds_numbers(column) for column in range(len(self.header))]

    def sheet(self) -> Sheet:
        rows = [tuple(cell.value for cell in row) for row in self.rows]
        return Sheet(tuple(title for title, _ in self.header), rows)


def all_candidates(spec: SearchSpec, order: Sequence[TrialRecord]) -> Table:
    """Every trial, in this order, at the last rung that it reached."""
    paths = list(spec.space)
    header = [("trial", ""), ("verdict", ""), *((c.title, c.hint) for c in COLUMNS)]
    header += [*((short(path, paths), path) for path in paths), ("ended", "")]
    adjusted = false_discovery_adjusted(order, spec.metric().name)
    rows = []
    for trial in order:
        q_value = adjusted.get(trial.number)
        row = _compared(spec, trial, trial.rungs[-1] if trial.rungs else None, q_value)
        ended = "running" if trial.end is None else f"{trial.end.state}: {trial.end.reason}"
        if trial.equals is not None:
            ended = f"same as {trial.equals}; {ended}"
        rows.append(
            [
                Cell(trial.number, str(trial.number)),
                Cell(trial.verdict, trial.verdict),
                *(column.cell(row) for column in COLUMNS),
                *(_setting_cell(trial.candidate.get(path)) for path in paths),
                Cell(ended, ended),
            ]
        )
    caption = (
        f"Every candidate at the last rung that it reached; Δ {spec.metric().name} with "
        f"{percent(CONFIDENCE)} intervals. Deltas of different rungs are not comparable."
    )
    return Table(caption, header, rows)


def confirmed_finalists(
    spec: SearchSpec, order: Sequence[TrialRecord], finalists: int
) -> Table | None:
    """Those that were confirmed, of so many finalists; None where none was."""
    confirmed = [(trial, trial.confirmation) for trial in order if trial.confirmation is not None]
    if not confirmed:
        return None
    level = confirmed_at(spec, finalists)
    columns = [column for column in COLUMNS if column.title != "q"]
    rows = []
    for trial, confirmation in confirmed:
        row = _compared(spec, trial, confirmation.comparison)
        rows.append(
            [
                Cell(trial.number, str(trial.number)),
                Cell(trial.verdict, trial.verdict),
                *(column.cell(row) for column in columns),
            ]
        )
    caption = (
        f"The finalists on new seeds and the test examples; {percent(level)} intervals, "
        f"which hold together at {percent(confirmation_confidence(1))}."
    )
    header = [("trial", ""), ("confirmed", ""), *((c.title, c.hint) for c in columns)]
    return Table(caption, header, rows)


def _compared(
    spec: SearchSpec, trial: TrialRecord, at: Comparison | None, q_value: float | None = None
) -> Compared | None:
    if at is None:
        return None
    return Compared(trial, at, at.deltas[spec.metric().name], q_value)


def _detectable(row: Compared) -> float | None:
    """Of arms that have learnt something; the others tell nothing, however alike they are."""
    return None if row.at.verdict == "not learnt" else row.delta.detectable


def _setting_cell(value: Scalar | None) -> Cell:
    if value is None:
        return Cell(None, "–")
    return Cell(value, f"{value:.4g}" if isinstance(value, float) else str(value))
