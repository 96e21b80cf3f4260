"""The condition's features at one level of the flow, ready to be convolved many times.

Every step of a level convolves the same features, in two networks each. What these convolutions share is done once:
where the stacked features are enlarged 2 or 4 times from h's own size they are never enlarged at all, and they and
the level's own features are kept as the transformed windows of `phase_convolution`; elsewhere all are, side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.convolution_schemes import Scheme, enlarged_scheme, tile_scheme
from sr_utils.phase_convolution import FACTORS, GradientSum, PhaseConvolution

LARGE_MAP = 2000
"""Pixels, over all images, from which tiles of 4 pay; below, transforming the weights would cost more than it saves."""


@dataclass(frozen=True)
class LevelFeatures:
    """Features of one level, (N, F, H, W) in all."""

    own: Tensor
    """Those at the level's resolution."""
    stacked: Tensor | None
    """Those that come behind them enlarged, at their own resolution."""
    convolution: PhaseConvolution
    parts: tuple[Tensor, ...]
    """What ``convolution`` reads."""
    sums: tuple[GradientSum, ...]
    """Where gradients of ``parts`` are to be added."""
    injections: dict[nn.Module, Tensor] | None = None
    """What injectors answered, where a second pass will ask them again."""
    convolved: dict[nn.Module, Tensor] | None = None
    """These features as each network that reads maps as well convolves them, where a second pass will do so again."""
    scratch: dict[int, Tensor] | None = None
    """A map of so many channels for every network to overwrite in turn, where none is kept for gradients."""

    def without(self, maps: Tensor) -> tuple[PhaseConvolution, tuple[Tensor]]:
        """The convolution of maps (N, C, H, W) alone, and what it reads."""
        own = self.convolution.schemes[0]
        return replace(self.convolution, schemes=(own,)), (own.windows(maps),)

    def behind(self, maps: Tensor | None) -> tuple[PhaseConvolution, tuple[Tensor, ...]]:
        """The convolution of maps (N, C, H, W), if any, with these features behind them, and all that it reads."""
        if maps is None:
            return self.convolution, self.parts
        convolution, read = self.without(maps)
        schemes = convolution.schemes + self.convolution.schemes
        return replace(convolution, schemes=schemes), read + self.parts

    def maps(self) -> Tensor:
        """All features side by side, (N, F, H, W)."""
        if self.stacked is None:
            return self.own
        return torch.cat([self.own, F.interpolate(self.stacked, self.own.shape[2:])], dim=1)

    def remembering(self, *, convolved: bool) -> LevelFeatures:
        """The same features, which keep what injectors answer: for encoding and then decoding without gradients.

        With ``convolved``, a map for every other network is kept, too.
        """
        return replace(self, injections={}, convolved={} if convolved else None, scratch={})

    def scratch_map(self, channels: int) -> Tensor | None:
        """A map (N, H, W, channels) to overwrite, always the same, if there is to be one."""
        if self.scratch is None:
            return None
        if channels not in self.scratch:
            images, _, height, width = self.own.shape
            self.scratch[channels] = self.own.new_empty(images, height, width, channels)
        return self.scratch[channels]


class _Shared(torch.autograd.Function):
    """The identity of tensors whose gradients are summed elsewhere until they are asked for here."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, sums: tuple[GradientSum, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.sums = sums
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(total.take() for total in ctx.sums)


def _level(own: Tensor, stacked: Tensor | None, schemes: tuple[Scheme, ...], parts: list[Tensor]) -> LevelFeatures:
    sums = tuple(GradientSum() for _ in parts)
    return LevelFeatures(own, stacked, PhaseConvolution(*own.shape[2:], schemes), _Shared.apply(sums, *parts), sums)


def _tiles(maps: Tensor) -> Scheme:
    images, _, height, width = maps.shape
    return tile_scheme(4 if images * height * width >= LARGE_MAP else 2)


def whole_features(maps: Tensor) -> LevelFeatures:
    """Features (N, F, H, W) that are all at the level's resolution."""
    scheme = _tiles(maps)
    return _level(maps, None, (scheme,), [scheme.windows(maps)])


def pyramid_features(own: list[Tensor], stacked: Tensor | None, condition_size: tuple[int, int]) -> list[LevelFeatures]:
    """The features of every level.

    Parameters
    ----------
    own: those at each level's resolution, (N, F, H, W).
    stacked: those that every level has besides, (N, G, h, w), scaled to its size by nearest neighbour.
    condition_size: h and w. Where a level has 2 or 4 times this size, the stacked features are not enlarged.
    """
    if stacked is None:
        return [whole_features(maps) for maps in own]
    height, width = condition_size
    # The windows that an enlarged map is read through are the same for every factor.
    coarse = enlarged_scheme(FACTORS[0]).windows(stacked)
    levels = []
    for maps in own:
        size = tuple(maps.shape[2:])
        factor = next((factor for factor in FACTORS if size == (factor * height, factor * width)), None)
        if factor is None:
            levels.append(whole_features(torch.cat([maps, F.interpolate(stacked, size)], dim=1)))
        else:
            scheme = _tiles(maps)
            levels.append(_level(maps, stacked, (scheme, enlarged_scheme(factor)), [scheme.windows(maps), coarse]))
    return levels
