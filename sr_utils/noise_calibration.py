"""Read the noise of a gain shift where the scene is flat, and nowhere else.

The likelihood of whole images decides between noise and detail everywhere at once, and where texture covers the
noise it decides by what kind of detail it expects there. Trained for long, it takes a camera's grain for texture of
the degraded scenes: the grain comes out too coarse and too weak. In a flat place there is no such choice. There a
coordinate of the degraded latent is noise, but for what little detail is left::

    r_y ~ N(m, k² c² v + s a²(b)),   v = E[r_x²] over flat places of clean images

So with gains, means, contrast and directions as they are, the noise is fitted once more, by the same likelihood, to
flat places only: its variance a² along each direction, how that depends on the colour b, and how often images have
which strength s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.deflow import DeFlow
from sr_utils.errors import UserError
from sr_utils.fidelity import flat_places
from sr_utils.gain_shift import GainShift
from sr_utils.images import crop_to_multiple

PATCH = 16
"""Side in pixels of the places that are judged flat or not."""
STEPS, RATE = 300, 0.03
"""Length and learning rate of the fit, which has a few hundred parameters."""


@dataclass(frozen=True)
class PlaceLatents:
    """What is taken for noise in one latent, in P places."""

    power: Tensor
    """Mean square of each rotated coordinate over a place, (P, C)."""
    colour: Tensor
    """Mean colour of h there, (1, 3, P, 1)."""
    positions: int
    """Positions of the latent in one place."""


@torch.no_grad()
def _flat_latents(model: DeFlow, image: Tensor, share: float, *, degraded: bool) -> list[PlaceLatents]:
    """All latents of one image in its flat places, finest first."""
    image = crop_to_multiple(image, math.lcm(PATCH, model.config.side_multiple))
    places = flat_places(image, size=PATCH, share=share)
    seen, condition = image[None], model.condition(image[None])
    if degraded:
        seen, condition = model.normalised(seen), model.normalised(condition)
    found = []
    for shift, (latent, context) in zip(model.shifts, model.encode_in_context(seen, condition), strict=True):
        side = PATCH * latent.shape[2] // image.shape[1]
        rotated = torch.einsum("ji,njhw->nihw", shift.rotation(), latent)
        power = F.avg_pool2d((rotated - degraded * shift.mean[:, None, None]).square(), side)[0, :, places].T
        colour = F.avg_pool2d(context, side)[:, :, places].unsqueeze(3)
        found.append(PlaceLatents(power, colour, side**2))
    return found


def check_gain_shift(model: DeFlow, lacking: str = "noise to calibrate") -> None:
    """Raise a `UserError` if a shift is not the gain shift, saying what it is ``lacking``, or too coarse for places."""
    if model.config.shift != "gain":
        raise UserError(f"A shift of kind {model.config.shift!r} has no {lacking}: train with shift='gain'.")
    if 2**model.config.levels > PATCH:
        raise UserError(f"levels={model.config.levels} makes latents coarser than a place of {PATCH} pixels: give 4.")


def check_places(count: int) -> None:
    """Raise a `UserError` if no place of a set can show its noise."""
    if not count:
        raise UserError("Every patch of a set is black or white: give images with some mid-tones.")


def calibrate_noise(
    model: DeFlow, clean: Sequence[Tensor], degraded: Sequence[Tensor], *, share: float = 0.03, steps: int = STEPS
) -> list[float]:
    """Fit the noise of a gain shift to the flattest ``share`` of the places of each image, in place.

    Parameters
    ----------
    model: a trained DeFlow with ``shift="gain"``, on the CPU; only its noise and the weights of its strengths change.
    clean, degraded: images (3, H, W) in [0, 1] that need not be paired, such as it was trained on.

    Returns
    -------
    The negative log-likelihood of a value in the degraded images' flat places, at every step.

    Raises
    ------
    UserError: the model has another shift; an image is smaller than a place, or a set black or white throughout.
    """
    check_gain_shift(model)
    of_clean = [_flat_latents(model, image, share, degraded=False) for image in clean]
    of_degraded = [_flat_latents(model, image, share, degraded=True) for image in degraded]
    for images in (of_clean, of_degraded):
        check_places(sum(len(image[0].power) for image in images))
    kept = []
    for level, shift in enumerate(model.shifts):
        detail = torch.cat([image[level].power for image in of_clean]).mean(0)
        kept.append((2 * (shift.log_gains() + model.population.log_contrast)).exp().detach() * detail)
    return fit_noise(model, of_degraded, kept, steps=steps)


def fit_noise(
    model: DeFlow, images: Sequence[Sequence[PlaceLatents]], kept: Sequence[Tensor], *, steps: int = STEPS
) -> list[float]:
    """Fit noise and strengths to places whose power is noise, but for ``kept``; returns the loss at every step.

    ``images`` has the latents of every image, finest first, and ``kept`` the variance (C,) in each latent that is not
    noise.
    """
    owner = torch.tensor([index for index, image in enumerate(images) for _ in image[0].power])
    levels = []
    for level, shift in enumerate(model.shifts):
        power = torch.cat([image[level].power for image in images])
        colour = torch.cat([image[level].colour for image in images], dim=2)
        levels.append((shift, kept[level], PlaceLatents(power, colour, images[0][level].positions)))
    values = sum(places.power.numel() * places.positions for _, _, places in levels)
    noise = [part for shift in model.shifts for part in (shift.log_noise, *shift.tone.parameters())]
    optimiser = torch.optim.Adam([*noise, model.population.weights], lr=RATE)
    curve = []
    for _ in range(steps):
        log_prob = sum(_log_prob(*level, model.population.log_strengths) for level in levels)  # (P, S)
        of_images = torch.zeros(len(images), log_prob.shape[1], dtype=log_prob.dtype)
        loss = -model.population.over_strengths(of_images.index_add(0, owner, log_prob)).sum() / values
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(loss.item())
    return curve


def _log_prob(shift: GainShift, kept: Tensor, places: PlaceLatents, log_strengths: Tensor) -> Tensor:
    """Log-density of one latent in every place at every strength, (P, S)."""
    noise = shift.noise_log_variance(places.colour)[0, :, :, 0].exp().T
    variance = kept + log_strengths.exp()[:, None, None] * noise
    density = places.power / variance + variance.log() + math.log(2 * math.pi)
    return -0.5 * places.positions * density.sum(2).T
