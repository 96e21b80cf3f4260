"""The networks inside the published couplings: 3x3, 1x1 and 3x3 convolutions of a level's features.

The first two have actnorms, the last a gain. All three are affine after their convolution and are folded into its
weight. What remains is one function with its own backward pass, because it can do with a quarter of the memory:
autograd would keep the output of every convolution and of every normalisation and rectifier; this keeps the first
rectified map and computes the second again, which is a matrix product of a fiftieth of the network's cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.flow_layers import ActNorm
from sr_utils.level_features import LevelFeatures
from sr_utils.phase_convolution import PhaseConvolution, conv_gradients


class NormalisedConv(nn.Module):
    """A convolution without bias, then actnorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = ActNorm(out_channels)


class GainedZeroConv(nn.Module):
    """A convolution that starts at zero, with a learned gain exp(3 g) for every output channel (Glow, appendix)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.log_gain = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def folded(self) -> tuple[Tensor, Tensor]:
        """The weight and bias of the one convolution that this is."""
        gain = torch.exp(3 * self.log_gain)
        return self.conv.weight * gain[..., None], self.conv.bias * gain.flatten()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.folded(), padding=1)


class ConditionalNetwork(nn.Sequential):
    """Maps (N, C, H, W), if any, and a level's features to (N, out, H, W).

    Parameters
    ----------
    in_channels: C and the features' channels together; 0 ahead of the features where there are no maps.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int):
        super().__init__(
            NormalisedConv(in_channels, hidden, 3),
            nn.ReLU(),
            NormalisedConv(hidden, hidden, 1),
            nn.ReLU(),
            GainedZeroConv(hidden, out_channels),
        )

    def forward(self, maps: Tensor | None, features: LevelFeatures) -> Tensor:
        first, _, second, _, last = self
        if self.training and not (first.norm.initialised and second.norm.initialised):
            self._initialise(maps, features)
        scale = first.norm.log_scale.exp()
        mixing_scale = second.norm.log_scale.exp()
        return _Network.apply(
            features.convolution,
            maps,
            first.conv.weight,
            scale,
            first.norm.bias * scale,
            second.conv.weight[:, :, 0, 0] * mixing_scale[:, None],
            second.norm.bias * mixing_scale,
            *last.folded(),
            *features.parts,
        )

    @torch.no_grad()
    def _initialise(self, maps: Tensor | None, features: LevelFeatures) -> None:
        """Set both actnorms from a first batch."""
        first, _, second, _, _ = self
        x = features.convolution(maps, features.parts, first.conv.weight)
        x = torch.relu(first.norm(x)[0])
        second.norm(second.conv(x))


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C), in channels-last memory without a copy."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _second_map(first: Tensor, mixing: Tensor, mixing_bias: Tensor) -> Tensor:
    """The rectified 1x1 convolution of the first rectified map."""
    rows = torch.addmm(mixing_bias, _rows(first), mixing.T).relu_()
    return rows.view(first.shape[0], *first.shape[2:], -1).permute(0, 3, 1, 2)


class _Network(torch.autograd.Function):
    """conv3x3(relu(mixing relu(scale conv3x3([maps, features]) + bias) + mixing_bias)) + last_bias."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        convolution: PhaseConvolution,
        maps: Tensor | None,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        mixing: Tensor,
        mixing_bias: Tensor,
        last: Tensor,
        last_bias: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        first = convolution(maps, parts, weight)
        first = torch.addcmul(bias[:, None, None], first, scale[:, None, None], out=first).relu_()
        ctx.convolution = convolution
        ctx.save_for_backward(first, maps, weight, scale, mixing, mixing_bias, last, *parts)
        return F.conv2d(_second_map(first, mixing, mixing_bias), last, last_bias, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, maps, weight, scale, mixing, mixing_bias, last, *parts = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_last_bias = gradient.sum((0, 2, 3))
        second = _second_map(first, mixing, mixing_bias)
        to_last, to_second = conv_gradients(second, last, gradient, needed=True)
        to_second = _rectified_gradient(_rows(to_second), _rows(second))
        to_mixing, to_mixing_bias = to_second.T @ _rows(first), to_second.sum(0)
        to_first = _rectified_gradient(to_second @ mixing, _rows(first))
        to_bias = to_first.sum(0)
        to_first = to_first.mul_(scale).view(first.shape[0], *first.shape[2:], -1).permute(0, 3, 1, 2)
        needed = ctx.needs_input_grad[1], *ctx.needs_input_grad[-len(parts) :]
        to_weight, to_maps, to_parts = ctx.convolution.gradients(maps, parts, weight, to_first, needed)
        # The scale multiplies the weight's output as it would the weight itself.
        to_scale = torch.linalg.vecdot(to_weight.flatten(1), weight.flatten(1)) / scale
        return None, to_maps, to_weight, to_scale, to_bias, to_mixing, to_mixing_bias, to_last, to_last_bias, *to_parts


def _rectified_gradient(gradient: Tensor, rectified: Tensor) -> Tensor:
    """The gradient ahead of a rectifier, given the one behind it; overwrites it."""
    return torch.ops.aten.threshold_backward(gradient, rectified, 0, grad_input=gradient)
