"""How a report's figures are drawn with matplotlib, and what they look like.

Colours are Okabe and Ito's (jfly.uni-koeln.de/color, 2008), which stay apart for readers who are
colour-blind.
"""

import math
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fstune.report.groups import GroupDeltas
from fstune.report.importance import Importance
from fstune.report.phrases import short
from fstune.report.series import Curve, Forest, ForestRow, LayerProfile, SearchPath, Slices
from fstune.report.summary import Series
from fstune.specs.settings import Scalar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


WIDE_IN, NARROW_IN = 7.2, 3.7
"""Widths in inches of 72 points; the page shows a point as 1.2 pixels or so."""


PAPER, INK, FAINT, GRID, BAND = "#fffffe", "#1b1b1a", "#6b6b69", "#d9d9d6", "#ececea"


VARIANT, BASELINE = "#0072b2", "#d55e00"


VARIANT_PALE = "#cfe3ef"


ROLES = {
    PAPER: "paper",
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    BAND: "band",
    VARIANT: "variant",
    BASELINE: "baseline",
    VARIANT_PALE: "variant-pale",
}
"""Each colour drawn, and the CSS variable that it becomes; every one is used for nothing else."""


STYLE: dict[Any, Any] = {  # matplotlib types its keys as 400 literals
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.unicode_minus": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def draw_series(canvas: "Canvas", series: Series) -> None:
    """Draw a figure's numbers on an empty canvas, whose height they decide."""
    _DRAW[type(series)](canvas, series)


def _draw_forest(canvas: "Canvas", forest: Forest) -> None:
    """One line a candidate, grouped by where they were compared, best first."""
    wide = canvas.get_figwidth() > NARROW_IN
    groups = [(name, list(rows)) for name, rows in groupby(forest.rows, lambda row: row.group)]
    lines = len(forest.rows) + len(groups)
    canvas.set_figheight(0.8 + 0.2 * lines)
    axes = canvas.add_subplot()
    _zero_and_margin(axes, forest.margin, vertical=True)
    y, ticks, names = 0, [], []
    placed: list[tuple[int, ForestRow]] = []
    for name, rows in groups:
        if wide:
            ticks.append(y)
            names.append(name)
        else:
            axes.annotate(name, (0, y), **_OVER_LINES)
        y += 1
        for row in rows:
            placed.append((y, row))
            ticks.append(y)
            names.append(_shortened(row.label, 52) if wide else str(row.number))
            y += 1
    # All marks of a kind at once: one by one, those of some hundred candidates are megabytes.
    ends = _strokes((y, row.low, row.high) for y, row in placed)
    axes.plot(*reversed(ends), color=VARIANT, lw=1.4, solid_capstyle="butt")
    dots = [(delta, y) for y, row in placed for delta in row.by_seed]
    axes.plot(*_columns(dots), "o", ms=2.4, color=INK, mew=0, zorder=4)
    for stopped, face in ((True, PAPER), (False, VARIANT)):
        means = [(row.mean, y) for y, row in placed if row.stopped == stopped]
        axes.plot(*_columns(means), "D", ms=5, mfc=face, mec=VARIANT, mew=1.2, zorder=3)
    _name_rows(axes, ticks, names, dict(groups))
    axes.set_ylim(y - 0.4, -0.6)
    axes.set_xlabel(_delta_label(forest.metric, forest.higher_is_better))


def _draw_groups(canvas: "Canvas", found: GroupDeltas) -> None:
    """One line a group of examples, under the measure that tells it."""
    measures = [(name, list(rows)) for name, rows in groupby(found.rows, lambda row: row.measure)]
    canvas.set_figheight(0.8 + 0.2 * (len(found.rows) + len(measures)))
    axes = canvas.add_subplot()
    _zero_and_margin(axes, found.margin, vertical=True)
    y, ticks, names = 0, [], []
    for name, rows in measures:
        ticks.append(y)
        names.append(name)
        y += 1
        for row in rows:
            ends, seeds = [row.delta.low, row.delta.high], row.by_seed
            axes.plot(ends, [y, y], color=VARIANT, lw=1.4, solid_capstyle="butt")
            axes.plot(seeds, [y] * len(seeds), "o", ms=2.4, color=INK, mew=0, zorder=4)
            axes.plot([row.delta.mean], [y], "D", ms=5, color=VARIANT, mew=1.2, zorder=3)
            ticks.append(y)
            names.append(f"{row.label} (n = {row.examples})")
            y += 1
    _name_rows(axes, ticks, names, dict(measures))
    axes.set_ylim(y - 0.4, -0.6)
    # To the right: beside long labels on a phone there is no room about the axis's middle.
    axes.set_xlabel(_delta_label(found.metric, found.higher_is_better), loc="right")


def _name_rows(
    axes: "Axes", ticks: Sequence[int], names: Sequence[str], headings: Container[str]
) -> None:
    """Names to the left of their rows, headings fainter than what stands under them."""
    axes.set_yticks(ticks, names)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        if name in headings:
            tick.set_color(FAINT)
    axes.tick_params(axis="y", length=0)


_OVER_LINES: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "xytext": (3, 0),
    "textcoords": "offset points",
    "color": FAINT,
    "va": "center",
    "fontsize": 8,
    "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1},
}
"""A heading inside the axes, readable over what is drawn there."""


