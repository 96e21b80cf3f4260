"""Noise cut out of real degraded images and laid over clean ones: the simplest way to learn noise without pairs.

Where a scene is flat, an image less its local plane is noise and nothing else. Collected from many images, such
patches make other photographs noisy with the camera's own grain. They know neither the brightness that they came
from, nor blur, nor what compression does to edges.

Reference: Ji, Cao, Tai, Wang, Li and Huang, "Real-World Super-Resolution via Kernel Estimation and Noise
Injection", CVPR Workshops 2020 (winner of NTIRE 2020, both tracks), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sr_utils.fidelity import flat_patches


def collect_noise(images: Sequence[Tensor], *, size: int = 32, share: float = 0.02) -> Tensor:
    """The flattest ``share`` of the images' patches less their planes, (P, 3, size, size).

    Of few images a larger share is taken, a fifth at most, to have 64 patches.

    Raises
    ------
    UserError: the images are smaller than a patch, or black or white throughout.
    """
    available = sum((image.shape[1] // size) * (image.shape[2] // size) for image in images)
    share = max(share, min(0.2, 64 / max(1, available)))
    return flat_patches(images, size=size, share=share).residual


def lay_patches(noise: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Randomly chosen, flipped and turned patches of ``noise`` (P, 3, size, size), side by side: (3, height, width)."""
    size = noise.shape[-1]
    covered = torch.zeros(3, height + -height % size, width + -width % size)
    for top in range(0, height, size):
        for left in range(0, width, size):
            which, turns, flip = (int(torch.randint(limit, (), generator=generator)) for limit in (len(noise), 4, 2))
            patch = noise[which].rot90(turns, (1, 2))
            covered[:, top : top + size, left : left + size] = patch.flip(2) if flip else patch
    return covered[:, :height, :width]


def inject_noise(clean: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Clean image (3, H, W) in [0, 1] plus patches of noise as `lay_patches` chooses them; clamped."""
    return (clean + lay_patches(noise, *clean.shape[1:], generator)).clamp(0, 1)
