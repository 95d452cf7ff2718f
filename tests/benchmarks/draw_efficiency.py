"""Draws what `search_efficiency.py` found as the page's figure: best named against steps, as SVG.

python tests/benchmarks/draw_efficiency.py [--results docs/results/search_efficiency.json]
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from fstune.report.drawing import BAND, BASELINE, FAINT, GRID, PAPER, STYLE, VARIANT, WIDE_IN

SHOWN = {
    "asha_promote + tpe": (VARIANT, "-", 1.6),
    "asha + random": (BASELINE, "-", 1.2),
    "serial": (BASELINE, "--", 1.2),
    "random": (FAINT, ":", 1.2),
    "grid": (FAINT, "-", 0.6),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("docs/results/search_efficiency.json"))
    path = parser.parse_args().results
    found = json.loads(path.read_text())
    with mpl.rc_context({**STYLE, "svg.hashsalt": "efficiency"}):
        canvas = Figure(figsize=(WIDE_IN, 3.0), layout="constrained")
        axes = canvas.subplots()
        axes.axhspan(0.9, 1.0, color=BAND, lw=0)
        for method, (colour, style, width) in SHOWN.items():
            _, median, _ = found["methods"][method]["curve_quartiles"]
            share = [value / found["best_gain"] for value in median]
            axes.plot(found["curve_steps"], share, style, lw=width, color=colour, label=method)
        axes.set_xlabel("optimiser steps spent, baselines' included")
        axes.set_ylabel("true gain of who is named best,\nof the table's best (median)")
        axes.grid(axis="y", color=GRID, lw=0.5)
        axes.legend(frameon=False, loc="lower right")
        canvas.savefig(path.with_suffix(".svg"), facecolor=PAPER, metadata={"Date": None})


if __name__ == "__main__":
    main()
