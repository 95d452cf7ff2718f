"""A report's figures as static SVG for the page, and as SVG, PNG and CSV files.

Every figure is drawn twice for the page, wide and narrow, so that its letters keep their size on a
phone. On the page colours become CSS variables, so that light and dark are one drawing.
"""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fstune.report.drawing import NARROW_IN, PAPER, ROLES, STYLE, WIDE_IN, draw_series
from fstune.report.summary import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def page_svg(figure: Figure, narrow: bool) -> str:
    """The figure as an SVG element for a page: colours are CSS variables, ids are its own."""
    svg = _svg(figure, NARROW_IN if narrow else WIDE_IN)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    prefix = f"{figure.slug}-{'n' if narrow else 'w'}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
    for colour, role in ROLES.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg


def write_files(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Every figure as SVG, PNG (200 dots per inch) and CSV; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures:
        stem = folder / figure.slug
        svg = stem.with_suffix(".svg")
        svg.write_text(_svg(figure, WIDE_IN, PAPER), encoding="utf-8")
        stem.with_suffix(".png").write_bytes(_png(figure))
        stem.with_suffix(".csv").write_text(figure.sheet().csv(), encoding="utf-8")
        paths += [svg, stem.with_suffix(".png"), stem.with_suffix(".csv")]
    return paths


def _svg(figure: Figure, width_in: float, paper: str = "none") -> str:
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    _draw(
        figure,
        width_in,
        lambda canvas: canvas.savefig(out, format="svg", metadata=nothing, facecolor=paper),
    )
    return out.getvalue()


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    _draw(
        figure, WIDE_IN, lambda canvas: canvas.savefig(out, format="png", dpi=200, facecolor=PAPER)
    )
    return out.getvalue()


def _draw(figure: Figure, width_in: float, save: "Callable[[Canvas], None]") -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({**STYLE, "svg.hashsalt": figure.slug}):
        canvas = Canvas(figsize=(width_in, 3.0), layout="constrained")
        draw_series(canvas, figure.series)
        save(canvas)
