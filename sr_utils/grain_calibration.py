"""Measure the grain of a gain shift's noise on plain cards, and set the filter that mends it.

A plain card of one colour is the simplest of clean images, and whatever is seen on its degraded version is noise. The
degraded set has no cards, but flat places, which are nearly that. So plain cards with the colours of those places are
translated and compressed, and the spectra of both are compared, band by band. The filter of `grain.Grain` is moved by
their ratio, and since compression comes behind it, this is done again a few times. No truth is needed, and nothing is
learned but seven numbers for luma and seven for colour.

The shape of luma's spectrum is compared place by place, relative to the middle bands, or the noisiest places would
decide. Its strength is compared as the mean power: every image gives an equal share of its places, so quiet images
count as they do among the cards. What the noise's own calibration found is too much where even the flattest places of
an image hold some detail.

Compression rounds nearly all but the coarsest colour noise of a plain surface to zero, and what the noise's own
calibration sees of it is what is left. Translated and compressed again, it would be rounded a second time. So colour is
compared as mean powers, in which the few places count where some of it has survived, and made stronger until as much
survives. The coarsest bands survive whole and stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.compression import cosine_basis
from sr_utils.deflow import DeFlow
from sr_utils.errors import UserError
from sr_utils.fidelity import flat_places, to_patches, without_plane
from sr_utils.grain import BOUND, PATCH, band_frequencies, band_indices, band_means, luma_of
from sr_utils.noise_calibration import check_gain_shift
from sr_utils.sampling import degrade_image

CARD = 64
"""Side of a card in pixels; its outer ring of 8 pixels is left out."""
MIDDLE = slice(2, 5)
"""Bands that the others are compared with."""
ROUNDED = 2
"""The first band whose colour compression rounds away."""
FLOOR = 1e-4
"""Added to relative powers before their logarithm: below it, rounding rules."""


@dataclass(frozen=True)
class GrainCalibration:
    """Spectra of plain surfaces, (B,) each, in decibels: luma's relative to its middle bands, colour's to the real."""

    frequencies: Tensor
    """Of the bands, in cycles a pixel, (B,)."""
    real: Tensor
    before: Tensor
    """Of translated cards, with the filter the model came with."""
    after: Tensor
    colour_before: Tensor
    colour_after: Tensor
    strengths: tuple[float, float, float]
    """Deviation of luma in image units, all bands together: real, before and after."""


def band_powers(patches: Tensor) -> Tensor:
    """Mean power of luma in every band, planes removed: (P, 3, 16, 16) to (P, B)."""
    return _powers(luma_of(without_plane(patches)))


def colour_powers(patches: Tensor) -> Tensor:
    """Mean power, in every band, of what differs from luma, over R, G and B: (P, 3, 16, 16) to (P, B)."""
    level = without_plane(patches)
    differing = level - luma_of(level).unsqueeze(1)
    return _powers(differing.flatten(0, 1)).unflatten(0, (-1, 3)).mean(1)


def _powers(maps: Tensor) -> Tensor:
    """(P, 16, 16) to (P, B)."""
    return band_means(coefficients(maps).square())


def coefficients(maps: Tensor) -> Tensor:
    """The cosine transform of (P, 16, 16)."""
    cosine = cosine_basis(PATCH).to(maps.dtype)
    return cosine @ maps @ cosine.T


def _shape(powers: Tensor) -> Tensor:
    """Geometric mean over places of powers (P, B) relative to each place's own middle, in decibels, (B,)."""
    relative = powers / powers[:, MIDDLE].mean(1, keepdim=True).clamp(min=1e-12)
    return 10 * (relative + FLOOR).log10().mean(0)


def _flat(images: Sequence[Tensor], share: float) -> Tensor:
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
    real, real_luma, real_colour = _spectra(places)
    spectra = []
    for turn in range(rounds + 1):
        shape, luma, colour = _spectra(card_patches(model, colours, qualities=qualities, seed=seed))
        spectra.append((shape, luma, colour))
        if turn < rounds:
            # Decibels of power; half of them are the gain's. Its logarithm is moved nearly as far.
            move = 0.8 * (real - shape) * (torch.log(torch.tensor(10.0)) / 20)
            model.grain.log_gain += move + 0.5 * (real_luma / luma).log()
            model.grain.log_gain_colour[ROUNDED:] += 0.5 * (real_colour / colour)[ROUNDED:].log()
            for log_gain in (model.grain.log_gain, model.grain.log_gain_colour):
                log_gain.clamp_(-BOUND, BOUND)
    (before, luma_before, colour_before), (after, luma_after, colour_after) = spectra[0], spectra[-1]
    return GrainCalibration(
        band_frequencies(),
        real,
        before,
        after,
        10 * (colour_before / real_colour).log10(),
        10 * (colour_after / real_colour).log10(),
        tuple(power.sqrt().item() for power in (real_luma, luma_before, luma_after)),
    )


def _spectra(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of patches (P, 3, 16, 16): shape of luma (B,) in decibels, its mean power, and colour's mean powers (B,)."""
    powers = band_powers(patches)
    # In every band something is left, at least a hundredth of a level.
    return _shape(powers), _luma_power(powers), colour_powers(patches).mean(0).clamp(min=(0.01 / 255) ** 2)


def _luma_power(powers: Tensor) -> Tensor:
    """Mean over places and coefficients of powers (P, B)."""
    counts = torch.bincount(band_indices().flatten() + 1)[1:]
    return (powers * counts).sum(1).mean() / counts.sum()


def flat_colours(degraded: Sequence[Tensor], *, share: float, cards: int) -> tuple[Tensor, Tensor]:
    """The flattest places (P, 3, 16, 16) of every image, and the colours (N, 3) of some, at most ``cards``.

    Raises
    ------
    UserError: an image is smaller than a place, or all are black or white throughout.
    """
    places = _flat(degraded, share)
    if not len(places):
        raise UserError("Every patch of a set is black or white: give images with some mid-tones.")
    return places, places.mean((2, 3))[:: max(1, len(places) // cards)][:cards]


def card_patches(model: DeFlow, colours: Tensor, *, qualities: Sequence[int] = (), seed: int = 0) -> Tensor:
    """Patches (P, 3, 16, 16) of degraded cards of these colours (N, 3); ``qualities`` as in `degrade_image`."""
    patches = []
    for index, colour in enumerate(colours):
        card = colour[:, None, None].expand(3, CARD, CARD).contiguous()
        degraded = degrade_image(model, card, qualities=qualities, seed=seed + index)
        patches.append(to_patches([degraded[:, 8:-8, 8:-8]], PATCH))
    return torch.cat(patches)
