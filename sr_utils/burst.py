"""Bursts: several small frames of one scene, each from a slightly different place, made from a clean photograph.

Frame k of a camera that has moved by d_k = (down, across), in small pixels, sees ::

    y_k(m) = (g * x)(s m + (s - 1) / 2 + s d_k) + n

the scene x through the aperture g, sampled at every s-th place: its pixel m looks where pixel m + d_k of an unmoved
frame would. The aperture is the pixel's own square, ``s x s`` large pixels, all of whose light is gathered. It damps
what lies above the small image's limit but does not remove it, and sampling folds that down: aliasing, which ruins one
frame and is what several frames are solved for.

The photograph is larger than what is compared: a margin moves in and out of view, as it would before a real lens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.images import quantize


@dataclass(frozen=True)
class Burst:
    """Frames of one scene, and the truth that they were made from."""

    frames: Tensor
    """(K, 3, H, W)."""
    shifts: Tensor
    """(K, 2), down and across, in pixels of the frames; the first is zero."""
    truth: Tensor
    """(3, scale H, scale W), as the first frame sees it."""
    scale: int


def aperture_response(cycles: Tensor, scale: int) -> Tensor:
    """What a square pixel of ``scale`` large pixels does to frequencies along one axis, in cycles per large pixel."""
    offsets = torch.arange(scale, dtype=torch.float64) - (scale - 1) / 2
    return torch.cos(2 * torch.pi * cycles.double()[:, None] * offsets).mean(1)


def transfer(length: int, shifts: Tensor, scale: int) -> Tensor:
    """What moving, aperture and the small pixels' centres do to each frequency of one axis, (K, length), complex.

    Parameters
    ----------
    length: large pixels of the axis.
    shifts: (K,), in small pixels.
    """
    cycles = torch.fft.fftfreq(length, dtype=torch.float64)
    places = (scale - 1) / 2 + scale * shifts.double()
    phase = torch.exp(2j * torch.pi * places[:, None] * cycles)
    return phase * aperture_response(cycles, scale)


def see(scene: Tensor, shifts: Tensor, scale: int) -> Tensor:
    """Frames (K, 3, H, W) of a scene (3, scale H, scale W) that repeats beyond its borders, without noise."""
    down = transfer(scene.shape[-2], shifts[:, 0], scale)
    across = transfer(scene.shape[-1], shifts[:, 1], scale)
    spectrum = torch.fft.fft2(scene.double())
    frames = []
    for rows, columns in zip(down, across, strict=True):
        # Taking every s-th pixel folds the spectrum: those frequencies are averaged that become one.
        shown = (spectrum * rows[:, None] * columns).unflatten(-1, (scale, -1)).mean(-2)
        frames.append(torch.fft.ifft2(shown.unflatten(-2, (scale, -1)).mean(-3)).real)
    return torch.stack(frames).to(scene)


def random_shifts(frames: int, *, seed: int, reach: float = 1.5) -> Tensor:
    """Shifts of a trembling hand, (frames, 2): uniform within ``reach`` small pixels; the first frame is at zero."""
    generator = torch.Generator().manual_seed(seed)
    shifts = (2 * torch.rand(frames, 2, generator=generator) - 1) * reach
    shifts[0] = 0
    return shifts


def grid_shifts(scale: int) -> Tensor:
    """The scale² shifts whose samples interleave into the large image's own grid, (scale², 2): the easiest burst."""
    steps = torch.arange(scale, dtype=torch.float32) / scale
    return torch.cartesian_prod(steps, steps)


def simulate_burst(
    photograph: Tensor,
    shifts: Tensor,
    scale: int = 2,
    *,
    noise: float | Tensor = 0.0,
    seed: int = 0,
    margin: int = 16,
    moving: Sequence[int] | None = None,
    travel: float = 0.0,
) -> Burst:
    """A burst of a clean photograph (3, H, W), on 8-bit levels.

    Parameters
    ----------
    shifts: (K, 2), the first zero, each smaller than the margin.
    noise: deviation of white noise, in image units; one number, or one a pixel of the frames, (K, 1, H, W).
    margin: small pixels that are cut off at every side once the frames are made.
    moving: (top, left, height, width) in pixels of the truth: an object that moves on its own, across the picture.
    travel: small pixels that the object moves from frame to frame, besides what the camera does.

    Raises
    ------
    ValueError: the photograph is smaller than its margins.
    """
    sides = [side // (2 * scale) * 2 * scale for side in photograph.shape[-2:]]
    if min(sides) <= 2 * scale * margin:
        raise ValueError(f"A photograph of {tuple(photograph.shape)} has nothing inside margins of {margin * scale}.")
    scene = photograph[..., : sides[0], : sides[1]]
    # Mirrored, so that there is no jump where the scene repeats.
    mirrored = torch.cat((scene, scene.flip(-1)), -1)
    mirrored = torch.cat((mirrored, mirrored.flip(-2)), -2)
    frames = see(mirrored, shifts, scale)[..., : sides[0] // scale, : sides[1] // scale]
    if moving is not None:
        steps = travel * torch.arange(len(shifts), dtype=shifts.dtype)
        # An object that goes right is seen as by a camera that goes left.
        object_shifts = torch.stack((shifts[:, 0], shifts[:, 1] - steps), 1)
        objects = see(mirrored, object_shifts, scale)[..., : sides[0] // scale, : sides[1] // scale]
        top, left, height, width = (value // scale for value in moving)
        for frame, seen, step in zip(frames, objects, steps.tolist(), strict=True):
            start = margin + left + round(step)
            place = (..., slice(margin + top, margin + top + height), slice(start, start + width))
            frame[place] = seen[place]
    inside = slice(margin, -margin) if margin else slice(None)
    frames = frames[..., inside, inside]
    generator = torch.Generator().manual_seed(seed)
    frames = quantize(frames + noise * torch.randn(frames.shape, generator=generator))
    large = slice(scale * margin, -scale * margin) if margin else slice(None)
    return Burst(frames, shifts, scene[..., large, large], scale)
