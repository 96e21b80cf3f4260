"""The published encoder of the condition h: a whole super-resolution RRDBNet, read at several depths and sizes.

Reference: Lugmayr et al., "SRFlow", ECCV 2020, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sr_utils.dense_blocks import rrdb
from sr_utils.level_features import LevelFeatures, pyramid_features
from sr_utils.phase_convolution import conv_of_upsampled
from sr_utils.rrdb import RRDB


class PublishedEncoder(nn.Module):
    """Features of h for every level: an RRDBNet's trunk and doublings, with inner blocks' outputs stacked on.

    Parameters
    ----------
    features, growth, blocks: sizes of the RRDBs.
    stacked_blocks: indices of the RRDBs whose outputs are stacked onto every level's features.
    condition_factor: h is smaller than the image by this: 4 or 8 as released, or 1 or 2.
    checkpointing: compute every RRDB again in the backward pass instead of keeping what is inside.
    """

    def __init__(
        self,
        features: int,
        growth: int,
        blocks: int,
        stacked_blocks: tuple[int, ...],
        condition_factor: int,
        *,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.stacked_blocks = stacked_blocks
        self.checkpointing = checkpointing
        self.first = nn.Conv2d(3, features, 3, padding=1)
        self.trunk = nn.ModuleList(RRDB(features, growth) for _ in range(blocks))
        self.after_trunk = nn.Conv2d(features, features, 3, padding=1)
        # Level 1 of the flow has half the image's size, so it needs one doubling less than the factor has.
        doublings = condition_factor.bit_length() - 2
        self.upsampled = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(doublings))

    def forward(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[LevelFeatures]:
        x, stacked = self.first(condition), []
        for index, block in enumerate(self.trunk):
            x = checkpoint(rrdb, block, x, use_reentrant=False) if self.checkpointing else rrdb(block, x)
            if index in self.stacked_blocks:
                stacked.append(x)
        x = x + self.after_trunk(x)
        by_size = {tuple(x.shape[2:]): x}
        for height, width in (size for size in sizes if size[0] < x.shape[2]):
            by_size[height, width] = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        for conv in self.upsampled:
            x = F.leaky_relu(conv_of_upsampled(x, conv.weight, 2) + conv.bias[:, None, None], 0.2)
            by_size[tuple(x.shape[2:])] = x
        inner = torch.cat(stacked, dim=1) if stacked else None
        return pyramid_features([by_size[tuple(size)] for size in sizes], inner, tuple(condition.shape[2:]))