def _draw_curve(canvas: "Canvas", curve: Curve) -> None:
    """Baseline and variant above, their difference below, over the same steps."""
    canvas.set_figheight(4.2)
    above, below = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps = [at.steps for at in curve.steps]
    for name, colour, marker, values in (
        ("baseline", BASELINE, "s", [at.baseline for at in curve.steps]),
        ("variant", VARIANT, "o", [at.variant for at in curve.steps]),
    ):
        above.plot(steps, values, color=colour, lw=1.6, marker=marker, ms=3.5, label=name)
    above.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.06), borderpad=0)
    above.set_ylabel(_with_unit(curve.metric))
    _zero_and_margin(below, curve.margin, vertical=False)
    # The mean of equal deltas and a bootstrap's bounds of it may differ by their rounding.
    to_low = [max(0.0, at.mean - at.low) for at in curve.steps]
    to_high = [max(0.0, at.high - at.mean) for at in curve.steps]
    below.errorbar(
        steps,
        [at.mean for at in curve.steps],
        [to_low, to_high],
        color=VARIANT,
        lw=1.2,
        elinewidth=1.2,
        marker="D",
        ms=3.5,
    )
    below.set_ylabel("Δ")
    below.set_xlabel("optimiser steps")
    below.set_xlim(0, curve.rungs[-1][0] * 1.04)
    for at, seeds in curve.rungs:
        for axes in (above, below):
            axes.axvline(at, color=GRID, lw=0.8, ls=(0, (3, 2)), zorder=0)
        above.annotate(
            f"×{seeds}",
            (at, 1),
            (0, 2),
            ("data", "axes fraction"),
            "offset points",
            color=FAINT,
            ha="center",
            va="bottom",
            fontsize=8,
        )


