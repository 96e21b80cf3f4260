"""Pictures of results: distortion against perception, and shares of what could be won."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sr_utils.figure_style import CARD, INK, PALETTE, WIDTH, new_figure, styled

Point = tuple[float, float]


def label_points(axis: Axes, points: Mapping[str, Point], *, size: float = 12) -> None:
    """Names beside the points; a name that would lie on another one moves down."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    line = abs(high - low) * 0.05
    taken: list[tuple[float, float, float]] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: (item[1][1], item[1][0])):
        width = abs(right - left) * (0.0011 * size * len(name) + 0.02)
        begins = x + abs(right - left) * 0.015
        if begins + width > max(left, right):
            begins = x - width
        while any(abs(y - other) < line and begins < end and begins + width > start for start, end, other in taken):
            y += line / 4
        taken.append((begins, begins + width, y))
        axis.text(begins, y, name, va="center", fontsize=size)


@styled
def trade_off(
    points: Mapping[str, Point],
    *,
    title: str,
    spreads: Mapping[str, Point] | None = None,
    highlighted: Sequence[str] = (),
    joined: bool = True,
) -> Figure:
    """Each method's PSNR against its LPIPS, which points up where it is better; the best corner is the upper right.

    Parameters
    ----------
    points: (PSNR in dB, LPIPS) by name.
    spreads: deviations over seeds of both, by name, drawn as bars.
    joined: whether the points are stations of one line, each with its name beside it; otherwise they are numbered,
        from left to right.
    """
    figure, axes = new_figure(1, 1, title=title, height=WIDTH * 0.58)
    if not joined:
        points = dict(sorted(points.items(), key=lambda item: item[1]))
    axis, names = axes[0][0], list(points)
    if joined:
        axis.plot(*zip(*points.values(), strict=True), color=PALETTE[0], zorder=1)
    for name in names:
        x, y = points[name]
        colour = PALETTE[1] if name in highlighted else PALETTE[0]
        if spreads and name in spreads:
            axis.errorbar(x, y, xerr=spreads[name][0], yerr=spreads[name][1], color=colour, capsize=4, zorder=2)
        axis.scatter([x], [y], color=colour, s=64, zorder=4 if name in highlighted else 3)
    axis.margins(0.12, 0.08)
    axis.invert_yaxis()
    if joined:
        label_points(axis, points)
    else:
        places = list(points.values())
        for group in near_together(places, share=0.04):
            # To the upper left, which few others are near: better in one score is mostly better in both.
            place = min(places[index] for index in group)
            axis.annotate(_ranges(group), place, (-6, 5), textcoords="offset points", fontsize=12, ha="right")
        figure.supxlabel(_numbered(names), fontsize=11)
    axis.set(xlabel="PSNR, dB (right is better)", ylabel="LPIPS (up is better)")
    return figure


def _numbered(names: Sequence[str], columns: int = 4) -> str:
    """The names with their numbers, so many in a line."""
    numbered = [f"{index + 1} {name}" for index, name in enumerate(names)]
    return "\n".join("    ".join(numbered[begin : begin + columns]) for begin in range(0, len(names), columns))


def on_front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other one beats: lower is better in every coordinate, and better in one is enough to beat."""
    return [
        not any(
            all(theirs <= ours for theirs, ours in zip(other, point, strict=True)) and tuple(other) != tuple(point)
            for other in points
        )
        for point in points
    ]


def near_together(points: Sequence[tuple[float, float]], *, share: float = 0.07) -> list[list[int]]:
    """Indices of points in groups, each within ``share`` of the plane's width and height of another of its group."""
    spans = [max(values) - min(values) or 1.0 for values in zip(*points, strict=True)]

    def near(one: int, other: int) -> bool:
        return all(abs(points[one][axis] - points[other][axis]) < share * spans[axis] for axis in (0, 1))

    groups: list[list[int]] = []
    for index in range(len(points)):
        joined = [group for group in groups if any(near(index, other) for other in group)]
        groups = [group for group in groups if group not in joined] + [sorted([index, *sum(joined, [])])]
    return sorted(groups)


