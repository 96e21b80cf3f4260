"""The grain of added noise: how its power is spread over spatial frequencies.

A flow's latents are given noise one by one, as if what a camera adds to one had nothing to do with what it adds to
its neighbours. In a learned wavelet transform that is not so: fine latents are what coarse ones do not predict, so
noise in a coarse latent shows in the fine ones too. Drawn apart, the parts are right and the sum is not: its spectrum
is too strong here and too weak there. One filter over the sum mends that::

    y = y_0 + F * (y_1 - y_0)

with y_0 the translation without anything drawn, y_1 the one with it, and F a filter whose response, a matrix that mixes
R, G and B, depends on the distance from frequency zero. A sensor has two green pixels for each red and blue one, and
white balance makes the latter louder, so the three colours of its noise are neither equal nor independent, and in
coarse grain less so than in fine. `grain_calibration` measures the matrices. The flow of the gain shift is linear given
h, so y_1 - y_0 is the noise itself, wherever it is filtered.
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
BOUND = 5.0
"""Largest factor, to either side, by which the filter may change the deviation of any mixture of colours."""


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

    ``mixing`` (B, 3, 3): what R, G and B of the result take of R, G and B of the noise, in every band. Between the
    bands' mean frequencies it is interpolated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mixing", _identities())
        self.register_state_dict_post_hook(_store_idle_as_gains)
        self.register_load_state_dict_pre_hook(_read_gains)

    def reset(self) -> None:
        """Become the identity again."""
        self.mixing.copy_(_identities())

    def changes(self) -> bool:
        """Whether the filter is anything but the identity."""
        return not torch.equal(self.mixing, _identities().to(self.mixing))

    def response(self, height: int, width: int) -> Tensor:
        """The matrix at each frequency of `torch.fft.rfft2` of maps of this size, (height, width // 2 + 1, 3, 3)."""
        like = {"device": self.mixing.device, "dtype": self.mixing.dtype}
        down, right = torch.fft.fftfreq(height, **like), torch.fft.rfftfreq(width, **like)
        distance = torch.hypot(down[:, None], right[None])
        nodes = band_frequencies().to(**like)
        above = torch.bucketize(distance, nodes).clamp(1, len(nodes) - 1)
        share = ((distance - nodes[above - 1]) / (nodes[above] - nodes[above - 1])).clamp(0, 1)
        return torch.lerp(self.mixing[above - 1], self.mixing[above], share[..., None, None])

    def forward(self, noise: Tensor) -> Tensor:
        """Filter noise (N, 3, H, W) in R, G, B; beyond its borders it is taken to go on mirrored."""
        height, width = noise.shape[2:]
        above, left = min(MARGIN, height - 1), min(MARGIN, width - 1)
        extended = F.pad(noise, (left, left, above, above), mode="reflect")
        size = extended.shape[2:]
        matrices, waves = self.response(*size), torch.fft.rfft2(extended)
        # Not one product of matrices a frequency: those are slow where they are as small as these.
        mixed = [sum(matrices[..., row, column] * waves[:, column] for column in range(3)) for row in range(3)]
        filtered = torch.fft.irfft2(torch.stack(mixed, dim=1), s=size)
        return filtered[:, :, above : above + height, left : left + width]


def _identities() -> Tensor:
    """A matrix for every band that changes nothing, (B, 3, 3)."""
    return torch.eye(3).repeat(len(EDGES) - 1, 1, 1)


def of_luma_and_colour(luma: Tensor, colour: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that scale luma, and what differs from it, by gains (B,) each."""
    same = torch.eye(3, device=luma.device, dtype=luma.dtype)
    return colour[:, None, None] * same + (luma - colour)[:, None, None] * luma.new_tensor(LUMA).expand(3, 3)


def luma_of(images: Tensor) -> Tensor:
    """Luma of R, G, B, (N, 3, H, W) to (N, H, W)."""
    return torch.einsum("j,njhw->nhw", images.new_tensor(LUMA), images)


def _store_idle_as_gains(module: Grain, state: dict[str, Tensor], prefix: str, *unused: object) -> None:
    """A filter that does nothing is stored as logarithms of luma's gains, all 0: such weights stay what they were."""
    if not module.changes():
        del state[f"{prefix}mixing"]
        state[f"{prefix}log_gain"] = module.mixing.new_zeros(len(EDGES) - 1)


def _read_gains(module: Grain, state: dict[str, Tensor], prefix: str, *unused: object) -> None:
    """Weights from before the filter mixed colours have logarithms of gains: of luma, and perhaps of the rest."""
    luma = state.pop(f"{prefix}log_gain", None)
    colour = state.pop(f"{prefix}log_gain_colour", torch.zeros(len(EDGES) - 1))
    if luma is not None:
        state[f"{prefix}mixing"] = of_luma_and_colour(luma.exp(), colour.to(luma).exp()).to(luma)