def _draw_path(canvas: "Canvas", path: SearchPath) -> None:
    """A stair per rung; the last rung's is the one that counts."""
    canvas.set_figheight(2.9)
    axes = canvas.add_subplot()
    axes.axhline(0, color=FAINT, lw=0.8, zorder=0)
    end = max(point.spent_steps for point in path.points)
    names = []
    for rung, (steps, seeds) in enumerate(path.rungs):
        points = [point for point in path.points if point.rung == rung]
        if not points:
            continue
        last = rung == len(path.rungs) - 1
        colour, width = (VARIANT, 2.0) if last else (FAINT, 1.0)
        x, best = [at.spent_steps for at in points], [at.best for at in points]
        y = [at.objective for at in points]
        axes.plot(x, y, "o", ms=3.5, color=colour, mew=0, clip_on=False)
        axes.step([*x, end], [*best, best[-1]], where="post", color=colour, lw=width)
        names.append((best[-1], f"{steps} × {seeds}", colour))
    axes.set_xlim(0, end)
    _name_ends(axes, end, names)
    axes.set_xlabel("optimiser steps of all arms")
    axes.set_ylabel(f"objective, Δ {_with_unit(path.metric)}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _name_ends(axes: "Axes", x: float, names: Sequence[tuple[float, str, str]]) -> None:
    """Name lines at their right ends, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    apart = (high - low) / 18
    place = -math.inf
    for y, name, colour in sorted(names):
        place = max(y, place + apart)
        axes.annotate(
            name,
            (x, place),
            xytext=(7, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=8,
            annotation_clip=False,
        )


def _draw_slices(canvas: "Canvas", slices: Slices) -> None:
    """A panel per setting; values that are no numbers stand side by side."""
    most_columns = 2 if len(slices.paths) in (2, 4) else 3
    columns = most_columns if canvas.get_figwidth() > NARROW_IN else 1
    rows = math.ceil(len(slices.paths) / columns)
    canvas.set_figheight(2.1 * rows + 0.2)
    panels = canvas.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in panels[len(slices.paths) :]:
        axes.set_visible(False)
    most = max(point.rungs for point in slices.points)
    for axes, path in zip(panels, slices.paths, strict=False):
        points = [point for point in slices.points if path in point.candidate]
        x = _places(axes, [point.candidate[path] for point in points], path in slices.log_scaled)
        _zero_and_margin(axes, slices.margin, vertical=False)
        ends = [(at, point.low, point.high) for at, point in zip(x, points, strict=True)]
        axes.plot(*_strokes(ends), color=VARIANT, lw=0.8, zorder=2)
        for face in (PAPER, VARIANT_PALE, VARIANT):
            means = [
                (place, point.mean)
                for place, point in zip(x, points, strict=True)
                if face == _face(point.rungs, most)
            ]
            axes.plot(*_columns(means), "o", ms=4.5, mfc=face, mec=VARIANT, mew=1, zorder=3)
        axes.set_xlabel(short(path, slices.paths))
    for axes in panels[::columns]:
        axes.set_ylabel(f"Δ {_with_unit(slices.metric)}")


def _face(rungs: int, most: int) -> str:
    """What a candidate that climbed so many rungs is filled with."""
    return VARIANT if rungs == most else VARIANT_PALE if rungs > 1 else PAPER


def _strokes(ends: Iterable[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    """Where each of many intervals is and between what, as one line with gaps."""
    points = [part for at, low, high in ends for part in ((at, low), (at, high), (at, math.nan))]
    return _columns(points)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _places(axes: "Axes", values: Sequence[Scalar], log_scaled: bool) -> list[float]:
    """Where values stand on an axis: numbers where they are, anything else one beside the other.

    Those that share a place are moved apart a little, in the order of the candidates.
    """
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if log_scaled:
            axes.set_xscale("log")
        axes.margins(x=0.12)
        return [float(value) for value in values]
    known = sorted(set(values), key=lambda value: (str(type(value)), value))
    axes.set_xticks(range(len(known)), [_shortened(str(value), 12) for value in known])
    axes.set_xlim(-0.6, len(known) - 0.4)
    seen: dict[Scalar, int] = {}
    places = []
    for value in values:
        count = seen[value] = seen.get(value, -1) + 1
        share = values.count(value)
        places.append(known.index(value) + 0.5 * (count - (share - 1) / 2) / max(share, 4))
    return places


def _draw_importance(canvas: "Canvas", importance: Importance) -> None:
    canvas.set_figheight(0.8 + 0.24 * len(importance.shares))
    axes = canvas.add_subplot()
    for y, share in enumerate(importance.shares):
        axes.plot([share.low, share.high], [y, y], color=VARIANT, lw=1.4, solid_capstyle="butt")
        axes.plot([share.mean], [y], "D", ms=5, color=VARIANT)
    paths = [share.path for share in importance.shares]
    axes.set_yticks(range(len(paths)), [short(path, paths) for path in paths])
    axes.set_ylim(len(importance.shares) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of importance")


def _draw_profile(canvas: "Canvas", profile: LayerProfile) -> None:
    canvas.set_figheight(2.2)
    axes = canvas.add_subplot()
    for at in profile.layers:
        axes.plot([at.layer] * len(at.after), at.after, "o", ms=3.5, color=VARIANT, mew=0)
    layers = [at.layer for at in profile.layers]
    before = [at.before for at in profile.layers]
    axes.plot(layers, before, "D", ms=5, mfc=PAPER, mec=VARIANT, mew=1.2)
    axes.set_xlim(-0.5, profile.num_layers - 0.5)
    axes.set_ylim(0, max(1.0, *before) * 1.05)
    axes.set_xticks(range(0, profile.num_layers, max(1, profile.num_layers // 12)))
    axes.set_xlabel("layer (from 0)")
    axes.set_ylabel(profile.quantity)


def _zero_and_margin(axes: "Axes", margin: float, vertical: bool) -> None:
    span, line = (axes.axvspan, axes.axvline) if vertical else (axes.axhspan, axes.axhline)
    span(-margin, margin, color=BAND, lw=0, zorder=0)
    line(0, color=FAINT, lw=0.8, zorder=1)


def _delta_label(metric: str, higher_is_better: bool) -> str:
    better = "right is better" if higher_is_better else "left is better"
    return f"Δ {_with_unit(metric)}; {better}"


def _with_unit(metric: str) -> str:
    return f"{metric} (nats per token)" if metric == "nll" else metric


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


_DRAW: dict[type, Callable[[Any, Any], None]] = {
    Forest: _draw_forest,
    Curve: _draw_curve,
    SearchPath: _draw_path,
    Slices: _draw_slices,
    Importance: _draw_importance,
    LayerProfile: _draw_profile,
    GroupDeltas: _draw_groups,
}
