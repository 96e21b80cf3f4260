"""The grain of added noise: how its power is spread over spatial frequencies.

A flow's latents are given noise one by one, as if what a camera adds to one had nothing to do with what it adds to
its neighbours. In a learned wavelet transform that is not so: fine latents are what coarse ones do not predict, so
noise in a coarse latent shows in the fine ones too. Drawn apart, the parts are right and the sum is not: its spectrum
is too strong here and too weak there. One filter over the sum mends that::

    y = y_0 + F * (y_1 - y_0)

with y_0 the translation without anything drawn, y_1 the one with it, and F a filter whose responses to luma and to what
differs from it, colour, depend on the distance from frequency zero. `grain_calibration` measures them. The flow of the
gain shift is linear given h, so y_1 - y_0 is the noise itself, wherever it is filtered.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
"""Luma of R, G, B (ITU-T T.871, section 7)."""
PATCH = 16
"""Side in pixels of the blocks whose cosine transform tells frequencies apart; index i has i / 32 cycles a pixel."""
EDGES = (0.5, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 22.0)
"""Where bands of frequencies begin and end, as a distance of indices from zero."""
MARGIN = 32
"""Pixels by which noise is extended, mirrored, before it is filtered: a border must not see the opposite one."""
BOUND = 1.6
"""Largest logarithm of a gain, to either side."""


def _distances() -> Tensor:
    """How far each coefficient of a block is from the mean, in indices, (16, 16)."""
    index = torch.arange(PATCH, dtype=torch.float64)
    return torch.hypot(index[:, None], index[None])


def band_indices() -> Tensor:
    """The band of each coefficient of a block, (16, 16); -1 for the mean, which is in none."""
    return torch.bucketize(_distances(), torch.tensor(EDGES, dtype=torch.float64), right=True) - 1


def band_frequencies() -> Tensor:
    """Mean distance from frequency zero of the coefficients in each band, in cycles a pixel, (B,)."""
    return band_means(_distances() / (2 * PATCH)).float()


def band_means(values: Tensor) -> Tensor:
    """Mean of the values (..., 16, 16) of a block's coefficients in every band, (..., B)."""
    bands = band_indices()
    return torch.stack([values[..., bands == band].mean(-1) for band in range(len(EDGES) - 1)], dim=-1)


class Grain(nn.Module):
    """The filter F; at first the identity.

    ``log_gain`` and ``log_gain_colour`` (B,): logarithm of the response in every band. Between the bands' mean
    frequencies it is interpolated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_gain", torch.zeros(len(EDGES) - 1))
        self.register_buffer("log_gain_colour", torch.zeros(len(EDGES) - 1))
        self.register_state_dict_post_hook(_drop_idle_colour)
        self.register_load_state_dict_pre_hook(_fill_idle_colour)

    def changes(self) -> bool:
        """Whether the filter is anything but the identity."""
        return bool(self.log_gain.any() or self.log_gain_colour.any())

    @staticmethod
    def response(log_gain: Tensor, height: int, width: int) -> Tensor:
        """The gain at each frequency of `torch.fft.rfft2` of maps of this size, (height, width // 2 + 1)."""
        like = {"device": log_gain.device, "dtype": log_gain.dtype}
        down, right = torch.fft.fftfreq(height, **like), torch.fft.rfftfreq(width, **like)
        distance = torch.hypot(down[:, None], right[None])
        nodes = band_frequencies().to(**like)
        above = torch.bucketize(distance, nodes).clamp(1, len(nodes) - 1)
        share = ((distance - nodes[above - 1]) / (nodes[above] - nodes[above - 1])).clamp(0, 1)
        return torch.lerp(log_gain[above - 1], log_gain[above], share).exp()

    def forward(self, noise: Tensor) -> Tensor:
        """Filter noise (N, 3, H, W) in R, G, B; beyond its borders it is taken to go on mirrored."""
        luma = luma_of(noise).unsqueeze(1)
        filtered = noise + self._change(luma, self.log_gain)
        # Most filters leave colour alone, and need not pay for three maps more.
        return filtered + self._change(noise - luma, self.log_gain_colour) if self.log_gain_colour.any() else filtered

    def _change(self, maps: Tensor, log_gain: Tensor) -> Tensor:
        """What a filter adds to maps (N, C, H, W)."""
        height, width = maps.shape[2:]
        above, left = min(MARGIN, height - 1), min(MARGIN, width - 1)
        extended = F.pad(maps, (left, left, above, above), mode="reflect")
        size = extended.shape[2:]
        change = self.response(log_gain, *size) - 1
        changed = torch.fft.irfft2(torch.fft.rfft2(extended) * change, s=size)
        return changed[:, :, above : above + height, left : left + width]


def luma_of(images: Tensor) -> Tensor:
    """Luma of R, G, B, (N, 3, H, W) to (N, H, W)."""
    return torch.einsum("j,njhw->nhw", images.new_tensor(LUMA), images)


def _drop_idle_colour(module: Grain, state: dict[str, Tensor], prefix: str, *unused: object) -> None:
    """What does nothing is not stored: such weights are what they were before colour had a filter."""
    if not module.log_gain_colour.any():
        del state[f"{prefix}log_gain_colour"]


def _fill_idle_colour(module: Grain, state: dict[str, Tensor], prefix: str, *unused: object) -> None:
    """Where no filter of colour is stored, colour passes."""
    state.setdefault(f"{prefix}log_gain_colour", torch.zeros_like(module.log_gain_colour))
