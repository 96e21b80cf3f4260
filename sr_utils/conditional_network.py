"""The networks inside the published couplings: 3x3, 1x1 and 3x3 convolutions of a level's features.

The first two have actnorms, the last a gain; all three only scale and shift what their convolution gives, so no map
of their own is made for them. The whole network is one function with its own backward pass, because that can do with
a quarter of the memory: autograd would keep what every convolution, normalisation and rectifier gives. This keeps
the first rectified map and computes the second again, one small matrix product, a few percent of the network's cost.
A network that reads nothing but features makes even the first one again, where that is much larger than its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.flow_layers import ActNorm
from sr_utils.level_features import LevelFeatures
from sr_utils.phase_convolution import PRODUCTS, GradientSum

LARGE_MAP = 2
"""How many times the first convolution's weights a map must be, in numbers, to be made again and not kept."""


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

    def gain(self) -> Tensor:
        """The gain of every output channel, (out,)."""
        return torch.exp(3 * self.log_gain.flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gain()[:, None, None]


class ConditionalNetwork(nn.Sequential):
    """Maps (N, C, H, W), if there are any, with a level's features behind them, to (N, out, H, W).

    ``in_channels`` counts C and the features' channels.
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
        to_first = (first.conv.weight, scale, first.norm.bias * scale)
        to_second = (second.conv.weight[:, :, 0, 0] * mixing_scale[:, None], second.norm.bias * mixing_scale)
        to_last = (last.conv.weight, last.conv.bias, last.gain())
        if torch.is_grad_enabled():
            return _Network.apply(features, maps, *to_first, *to_second, *to_last, *features.parts)
        first = self._first_without_gradients(features, maps, *to_first)
        return _last_map(_second_map(first, *to_second, out=first), *to_last)

    def _first_without_gradients(
        self, features: LevelFeatures, maps: Tensor | None, weight: Tensor, scale: Tensor, bias: Tensor
    ) -> Tensor:
        """`_first_map`; the features' part of it is made once, where they are to remember it for a second pass."""
        out, known = features.scratch_map(len(scale)), features.convolved
        if maps is None or known is None:
            return _first_map(features, maps, weight, scale, bias, out=out)
        channels = maps.shape[1]
        if self not in known:
            known[self] = features.convolution(features.parts, weight[:, channels:])
        convolution, read = features.without(maps)
        first = convolution(read, weight[:, :channels], out=out)
        return _rectified(first.add_(known[self]), scale, bias)

    @torch.no_grad()
    def _initialise(self, maps: Tensor | None, features: LevelFeatures) -> None:
        """Set both actnorms from a first batch."""
        first, _, second, _, _ = self
        convolution, parts = features.behind(maps)
        x = convolution(parts, first.conv.weight)
        x = torch.relu(first.norm(x)[0])
        second.norm(second.conv(x))


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C), in channels-last memory without a copy."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _bands(rows: int, numbers: int) -> Iterator[slice]:
    """A few rows at a time, of which each takes so many numbers."""
    step = max(1, PRODUCTS // numbers)
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


def _first_map(
    features: LevelFeatures,
    maps: Tensor | None,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """The first rectified map, in channels-last memory, that of ``out`` (N, H, W, hidden) if it is given."""
    convolution, read = features.behind(maps)
    return _rectified(convolution(read, weight, out=out), scale, bias)


def _rectified(first: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The first map, scaled, shifted and rectified in place."""
    return torch.addcmul(bias[:, None, None], first, scale[:, None, None], out=first).relu_()


def _second_rows(first: Tensor, mixing: Tensor, mixing_bias: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The rectified 1x1 convolution of some rows (P, hidden) of the first rectified map; ``out`` may be the same."""
    mixed = F.linear(first, mixing, mixing_bias)
    return torch.clamp_min(mixed, 0, out=mixed if out is None else out)


def _second_map(first: Tensor, mixing: Tensor, mixing_bias: Tensor, *, out: Tensor) -> Tensor:
    """The rectified 1x1 convolution of the first rectified map, in the memory of ``out``, which may be the first's."""
    rows, out_rows = _rows(first), _rows(out)
    for some in _bands(*rows.shape):
        _second_rows(rows[some], mixing, mixing_bias, out=out_rows[some])
    return out


def _last_map(second: Tensor, last: Tensor, last_bias: Tensor, gain: Tensor) -> Tensor:
    """The last convolution, with its gain."""
    return F.conv2d(second, last, last_bias, padding=1).mul_(gain[:, None, None])


def _neighbourhoods(maps: Tensor, numbers: int) -> Iterator[tuple[slice, Tensor]]:
    """The 3x3 pixels around every pixel of (N, C, H, W), zero outside, some lines of an image at a time.

    Yields which pixels, as `_rows` counts them, and a row of 9 C for each; a pixel takes ``numbers`` numbers.
    """
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    images, channels, height, width = maps.shape
    image, line, pixel, _ = padded.stride()
    # Three neighbours in a line lie side by side in memory.
    around = padded.as_strided((images, height, width, 3, 3 * channels), (image, line, pixel, line, 1))
    for index in range(images):
        for lines in _bands(height, numbers * width):
            pixels = slice((index * height + lines.start) * width, (index * height + lines.stop) * width)
            yield pixels, around[index, lines].reshape(-1, 9 * channels)


class _Network(torch.autograd.Function):
    """gain (conv3x3(relu(mixing relu(scale conv3x3(parts) + bias) + mixing_bias)) + last_bias)."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        features: LevelFeatures,
        maps: Tensor | None,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        mixing: Tensor,
        mixing_bias: Tensor,
        last: Tensor,
        last_bias: Tensor,
        gain: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        first = _first_map(features, maps, weight, scale, bias)
        ctx.features = replace(features, parts=())
        # Their windows are twice as large or more, and what they may be a view of is not needed.
        maps = None if maps is None else maps.clone(memory_format=torch.channels_last)
        kept = None if maps is None and first.numel() > LARGE_MAP * weight.numel() else first
        ctx.save_for_backward(kept, maps, weight, scale, bias, mixing, mixing_bias, last, last_bias, gain, *parts)
        second = _second_map(first, mixing, mixing_bias, out=first if kept is None else torch.empty_like(first))
        return _last_map(second, last, last_bias, gain)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, maps, weight, scale, bias, mixing, mixing_bias, last, last_bias, gain, *parts = ctx.saved_tensors
        features = replace(ctx.features, parts=tuple(parts))
        first = _first_map(features, maps, weight, scale, bias) if first is None else first
        # A factor behind a convolution is one of its weight, and of its gradient.
        gradient = gradient.mul(gain[:, None, None]).contiguous(memory_format=torch.channels_last)
        to_last_bias = gradient.sum((0, 2, 3))
        rows = _rows(first)
        to_rows, turned = torch.empty_like(rows), last.flip((2, 3)).permute(2, 3, 0, 1).flatten(0, 2)
        to_turned, to_mixing = torch.zeros_like(turned), torch.zeros_like(mixing)
        to_mixing_bias, to_bias = torch.zeros_like(mixing_bias), torch.zeros_like(scale)
        # All but the last convolution works on single pixels, so that a few at a time can stay in a processor's cache.
        for some, around in _neighbourhoods(gradient, len(turned) + 3 * rows.shape[1]):
            second = _second_rows(rows[some], mixing, mixing_bias)
            to_turned.addmm_(around.T, second)
            to_second = _rectified_gradient(around @ turned, second)
            to_mixing.addmm_(to_second.T, rows[some])
            to_mixing_bias += to_second.sum(0)
            to_first = _rectified_gradient(torch.mm(to_second, mixing, out=to_rows[some]), rows[some])
            to_bias += to_first.sum(0)
            to_first *= scale
        to_first = to_rows.view(first.shape[0], *first.shape[2:], -1).permute(0, 3, 1, 2)
        to_last = to_turned.view(3, 3, *last.shape[:2]).flip((0, 1)).permute(2, 3, 0, 1)
        to_gain = (_rowwise(to_last, last) + to_last_bias * last_bias) / gain

        convolution, read = features.behind(maps)
        wanted = ctx.needs_input_grad[-len(parts) :]
        sums = [each if want else None for each, want in zip(features.sums, wanted, strict=True)]
        # The part that is this network's own comes first, if it has one; the others are shared.
        own = None if maps is None or not ctx.needs_input_grad[1] else GradientSum()
        to_weight = convolution.gradients(read, weight, to_first, sums if maps is None else [own, *sums])
        to_scale = _rowwise(to_weight, weight) / scale
        to_maps = None if own is None else convolution.schemes[0].scattered(own.take(), maps.shape)
        to_second_conv, to_last_conv = (to_mixing, to_mixing_bias), (to_last, to_last_bias, to_gain)
        return None, to_maps, to_weight, to_scale, to_bias, *to_second_conv, *to_last_conv, *(None for _ in parts)


def _rectified_gradient(gradient: Tensor, rectified: Tensor) -> Tensor:
    """The gradient ahead of a rectifier, given the one behind it; overwrites it."""
    return torch.ops.aten.threshold_backward(gradient, rectified, 0, grad_input=gradient)


def _rowwise(one: Tensor, other: Tensor) -> Tensor:
    """Scalar products over all but the first dimension."""
    return torch.linalg.vecdot(one.flatten(1), other.flatten(1))
