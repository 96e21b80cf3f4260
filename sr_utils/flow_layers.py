"""Invertible layers of a conditional normalizing flow, each with its exact log-determinant.

Every layer maps a latent ``z`` of shape (N, C, H, W) to another of the same number of elements, given
condition features ``features`` (N, F, H, W) that it never changes. ``forward`` returns the new latent and
``log_det`` of shape (N,), the logarithm of |det dz'/dz| summed over an image; ``inverse`` undoes it.

All scales are bounded: a log-scale is ``bound * tanh(raw / bound)``. An unbounded or sigmoid scale can come
arbitrarily close to zero, and the inverse, which divides by it, then overflows on latents that the flow
never produced itself; translated latents are exactly of that kind.

References
----------
Kingma and Dhariwal, "Glow", 2018 (actnorm, 1x1 convolution, Table 1).
Lugmayr et al., "SRFlow", 2020, section 3.3 (conditional affine coupling and affine injector).
Wolf et al., "DeFlow", CVPR 2021, section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def squeeze(z: Tensor) -> Tensor:
    """Trade resolution for channels: (N, C, H, W) to (N, 4C, H/2, W/2); volume-preserving, log_det 0."""
    return F.pixel_unshuffle(z, 2)


def unsqueeze(z: Tensor) -> Tensor:
    """Undo `squeeze`: (N, 4C, H, W) to (N, C, 2H, 2W)."""
    return F.pixel_shuffle(z, 2)


def bounded(raw: Tensor, bound: float) -> Tensor:
    """A log-scale kept inside (-bound, bound), the identity to second order around zero."""
    return bound * torch.tanh(raw / bound)


def sum_image(values: Tensor) -> Tensor:
    """Sum over everything but the batch: (N, ...) to (N,)."""
    return values.flatten(1).sum(1)


def zero_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """A convolution that starts as the zero map, so that the layer it steers starts as the identity."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class ConditionNetwork(nn.Sequential):
    """A network whose answer steers an invertible layer.

    With ``mixed_precision`` it computes in bfloat16, forward and backward, and answers in the precision that it was
    asked in: latents and log-determinants, which are sums over thousands of values, never lose theirs.
    """

    mixed_precision = False

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.mixed_precision):
            answer = super().forward(x)
        return answer.to(x.dtype)


class ActNorm(nn.Module):
    """Per-channel affine map whose first batch leaves it with zero mean and unit deviation (Glow, 3.1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Set bias and scale from the statistics of ``z`` (N, C, H, W), once."""
        deviation, mean = torch.std_mean(z, dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(deviation + 1e-6))
        self.initialised.fill_(True)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialised:
            self.initialise(z)
        scale = self.log_scale.exp()[:, None, None]
        log_det = self.log_scale.sum() * (z.shape[2] * z.shape[3])
        return (z + self.bias[:, None, None]) * scale, log_det.expand(len(z))

    def inverse(self, z: Tensor) -> Tensor:
        return z * (-self.log_scale).exp()[:, None, None] - self.bias[:, None, None]


class InvertibleConv1x1(nn.Module):
    """Learned mixing of channels, W = P L (U + diag(s)), so that log|det W| = sum log|s| (Glow, eq. 10-11).

    It starts at ``start`` (C, C), or at a random rotation.
    """

    def __init__(self, channels: int, start: Tensor | None = None):
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0] if start is None else start
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = torch.diagonal(upper)
        self.register_buffer("permutation", permutation.float())
        self.register_buffer("sign", torch.sign(diagonal).float())
        self.lower = nn.Parameter(torch.tril(lower, -1).float())
        self.upper = nn.Parameter(torch.triu(upper, 1).float())
        self.log_diagonal = nn.Parameter(torch.log(diagonal.abs()).float())

    def _factors(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        lower = torch.tril(self.lower, -1) + identity
        upper = torch.triu(self.upper, 1) + torch.diag(self.sign * self.log_diagonal.exp())
        return lower, upper

    def weight(self) -> Tensor:
        """W, (C, C)."""
        lower, upper = self._factors()
        return self.permutation @ lower @ upper

    def inverse_weight(self) -> Tensor:
        """The inverse of W, (C, C), by two triangular solves."""
        lower, upper = self._factors()
        half = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, half, upper=True)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weight()
        log_det = self.log_diagonal.sum() * (z.shape[2] * z.shape[3])
        return F.conv2d(z, weight[:, :, None, None]), log_det.expand(len(z))

    def inverse(self, z: Tensor) -> Tensor:
        lower, upper = self._factors()
        # Two triangular solves, exact to rounding, and cheaper and steadier than a general inverse.
        half = torch.linalg.solve_triangular(
            lower, self.permutation.T @ z.transpose(0, 1).flatten(1), upper=False, unitriangular=True
        )
        solved = torch.linalg.solve_triangular(upper, half, upper=True)
        return solved.unflatten(1, (z.shape[0], *z.shape[2:])).transpose(0, 1)


