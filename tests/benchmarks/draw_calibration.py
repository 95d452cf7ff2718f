"""Draws what `calibration.py` found as the page's figures: power and coverage, as SVG.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/draw_calibration.py
        [--results docs/results/calibration.json]

The style is that of a report's figures; both are written beside the results.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from calibration import KINDS
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fstune.report.drawing import BAND, FAINT, GRID, PAPER, STYLE, VARIANT, WIDE_IN

WIDTHS = {1: 0.5, 2: 0.8, 3: 1.1, 5: 1.6, 8: 2.2}
"""Of the line for so many seeds."""


def lines(axes: Axes, rows: list[dict[str, Any]], by_seeds: list[int]) -> None:
    """A line for each number of seeds over the number of examples, named at its end."""
    for seeds in by_seeds:
        own = [row for row in rows if row["seeds"] == seeds]
        examples, share = ([row[key] for row in own] for key in ("examples", "share"))
        axes.plot(examples, share, "o-", ms=2.4, lw=WIDTHS[seeds], color=VARIANT)
        name = f" {seeds} seed{'s' if seeds > 1 else ''}"
        axes.annotate(name, (examples[-1], share[-1]), va="center", color=FAINT, fontsize=7)
    ticks = sorted({row["examples"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("examples")
    axes.grid(axis="y", color=GRID, lw=0.5)


def figure(titled: dict[str, list[dict[str, Any]]], seeds: list[int], power: bool) -> Figure:
    """One drawing beside another for each title."""
    canvas = Figure(figsize=(WIDE_IN, 2.8), layout="constrained")
    for axes, (title, rows) in zip(
        canvas.subplots(1, len(titled), sharey=True), titled.items(), strict=True
    ):
        if not power:
            axes.axhspan(0.93, 0.97, color=BAND, lw=0)
        lines(axes, rows, seeds)
        axes.set_title(title)
        axes.set_ylim(*((0, 1) if power else (0.8, 1)))
        axes.set_xlim(right=max(row["examples"] for row in rows) * 2.4)
    canvas.axes[0].set_ylabel("confirmed, at +2 points" if power else "intervals with the truth")
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("docs/results/calibration.json"))
    path = parser.parse_args().results
    found = json.loads(path.read_text())
    power = {
        title.removeprefix("one of two finalists, "): rows
        for title, rows in found["power"].items()
        if isinstance(rows, list)
    }
    wanted = {
        "calibration_power": (power, [2, 3, 5, 8], True),
        "calibration_coverage": (
            {title: found["coverage"][title] for title in KINDS},
            [1, 2, 3, 5, 8],
            False,
        ),
    }
    for name, (titled, seeds, is_power) in wanted.items():
        with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
            figure(titled, seeds, is_power).savefig(
                path.with_name(f"{name}.svg"), facecolor=PAPER, metadata={"Date": None}
            )


if __name__ == "__main__":
    main()
