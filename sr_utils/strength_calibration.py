"""How unlike are a camera's photographs in the strength of their noise? Read off plain cards, behind compression.

No two photographs of one camera are equally noisy, and the gain shift has a population of strengths for that
(`latent_noise.Population`). Its likelihood sees inputs that were compressed, and compression exaggerates: of weak noise
it rounds nearly everything to zero, of strong noise little. So the population comes out too diverse, and translated
images, compressed in their turn, differ still more.

What compression does is known once it is done. Plain cards with the colours of an image's flat places are translated
at every strength and compressed, which says how loud luma would be at each. With d_ij the mean over the places of image
i of the logarithm of what is seen less that of the cards at strength j, and less what all images have in common, which
is for `grain_calibration` to say, the image's likelihood and the shares w are ::

    p(image i | j) ~ N(d_ij; 0, s²),   w maximises  sum over i of log sum over j of w_j p(image i | j)

a mixture whose shares alone are unknown: the nonparametric maximum likelihood of Kiefer and Wolfowitz on a grid, found
by expectation maximisation. No truth is needed.

Reference: Laird, "Nonparametric maximum likelihood estimation of a mixing distribution", JASA 1978.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.deflow import DeFlow, reconfigured
from sr_utils.grain_calibration import band_powers, flattest_places
from sr_utils.noise_calibration import check_gain_shift, check_places
from sr_utils.plain_cards import plain_cards

UNCERTAINTY = 0.2
"""s: deviation of the logarithm of one image's noise power, as a few flat places tell it."""
BANDS = slice(1, 6)
"""Bands of luma that are read: below them scenes differ, above them compression leaves nothing."""
ROUNDS = 200
SMALLEST_SHARE = 1e-4
"""No strength is excluded for good: a later fit could not bring it back."""


@dataclass(frozen=True)
class StrengthCalibration:
    """Shares of the strengths, (S,) each, and what each image seems to have."""

    log_strengths: Tensor
    before: Tensor
    after: Tensor
    images: Tensor
    """Logarithm of the strength of each image that has a flat place, read from the cards."""


@torch.no_grad()
def calibrate_strengths(
    model: DeFlow,
    degraded: Sequence[Tensor],
    *,
    qualities: Sequence[int] = (),
    share: float = 0.015,
    places: int = 160,
    seed: int = 0,
) -> StrengthCalibration:
    """Set how often images have which strength of noise, in place; see the module's text.

    Parameters
    ----------
    model: a DeFlow with ``shift="gain"`` on the CPU, its noise calibrated before.
    degraded: images (3, H, W) in [0, 1] whose flat places show the real noise.
    qualities: as in `sampling.degrade_image`.
    share: of the places of each image, the flattest, are looked at; of all images together at most ``places``, or one
        of each.

    Raises
    ------
    UserError: the model has another shift; an image is smaller than a place, or all are black or white throughout.
    """
    check_gain_shift(model, "strengths to calibrate")
    found = [flattest_places([image], share) for image in degraded]
    found = [each[: max(1, places // len(degraded))] for each in found if len(each)]
    check_places(len(found))
    owner = torch.arange(len(found)).repeat_interleave(torch.tensor([len(each) for each in found]))
    seen = torch.cat(found)
    strengths = model.population.log_strengths.clone()
    # The logarithm follows the logarithm, nearly in a straight line: the weakest, the middle and the strongest do.
    asked = torch.tensor([0, len(strengths) // 2, len(strengths) - 1])
    cards = []
    for index in asked.tolist():
        drawn = plain_cards(of_one_strength(model, index), seen.mean((2, 3)), seed=seed)
        cards.append(_loudness(drawn.patches(model, qualities=qualities), len(seen)))
    difference = _loudness(seen, len(seen))[:, None] - _between(strengths, strengths[asked], torch.stack(cards, dim=1))
    counts = owner.bincount()[:, None]
    difference = torch.zeros(len(found), len(strengths)).index_add(0, owner, difference) / counts
    # How strong the noise of all is, the grain's calibration says.
    difference = difference - difference[:, difference.shape[1] // 2].median()
    before = model.population.log_weights().exp()
    after = mixture_shares(-0.5 * (difference / UNCERTAINTY).square())
    model.population.weights.copy_(after.clamp(min=SMALLEST_SHARE).log())
    return StrengthCalibration(strengths, before, after, _crossings(difference, strengths))


def of_one_strength(model: DeFlow, index: int) -> DeFlow:
    """A copy that degrades every image with the same strength of noise."""
    copy = reconfigured(model)
    copy.population.weights.data.fill_(-torch.inf)
    copy.population.weights.data[index] = 0.0
    return copy


def _loudness(patches: Tensor, count: int) -> Tensor:
    """Logarithm of luma's mean power in `BANDS`, of each of ``count`` plain surfaces that have equally many patches."""
    powers = band_powers(patches)[:, BANDS].unflatten(0, (count, -1)).mean((1, 2))
    return powers.clamp(min=(0.01 / 255) ** 2).log()


def _between(strengths: Tensor, asked: Tensor, values: Tensor) -> Tensor:
    """Values (P, A) at ``asked`` strengths, rising, interpolated at all, (P, S)."""
    above = torch.bucketize(strengths, asked).clamp(1, len(asked) - 1)
    share = (strengths - asked[above - 1]) / (asked[above] - asked[above - 1])
    return torch.lerp(values[:, above - 1], values[:, above], share)


def mixture_shares(log_likelihood: Tensor) -> Tensor:
    """Shares (S,) that make what was seen most likely, given its log-likelihood under every kind, (N, S)."""
    shares = torch.full_like(log_likelihood[0], 1 / log_likelihood.shape[1])
    for _ in range(ROUNDS):
        shares = (log_likelihood + shares.log()).softmax(1).mean(0)
    return shares


def _crossings(difference: Tensor, log_strengths: Tensor) -> Tensor:
    """Where falling differences (N, S) cross zero, by the straight line that fits them best, (N,)."""
    centred = log_strengths - log_strengths.mean()
    slope = (difference * centred).sum(1) / centred.square().sum()
    return log_strengths.mean() - difference.mean(1) / slope.clamp(max=-1e-3)
