"""What chance decides when an image is degraded, and in what the two sets of images differ besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRENGTHS = 5
"""How many strengths of noise an image may have, in the gain shift."""
STRENGTH_RANGE = 1.2
"""Log-strengths lie at most this far from 0: noise variances from 0.3 to 3.3 times the average image's."""


@dataclass(frozen=True)
class LatentNoise:
    """What chance decides about one latent of N images."""

    normal: Tensor
    """Standard normal, of the latent's shape (N, C, H, W)."""
    log_strength: Tensor
    """(N,): logarithm of the noise's variance in each image, relative to the average image's."""
    uniform: Tensor | None = None
    """Uniform in [0, 1], of the latent's shape; needed where densities are mixtures."""

    def to(self, like: Tensor) -> LatentNoise:
        """The same in the precision of ``like``, on its device."""
        uniform = None if self.uniform is None else self.uniform.to(like)
        return LatentNoise(self.normal.to(like), self.log_strength.to(like), uniform)

    @staticmethod
    def of_all(parts: Sequence[LatentNoise]) -> LatentNoise:
        """The noise of all the images that the parts are about."""
        uniform = None if parts[0].uniform is None else torch.cat([part.uniform for part in parts])
        strengths = torch.cat([part.log_strength for part in parts])
        return LatentNoise(torch.cat([part.normal for part in parts]), strengths, uniform)


def drawn(
    shapes: Sequence[tuple[int, ...]], log_strength: Tensor, *, generator: torch.Generator | None, uniform: bool
) -> list[LatentNoise]:
    """The noise of latents of these shapes (N, C, H, W), finest level first, of images as noisy as ``log_strength``.

    Drawn on the CPU, so that it is the same on every device, in the precision of ``log_strength`` (N,): level by level
    from the coarsest on, and after each the ``uniform`` numbers, if they are to be drawn.
    """
    noise = []
    for shape in reversed(shapes):
        normal = torch.randn(shape, generator=generator, dtype=log_strength.dtype)
        chance = torch.rand(shape, generator=generator, dtype=log_strength.dtype) if uniform else None
        noise.append(LatentNoise(normal, log_strength, chance))
    return noise[::-1]


class Population(nn.Module):
    """What sets the images of the degraded set apart: from each other, and from the clean set.

    Some of them are noisier than others, and all of them may show rougher or flatter scenes than the clean images do:
    their ``contrast`` is the ratio of the deviations of details that a degradation leaves alone.

    Parameters
    ----------
    strengths: how many strengths an image's noise may have; with 1 there is nothing to learn here.
    """

    def __init__(self, strengths: int):
        super().__init__()
        self.register_buffer("log_strengths", torch.zeros(1), persistent=False)
        self.weights = None
        if strengths > 1:
            self.log_strengths = torch.linspace(-STRENGTH_RANGE, STRENGTH_RANGE, strengths)
            self.weights = nn.Parameter(torch.zeros(strengths))
            self.log_contrast = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_contrast", torch.zeros(()), persistent=False)

    def log_weights(self) -> Tensor:
        """Logarithms of the probabilities of the strengths, (S,)."""
        return self.log_strengths if self.weights is None else self.weights.log_softmax(0)

    def over_strengths(self, log_prob: Tensor) -> Tensor:
        """Log-density (N,) of images whose log-density at each strength is ``log_prob`` (N, S)."""
        return torch.logsumexp(log_prob + self.log_weights(), dim=1)

    def draw(self, images: int, generator: torch.Generator | None) -> Tensor:
        """A log-strength for each image, (N,), drawn on the CPU."""
        if self.weights is None:
            return torch.zeros(images)
        chosen = torch.multinomial(
            self.log_weights().detach().exp().cpu(), images, replacement=True, generator=generator
        )
        return self.log_strengths.cpu()[chosen]

    def most_likely(self, log_prob: Tensor) -> Tensor:
        """The log-strength (N,) that explains each image best, given its log-density at each (N, S)."""
        return self.log_strengths[(log_prob + self.log_weights()).argmax(1)]
