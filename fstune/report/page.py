"""A report as a page, as Markdown, and as files: `Summary` rendered, nothing decided.

The page is one file without any reference to the outside: style, script, figures and their numbers
are in it. Names, values and texts are not trusted: jinja2 escapes all of them, and the page's own
policy lets no script run but the one that is shipped with it.
"""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from fstune.files import write_atomic
from fstune.report.candidates import Cell, Table
from fstune.report.phrases import counted
from fstune.report.summary import Figure, Summary, summarise
from fstune.results.folder import SearchFolder
from fstune.specs.sections import SearchSpec

if TYPE_CHECKING:
    from markupsafe import Markup


DESCRIBED_ROWS = 10
"""Candidates in the description that MLflow shows: it keeps 8000 characters of it."""


LONG_TEXT = 24
"""Characters from which a cell is prose."""


@dataclass(frozen=True)
class Drawn:
    """A figure with its two drawings."""

    figure: Figure
    wide: "Markup"
    narrow: "Markup"


def page(summary: Summary) -> str:
    """The report as one HTML file."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_shipped), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "cell_attributes": _cell_attributes,
        "counted": counted,
        "csv_link": lambda sheet: _data_link("text/csv", sheet.csv()),
        "json_link": lambda text: _data_link("application/json", text),
    }
    # Line ends as browsers see them, since the policy admits the script by its hash.
    script = _shipped("report.js").replace("\r\n", "\n")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = [field.name for field in fields(summary)]
    values = {name: getattr(summary, name) for name in names}
    return environment.get_template("report.html").render(
        values
        | {
            "figures": _drawn(summary.figures),
            "curves": _drawn(summary.curves),
            "style": Markup(_shipped("report.css")),
            "script": Markup(script),
            "script_hash": f"sha256-{digest}",
        }
    )


def _shipped(name: str) -> str:
    folder = importlib.resources.files("fstune.report").joinpath("templates")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _drawn(figures: Sequence[Figure]) -> list[Drawn]:
    from markupsafe import Markup

    from fstune.report.figures import page_svg

    # matplotlib has escaped the texts in its SVG.
    return [
        Drawn(figure, Markup(page_svg(figure, False)), Markup(page_svg(figure, True)))
        for figure in figures
    ]


def _cell_attributes(cell: Cell) -> "Markup":
    """The value behind a cell, for sorting, and how it is set."""
    from markupsafe import Markup

    if cell.value is None:
        return Markup("")
    kind = Markup(' class="number"') if cell.is_number else Markup("")
    if len(cell.text) > LONG_TEXT:
        kind = Markup(' class="words"')
    return kind + Markup(' data-value="{}"').format(cell.value)


def _data_link(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def markdown(summary: Summary, most: int | None = None) -> str:
    """Head, answer and table as GitHub's Markdown, for an issue or a note.

    Args:
        summary: what to say.
        most: only so many candidates; all if None.
    """
    answer = summary.answer
    parts = [
        f"# {_plain(summary.name)}",
        _plain(summary.question),
        f"**{answer.headline}.** {_plain(answer.sentence)} {_plain(answer.confirmation)}".rstrip(),
        f"_{summary.state}._",
        "## What was asked\n\n" + _markdown_facts(summary.setting),
        "## What it cost\n\n" + _markdown_facts(summary.cost),
    ]
    if summary.confirmed is not None:
        parts.append("## Confirmation\n\n" + _markdown_table(summary.confirmed))
    parts += [
        *(f"## {note.title}\n\n{_plain(note.text)}" for note in summary.notes),
        "## All candidates\n\n" + _markdown_table(summary.results, most),
        f"## Do it again\n\nWith the resolved spec saved as `{summary.spec_file}`:\n\n"
        + "\n".join(f"    {line}" for line in summary.reproduce),
        _markdown_facts(summary.provenance),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_facts(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {_plain(what)}: {_plain(value)}" for what, value in facts)


def _markdown_table(table: Table, most: int | None = None) -> str:
    header = [_plain(title) for title, _ in table.header]
    shown = [[_plain(cell.text) for cell in row] for row in table.rows[:most]]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *shown)]
    left_out = len(table.rows) - len(shown)
    if left_out:
        lines += ["", f"{left_out} more are in report.html and report.csv."]
    return f"{_plain(table.caption)}\n\n" + "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text)
    return " ".join(escaped.split())


@dataclass(frozen=True)
class Written:
    """A report's files."""

    html: Path
    table: Path
    description: str
    """The report in Markdown, its table cut short."""


def write_page(records: SearchFolder, spec: SearchSpec) -> Written:
    """Keep page and table beside the records."""
    summary = summarise(records, spec)
    html, table = records.report_file("html"), records.report_file("csv")
    write_atomic(html, page(summary).encode())
    write_atomic(table, summary.results.sheet().csv().encode())
    return Written(html, table, markdown(summary, DESCRIBED_ROWS))


def write_figures(records: SearchFolder, spec: SearchSpec, folder: Path) -> list[Path]:
    """The page's figures as files; returns their paths."""
    from fstune.report.figures import write_files

    summary = summarise(records, spec)
    return write_files([*summary.figures, *summary.curves], folder)
