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

from sr_utils.phase_convolution import FACTORS, PhaseConvolution, enlarged_scheme, tile_scheme

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
    injections: dict[nn.Module, tuple[Tensor, Tensor]] | None = None
    """What injectors answered, where a second pass will ask them again."""

    def maps(self) -> Tensor:
        """All features side by side, (N, F, H, W)."""
        if self.stacked is None:
            return self.own
        return torch.cat([self.own, F.interpolate(self.stacked, self.own.shape[2:])], dim=1)

    def remembering(self) -> LevelFeatures:
        """The same features, which keep what injectors answer: for encoding and then decoding without gradients."""
        return replace(self, injections={})


def whole_features(maps: Tensor) -> LevelFeatures:
    """Features (N, F, H, W) that are all at the level's resolution."""
    images, _, height, width = maps.shape
    cell = 4 if images * height * width >= LARGE_MAP else 2
    scheme = tile_scheme(cell)
    return LevelFeatures(maps, None, PhaseConvolution(height, width, cell, (scheme,)), (scheme.windows(maps),))


def pyramid_features(own: list[Tensor], stacked: Tensor | None, condition_size: tuple[int, int]) -> list[LevelFeatures]:
    """The features of every level.

    Parameters
    ----------
    own: those at each level's resolution, (N, F, H, W).
    stacked: those that every level has besides, (N, G, h, w), scaled to its size by nearest neighbour.
    condition_size: h and w. Only levels of 2 and 4 times this size gain anything.
    """
    height, width = condition_size
    # The windows that an enlarged map is read through are the same for every factor.
    coarse = None if stacked is None else enlarged_scheme(FACTORS[0]).windows(stacked)
    levels = []
    for maps in own:
        size = tuple(maps.shape[2:])
        factor = next((factor for factor in FACTORS if size == (factor * height, factor * width)), None)
        if coarse is None:
            levels.append(whole_features(maps))
        elif factor is None:
            levels.append(whole_features(torch.cat([maps, F.interpolate(stacked, size)], dim=1)))
        else:
            scheme = tile_scheme(factor)
            convolution = PhaseConvolution(*size, factor, (scheme, enlarged_scheme(factor)))
            levels.append(LevelFeatures(maps, stacked, convolution, (scheme.windows(maps), coarse)))
    return levels
