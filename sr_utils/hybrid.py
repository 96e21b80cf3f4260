"""A refinement network: a classical method restores and enlarges, a small network corrects what it got wrong.

The classical result is already close, so little is left to learn, and the network can be a fraction of an ESRGAN. It
may see one classical result or several: what one method smoothed away another has kept, so a method that works on
frequencies and one that compares places say more together. Each of `CLASSICAL` needs no training and no setting; the
noise is read off the image that is restored.

References
----------
Kim, Lee and Lee, "Accurate image super-resolution using very deep convolutional networks", CVPR 2016 (a network on
bicubic enlargement that learns the residual).
Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", CVPR 2016 (pixels moved into channels, so that convolutions work on a small grid).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils import spatial
from sr_utils.classical import noise_level
from sr_utils.errors import UserError
from sr_utils.images import imresize, quantize
from sr_utils.spectral_shrinkage import shrink, shrink_multiplications

SLOPE = 0.2
"""Of the leaky rectifiers."""
GRID = 4
"""Pixels of a side that become one position with 16 times the channels."""


def bicubic(low: Tensor, scale: int) -> Tensor:
    """Enlarged, and nothing else: (3, H, W) to (3, scale H, scale W), like all of `CLASSICAL`."""
    return imresize(low, scale).clamp(0, 1)


def non_local_means(low: Tensor, scale: int) -> Tensor:
    """In space: each pixel averaged with those whose surroundings look alike (OpenCV), then bicubic."""
    return bicubic(spatial.non_local_means(low, noise=noise_level(low)), scale)


def shrunk_spectrum(low: Tensor, scale: int) -> Tensor:
    """In frequency: noise thresholded in the spectra of overlapping blocks, `spectral_shrinkage`, then bicubic."""
    return bicubic(shrink(low), scale)


CLASSICAL: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bicubic": bicubic,
    "non_local_means": non_local_means,
    "shrunk_spectrum": shrunk_spectrum,
}


def classical_multiplications(name: str, scale: int) -> float:
    """Real multiplications per pixel of the enlarged RGB image of one of `CLASSICAL`, as the methods are defined.

    Non-local means squares and averages, for each of 21 x 21 offsets, three channels; its distances are running sums.
    """
    denoising = {"bicubic": 0.0, "non_local_means": 21**2 * 2 * 3.0, "shrunk_spectrum": shrink_multiplications()}
    return denoising[name] / scale**2 + (3 * 4 * (1 + 1 / scale) if scale > 1 else 0)


@dataclass(frozen=True)
class RefinementConfig:
    """Which classical results a network sees, and its sizes."""

    inputs: Sequence[str] = ("shrunk_spectrum",)
    """Names in `CLASSICAL`; the first one is corrected."""
    features: int = 48
    blocks: int = 4

    def __post_init__(self):
        unknown = [name for name in self.inputs if name not in CLASSICAL]
        if unknown or not self.inputs:
            raise UserError(f"inputs={list(self.inputs)} must name some of {', '.join(CLASSICAL)}.")


REFINEMENTS = {
    "refinement_bicubic": RefinementConfig(("bicubic",)),
    "refinement_best": RefinementConfig(("shrunk_spectrum",)),
    "refinement_several": RefinementConfig(("shrunk_spectrum", "non_local_means", "bicubic")),
}
"""What the course trains: over the plain enlargement, over the best classical result, and over three."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added; (N, F, H, W) to the same shape."""

    def __init__(self, features: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(2))
        # As for `rrdb`: small corrections to begin with.
        nn.init.kaiming_normal_(self.convs[0].weight, SLOPE)
        nn.init.kaiming_normal_(self.convs[1].weight)
        self.convs[1].weight.data.mul_(0.1)
        for conv in self.convs:
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs[1](F.leaky_relu(self.convs[0](x), SLOPE))


class RefinementNetwork(nn.Module):
    """Correct a classical result: the stack of `classical_results`, (N, 3k, H, W), to (N, 3, H, W), not clamped.

    An untrained network returns the first classical result, because its last convolution starts at zero.
    """

    config_class = RefinementConfig

    def __init__(self, config: RefinementConfig):
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(3 * len(config.inputs) * GRID**2, config.features, 3, padding=1)
        self.trunk = nn.Sequential(*(ResidualBlock(config.features) for _ in range(config.blocks)))
        self.last = nn.Conv2d(config.features, 3 * GRID**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, stack: Tensor) -> Tensor:
        height, width = stack.shape[2:]
        # Sides that do not divide are padded here and cut from the result.
        padded = F.pad(stack, (0, -width % GRID, 0, -height % GRID), mode="replicate")
        # About zero, the first convolution need not learn to ignore how bright an image is.
        x = self.first(F.pixel_unshuffle(padded - 0.5, GRID))  # (N, F, H/4, W/4)
        correction = F.pixel_shuffle(self.last(self.trunk(x)), GRID)
        return stack[:, :3] + correction[:, :, :height, :width]


def classical_results(low: Tensor, scale: int, inputs: Sequence[str]) -> Tensor:
    """What the classical methods named by ``inputs`` make of (3, H, W), one below the other: (3k, scale H, scale W).

    Raises
    ------
    UserError: the image is smaller than 16 pixels, or black or white throughout, so that its noise cannot be read.
    """
    return torch.cat([CLASSICAL[name](low, scale) for name in inputs])


@torch.no_grad()
def refine_image(network: RefinementNetwork, low: Tensor, scale: int) -> Tensor:
    """Restore one image (3, H, W) in [0, 1] to (3, scale H, scale W), clamped and rounded to 8 bits."""
    stack = classical_results(low, scale, network.config.inputs)[None].contiguous(memory_format=torch.channels_last)
    return quantize(network(stack)[0])
