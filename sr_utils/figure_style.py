"""The house style of the course's figures: an opaque light card, dark text, colours all eyes tell apart.

Drawing modules put `styled` on every function that draws and begin with `new_figure`; `report` and `widgets` show
the result.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from torch import Tensor
from torch.nn import functional as F

Curve = tuple[Sequence[float] | Tensor, Sequence[float] | Tensor]

INK, CARD, RULE = "#1f2328", "#fbfaf7", "#d5d2ca"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which people with any common colour vision tell apart."""
LINES = ("-", "--", "-.", ":")
STANDING = {
    "real": 0, "real inputs": 0, "real input": 0, "generated": 1, "deflow": 1, "deflow_sensor": 2,
    "white Gaussian": 3, "white noise": 3, "white_noise": 3, "clean + white": 3, "noise_patches": 4, "clean": 5,
}  # fmt: skip
"""Places in the palette of what many figures show, so that it has one colour in all of them."""

WIDTH = 10.0
"""Inches of every figure; at the resolution below it fills a notebook's column."""

# Sizes are large for the figure: it is still legible at half its width.
STYLE = {
    "figure.facecolor": CARD,
    "figure.dpi": 96,
    "savefig.facecolor": CARD,
    "savefig.dpi": 96,
    "figure.titlesize": 16,
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "axes.facecolor": CARD,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "lines.linewidth": 2.2,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 12,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function in the course's style, whatever the reader's own settings are."""

    @functools.wraps(draw)
    def wrapped(*arguments, **options) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return wrapped


def picture_bytes(figure: Figure, kind: Literal["png", "jpeg"], *, trimmed: bool = False) -> bytes:
    """A figure as the content of a file, in the course's style; ``trimmed`` is without empty bands above and below."""
    options: dict[str, Any] = {"pil_kwargs": {"quality": 82}} if kind == "jpeg" else {}
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        if trimmed:
            figure.draw_without_rendering()
            drawn = figure.get_tightbbox()
            options["bbox_inches"] = Bbox.from_extents(0, drawn.y0 - 0.08, figure.get_figwidth(), drawn.y1 + 0.08)
        figure.savefig(stream, format=kind, **options)
    return stream.getvalue()


def new_figure(
    rows: int, columns: int, *, title: str, height: float, width_ratios: Sequence[float] | None = None
) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure of ``height`` inches with a grid of axes and a heading."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=width_ratios)
    return figure, [list(row) for row in axes]


def draw_image(axis: Axes, image: Tensor, label: str = "") -> None:
    """An image (3, H, W) in [0, 1] without ticks, under its label."""
    axis.imshow(image.detach().clamp(0, 1).permute(1, 2, 0).numpy())
    axis.set_title(label)
    axis.axis("off")


def enlarge(image: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat pixels until an image is as large as ``size``, so that its own grain stays visible."""
    return F.interpolate(image[None], size=tuple(size), mode="nearest")[0]


def line_styles(labels: Sequence[str]) -> list[dict[str, str]]:
    """Colour and dash of each label's line: those of its place in `STANDING`, or of the first place that is left."""
    own = {STANDING[label] for label in labels if label in STANDING}
    left = iter([place for place in range(len(PALETTE)) if place not in own] + list(range(len(labels))))
    places = [STANDING[label] if label in STANDING else next(left) for label in labels]
    return [{"color": PALETTE[place % len(PALETTE)], "linestyle": LINES[place % len(LINES)]} for place in places]


def draw_lines(axis: Axes, curves: Mapping[str, Curve], *, marker: str = "", legend: str = "best") -> None:
    """Curves that differ in colour and dash, with a legend at a place of matplotlib's if there is more than one."""
    for style, (label, (x, y)) in zip(line_styles(list(curves)), curves.items(), strict=True):
        # A single point has no line to be seen.
        mark = marker or ("o" if len(x) == 1 else "")
        axis.plot(list(map(float, x)), list(map(float, y)), marker=mark, label=label, **style)
    if len(curves) > 1:
        axis.legend(loc=legend)
