"""Take coloured noise out of a photograph with no training: threshold the cosine spectra of overlapping blocks.

A block of 8x8 pixels of a photograph has few large coefficients, and noise has its power in all of them. In each block
a coefficient y(f) is kept if it stands out of the noise, and set to zero otherwise::

    x(f) = y(f) if |y(f)| > t s(f), else 0

with s²(f) the power of the noise at the frequency f, read off the flattest patches of the very same image, so that
grain of any coarseness is met where it has its power. Every pixel lies in many blocks, and the average of what they say
of it, weighted with the inverse of how many coefficients each has kept, leaves no seams. Red, green and blue are first
turned into brightness and two colour differences, which noise and photographs share less.

References
----------
Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994 (the threshold).
Yaroslavsky, Egiazarian and Astola, "Transform domain image restoration methods: review, comparison and
interpretation", Nonlinear Image Processing, SPIE 2001 (sliding cosine transforms).
Guleryuz, "Weighted averaging for denoising with overcomplete dictionaries", IEEE Transactions on Image Processing,
2007 (the weights).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.compression import BLOCK, cosine_basis
from sr_utils.errors import UserError
from sr_utils.fidelity import flat_patches, flat_places

THRESHOLD = 2.8
"""In deviations of the noise. White noise exceeds it once in 200 times; higher loses texture."""
STEP = 2
"""Pixels from one block to the next. 1 gains a tenth of a decibel and takes four times as long."""

COLOURS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
COLOURS = COLOURS / COLOURS.norm(dim=1, keepdim=True)
"""Orthonormal: brightness, red against blue, green against both."""


def _kernels() -> Tensor:
    """The 64 products of two cosines, as convolution kernels (64, 1, 8, 8)."""
    basis = cosine_basis().float()
    return torch.einsum("ai,bj->abij", basis, basis).reshape(BLOCK**2, 1, BLOCK, BLOCK)


def _spectra(images: Tensor, step: int) -> Tensor:
    """Coefficients of all blocks of images (N, 3, H, W) in the three colour directions: (N, 3, 64, rows, columns)."""
    turned = torch.einsum("ij,njhw->nihw", COLOURS, images)
    spectra = F.conv2d(turned.flatten(0, 1)[:, None], _kernels(), stride=step)
    return spectra.unflatten(0, turned.shape[:2])


def noise_powers(images: list[Tensor], *, share: float = 0.05) -> Tensor:
    """Power of the noise of images (3, H, W) in [0, 1] at each frequency of a block, (3, 8, 8), in each colour.

    It is measured where the images are flattest, in a ``share`` of their patches, and averaged over directions:
    frequencies of one length have one power.

    Raises
    ------
    UserError: the images are smaller than a patch of 16 pixels, or black or white throughout.
    """
    powers = _spectra(flat_patches(images, share=share).residual, 1).square().mean((0, 3, 4)).unflatten(1, (BLOCK, -1))
    place = torch.arange(BLOCK)
    length = torch.hypot(place[:, None].float(), place[None].float()).round()
    for radius in length.unique():
        ring = length == radius
        powers[:, ring] = powers[:, ring].mean(1, keepdim=True)
    return powers


def shrink(image: Tensor, powers: Tensor | None = None, *, threshold: float = THRESHOLD, step: int = STEP) -> Tensor:
    """An image (3, H, W) in [0, 1] without the noise whose ``powers`` (3, 8, 8) are given, or read off itself; clamped.

    An image that is black or white throughout shows no noise, and stays as it is.

    Raises
    ------
    UserError: the image is smaller than a block, or no powers are given and it is smaller than a patch of 16 pixels.
    """
    if min(image.shape[1:]) < BLOCK:
        size = f"{image.shape[2]}x{image.shape[1]}"
        raise UserError(f"An image of {size} pixels holds no block of {BLOCK}x{BLOCK}: give a larger one.")
    if powers is None and not flat_places(image).any():
        return image.clamp(0, 1)
    powers = noise_powers([image]) if powers is None else powers
    height, width = image.shape[1:]
    # Mirrored borders put border pixels into as many blocks as the others; what is added below makes whole steps.
    edge = BLOCK - 1
    below, right = (-(side + 2 * edge - BLOCK) % step for side in (height, width))
    padded = F.pad(image[None], (edge, edge + right, edge, edge + below), mode="reflect")
    spectra = _spectra(padded, step)[0]
    kept = spectra.square() > threshold**2 * powers.reshape(3, -1, 1, 1)
    kept[:, 0] = True  # The mean is no noise.
    weight = 1 / kept.sum(1, keepdim=True)
    # Thresholding zeroes; summing puts every block back where it came from.
    summed = F.conv_transpose2d(spectra * kept * weight, _kernels(), stride=step)
    weights = F.conv_transpose2d(weight, torch.ones(1, 1, BLOCK, BLOCK), stride=step)
    clean = torch.einsum("ji,jhw->ihw", COLOURS, (summed / weights)[:, 0])
    return clean[:, edge : edge + height, edge : edge + width].clamp(0, 1)


def shrink_multiplications(step: int = STEP) -> float:
    """Real multiplications a pixel of the image: 64 products of 64 pixels a block, there and back, in three colours."""
    blocks = 1 / step**2
    return 3 * (2 * BLOCK**4 + 3 * BLOCK**2) * blocks + 18
