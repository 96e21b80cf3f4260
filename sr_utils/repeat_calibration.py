"""Read the noise of a gain shift off a camera that looks twice at the same place.

Single images cannot say how much of the detail they show is the scene's own, so the gain shift has to assume a
coherence, and flat places stand in for all others (`noise_calibration`). Two frames of a fixed camera can say it. The
flow of a gain shift is linear in the image, given h; so with one h for both, what the scene gave drops out::

    (r_y - r_y') / sqrt(2) ~ N(0, s a²(b))

in flat places and rough ones alike. What does not change from one frame to the next counts as the scene's own: the
coherence is 1. A pattern that a camera adds in the same way every time is not seen by this, and neither is blur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.deflow import DeFlow, reconfigured
from sr_utils.errors import UserError
from sr_utils.images import crop_to_multiple
from sr_utils.noise_calibration import PATCH, STEPS, PlaceLatents, check_gain_shift, fit_noise
from sr_utils.temporal import required_views

PLACES = 16
"""Places that are read in each pair of frames."""
DARKEST, LIGHTEST = 4 / 255, 251 / 255
"""A place with a pixel outside is left out: there the noise is cut off."""


def calibrate_noise_from_repeats(model: DeFlow, frames: Sequence[Tensor], *, steps: int = STEPS) -> DeFlow:
    """A copy of a DeFlow whose noise is what changes between successive frames of one place, with coherence 1.

    Parameters
    ----------
    model: trained, with ``shift="gain"``, on the CPU.
    frames: images (3, H, W) in [0, 1], at least three of each camera position.

    Raises
    ------
    UserError: the model has another shift; no position has three frames; or they have nothing still in common.
    """
    check_gain_shift(model)
    views = required_views(frames)
    calibrated = reconfigured(model, coherence=1.0)
    # A strength that was all but excluded could not come back in so short a fit.
    torch.nn.init.zeros_(calibrated.population.weights)
    multiple = math.lcm(PATCH, model.config.side_multiple)
    pairs = []
    for view in views:
        median = crop_to_multiple(view.median, multiple)
        for first in range(len(view.indices) - 1):
            both = [crop_to_multiple(frames[view.indices[first + step]], multiple) for step in (0, 1)]
            still = crop_to_multiple(view.still[first] & view.still[first + 1], multiple)
            places = _still_places(both, still)
            if len(places):
                pairs.append(_differences(calibrated, both, median, places))
    if not pairs:
        raise UserError("No two successive frames show the same place without motion: give frames of a fixed camera.")
    fit_noise(calibrated, pairs, [torch.zeros(shift.channels) for shift in calibrated.shifts], steps=steps)
    return calibrated


def _still_places(both: Sequence[Tensor], still: Tensor) -> Tensor:
    """Indices of squares of `PATCH` pixels, row by row, that are still and of mid-tones; at most `PLACES`, spread."""
    usable = still.float()
    for frame in both:
        usable = usable * ((frame > DARKEST) & (frame < LIGHTEST)).all(0, keepdim=True)
    whole = -F.max_pool2d(-usable[None], PATCH)
    found = whole.flatten().nonzero().flatten()
    return found[:: max(1, math.ceil(len(found) / PLACES))]


@torch.no_grad()
def _differences(model: DeFlow, both: Sequence[Tensor], median: Tensor, places: Tensor) -> list[PlaceLatents]:
    """What changes from one frame to the other in all latents, in the given places."""
    condition = model.normalised(model.condition(median[None]))
    encoded = [model.encode_in_context(model.normalised(frame[None]), condition) for frame in both]
    found = []
    for shift, (one, context), (other, _) in zip(model.shifts, *encoded, strict=True):
        side = PATCH * one.shape[2] // median.shape[1]
        change = torch.einsum("ji,njhw->nihw", shift.rotation(), (one - other) / math.sqrt(2))
        power = F.avg_pool2d(change.square(), side)[0].flatten(1)[:, places].T
        colour = F.avg_pool2d(context, side).flatten(2)[:, :, places].unsqueeze(3)
        found.append(PlaceLatents(power, colour, side**2))
    return found
