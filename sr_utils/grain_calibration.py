"""Measure the grain of a gain shift's noise on plain cards, and set the filter that mends it.

A plain card of one colour is the simplest of clean images, and whatever is seen on its degraded version is noise. The
degraded set has no cards, but flat places, which are nearly that. So plain cards with the colours of those places are
translated and compressed, and what is seen on both is compared, band by band: the power of luma Y, and the covariance S
of Y, R - Y and B - Y. The filter of `grain.Grain` is moved towards ::

    T = S_c^(-1/2) (S_c^(1/2) S_r S_c^(1/2))^(1/2) S_c^(-1/2)

the symmetric matrix with T S_c T = S_r (the optimal transport between two Gaussians), c for the cards and r for the
real places. Since compression comes behind the filter, this is done again a few times. No truth is needed, and nothing
is learned but nine numbers a band.

How strong the noise is, the lower quartile over places says: even the flattest places of many images hold some detail,
which a mean would take for noise. But compression rounds nearly all but the coarsest colour noise of a plain surface to
zero, and what the noise's own calibration sees of it is what is left. Translated and compressed again, it would be
rounded a second time. So but for the two coarsest bands colour is compared by means, in which the few places count
where some of it has survived, and made stronger until as much survives.

Reference: Takatsu, "Wasserstein geometry of Gaussian measures", Osaka Journal of Mathematics, 2011 (the map T).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.compression import cosine_basis
from sr_utils.deflow import DeFlow
from sr_utils.fidelity import flat_places, to_patches, without_plane
from sr_utils.grain import BOUND, LUMA, PATCH, band_frequencies, band_means, luma_of
from sr_utils.noise_calibration import check_gain_shift, check_places
from sr_utils.plain_cards import plain_cards

ROUNDED = 2
"""The first band whose colour compression rounds away."""
QUANTILE = 0.25
FLOOR = (0.2 / 255) ** 2
"""Added to all powers: below it, rounding rules."""
DAMPING, LARGEST_STEP = 0.7, 3.0
"""Power of T that is applied at a time, and its largest factor to either side."""

SPLIT = torch.tensor((LUMA, (1 - LUMA[0], -LUMA[1], -LUMA[2]), (-LUMA[0], -LUMA[1], 1 - LUMA[2])))
"""R, G, B to Y, R - Y, B - Y."""
_MERGE = torch.linalg.inv(SPLIT)


@dataclass(frozen=True)
class Spectra:
    """Noise on plain surfaces: of Y, R - Y and B - Y in every band."""

    power: Tensor
    """`QUANTILE` over places, or the mean where compression rounds most places to zero, (B, 3)."""
    covariance: Tensor
    """Mean over places, (B, 3, 3)."""

    def luma(self) -> Tensor:
        """Power of Y, (B,)."""
        return self.power[:, 0]

    def colour(self) -> Tensor:
        """Power of R - Y and B - Y together, (B,)."""
        return self.power[:, 1:].sum(1)


@dataclass(frozen=True)
class GrainCalibration:
    """What was seen, in image units squared."""

    frequencies: Tensor
    """Of the bands, in cycles a pixel, (B,)."""
    real: Spectra
    before: Spectra
    """Of translated cards, with the filter the model came with."""
    after: Spectra


def band_powers(patches: Tensor) -> Tensor:
    """Mean power of luma in every band, planes removed: (P, 3, 16, 16) to (P, B)."""
    return band_means(coefficients(luma_of(without_plane(patches))).square())


def spectra(patches: Tensor) -> Spectra:
    """Of plain surfaces, (P, 3, 16, 16)."""
    waves = coefficients(torch.einsum("ij,pjhw->pihw", SPLIT.to(patches), without_plane(patches)))
    # (P, 3, 3, 16, 16): products of the same coefficient of two of the three.
    covariance = band_means(waves[:, :, None] * waves[:, None]).permute(0, 3, 1, 2)
    powers = covariance.diagonal(dim1=2, dim2=3)
    power = powers.quantile(QUANTILE, dim=0)
    power[ROUNDED:, 1:] = powers.mean(0)[ROUNDED:, 1:]
    return Spectra(power, covariance.mean(0))


def coefficients(maps: Tensor) -> Tensor:
    """The cosine transform of maps (..., 16, 16)."""
    cosine = cosine_basis(PATCH).to(maps.dtype)
    return cosine @ maps @ cosine.T


def flattest_places(images: Sequence[Tensor], share: float) -> Tensor:
    """The flattest patches (P, 3, 16, 16) of every image."""
    masks = (flat_places(image, size=PATCH, share=share).flatten() for image in images)
    return torch.cat([to_patches([image], PATCH)[mask] for image, mask in zip(images, masks, strict=True)])


def calibrate_grain(
    model: DeFlow,
    degraded: Sequence[Tensor],
    *,
    qualities: Sequence[int] = (),
    share: float = 0.015,
    cards: int = 120,
    rounds: int = 4,
    seed: int = 0,
) -> GrainCalibration:
    """Set the grain of a gain shift so that plain cards look like flat places of degraded images, in place.

    Parameters
    ----------
    model: a DeFlow with ``shift="gain"`` on the CPU, its noise calibrated before; only ``model.grain`` changes.
    degraded: images (3, H, W) in [0, 1] whose flat places show the real noise.
    qualities: as in `sampling.degrade_image`.
    share: of the places of each image, the flattest, are looked at.
    cards, rounds: how many cards are translated, and how often the filter is moved.

    Raises
    ------
    UserError: the model has another shift; an image is smaller than a place, or all are black or white throughout.
    """
    check_gain_shift(model, "grain to calibrate")
    places, colours = flat_colours(degraded, share=share, cards=cards)
    real, seen, drawn = spectra(places), [], plain_cards(model, colours, seed=seed)
    for turn in range(rounds + 1):
        seen.append(spectra(drawn.patches(model, qualities=qualities)))
        if turn < rounds:
            moved = _steps(seen[-1], real).to(model.grain.mixing) @ model.grain.mixing
            left, factors, right = torch.linalg.svd(moved)
            model.grain.mixing.copy_((left * factors.clamp(1 / BOUND, BOUND).unsqueeze(-2)) @ right)
    return GrainCalibration(band_frequencies(), real, seen[0], seen[-1])


def _steps(found: Spectra, wanted: Spectra) -> Tensor:
    """By which to multiply the filter, for R, G and B, (B, 3, 3)."""
    # The wanted covariance, at the strengths that the places agree on.
    power = found.covariance.diagonal(dim1=1, dim2=2) * (wanted.power + FLOOR) / (found.power + FLOOR)
    scale = (power / wanted.covariance.diagonal(dim1=1, dim2=2).clamp(min=FLOOR)).sqrt()
    target = scale[:, :, None] * wanted.covariance * scale[:, None]
    floor = FLOOR * torch.eye(3)
    merge = _MERGE.to(target)
    one, other = (merge @ covariance @ merge.T + floor.to(target) for covariance in (found.covariance, target))
    root = _power(one, 0.5)
    back = torch.linalg.inv(root)
    return _power(back @ _power(root @ other @ root, 0.5) @ back, DAMPING, LARGEST_STEP)


def _power(matrices: Tensor, exponent: float, largest: float = torch.inf) -> Tensor:
    """Powers of symmetric positive matrices (..., n, n), the eigenvalues brought between 1 / ``largest`` and that."""
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    values = values.clamp(min=max(1 / largest, torch.finfo(values.dtype).tiny), max=largest).pow(exponent)
    return (vectors * values.unsqueeze(-2)) @ vectors.mT


def flat_colours(degraded: Sequence[Tensor], *, share: float, cards: int) -> tuple[Tensor, Tensor]:
    """The flattest places (P, 3, 16, 16) of every image, and the colours (N, 3) of some, at most ``cards``.

    Raises
    ------
    UserError: an image is smaller than a place, or all are black or white throughout.
    """
    places = flattest_places(degraded, share)
    check_places(len(places))
    return places, places.mean((2, 3))[:: max(1, len(places) // cards)][:cards]
