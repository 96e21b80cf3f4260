"""A learned wavelet transform: flow steps that are linear in the image, given the condition.

They have the interface of the layers of `flow_layers`, and nothing in them depends on the image, so noise that is added
to an image adds to its latents.

References
----------
Dinh, Krueger and Bengio, "NICE", 2014 (additive coupling).
Sweldens, "The lifting scheme: a construction of second generation wavelets", SIAM 1998.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sr_utils.flow_layers import ActNorm, ConditionNetwork, InvertibleConv1x1, zero_conv


def haar(channels: int) -> Tensor:
    """The Haar transform of `squeeze`d channels, (C, C): the coarse band of each first, then three kinds of detail."""
    block = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    interleaved = torch.kron(torch.eye(channels // 4, dtype=torch.float64), block)
    return interleaved.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)


def opponent(channels: int) -> Tensor:
    """Colours of `squeeze`d channels to brightness and two colour differences, orthogonal, (C, C)."""
    colours = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    return torch.kron(colours / colours.norm(dim=1, keepdim=True), torch.eye(channels // 3, dtype=torch.float64))


def swap(channels: int) -> Tensor:
    """The exchange of both halves of the channels, (C, C)."""
    return torch.eye(channels, dtype=torch.float64).roll(channels // 2, dims=0)


class LinearCoupling(nn.Module):
    """Shift one half of the channels by a filter of the other half, and by a function of the condition.

    Given the condition, the whole flow is then one affine map of the image, so noise that is added to an image adds to
    its latents, whatever the image shows: z(x + n) = z(x) + A n. A coupling that reacts to what it sees would shrink
    or enlarge the noise. Volume-preserving, log_det 0 (Dinh, Krueger and Bengio, "NICE", 2014, eq. 4).
    """

    def __init__(self, channels: int, features: int, hidden: int):
        super().__init__()
        kept, changed = channels // 2, channels - channels // 2
        self.filter = nn.Conv2d(kept, changed, 3, padding=1, bias=False)
        nn.init.zeros_(self.filter.weight)
        first, last = nn.Conv2d(features, hidden, 3, padding=1), zero_conv(hidden, changed, 1)
        self.network = ConditionNetwork(first, nn.SiLU(inplace=True), last)

    def _moved(self, z: Tensor, features: Tensor, sign: int) -> Tensor:
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        return torch.cat([kept, changed + sign * (self.filter(kept) + self.network(features))], dim=1)

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self._moved(z, features, 1), z.new_zeros(len(z))

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        return self._moved(z, features, -1)


class LiftingStep(nn.Module):
    """Actnorm, 1x1 convolution, linear coupling: one step of a learned wavelet transform.

    The first step of a level starts as the Haar transform, at the first level behind that of colours to brightness and
    colour differences; the others start as an exchange of the halves, so that each half is predicted from the other in
    turn (Sweldens, "The lifting scheme", 1998).
    """

    def __init__(self, channels: int, features: int, hidden: int, *, first: bool):
        super().__init__()
        start = haar(channels) if first else swap(channels)
        if first and channels == 12:
            start = start @ opponent(channels)
        self.actnorm = ActNorm(channels)
        self.mixing = InvertibleConv1x1(channels, start)
        self.coupling = LinearCoupling(channels, features, hidden)

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det_actnorm = self.actnorm(z)
        z, log_det_mixing = self.mixing(z)
        z, log_det_coupling = self.coupling(z, features)
        return z, log_det_actnorm + log_det_mixing + log_det_coupling

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        return self.actnorm.inverse(self.mixing.inverse(self.coupling.inverse(z, features)))