class AffineInjector(nn.Module):
    """Scale and shift every channel by functions of the condition alone (SRFlow, eq. 6)."""

    def __init__(self, channels: int, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        first, last = nn.Conv2d(features, hidden, 1), zero_conv(hidden, 2 * channels, 1)
        self.network = ConditionNetwork(first, nn.SiLU(inplace=True), last)

    def _log_scale_and_shift(self, features: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(features).chunk(2, dim=1)
        return bounded(raw, self.bound), shift

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(features)
        return (z + shift) * log_scale.exp(), sum_image(log_scale)

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        log_scale, shift = self._log_scale_and_shift(features)
        return z * (-log_scale).exp() - shift


def _coupling_network(kept: int, features: int, hidden: int, out_channels: int) -> ConditionNetwork:
    return ConditionNetwork(
        nn.Conv2d(kept + features, hidden, 3, padding=1),
        nn.SiLU(inplace=True),
        nn.Conv2d(hidden, hidden, 1),
        nn.SiLU(inplace=True),
        zero_conv(hidden, out_channels, 3),
    )


class AffineCoupling(nn.Module):
    """Scale and shift one half of the channels by functions of the other half and the condition.

    The Jacobian is triangular, so the log-determinant is the sum of the log-scales (SRFlow, eq. 5).
    """

    def __init__(self, channels: int, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.network = _coupling_network(channels // 2, features, hidden, 2 * (channels - channels // 2))

    def _log_scale_and_shift(self, kept: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(torch.cat([kept, features], dim=1)).chunk(2, dim=1)
        return bounded(raw, self.bound), shift

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        log_scale, shift = self._log_scale_and_shift(kept, features)
        return torch.cat([kept, (changed + shift) * log_scale.exp()], dim=1), sum_image(log_scale)

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        log_scale, shift = self._log_scale_and_shift(kept, features)
        return torch.cat([kept, changed * (-log_scale).exp() - shift], dim=1)


class FlowStep(nn.Module):
    """Actnorm, 1x1 convolution, affine injector, affine coupling: one step of conditional Glow."""

    def __init__(self, channels: int, features: int, hidden: int, bound: float):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = InvertibleConv1x1(channels)
        self.injector = AffineInjector(channels, features, hidden, bound)
        self.coupling = AffineCoupling(channels, features, hidden, bound)

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det_actnorm = self.actnorm(z)
        z, log_det_mixing = self.mixing(z)
        z, log_det_injector = self.injector(z, features)
        z, log_det_coupling = self.coupling(z, features)
        return z, log_det_actnorm + log_det_mixing + log_det_injector + log_det_coupling

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        z = self.coupling.inverse(z, features)
        z = self.injector.inverse(z, features)
        z = self.mixing.inverse(z)
        return self.actnorm.inverse(z)


class Split(nn.Module):
    """Factor out half of the channels, standardised by what the other half and the condition predict.

    ``forward`` returns the half that goes on, the finished latent and log_det; the finished half is less a mean and,
    if ``coupling`` is affine, over a scale, both predicted, so that a unit Gaussian is a fair model of it.
    """

    def __init__(self, coupling: nn.Module):
        super().__init__()
        self.coupling = coupling

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, log_det = self.coupling(z, features)
        return z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :], log_det

    def inverse(self, continued: Tensor, finished: Tensor, features: Tensor) -> Tensor:
        return self.coupling.inverse(torch.cat([continued, finished], dim=1), features)
