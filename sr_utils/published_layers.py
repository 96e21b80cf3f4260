"""The layers of the published DeFlow that differ from `flow_layers`, kept to load and reproduce released weights.

They have the same interface, so `deflow.DeFlow` is built from either. What differs:

- a scale is sigmoid(raw + 2) + epsilon and the encoding *divides* by it, so a scale near zero makes latents large
  when encoding and cannot blow up when decoding; our own models bound the log-scale on both sides instead;
- couplings come before the injector, and their networks have actnorms instead of biases;
- before the conditional steps of each level stand a few that only normalise and mix channels;
- a split sees only the half that goes on, not the condition;
- the encoder is a whole super-resolution RRDBNet whose inner features are stacked onto each level's.

References
----------
Wolf et al., "DeFlow", CVPR 2021, section 3.4 and the released configurations.
Lugmayr et al., "SRFlow", ECCV 2020, section 3.3, from which this architecture comes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.flow_layers import ActNorm, InvertibleConv1x1, sum_image
from sr_utils.rrdb import RRDB

SPLIT_EPSILON = 1e-6
"""Keeps the deviation that a split predicts away from zero."""


class NormalisedConv(nn.Module):
    """A convolution without bias, then actnorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = ActNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))[0]


class GainedZeroConv(nn.Module):
    """A convolution that starts at zero, with a learned gain exp(3 g) for every output channel (Glow, appendix)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.log_gain = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * torch.exp(3 * self.log_gain)


def _network(in_channels: int, out_channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        NormalisedConv(in_channels, hidden, 3),
        nn.ReLU(),
        NormalisedConv(hidden, hidden, 1),
        nn.ReLU(),
        GainedZeroConv(hidden, out_channels),
    )


def _interleaved(values: Tensor) -> tuple[Tensor, Tensor]:
    """Even and odd channels, as the released networks order their two outputs."""
    return values[:, 0::2], values[:, 1::2]


class DividingCoupling(nn.Module):
    """Conditional coupling, then injector, both of the form z / scale - shift."""

    def __init__(self, channels: int, features: int, hidden: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        changed = channels - channels // 2
        self.coupling = _network(channels // 2 + features, 2 * changed, hidden)
        self.injector = _network(features, 2 * channels, hidden)

    def _shift_and_scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = _interleaved(raw)
        return shift, torch.sigmoid(scale + 2) + self.epsilon

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        shift, scale = self._shift_and_scale(self.coupling(torch.cat([kept, features], dim=1)))
        z = torch.cat([kept, changed / scale - shift], dim=1)
        log_det = -sum_image(scale.log())
        shift, scale = self._shift_and_scale(self.injector(features))
        return z / scale - shift, log_det - sum_image(scale.log())

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        shift, scale = self._shift_and_scale(self.injector(features))
        z = (z + shift) * scale
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        shift, scale = self._shift_and_scale(self.coupling(torch.cat([kept, features], dim=1)))
        return torch.cat([kept, (changed + shift) * scale], dim=1)


class PublishedFlowStep(nn.Module):
    """Actnorm, 1x1 convolution and, unless ``conditional`` is off, coupling and injector."""

    def __init__(self, channels: int, features: int, hidden: int, epsilon: float, *, conditional: bool = True):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = InvertibleConv1x1(channels)
        self.coupling = DividingCoupling(channels, features, hidden, epsilon) if conditional else None

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.actnorm(z)
        z, log_det_mixing = self.mixing(z)
        log_det = log_det + log_det_mixing
        if self.coupling is not None:
            z, log_det_coupling = self.coupling(z, features)
            log_det = log_det + log_det_coupling
        return z, log_det

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        if self.coupling is not None:
            z = self.coupling.inverse(z, features)
        return self.actnorm.inverse(self.mixing.inverse(z))


class PublishedSplit(nn.Module):
    """Factor out half of the channels, standardised by what the other half predicts."""

    def __init__(self, channels: int):
        super().__init__()
        self.prior = GainedZeroConv(channels - channels // 2, 2 * (channels // 2))

    def _mean_and_deviation(self, continued: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_deviation = _interleaved(self.prior(continued))
        return mean, log_deviation.exp() + SPLIT_EPSILON

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        consumed = z.shape[1] // 2
        continued, finished = z[:, :-consumed], z[:, -consumed:]
        mean, deviation = self._mean_and_deviation(continued)
        return continued, (finished - mean) / deviation, -sum_image(deviation.log())

    def inverse(self, continued: Tensor, finished: Tensor, features: Tensor) -> Tensor:
        mean, deviation = self._mean_and_deviation(continued)
        return torch.cat([continued, mean + deviation * finished], dim=1)


class PublishedEncoder(nn.Module):
    """Features of h for every level: an RRDBNet's trunk and doublings, with inner blocks' outputs stacked on.

    Parameters
    ----------
    features, growth, blocks: sizes of the RRDBs.
    stacked_blocks: indices of the RRDBs whose outputs are stacked onto every level's features.
    condition_factor: h is smaller than the image by this, 4 or 8.
    """

    def __init__(self, features: int, growth: int, blocks: int, stacked_blocks: tuple[int, ...], condition_factor: int):
        super().__init__()
        self.stacked_blocks = stacked_blocks
        self.first = nn.Conv2d(3, features, 3, padding=1)
        self.trunk = nn.ModuleList(RRDB(features, growth) for _ in range(blocks))
        self.after_trunk = nn.Conv2d(features, features, 3, padding=1)
        # Level 1 of the flow has half the image's size, so it needs one doubling less than the factor has.
        doublings = condition_factor.bit_length() - 2
        self.upsampled = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(doublings))

    def forward(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        x, stacked = self.first(condition), []
        for index, block in enumerate(self.trunk):
            x = block(x)
            if index in self.stacked_blocks:
                stacked.append(x)
        x = x + self.after_trunk(x)
        by_size = {tuple(x.shape[2:]): x}
        height, width = x.shape[2] // 2, x.shape[3] // 2
        by_size[height, width] = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        for conv in self.upsampled:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
            by_size[tuple(x.shape[2:])] = x
        if not stacked:
            return [by_size[tuple(size)] for size in sizes]
        inner = torch.cat(stacked, dim=1)
        return [torch.cat([by_size[tuple(size)], F.interpolate(inner, tuple(size))], dim=1) for size in sizes]
