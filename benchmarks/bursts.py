"""Several frames made one: how much it wins over bicubic of one frame, and where it breaks, for `benchmarks.classical`.

Scenes are cut from task 1's truths and seen by a burst (`sr_utils.burst`). Each kind of burst is a `Setting`; those
that form a series share ``data`` and differ in ``value``:

- ``burst``: four clean frames, shifts drawn at random; ``burst_noisy``: eight frames with noise.
- ``frames``: how many frames, with a little noise; ``clean_frames``: without; ``shift_error``: how wrong the shifts are
  that the methods are told, in pixels; ``noise``: its deviation.
- ``local_motion``: a square moves on its own; ``inside`` and ``outside`` are the scores there and elsewhere.
  ``back_projection`` leaves out what has moved there, ``back_projection_trusting`` does not.
- ``uneven_noise``: in every frame one half is far noisier than the other, now the left one, now the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.burst import Burst, random_shifts, simulate_burst
from sr_utils.images import imresize, quantize
from sr_utils.metrics import psnr
from sr_utils.multi_frame import (
    ROUNDING,
    agreement,
    back_project_frames,
    back_projection_frames_multiplications,
    shift_and_add,
    undo_aliasing,
    undo_aliasing_multiplications,
)
from sr_utils.registration import estimate_shifts

SCENE = 256
"""Side in pixels of the part of a truth that a burst is made of; margins are cut off later."""
OBJECT = (64, 64, 80, 80)
"""Top, left, height and width of what moves on its own, in pixels of the truth."""
TRAVEL = 0.7
"""Small pixels that it moves from frame to frame."""
MARGIN = 8
"""Small pixels that move in and out of view, and are cut off."""
QUIET, LOUD = 0.01, 0.1
"""Deviations of uneven noise."""
ITERATIONS = 12


@dataclass(frozen=True)
class Setting:
    """One kind of burst."""

    data: str
    value: float
    frames: int = 4
    noise: float = 0.0
    shift_error: float = 0.0
    moving: bool = False
    uneven: bool = False


SETTINGS = (
    Setting("burst", 0.0),
    Setting("burst_noisy", 0.03, frames=8, noise=0.03),
    *(Setting("frames", count, frames=count, noise=0.01) for count in (1, 2, 3, 4, 6, 8, 16)),
    *(Setting("clean_frames", count, frames=count) for count in (2, 3, 4)),
    *(Setting("shift_error", error, shift_error=error) for error in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    *(Setting("noise", noise, frames=8, noise=noise) for noise in (0.0, 0.01, 0.02, 0.05, 0.1)),
    Setting("local_motion", TRAVEL, moving=True),
    Setting("uneven_noise", LOUD, frames=8, uneven=True),
)


def make_burst(truth: Tensor, setting: Setting, *, seed: int) -> tuple[Burst, Tensor]:
    """A burst of the middle of a truth (3, H, W), and the noise's deviation at every small pixel, (K, 1, h, w)."""
    top, left = ((side - SCENE) // 2 for side in truth.shape[1:])
    scene = truth[:, top : top + SCENE, left : left + SCENE]
    shifts = random_shifts(setting.frames, seed=seed)
    # Of all frames, before margins are cut.
    deviation = torch.full((setting.frames, 1, SCENE // 2, SCENE // 2), setting.noise)
    if setting.uneven:
        deviation[:] = QUIET
        deviation[0::2, ..., : SCENE // 4] = LOUD
        deviation[1::2, ..., SCENE // 4 :] = LOUD
    inside = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    options = {"moving": OBJECT, "travel": TRAVEL} if setting.moving else {}
    burst = simulate_burst(scene, shifts, noise=deviation[inside], seed=seed, margin=MARGIN, **options)
    return burst, deviation[inside]


def restorers(burst: Burst, deviation: Tensor, setting: Setting, *, seed: int) -> dict[str, Callable[[], Tensor]]:
    """What each method makes of a burst; estimating the shifts is part of the methods that do."""
    frames, scale = burst.frames, burst.scale
    error = torch.randn(burst.shifts.shape, generator=torch.Generator().manual_seed(1000 + seed)) * setting.shift_error
    error[0] = 0
    told = burst.shifts + error
    # One number for all pixels is all that the frequency domain can use.
    noise = max(deviation.square().mean().sqrt().item(), ROUNDING)

    def undo(shifts: Tensor) -> Tensor:
        return undo_aliasing(frames, shifts, scale, noise=noise)

    def project(shifts: Tensor) -> Tensor:
        if setting.moving:
            weights = agreement(frames, shifts, scale)
            return back_project_frames(frames, shifts, scale, weights=weights, iterations=ITERATIONS)
        if setting.uneven:
            weights = (QUIET / deviation) ** 2
            return back_project_frames(frames, shifts, scale, weights=weights, noise=QUIET, iterations=ITERATIONS)
        return back_project_frames(frames, shifts, scale, noise=noise, iterations=ITERATIONS)

    methods = {
        "bicubic": lambda: imresize(frames[0], scale),
        "undo_aliasing": lambda: undo(told),
        "back_projection": lambda: project(told),
    }
    if setting.moving:
        methods["back_projection_trusting"] = lambda: back_project_frames(frames, told, scale, iterations=ITERATIONS)
    if setting.data.startswith(("burst", "frames")):
        methods |= {
            "shift_and_add": lambda: shift_and_add(frames, told, scale),
            "undo_aliasing_estimated": lambda: undo(estimate_shifts(frames)),
            "back_projection_estimated": lambda: project(estimate_shifts(frames)),
        }
    return methods


def multiplications(method: str, frames: int, height: int, width: int, scale: int) -> float:
    """Real multiplications per pixel of the enlarged RGB image, estimation of the shifts left out."""
    if method.startswith("undo_aliasing"):
        return undo_aliasing_multiplications(frames, height, width, scale)
    if method.startswith("back_projection"):
        return back_projection_frames_multiplications(frames, scale, ITERATIONS)
    bicubic = 12 * (1 + 1 / scale)
    return bicubic if method == "bicubic" else bicubic + 3 * 4 * frames / scale**2 + 3


def inside_and_outside(image: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR where the object is in the first frame or will be, and elsewhere."""
    top, left, height, width = OBJECT
    right = left + width + round(2 * TRAVEL * 3)
    error = (quantize(image) - truth).square().double()
    mask = torch.zeros(truth.shape[1:], dtype=torch.bool)
    mask[top : top + height, left:right] = True
    return {
        name: -10 * torch.log10(error[:, place].mean()).item() for name, place in (("inside", mask), ("outside", ~mask))
    }


def quick_score(image: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR alone."""
    return {"psnr": psnr(quantize(image)[None], truth[None], data_range=1.0).item()}