def _ranges(group: Sequence[int]) -> str:
    """Numbers of methods, counted from 1, with a dash between the ends of three or more in a row."""
    runs: list[list[int]] = []
    for index in group:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    texts = (f"{run[0] + 1}–{run[-1] + 1}" if len(run) > 2 else ", ".join(str(i + 1) for i in run) for run in runs)
    return ", ".join(texts)


@styled
def cost_planes(rows: Sequence[Mapping[str, Any]], *, title: str) -> Figure:
    """PSNR and LPIPS of each method against its multiplications a pixel; better is up and to the left.

    Methods that no other one beats in all three are filled; steps join those that none beats in the panel's two. They
    are numbered from left to right.

    Parameters
    ----------
    rows: of a results file, with ``method``, ``psnr``, ``lpips`` and ``multiplications_per_pixel``.
    """
    figure, axes = new_figure(1, 2, title=title, height=WIDTH * 0.56)
    rows = sorted(rows, key=lambda row: row["multiplications_per_pixel"])
    costs = [row["multiplications_per_pixel"] for row in rows]
    best = on_front([(cost, -row["psnr"], row["lpips"]) for cost, row in zip(costs, rows, strict=True)])
    for axis, key, sign, label in zip(axes[0], ("psnr", "lpips"), (-1, 1), ("PSNR, dB", "LPIPS"), strict=True):
        front = on_front([(cost, sign * row[key]) for cost, row in zip(costs, rows, strict=True)])
        steps = sorted((cost, row[key]) for cost, row, there in zip(costs, rows, front, strict=True) if there)
        axis.step(*zip(*steps, strict=True), where="post", color=PALETTE[4], zorder=1)
        for index, (cost, row) in enumerate(zip(costs, rows, strict=True)):
            colour = PALETTE[0] if best[index] else CARD
            axis.scatter([cost], [row[key]], color=colour, edgecolor=PALETTE[0], s=64, linewidth=2, zorder=3)
        for group in near_together([(math.log(cost), row[key]) for cost, row in zip(costs, rows, strict=True)]):
            highest = min(group, key=lambda index, key=key, sign=sign: sign * rows[index][key])
            place = (costs[highest], rows[highest][key])
            # Above several, whose label is long, and to the left: the dearest have the figure's edge to their right.
            align, offset = ("right", (8, 9)) if len(group) > 1 else ("left", (6, 5))
            axis.annotate(_ranges(group), place, offset, textcoords="offset points", ha=align, fontsize=12)
        axis.set(xscale="log", xlabel="multiplications per pixel", ylabel=f"{label} (up is better)")
        axis.margins(0.12)
    axes[0][1].invert_yaxis()
    figure.supxlabel(_numbered([row["method"] for row in rows]), fontsize=11)
    return figure


@styled
def share_bars(
    shares: Mapping[str, Mapping[str, float]], *, title: str, xlabel: str, goal: float | None = None
) -> Figure:
    """Bars of shares: a group a name, a colour a measure; 0 and 1 are ruled, and ``goal`` where there is one."""
    measures = list(next(iter(shares.values())))
    figure, axes = new_figure(1, 1, title=title, height=1.6 + 0.8 * len(shares))
    axis = axes[0][0]
    for index, measure in enumerate(measures):
        places = [row + 0.26 * (index - (len(measures) - 1) / 2) for row in range(len(shares))]
        values = [share[measure] for share in shares.values()]
        axis.barh(places, values, height=0.24, color=PALETTE[index], label=measure)
    for place in (0.0, 1.0):
        axis.axvline(place, color=INK, linewidth=1)
    if goal is not None:
        axis.axvline(goal, color=PALETTE[3], linestyle="--", label=f"goal, {goal:g}")
    axis.set_yticks(range(len(shares)), list(shares))
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
