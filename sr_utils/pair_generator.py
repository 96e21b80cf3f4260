"""Training pairs without a learned model: what statistics of the real degraded images say, laid over clean ones.

Every number is read off the degraded images alone, in seconds. Where a scene is flat, an image less its local plane is
noise; compression leaves its quality in the blocks. A degraded image borrows from one real image, its donor, how strong
the noise is and how it was compressed, and from all of them together how noise depends on brightness and what its
grain looks like::

    y = JPEG_q(x + s g(x) n)

Here s and q are the donor's, g is a curve of brightness with mean square 1, and n is noise of variance 1: Gaussian
noise with the measured spectrum in three uncorrelated colours, or patches cut out of the real images.

Compression takes some of the noise away again, and so do planes and borders of the patches that measure it. So what
goes in is found by trial: the real images, without noise or detail, are degraded and measured as the real ones were,
and power, curve and each donor's strength are multiplied by what is missing.

References
----------
Foi, Trimeche, Katkovnik and Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for single-image
raw-data", IEEE Transactions on Image Processing, 2008 (signal-dependent noise from flat regions).
Ji et al., "Real-World Super-Resolution via Kernel Estimation and Noise Injection", CVPR Workshops 2020 (patches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.compression import estimate_quality
from sr_utils.degradations import jpeg
from sr_utils.errors import UserError
from sr_utils.fidelity import FlatPatches, flat_patches, flat_places, signal_dependence
from sr_utils.images import crop_to_multiple, imresize, quantize
from sr_utils.noise_patches import collect_noise, lay_patches

WINDOW = 16
"""Side of the patches whose spectra are measured, and of the kernels that colour white noise."""
SHARE = 0.05
"""Of all patches that count as flat."""
TRIALS = 4
SMOOTH = 16
"""How many pixels of a side become one in images without detail."""
QUIETEST = 1e-10
"""Power of what counts as noise, where white is 1; rounding to 8 bits has 1e-6."""
LARGEST_STEP = 2.0
"""A trial changes no number by more than this factor, up or down."""


@dataclass(frozen=True)
class NoiseStatistics:
    """What flat places of a set of images show."""

    colours: Tensor
    """Three orthonormal mixtures of red, green and blue, (3, 3), in which the noise is uncorrelated."""
    powers: Tensor
    """Power of each at every frequency of a window, (3, 16, 16), for noise of total variance 3."""
    levels: Tensor
    gains: Tensor
    """How much stronger the noise is than on average at each of ``levels``; mean square 1."""
    strengths: Tensor
    """Deviation of the noise of each image that has any, and is not black or white throughout."""
    donors: Sequence[int]
    """Indices of these images."""

    def gain_at(self, image: Tensor) -> Tensor:
        """The gain of every value of an image (3, H, W)."""
        return _interpolated(image, self.levels, self.gains)


def measure_noise(images: Sequence[Tensor], *, colours: Tensor | None = None) -> NoiseStatistics:
    """Statistics of the noise of images (3, H, W) in [0, 1]; ``colours`` are found unless given.

    Raises
    ------
    UserError: every image is black or white throughout, or without noise; or one is smaller than a patch of 16 pixels.
    """
    seen = {index: flat_patches([image], share=SHARE) for index, image in enumerate(images) if flat_places(image).any()}
    powers = {index: flat.residual.square().mean((1, 2, 3)).median() for index, flat in seen.items()}
    donors = [index for index, power in powers.items() if power > QUIETEST]
    if not donors:
        raise UserError("Every image is black or white throughout, or has no noise: give images with some mid-tones.")
    own = [seen[index] for index in donors]
    # Spectrum and curve come from the flattest places of all images, strengths from each image's own.
    flattest = flat_patches([images[index] for index in donors], share=SHARE)
    levels, strengths = flattest.levels(), torch.ones(len(donors))
    # Strength and curve explain each other: a dark image may be noisy because it is dark, or by itself.
    for _ in range(3):
        normal = flattest.residual / strengths[flattest.image][:, None, None, None]
        places, gains = signal_dependence(levels, normal)
        strengths = torch.stack([_strength(flat, places, gains) for flat in own])
    normal = flattest.residual / strengths[flattest.image][:, None, None, None]
    normal = normal / _interpolated(levels, places, gains)
    if colours is None:
        covariance = torch.cov(normal.transpose(0, 1).flatten(1).double())
        colours = torch.linalg.eigh(covariance).eigenvectors.T.flip(0).float()
    turned = torch.einsum("ij,njhw->nihw", colours, normal)
    powers = torch.fft.fft2(turned).abs().square().mean(0) / WINDOW**2
    # The plane took the mean with it; noise has as much power there as beside it.
    powers[:, 0, 0] = (powers[:, 0, 1] + powers[:, 1, 0]) / 2
    # The gains' mean square goes into the strengths.
    scale = _interpolated(levels, places, gains).square().mean().sqrt()
    powers = powers * 3 * WINDOW**2 / powers.sum()
    return NoiseStatistics(colours, powers, places, gains / scale, strengths * scale, donors)


def _strength(flat: FlatPatches, places: Tensor, gains: Tensor) -> Tensor:
    """Deviation of one image's noise where the gain is 1; the median, because some of its patches may hold texture."""
    even = flat.residual / _interpolated(flat.levels(), places, gains)
    return even.square().mean((1, 2, 3)).median().sqrt()


