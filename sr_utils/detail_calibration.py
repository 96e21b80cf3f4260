"""Read off the grain how much of a scene's detail a camera passes on.

No likelihood of unpaired images can tell a camera that blurs from scenes that are soft, or detail that survived from
detail that was made up (`gain_shift`). The grain can. On the sensor, before anything else, noise is white; whatever is
done to the image afterwards, interpolating colours, smoothing or shrinking it, is done to noise and scene alike. So
noise is a chart of all frequencies that every image carries, and with N its spectrum in flat places, as it was before
compression, the detail of frequency f is passed on with the gain::

    G(f) = (N(f) / N(0))^(1/2)

That is what a flow should do to a clean image, and its gains are often too high: a set of clean photographs with more
detail than the degraded scenes have looks like a better camera. What is missing is made up for by a Gaussian blur of
the clean image, ahead of the flow, whose own gain K(f) is measured::

    K(f) B(f; sigma) = G(f)

with B the blur's response, that of the sampled kernel: of a deviation below one pixel it differs from a Gaussian. sigma
is where the ratio of both sides varies least over the bands. So N(0) need not be known, and nobody can: planes are
taken out of the places, which were chosen for being flat, so the lowest bands are left out.

What a lens takes away comes before the noise and is not seen by this. Nor does it hold where software adds grain, or
tells it from detail and treats both differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.deflow import DeFlow, reconfigured
from sr_utils.degradations import gaussian_blur
from sr_utils.fidelity import to_patches
from sr_utils.grain import PATCH, band_frequencies, band_means, luma_of
from sr_utils.grain_calibration import band_powers, coefficients, flat_colours
from sr_utils.images import crop_to_multiple
from sr_utils.noise_calibration import check_gain_shift
from sr_utils.plain_cards import plain_cards

FIRST = 2
"""The lowest band that is believed."""
CANDIDATES = tuple(index / 100 for index in range(201))
"""Deviations of the blur that are tried, in pixels."""


@dataclass(frozen=True)
class DetailCalibration:
    """What the grain said, for bands of luma, (B,) each."""

    frequencies: Tensor
    """In cycles a pixel."""
    grain: Tensor
    """G, with a scale at which K and the blur fit it best."""
    before: Tensor
    """K: what the flow passes on of the clean images' detail."""
    after: Tensor
    """K times the blur."""
    blur: float
    """Sigma, in pixels."""


def calibrate_detail(
    model: DeFlow, clean: Sequence[Tensor], degraded: Sequence[Tensor], *, share: float = 0.015, cards: int = 120
) -> tuple[DeFlow, DetailCalibration]:
    """A copy of a DeFlow that blurs as its grain says.

    Parameters
    ----------
    model: with ``shift="gain"``, on the CPU, its grain calibrated before (`grain_calibration`); it is left as it is.
    clean: images (3, H, W) in [0, 1] whose detail is followed through the flow.
    degraded: images whose flat places have the colours of the cards that show the grain.
    share, cards: as in `grain_calibration.calibrate_grain`.

    Raises
    ------
    UserError: the model has another shift, or an image is smaller than a place or the flow's own multiple.
    """
    check_gain_shift(model, "grain to read")
    sharp = reconfigured(model, blur=0.0)
    _, colours = flat_colours(degraded, share=share, cards=cards)
    power = band_powers(plain_cards(sharp, colours).patches(sharp)).mean(0)
    passed, frequencies = passed_on(sharp, clean), band_frequencies()

    def ratio(sigma: float) -> Tensor:
        """Logarithm of the two sides' ratio in the bands that are believed."""
        return (passed * blur_response(sigma) / power.sqrt()).log()[FIRST:]

    blur = min(CANDIDATES, key=lambda sigma: ratio(sigma).var().item())
    after, scale = passed * blur_response(blur), ratio(blur).mean().exp()
    fitted = DetailCalibration(frequencies, scale * power.sqrt(), passed, after, blur)
    return reconfigured(model, blur=blur), fitted


def blur_response(sigma: float) -> Tensor:
    """The gain of `degradations.gaussian_blur` in every band, (B,)."""
    radius = 4 * math.ceil(CANDIDATES[-1])
    impulse = torch.zeros(1, 3, 2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    impulse[..., radius, radius] = 1.0
    kernel = gaussian_blur(impulse, sigma)[0, 0].sum(0)
    index = torch.arange(PATCH, dtype=torch.float64)[:, None] / (2 * PATCH)
    line = (kernel * torch.cos(2 * math.pi * index * torch.arange(-radius, radius + 1))).sum(1)
    return band_means(line[:, None] * line).float()


def passed_on(model: DeFlow, clean: Sequence[Tensor]) -> Tensor:
    """The gain of luma in every band from clean images to their translations without noise, (B,)."""
    both, own = torch.zeros(2, PATCH, PATCH, dtype=torch.float64)
    for image in clean:
        image = crop_to_multiple(image, model.config.side_multiple)
        translated = model.translate(image[None], model.condition(image[None]), temperature=0.0)[0]
        before, after = (coefficients(luma_of(to_patches([each], PATCH))) for each in (image, translated))
        both += (before * after).sum(0)
        own += before.square().sum(0)
    return (band_means(both) / band_means(own)).float()
