"""Measure the grain of a gain shift's noise on plain cards, and set the filter that mends it.

A plain card of one colour is the simplest of clean images, and whatever is seen on its degraded version is noise. The
degraded set has no cards, but flat places, which are nearly that. So plain cards with the colours of those places are
translated and compressed, and the spectra of both are compared, band by band. The filter of `grain.Grain` is moved by
their ratio, and since compression comes behind it, this is done again a few times. No truth is needed, and nothing is
learned but seven numbers.

Only the shape of the spectrum is compared, relative to the middle bands: the flattest places are also the quietest
ones, so their strength says little. The power of luma stays what the noise's own calibration has found. Colour is left
as it is: compression rounds nearly all of a plain surface's colour noise to zero, so what is left of it does not tell
how much there was.
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
from sr_utils.grain import BOUND, EDGES, LUMA, PATCH, band_frequencies, band_indices
from sr_utils.sampling import degrade_image

CARD = 64
"""Side of a card in pixels; its outer ring of 8 pixels is left out."""
MIDDLE = slice(2, 5)
"""Bands that the others are compared with."""
FLOOR = 1e-4
"""Added to relative powers before their logarithm: below it, rounding rules."""


@dataclass(frozen=True)
class GrainCalibration:
    """Luma spectra of plain surfaces, relative to their middle bands, (B,) each, in decibels."""

    frequencies: Tensor
    """Of the bands, in cycles a pixel, (B,)."""
    real: Tensor
    before: Tensor
    """Of translated cards, with the filter the model came with."""
    after: Tensor


def band_powers(patches: Tensor) -> Tensor:
    """Mean power of luma in every band, planes removed: (P, 3, 16, 16) to (P, B)."""
    cosine = cosine_basis(PATCH).to(patches.dtype)
    luma = torch.einsum("j,pjhw->phw", patches.new_tensor(LUMA), without_plane(patches))
    power, bands = (cosine @ luma @ cosine.T).square(), band_indices()
    return torch.stack([power[:, bands == band].mean(1) for band in range(len(EDGES) - 1)], dim=1)


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
    cards: int = 60,
    rounds: int = 3,
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
    if model.config.shift != "gain":
        raise UserError(f"A shift of kind {model.config.shift!r} has no grain to calibrate: train with shift='gain'.")
    places = _flat(degraded, share)
    if not len(places):
        raise UserError("Every patch of a set is black or white: give images with some mid-tones.")
    real = _shape(band_powers(places))
    colours = places.mean((2, 3))[:: max(1, len(places) // cards)][:cards]
    counts = torch.bincount(band_indices().flatten() + 1)[1:]
    spectra, luma = [], []
    for turn in range(rounds + 1):
        powers = band_powers(_card_patches(model, colours, qualities, seed))
        spectra.append(_shape(powers))
        luma.append((powers * counts).sum(1).mean())
        if turn < rounds:
            # Decibels of power; half of them are the gain's. Its logarithm is moved nearly as far.
            move = 0.8 * (real - spectra[-1]) * (torch.log(torch.tensor(10.0)) / 20)
            model.grain.log_gain += move + 0.5 * (luma[0] / luma[-1]).log()
            model.grain.log_gain.clamp_(-BOUND, BOUND)
    return GrainCalibration(band_frequencies(), real, spectra[0], spectra[-1])


def _card_patches(model: DeFlow, colours: Tensor, qualities: Sequence[int], seed: int) -> Tensor:
    """Patches (P, 3, 16, 16) of degraded cards of these colours (N, 3)."""
    patches = []
    for index, colour in enumerate(colours):
        card = colour[:, None, None].expand(3, CARD, CARD).contiguous()
        degraded = degrade_image(model, card, qualities=qualities, seed=seed + index)
        patches.append(to_patches([degraded[:, 8:-8, 8:-8]], PATCH))
    return torch.cat(patches)
