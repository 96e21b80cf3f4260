"""Pictures of classical enlargement: kernels and their frequency responses, edges, series, a burst to play with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sr_utils.burst import random_shifts, simulate_burst
from sr_utils.figure_style import INK, PALETTE, WIDTH, draw_image, draw_lines, new_figure, styled
from sr_utils.images import imresize, quantize
from sr_utils.metrics import psnr
from sr_utils.multi_frame import ROUNDING, undo_aliasing
from sr_utils.resampling import Kernel, enlarge, frequency_response


@styled
def kernel_responses(kernels: Sequence[Kernel], target: Tensor, *, scale: int = 4) -> Figure:
    """Each kernel's enlargement of a target, a quarter of it, above the kernel's frequency response."""
    title = "What a kernel does to frequencies, and how that looks"
    figure, axes = new_figure(2, len(kernels), title=title, height=WIDTH / len(kernels) + 3.2)
    cycles = torch.linspace(0, 2, 161)
    for index, kernel in enumerate(kernels):
        large = enlarge(target, scale, kernel)
        half = large.shape[-1] // 2
        draw_image(axes[0][index], large[:, half:, half:], kernel.name.replace("_", "\n"))
        axis = axes[1][index]
        axis.axvspan(0.5, 2, color=PALETTE[4], alpha=0.18, linewidth=0)
        axis.plot(cycles.tolist(), frequency_response(kernel, cycles).tolist(), color=PALETTE[0])
        axis.set(ylim=(-0.3, 1.15), xticks=[0, 0.5, 1, 2], xticklabels=["0", "½", "1", "2"])
        if index == 0:
            axis.set_ylabel("response")
        else:
            axis.set_yticklabels([])
    figure.supxlabel("cycles per small pixel; ideal is 1 up to ½ and 0 in the shaded part", fontsize=13)
    return figure


@styled
def edge_profiles(profiles: Mapping[str, Sequence[float]], *, title: str) -> Figure:
    """Values along a row across an enlarged edge, with the two sides ruled."""
    figure, axes = new_figure(1, 1, title=title, height=4.2)
    axis = axes[0][0]
    for level in (0.2, 0.8):
        axis.axhline(level, color=INK, linewidth=0.8, linestyle=":")
    draw_lines(axis, {name: (range(len(values)), values) for name, values in profiles.items()})
    axis.set(xlabel="pixel of the enlarged image", ylabel="value")
    axis.legend(loc="lower right")
    return figure


@styled
def series(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], *, title: str) -> Figure:
    """Curves in panels side by side, whose names are the labels of their x axes."""
    figure, axes = new_figure(1, len(panels), title=title, height=4.6)
    for axis, (label, curves) in zip(axes[0], panels.items(), strict=True):
        draw_lines(axis, curves, marker="o")
        axis.set_xlabel(label)
        if axis.get_legend():
            axis.get_legend().remove()
    axes[0][0].set_ylabel("PSNR, dB")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(panels))
    return figure


@styled
def labelled_crops(images: Mapping[str, Tensor], truth: Tensor, *, title: str, columns: int = 3) -> Figure:
    """Versions of one image under their names and PSNR; the truth comes last."""
    rows = -(-(len(images) + 1) // columns)
    height = rows * (WIDTH / columns * truth.shape[1] / truth.shape[2] + 0.55) + 0.6
    figure, axes = new_figure(rows, columns, title=title, height=height)
    places = [axis for row in axes for axis in row]
    for axis in places:
        axis.axis("off")
    for axis, (name, image) in zip(places, images.items(), strict=False):
        value = psnr(quantize(image)[None], truth[None], data_range=1.0).item()
        draw_image(axis, image, f"{name}\n{value:.2f} dB")
    draw_image(places[len(images)], truth, "truth\n")
    return figure


def burst_explorer(scene: Tensor, *, frames: int, shift_error: float, noise: float, seed: int = 0) -> Figure:
    """One frame by bicubic and a burst with its aliasing undone, of a scene (3, H, W), beside the truth.

    Parameters
    ----------
    shift_error: deviation of the error of the shifts that the method is told, in pixels of the frames.
    noise: deviation of the noise in every frame, in image units.
    """
    burst = simulate_burst(scene, random_shifts(frames, seed=seed), noise=noise, seed=seed, margin=8)
    error = shift_error * torch.randn(frames, 2, generator=torch.Generator().manual_seed(seed + 1))
    error[0] = 0
    restored = undo_aliasing(burst.frames, burst.shifts + error, noise=max(noise, ROUNDING))
    versions = {"bicubic of one frame": imresize(burst.frames[0], 2), f"aliasing undone, {frames} frames": restored}
    title = f"{frames} frames, shifts wrong by {shift_error:.2f} pixels, noise {255 * noise:.0f} of 255"
    return labelled_crops(versions, burst.truth, title=title)