def _interpolated(image: Tensor, levels: Tensor, values: Tensor) -> Tensor:
    """The curve through ``values`` at ``levels``, at every value of an image of any shape."""
    return torch.from_numpy(np.interp(image.numpy(), levels.numpy(), values.numpy())).to(image.dtype)


@dataclass(frozen=True)
class PairGenerator:
    """Degrades clean images as a set of real ones was."""

    noise: NoiseStatistics
    """Of what goes in before compression."""
    qualities: Sequence[int | None]
    """JPEG quality of each donor; None for one that was not compressed."""
    patches: Tensor | None = None
    """Noise of variance 1 cut out of real images, (P, 3, size, size), in place of Gaussian noise."""

    def draw_noise(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Noise of variance 1 and the measured grain, (3, height, width)."""
        if self.patches is not None:
            return lay_patches(self.patches, height, width, generator)
        # A real and even transfer function has a kernel that is symmetric about its centre.
        kernels = torch.fft.fftshift(torch.fft.ifft2(self.noise.powers.sqrt()).real, dim=(1, 2))
        white = torch.randn(3, height + WINDOW - 1, width + WINDOW - 1, generator=generator)
        coloured = F.conv2d(white, kernels[:, None], groups=3)
        return torch.einsum("ji,jhw->ihw", self.noise.colours, coloured)

    def degrade(self, clean: Tensor, *, seed: int, donor: int | None = None) -> Tensor:
        """A degraded version of an image (3, H, W) in [0, 1], on 8-bit levels; noise and donor follow from ``seed``.

        ``donor`` names one of ``qualities`` instead.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = int(torch.randint(len(self.qualities), (), generator=generator))
        donor = drawn if donor is None else donor
        noise = self.noise.strengths[donor] * self.noise.gain_at(clean) * self.draw_noise(*clean.shape[1:], generator)
        degraded = quantize(clean + noise)
        quality = self.qualities[donor]
        return degraded if quality is None else jpeg(degraded, quality)


def fit_pair_generator(
    degraded: Sequence[Tensor],
    *,
    patches: bool = False,
    coloured: bool = True,
    signal_dependent: bool = True,
    compressed: bool = True,
    trials: int = TRIALS,
) -> PairGenerator:
    """Read a generator off real degraded images (3, H, W) in [0, 1].

    Parameters
    ----------
    patches: cut the noise out of the degraded images instead of drawing it from their spectrum.
    coloured, signal_dependent, compressed: leave a part of the model out, to see what it is worth.

    Raises
    ------
    UserError: as `measure_noise`.
    """
    real = measure_noise(degraded)
    qualities = [estimate_quality(degraded[index]) if compressed else None for index in real.donors]
    generator = PairGenerator(real, qualities, _normal_patches(degraded) if patches else None)
    if not coloured:
        generator = replace(generator, noise=replace(real, colours=torch.eye(3), powers=torch.ones_like(real.powers)))
    if not signal_dependent:
        generator = replace(generator, noise=replace(generator.noise, gains=torch.ones_like(real.gains)))
    images = [crop_to_multiple(degraded[index], SMOOTH) for index in real.donors]
    smooth = [imresize(imresize(image, 1 / SMOOTH), SMOOTH).clamp(0, 1) for image in images]
    for trial in range(trials):
        seeds = range(trial * len(smooth), (trial + 1) * len(smooth))
        donors = enumerate(zip(smooth, seeds, strict=True))
        made = [generator.degrade(image, seed=seed, donor=donor) for donor, (image, seed) in donors]
        found = measure_noise(made, colours=real.colours)
        generator = replace(generator, noise=_corrected(generator.noise, real, found, coloured, signal_dependent))
    return generator


def _corrected(
    used: NoiseStatistics, real: NoiseStatistics, found: NoiseStatistics, coloured: bool, signal_dependent: bool
) -> NoiseStatistics:
    """``used``, times what the noise ``found`` in degraded images lacks of the ``real`` one."""

    def missing(wanted: Tensor, there: Tensor) -> Tensor:
        return (wanted / there.clamp_min(1e-12)).clamp(1 / LARGEST_STEP, LARGEST_STEP)

    powers, gains = used.powers, used.gains
    there = real.strengths.clone()
    there[found.donors] = found.strengths
    strengths = used.strengths * missing(real.strengths, there)
    if coloured:
        powers = powers * missing(real.powers, found.powers)
        powers = powers * powers.numel() / powers.sum()
    if signal_dependent:
        gains = gains * missing(real.gain_at(real.levels), found.gain_at(real.levels))
        gains = gains * (real.gains.square().mean() / gains.square().mean()).sqrt()
    return replace(used, powers=powers, gains=gains, strengths=strengths)


def _normal_patches(images: Sequence[Tensor]) -> Tensor:
    """Patches of the images' noise at variance 1, (P, 3, 32, 32): each by its own strength."""
    patches = collect_noise(images)
    return patches / patches.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
