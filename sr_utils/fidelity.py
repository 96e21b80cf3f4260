"""How close is a generated degradation to the real one? Measures that need neither pairs nor a trained judge.

A residual is what a degradation added: degraded minus clean where both exist, or, for a real photograph
whose clean version nobody has, what is left of its flattest patches once a plane is taken out. The same
estimator must be used on everything that is compared: it then errs in the same way on each side.

All residuals are tensors (P, 3, size, size) of P patches, in image units where 1 is white.

References
----------
Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994 (the median rule).
Immerkaer, "Fast noise variance estimation", 1996 (the high-pass mask).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.errors import UserError
from sr_utils.images import imresize, to_y

CLIPPED_BELOW, CLIPPED_ABOVE = 0.04, 0.96
"""Patches outside these mean levels are left out: clipping at black or white removes noise."""

_NORMAL_MAD = 0.6744897501960817
"""Median of |x| for x standard normal."""


def to_patches(images: Sequence[Tensor], size: int = 32) -> Tensor:
    """Cut images (3, H, W) into patches side by side, (P, 3, size, size); what does not fill one is dropped.

    Raises
    ------
    UserError: no image is as large as a patch.
    """
    large_enough = [image for image in images if min(image.shape[1:]) >= size]
    if not large_enough:
        raise UserError(f"No image is as large as a patch of {size}x{size} pixels: give larger images.")
    cut = [image.unfold(1, size, size).unfold(2, size, size) for image in large_enough]
    return torch.cat([part.permute(1, 2, 0, 3, 4).flatten(0, 1) for part in cut])


@dataclass(frozen=True)
class FlatPatches:
    """The flattest patches of a set of images: their mean ``level`` (P, 3) and ``residual`` (P, 3, s, s).

    ``image`` (P,) is the index of the image that each was cut from.
    """

    level: Tensor
    residual: Tensor
    image: Tensor

    def levels(self) -> Tensor:
        """Every pixel's level, in the shape of the residual."""
        return self.level[:, :, None, None].expand_as(self.residual)


