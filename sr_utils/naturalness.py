"""How natural does an image look, with nothing to compare it to? NIQE, fitted to this course's own clean photographs.

Sharp, clean photographs have statistics in common: divided by its local contrast, brightness is nearly Gaussian, and
neighbours are correlated in a certain way. NIQE fits one Gaussian to these statistics of clean photographs' patches,
one to those of an image's patches, and gives the distance between the two. Smaller is more natural.

The published model was fitted to photographs that cannot be had here. This one is fitted to whatever photographs it is
given, so its numbers compare methods with one another, not with other people's tables.

Reference: Mittal, Soundararajan and Bovik, "Making a Completely Blind Image Quality Analyzer", IEEE Signal Processing
Letters, 2013.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.errors import UserError
from sr_utils.images import imresize, to_y

PATCH = 96
"""Side of a patch in pixels; at the second scale it is half as large."""
SHARPEST = 0.75
"""Of a photograph's patches, those take part in the fit whose contrast is above this share of its largest."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Where the neighbours lie whose products are taken: right, below and both diagonals."""


@dataclass(frozen=True)
class NaturalnessModel:
    """Mean (36,) and covariance (36, 36) of the statistics of clean photographs' patches."""

    mean: Tensor
    covariance: Tensor
    patches: int
    """How many patches it was fitted to."""


def normalised_luminance(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance less its local mean, over its local deviation plus one grey level, and that deviation.

    ``grey`` is (N, 1, H, W) in grey levels; the window is Gaussian, 7x7, of deviation 7/6 (equations 1 to 3).
    """
    offsets = torch.arange(-3, 4, dtype=grey.dtype)
    taps = torch.exp(-0.5 * (offsets / (7 / 6)) ** 2)
    taps = (taps / taps.sum()).reshape(1, 1, 1, 7)

    def local_mean(maps: Tensor) -> Tensor:
        padded = F.pad(maps, (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(padded, taps), taps.transpose(2, 3))

    mean = local_mean(grey)
    deviation = (local_mean(grey.square()) - mean.square()).clamp_min(0).sqrt()
    return (grey - mean) / (deviation + 1), deviation


@functools.cache
def _shapes() -> tuple[Tensor, Tensor]:
    """Shapes from 0.2 to 10 and the ratio E[|x|]² / E[x²] of a generalised Gaussian of each (equation 9's rho)."""
    shape = torch.arange(0.2, 10.001, 0.001, dtype=torch.float64)
    ratio = (2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp()
    return shape, ratio


def asymmetric_gaussian(values: Tensor) -> Tensor:
    """Shape, left and right scale of the asymmetric generalised Gaussian of each row of (N, M), by moments; (N, 3).

    Lasmar, Stitou and Berthoumieu 2009, as used by NIQE. A row of zeros has scales of nearly 0.
    """
    values = values.double()
    below, square = values < 0, values.square()
    tiny = 1e-12
    left = ((square * below).sum(1) / below.sum(1).clamp_min(1) + tiny).sqrt()
    right = ((square * ~below).sum(1) / (~below).sum(1).clamp_min(1) + tiny).sqrt()
    skew = left / right
    ratio = values.abs().mean(1).square() / (square.mean(1) + tiny)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    shape, table = _shapes()
    alpha = shape[torch.searchsorted(table, ratio.contiguous()).clamp(max=len(shape) - 1)]
    factor = ((torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)) / 2).exp()
    return torch.stack([alpha, left * factor, right * factor], dim=1)


def patch_statistics(image: Tensor, *, patch: int = PATCH) -> tuple[Tensor, Tensor]:
    """The 36 statistics of every patch of an image (3, H, W) in [0, 1], (P, 36), and the patches' contrast (P,).

    18 of the image and 18 of it at half size: shape and mean scale of the normalised luminance, and for each of the
    four neighbours shape, mean and both scales of the products.

    Raises
    ------
    UserError: the image is smaller than a patch.
    """
    if min(image.shape[1:]) < patch:
        size = f"{image.shape[2]}x{image.shape[1]}"
        raise UserError(f"NIQE needs images of at least {patch}x{patch}, not {size}: use larger ones.")
    grey = 255 * to_y(image[None].double())
    height, width = (side // patch * patch for side in grey.shape[2:])
    grey = grey[:, :, :height, :width]
    features = []
    for level in range(2):
        side = patch >> level
        normalised, deviation = normalised_luminance(grey)
        if level == 0:
            contrast = F.avg_pool2d(deviation, side).flatten()
        patches = normalised.unfold(2, side, side).unfold(3, side, side).reshape(-1, side, side)
        fitted = asymmetric_gaussian(patches.flatten(1))
        features.append(torch.stack([fitted[:, 0], (fitted[:, 1] + fitted[:, 2]) / 2], dim=1))
        for shift in SHIFTS:
            product = patches * patches.roll(shift, dims=(1, 2))
            alpha, left, right = asymmetric_gaussian(product.flatten(1)).T
            mean = (right - left) * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()
            features.append(torch.stack([alpha, mean, left, right], dim=1))
        grey = imresize(grey, 0.5)
    return torch.cat(features, dim=1), contrast


def fit_naturalness(photographs: Sequence[Tensor], *, patch: int = PATCH) -> NaturalnessModel:
    """Fit the model to the sharp patches of clean photographs (3, H, W).

    Raises
    ------
    UserError: there are fewer than two sharp patches, or a photograph is smaller than a patch.
    """
    chosen = []
    for image in photographs:
        features, contrast = patch_statistics(image, patch=patch)
        chosen.append(features[contrast >= SHARPEST * contrast.max()])
    features = torch.cat(chosen) if chosen else torch.zeros(0, 36)
    if len(features) < 2:
        raise UserError("NIQE is fitted to at least two sharp patches: give more clean photographs.")
    return NaturalnessModel(features.mean(0), torch.cov(features.T), len(features))


def niqe(image: Tensor, model: NaturalnessModel, *, patch: int = PATCH) -> float:
    """Distance of an image (3, H, W) in [0, 1] from natural ones (equation 10); smaller is more natural.

    Raises
    ------
    UserError: the image is smaller than a patch.
    """
    features, _ = patch_statistics(image, patch=patch)
    # Of a single patch no covariance is known, so the model's own stands for both.
    covariance = torch.cov(features.T) if len(features) > 1 else model.covariance
    difference = features.mean(0) - model.mean
    middle = torch.linalg.pinv((model.covariance + covariance) / 2, hermitian=True)
    return math.sqrt(max(0.0, (difference @ middle @ difference).item()))
