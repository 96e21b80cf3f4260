"""The course's figures and tables in one style: an opaque light card, dark text, colours all eyes tell apart.

Every function returns a matplotlib ``Figure`` of its own; `show` writes it beside the run's other figures and
displays it. Images are tensors (3, H, W) in [0, 1].
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F

from sr_utils.course import Course
from sr_utils.figure_style import (
    INK,
    PALETTE,
    WIDTH,
    Curve,
    draw_image,
    draw_lines,
    enlarge,
    line_styles,
    new_figure,
    picture_bytes,
    styled,
)
from sr_utils.files import atomic_path
from sr_utils.images import to_y
from sr_utils.metrics import psnr


def save_figure(figure: Figure, course: Course, name: str, *, trimmed: bool = False) -> None:
    """Write ``run_root/figures/<name>.png``; ``trimmed`` as of `picture_bytes`."""
    with atomic_path(course.run_root / "figures" / f"{name}.png") as temporary:
        temporary.write_bytes(picture_bytes(figure, "png", trimmed=trimmed))


def show(figure: Figure, course: Course, name: str, *, photographs: bool = False) -> None:
    """Save a figure and display it: photographs as JPEG, which keeps notebooks light, drawings as PNG."""
    save_figure(figure, course, name, trimmed=photographs)
    kind = "jpeg" if photographs else "png"
    display(Image(picture_bytes(figure, kind, trimmed=photographs), format=kind))


def show_picture(path: Path) -> None:
    """Display a file of photographs as JPEG, which keeps notebooks light."""
    stream = io.BytesIO()
    with PIL.Image.open(path) as picture:
        picture.convert("RGB").save(stream, "jpeg", quality=82)
    display(Image(stream.getvalue(), format="jpeg"))


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> Markdown:
    """A Markdown table; ``columns`` maps each key to its heading and format, as ``("PSNR", ".2f")``."""
    lines = ["| " + " | ".join(heading for heading, _ in columns.values()) + " |"]
    rules = (" --- " if form in ("", "s") else " ---: " for _, form in columns.values())
    lines.append("|" + "|".join(rules) + "|")
    for row in rows:
        cells = [format(row[key], form) if key in row else "" for key, (_, form) in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return Markdown("\n".join(lines))


@styled
def image_grid(images: Sequence[Tensor], *, title: str, labels: Sequence[str] = (), columns: int = 6) -> Figure:
    """Images side by side, row by row, each under its label."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    tallest = max(image.shape[1] / image.shape[2] for image in images)
    height = rows * (WIDTH / columns * min(tallest, 1.5) + (0.35 if labels else 0.05)) + 0.6
    figure, axes = new_figure(rows, columns, title=title, height=height)
    for index in range(rows * columns):
        axis = axes[index // columns][index % columns]
        axis.axis("off")
        if index < len(images):
            draw_image(axis, images[index], labels[index] if labels else "")
    return figure


def _psnr_label(name: str, image: Tensor, truth: Tensor) -> str:
    if image is truth:
        return name
    value = psnr(enlarge(image, truth.shape[1:])[None], truth[None], data_range=1.0).item()
    return f"{name}\n{value:.2f} dB"


@styled
def comparison_strip(scenes: Sequence[Mapping[str, Tensor]], *, title: str) -> Figure:
    """A row a scene, a column a version, each with its PSNR; a scene's last version is its ground truth."""
    columns = len(scenes[0])
    side = WIDTH / columns
    truths = [list(scene.values())[-1] for scene in scenes]
    height = sum(side * min(truth.shape[1] / truth.shape[2], 1.5) + 0.55 for truth in truths) + 0.6
    figure, axes = new_figure(len(scenes), columns, title=title, height=height)
    for row, scene, truth in zip(axes, scenes, truths, strict=True):
        for axis, (name, image) in zip(row, scene.items(), strict=True):
            draw_image(axis, enlarge(image, truth.shape[1:]), _psnr_label(name, image, truth))
    return figure


def busiest_window(image: Tensor, size: int) -> tuple[int, int]:
    """Top and left of the ``size`` x ``size`` window of (3, H, W) whose luma varies most, in steps of 4."""
    luma = to_y(image)[None]
    mean, square = (F.avg_pool2d(power, size, stride=4) for power in (luma, luma.square()))
    best = (square - mean.square())[0, 0]
    index = int(best.argmax())
    return 4 * (index // best.shape[1]), 4 * (index % best.shape[1])


@styled
def zoom_strip(scenes: Sequence[Mapping[str, Tensor]], *, title: str, size: int = 96) -> Figure:
    """As `comparison_strip`, enlarged: each scene's liveliest window, framed in the picture at the left."""
    columns = len(scenes[0]) + 1
    figure, axes = new_figure(len(scenes), columns, title=title, height=len(scenes) * (WIDTH / columns + 0.4) + 0.6)
    for row, scene in zip(axes, scenes, strict=True):
        truth = list(scene.values())[-1]
        window = min(size, *truth.shape[1:])
        top, left = busiest_window(truth, window)
        draw_image(row[0], truth, "where")
        row[0].add_patch(Rectangle((left, top), window, window, fill=False, edgecolor=PALETTE[4], linewidth=2.5))
        for axis, (name, image) in zip(row[1:], scene.items(), strict=True):
            whole = enlarge(image, truth.shape[1:])
            draw_image(axis, whole[:, top : top + window, left : left + window], name)
    return figure


@styled
def best_worst(
    best: Sequence[Mapping[str, Tensor]],
    worst: Sequence[Mapping[str, Tensor]],
    gains: tuple[Sequence[float], Sequence[float]],
    *,
    title: str,
    size: int = 128,
) -> Figure:
    """The best scenes above the worst: the liveliest window of each in every version, and its gain in dB."""
    versions = list(best[0])
    columns = max(len(best), len(worst))
    figure, axes = new_figure(2 * len(versions), columns, title=title, height=2 * len(versions) * WIDTH / columns + 1)
    for start, scenes, scene_gains in ((0, best, gains[0]), (len(versions), worst, gains[1])):
        for column in range(columns):
            for offset, version in enumerate(versions):
                axis = axes[start + offset][column]
                axis.axis("off")
                if column < len(scenes):
                    truth = list(scenes[column].values())[-1]
                    window = min(size, *truth.shape[1:])
                    top, left = busiest_window(truth, window)
                    whole = enlarge(scenes[column][version], truth.shape[1:])
                    gain = f"{scene_gains[column]:+.2f} dB\n" if offset == 0 else ""
                    draw_image(axis, whole[:, top : top + window, left : left + window], f"{gain}{version}")
    return figure


@styled
def loss_curves(panels: Mapping[str, Mapping[str, Curve]], *, title: str, ylabel: str) -> Figure:
    """Quantities over optimiser steps; one panel an entry of ``panels``, one line a curve in it."""
    figure, axes = new_figure(1, len(panels), title=title, height=4.2)
    for axis, (heading, curves) in zip(axes[0], panels.items(), strict=True):
        draw_lines(axis, curves, legend="upper left")
        axis.set(title=heading, xlabel="optimiser step")
        if len(curves) > 1:
            # Room for the legend above the curves, which may fill the whole panel.
            low, high = axis.get_ylim()
            axis.set_ylim(low, high + 0.3 * (high - low))
    axes[0][0].set_ylabel(ylabel)
    return figure


@styled
def line_plot(curves: Mapping[str, Curve], *, title: str, xlabel: str, ylabel: str, from_zero: bool = False) -> Figure:
    """Measured points, joined."""
    figure, axes = new_figure(1, 1, title=title, height=4.4)
    draw_lines(axes[0][0], curves, marker="o")
    axes[0][0].set(xlabel=xlabel, ylabel=ylabel)
    if from_zero:
        axes[0][0].set_ylim(bottom=0)
    return figure


@styled
def spectrum_plot(spectra: Mapping[str, Curve], *, title: str) -> Figure:
    """Radial power spectra of residuals, in squared 8-bit grey levels, on a logarithmic scale."""
    figure, axes = new_figure(1, 1, title=title, height=4.4)
    draw_lines(axes[0][0], {label: (x, torch.as_tensor(y) * 255**2) for label, (x, y) in spectra.items()}, marker="o")
    axes[0][0].set(xlabel="spatial frequency, cycles per pixel", ylabel="power, squared grey levels", yscale="log")
    return figure


@styled
def histogram_comparison(values: Mapping[str, Tensor], *, title: str, xlabel: str, bins: int = 61) -> Figure:
    """Outlines of several distributions on one axis, each of area one; the outermost 0.2 % are not drawn.

    Values are in grey levels. Those of 8-bit images are whole, so every bin holds the same number of whole ones.
    """
    figure, axes = new_figure(1, 1, title=title, height=4.2)
    flat = {label: value.flatten().float() for label, value in values.items()}
    reach = max(value.abs().sort().values[int(0.998 * (len(value) - 1))].item() for value in flat.values()) or 1.0
    width = math.ceil(2 * reach / bins)
    half = math.ceil(reach / width)
    edges = width * torch.arange(-half, half + 2) - 0.5
    for style, (label, value) in zip(line_styles(list(flat)), flat.items(), strict=True):
        density = torch.histogram(value, edges, density=True).hist
        axes[0][0].stairs(density, edges, label=label, linewidth=2.2, **style)
    axes[0][0].legend()
    axes[0][0].set(xlabel=xlabel, ylabel="density")
    return figure


def _heat_map(axis: Axes, matrix: Tensor, *, limit: float, heading: str) -> None:
    axis.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.grid(False)
    axis.set_title(heading)
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            colour = "white" if abs(value) > 0.6 * limit else INK
            axis.text(column, row, f"{value:z.2f}", ha="center", va="center", fontsize=11, color=colour)


@styled
def correlation_maps(maps: Mapping[str, Tensor], *, title: str) -> Figure:
    """How strongly a pixel's residual goes with each neighbour's; the pixel itself is the centre."""
    figure, axes = new_figure(1, len(maps), title=title, height=WIDTH / max(len(maps), 2) + 0.7)
    for axis, (label, matrix) in zip(axes[0], maps.items(), strict=True):
        _heat_map(axis, matrix, limit=1.0, heading=label)
        reach = len(matrix) // 2
        ticks = range(len(matrix))
        axis.set_xticks(ticks, [str(tick - reach) for tick in ticks])
        axis.set_yticks(ticks, [str(tick - reach) for tick in ticks])
        axis.set_xlabel("pixels to the right")
    axes[0][0].set_ylabel("pixels down")
    return figure


@styled
def covariance_picture(mean: Tensor, covariance: Tensor, *, title: str) -> Figure:
    """What a degradation adds to a latent: its mean, its covariance, and the eigenvalues of that."""
    figure, axes = new_figure(1, 3, title=title, height=4.2, width_ratios=(1, 1.3, 1))
    channels = range(len(mean))
    axes[0][0].bar(channels, mean.tolist(), color=PALETTE[0])
    axes[0][0].axhline(0, color=INK, linewidth=1)
    axes[0][0].set(title="mean", xlabel="latent channel", ylabel="latent units", xticks=list(channels))
    _heat_map(axes[0][1], covariance, limit=covariance.abs().max().item(), heading="covariance")
    axes[0][1].set(xlabel="latent channel", ylabel="latent channel")
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
    axes[0][2].bar(channels, eigenvalues.tolist(), color=PALETTE[1])
    axes[0][2].set(title="eigenvalues", xlabel="rank", ylabel="variance", xticks=list(channels))
    return figure


@styled
def image_beside_map(image: Tensor, values: Tensor, *, title: str, heading: str, neutral: float) -> Figure:
    """An image and a map (H, W) of something over it; colours part at ``neutral``, and a bar reads them."""
    figure, axes = new_figure(1, 2, title=title, height=WIDTH * image.shape[1] / image.shape[2] / 2 + 0.8)
    draw_image(axes[0][0], image, "input")
    reach = (values - neutral).abs().max().item() or 1.0
    drawn = axes[0][1].imshow(values.numpy(), cmap="RdBu_r", vmin=neutral - reach, vmax=neutral + reach)
    axes[0][1].set_title(heading)
    axes[0][1].axis("off")
    figure.colorbar(drawn, ax=axes[0][1], shrink=0.8)
    return figure


@styled
def interval_plot(groups: Mapping[str, Tensor], *, names: Sequence[str], title: str, xlabel: str) -> Figure:
    """95 % intervals and medians: a row a name, a colour a group of samples (resamples, names)."""
    figure, axes = new_figure(1, 1, title=title, height=1.6 + 0.7 * len(names))
    for index, (label, samples) in enumerate(groups.items()):
        low, middle, high = torch.quantile(samples, torch.tensor([0.025, 0.5, 0.975], dtype=samples.dtype), dim=0)
        places = (torch.arange(len(names)) + 0.25 * index).numpy()
        reach = torch.stack([middle - low, high - middle]).numpy()
        axes[0][0].errorbar(middle.numpy(), places, xerr=reach, fmt="o", capsize=5, label=label)
    axes[0][0].axvline(0, color=INK, linewidth=1)
    axes[0][0].set_yticks(list(range(len(names))), names)
    axes[0][0].invert_yaxis()
    axes[0][0].set_xlabel(xlabel)
    axes[0][0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def gain_scatter(baseline: Sequence[float], gain: Sequence[float], *, title: str, xlabel: str, ylabel: str) -> Figure:
    """One point an image: the gain over the baseline's score; the line at zero divides better from worse."""
    figure, axes = new_figure(1, 1, title=title, height=4.4)
    axes[0][0].axhline(0, color=INK, linewidth=1.5)
    axes[0][0].scatter(baseline, gain, color=PALETTE[0], alpha=0.75, s=36)
    axes[0][0].set(xlabel=xlabel, ylabel=ylabel)
    return figure
