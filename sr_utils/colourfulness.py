"""How colourful a set of photographs is, and photographs made as colourful as another set.

Without pairs, a set of duller scenes looks just like a camera that takes colour away. The gain shift takes up a
difference in contrast (`latent_noise.Population`), the same in brightness and in colour; a grey street among
photographs of flowers differs in colour only. Over blocks of many pixels a camera keeps colour whole, so there the
difference is the scenes', and the clean photographs can be given the colourfulness of the degraded ones beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.errors import UserError
from sr_utils.grain import LUMA

BLOCK = 16
"""Side in pixels of the blocks whose means are compared; noise, demosaicing and compression hardly touch these."""


def _luma(image: Tensor) -> Tensor:
    """Brightness (1, H, W) of an image (3, H, W)."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)


def colourfulness(images: Sequence[Tensor]) -> float:
    """Deviation of colour over that of brightness, both between block means inside images (3, H, W) in [0, 1].

    Raises
    ------
    UserError: an image is smaller than a block, or brightness varies nowhere.
    """
    colour = light = 0.0
    for image in images:
        if min(image.shape[1:]) < BLOCK:
            size = "x".join(str(side) for side in image.shape[1:])
            raise UserError(f"An image of {size} has no block of {BLOCK} pixels: give larger ones.")
        means = F.avg_pool2d(image, BLOCK)
        luma = _luma(means)
        light += luma.var(correction=0).item()
        colour += (means - luma).var((1, 2), correction=0).mean().item()
    # Means of equal values differ by rounding.
    if light < 1e-10:
        raise UserError("No image varies in brightness, so its colours have nothing to be compared with.")
    return (colour / light) ** 0.5


def as_colourful_as(images: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """What the colours of ``images`` must be multiplied by to be as colourful as ``others``; at most 1.

    Above 1 photographs would be pushed out of range, so they stay as they are.

    Raises
    ------
    UserError: as in `colourfulness`.
    """
    own = colourfulness(images)
    return min(1.0, colourfulness(others) / own) if own > 0 else 1.0


def with_colour(image: Tensor, factor: float) -> Tensor:
    """An image (3, H, W) whose colours are ``factor`` times as far from grey, from 0 to 1; its brightness stays."""
    return torch.lerp(_luma(image), image, factor)