def flat_patches(images: Sequence[Tensor], *, size: int = 16, share: float = 0.05) -> FlatPatches:
    """The flattest ``share`` of all patches, without the plane that fits each best.

    Flatness is judged on luma at a quarter of the size, where most of the noise has been averaged away, so
    patches are chosen for their content and not for having little noise.

    Raises
    ------
    UserError: no patch is left: the images are too small, or black or white throughout.
    """
    patches = to_patches(images, size)
    flattest = _flattest(patches, share)
    if not len(flattest):
        raise UserError("Every patch is black or white: give images with some mid-tones.")
    counts = torch.tensor([(image.shape[1] // size) * (image.shape[2] // size) for image in images])
    owner = torch.arange(len(images)).repeat_interleave(counts)
    return FlatPatches(patches[flattest].mean((2, 3)), without_plane(patches[flattest]), owner[flattest])


def flat_places(image: Tensor, *, size: int = 16, share: float = 0.05) -> Tensor:
    """Where one image (3, H, W) is flattest: a mask (H // size, W // size) of its patches; see `flat_patches`.

    Nothing is marked in an image that is black or white throughout.

    Raises
    ------
    UserError: the image is smaller than a patch.
    """
    mask = torch.zeros(image.shape[1] // size, image.shape[2] // size, dtype=torch.bool)
    mask.view(-1)[_flattest(to_patches([image], size), share)] = True
    return mask


def _flattest(patches: Tensor, share: float) -> Tensor:
    """Indices of the flattest ``share`` of the patches that are neither black nor white, one at least.

    A patch in which nothing changes at all, such as an even border, is not of a photograph: it counts only where there
    is no other.
    """
    level = patches.mean((2, 3))
    inside = ((level > CLIPPED_BELOW) & (level < CLIPPED_ABOVE)).all(1)
    changing = inside & (patches.amax((2, 3)) > patches.amin((2, 3))).any(1)
    inside = (changing if changing.any() else inside).nonzero().flatten()
    roughness = to_y(imresize(patches[inside], 0.25)).std((1, 2, 3)) if len(inside) else inside
    return inside[roughness.argsort()[: max(1, round(share * len(inside)))]]


def without_plane(patches: Tensor) -> Tensor:
    """Subtract from each channel of each patch its least-squares plane; the deviation is corrected for it."""
    size = patches.shape[-1]
    ramp = torch.linspace(-1, 1, size, dtype=patches.dtype, device=patches.device)
    ramp = ramp / ramp.square().sum().sqrt() / size**0.5
    rising, falling = ramp.expand(size, size), ramp[:, None].expand(size, size)
    residual = patches - patches.mean((2, 3), keepdim=True)
    for direction in (rising, falling):
        residual = residual - (residual * direction).sum((2, 3), keepdim=True) * direction
    # Three of size² degrees of freedom went into the plane.
    return residual * (size**2 / (size**2 - 3)) ** 0.5


def residual_statistics(residual: Tensor) -> dict[str, float]:
    """Mean, deviation, skewness, excess kurtosis and the mean correlation between colour channels."""
    values = residual.double()
    mean, deviation = values.mean(), values.std(correction=0)
    standard = (values - mean) / deviation.clamp_min(1e-12)
    correlation = torch.corrcoef(residual.double().transpose(0, 1).flatten(1))
    between = correlation[~torch.eye(3, dtype=torch.bool)]
    return {
        "mean": mean.item(),
        "deviation": deviation.item(),
        "skewness": standard.pow(3).mean().item(),
        "excess_kurtosis": standard.pow(4).mean().item() - 3,
        "channel_correlation": between.nan_to_num().mean().item(),
    }


def radial_spectrum(residual: Tensor, *, bins: int = 12) -> tuple[Tensor, Tensor]:
    """Power at each spatial frequency, averaged over directions, channels and patches.

    Returns
    -------
    Frequencies in cycles per pixel, from above 0 to 0.5, and powers; white noise of deviation s has power s²
    at every frequency.
    """
    size = residual.shape[-1]
    centred = residual - residual.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(centred.double()).abs().square().mean((0, 1)) / size**2
    axis = torch.fft.fftfreq(size, dtype=torch.float64)
    radius = torch.hypot(axis[:, None], axis[None, :])
    edges = torch.linspace(0.5 / size, 0.5, bins + 1, dtype=torch.float64)
    frequencies, powers = [], []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        ring = (radius > low) & (radius <= high)
        if ring.any():
            frequencies.append(radius[ring].mean())
            powers.append(power[ring].mean())
    return torch.stack(frequencies), torch.stack(powers)


def neighbour_correlation(residual: Tensor, *, reach: int = 3) -> Tensor:
    """Correlation of a pixel's residual with that of its neighbours, (2 reach + 1, 2 reach + 1).

    The centre is 1; white noise has 0 everywhere else. Each patch's channels are centred first.
    """
    centred = (residual - residual.mean((2, 3), keepdim=True)).double()
    height, width = centred.shape[2:]
    inner = centred[:, :, reach : height - reach, reach : width - reach]
    side = 2 * reach + 1
    products = torch.stack(
        [
            (inner * centred[:, :, row : row + inner.shape[2], column : column + inner.shape[3]]).mean()
            for row in range(side)
            for column in range(side)
        ]
    ).view(side, side)
    return products / products[reach, reach].clamp_min(1e-12)


def draw_correlation(draws: Sequence[Tensor], certain: Tensor) -> float:
    """Mean correlation between what chance put into different draws of one image; 0 if they are independent.

    Parameters
    ----------
    draws: two or more degraded versions (3, H, W) of one clean image.
    certain: the same image degraded without chance, which is subtracted.
    """
    chance = torch.stack([(draw - certain).double().flatten() for draw in draws])
    between = torch.corrcoef(chance)[~torch.eye(len(chance), dtype=torch.bool)]
    return between.nan_to_num().mean().item()


def signal_dependence(levels: Tensor, residual: Tensor, *, bins: int = 8, fewest: int = 500) -> tuple[Tensor, Tensor]:
    """Deviation of the residual as a function of the brightness it sits on.

    Parameters
    ----------
    levels, residual: tensors of one shape; ``levels`` is the clean value of every residual pixel.
    bins: number of brightness classes, equally wide between the darkest and the brightest level; those with
        under ``fewest`` pixels are left out, unless that leaves none.

    Returns
    -------
    Mean level and deviation of each class.
    """
    level, value = levels.flatten().double(), residual.flatten().double()
    edges = torch.linspace(level.min().item(), level.max().item() + 1e-9, bins + 1, dtype=torch.float64)
    which = torch.bucketize(level, edges[1:-1], right=True)
    counts = torch.bincount(which, minlength=bins)
    kept = [index for index in range(bins) if counts[index] >= min(fewest, int(counts.max()))]
    means = torch.stack([level[which == index].mean() for index in kept])
    deviations = torch.stack([value[which == index].std(correction=0) for index in kept])
    return means, deviations


def high_pass_deviation(images: Sequence[Tensor]) -> float:
    """Noise deviation of whole images by the median of a high-pass filter's output; median over images.

    The filter is Immerkaer's mask, which ignores planes and straight edges along the axes, and the median
    ignores what few edges remain (Donoho and Johnstone). It sees only fine grain: noise that is correlated
    between neighbours comes out too small, and texture adds to it, so compare numbers from like images only.
    """
    mask = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    deviations = []
    for image in images:
        filtered = F.conv2d(image[:, None], mask[None, None].to(image.dtype))
        deviations.append(filtered.abs().median() / _NORMAL_MAD)
    return torch.stack(deviations).quantile(0.5).item()


def bootstrap_means(values: Tensor, *, resamples: int = 2000, seed: int = 0) -> Tensor:
    """Means of random resamples with replacement of ``values`` (N, ...), shape (resamples, ...).

    Each of the N rows is one photograph, because photographs, not pixels, are what was drawn at random.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(values), (resamples, len(values)), generator=generator)
    return values[chosen].mean(1)


def same_view(images: Sequence[Tensor], *, like: float = 0.9, factor: int = 8) -> list[int]:
    """Indices of the images that show what the first one shows: a fixed camera's frames of one place.

    Two images count as one view when they have one size and their pixels, averaged over blocks of ``factor``,
    correlate by more than ``like``.
    """
    first = images[0]
    found = []
    for index, image in enumerate(images):
        if image.shape != first.shape:
            continue
        small = [F.avg_pool2d(each[None], factor, ceil_mode=True).flatten() for each in (first, image)]
        if index == 0 or torch.corrcoef(torch.stack(small))[0, 1] > like:
            found.append(index)
    return found
