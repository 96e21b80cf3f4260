"""Noise of two numbers: a part that is the same everywhere, and a part that grows with brightness.

A pixel of brightness b gets white Gaussian noise of variance ``additive² + (multiplicative b)²``. Both numbers are
read off the flat patches of real degraded images, where what is left of a patch less its plane is noise: the mean
square of each patch is one observation of the variance at the patch's level, and the line through all of them, with
neither number below zero, is the fit.

Reference: Foi, Trimeche, Katkovnik and Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for
single-image raw-data", IEEE Transactions on Image Processing, 2008, which has b in place of b².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.fidelity import flat_patches


@dataclass(frozen=True)
class NoiseModel:
    """Deviations in image units, where 1 is white."""

    additive: float
    multiplicative: float
    """Per unit of brightness."""

    def add_to(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy version of an image (3, H, W) in [0, 1], clamped."""
        deviation = (self.additive**2 + (self.multiplicative * image) ** 2).sqrt()
        return (image + deviation * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def fit_noise_model(images: Sequence[Tensor], *, share: float = 0.05, multiplicative: bool = True) -> NoiseModel:
    """The noise of real degraded images (3, H, W) in [0, 1], from the flattest ``share`` of their patches.

    With ``multiplicative=False`` the noise is taken to be the same everywhere.

    Raises
    ------
    UserError: the images are smaller than a patch of 16 pixels, or black or white throughout.
    """
    flat = flat_patches(images, share=share)
    variance, squared_level = flat.residual.square().mean((2, 3)).flatten().double(), flat.level.flatten().double() ** 2
    everywhere = variance.mean().sqrt().item()
    if not multiplicative:
        return NoiseModel(everywhere, 0.0)
    centred = squared_level - squared_level.mean()
    slope = ((centred * variance).sum() / centred.square().sum().clamp_min(1e-12)).item()
    offset = variance.mean().item() - slope * squared_level.mean().item()
    if slope <= 0:
        return NoiseModel(everywhere, 0.0)
    if offset <= 0:
        proportion = (squared_level * variance).sum() / squared_level.square().sum()
        return NoiseModel(0.0, proportion.sqrt().item())
    return NoiseModel(offset**0.5, slope**0.5)
