"""Drawn pictures that show what an enlargement does: a zone plate, an edge, bars. All are (3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def zone_plate(size: int, *, highest: float = 0.5) -> Tensor:
    """Rings whose frequency grows from 0 in the centre to ``highest`` cycles a pixel in the middle of the sides.

    Each place shows one frequency and direction, so the picture is a map of what a method does to all of them.
    """
    place = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    square = place[:, None] ** 2 + place**2
    return (0.5 + 0.5 * torch.cos(2 * torch.pi * highest / size * square)).expand(3, -1, -1).clone()


def step_edge(size: int, *, dark: float = 0.2, bright: float = 0.8) -> Tensor:
    """Dark at the left, bright at the right."""
    image = torch.full((3, size, size), dark)
    image[..., size // 2 :] = bright
    return image


def bars(size: int, *, dark: float = 0.0, bright: float = 1.0) -> Tensor:
    """Bright upright bars on dark ground, 8 pixels wide at the left and narrower by one at each step to the right."""
    image = torch.full((3, size, size), dark)
    start = 4
    for width in (8, 7, 6, 5, 4, 3, 2, 1):
        image[:, 4:-4, start : min(start + width, size)] = bright
        start += 2 * width
    return image


def overshoot(image: Tensor, *, dark: float = 0.2, bright: float = 0.8) -> float:
    """How far an enlarged `step_edge` rises above the bright side, as a share of the step."""
    return (image.max().item() - bright) / (bright - dark)


def rise_distance(image: Tensor, *, dark: float = 0.2, bright: float = 0.8) -> float:
    """Pixels from a tenth to nine tenths of the step, along the middle row of an enlarged `step_edge`."""
    row = image[0, image.shape[1] // 2].double()
    low, high = dark + 0.1 * (bright - dark), dark + 0.9 * (bright - dark)

    def crossing(level: float) -> float:
        # The last place below the level and the one after it, from the dark side to the first place above.
        after = int((row > level).nonzero()[0])
        before = after - 1
        return before + float((level - row[before]) / (row[after] - row[before]))

    return crossing(high) - crossing(low)
