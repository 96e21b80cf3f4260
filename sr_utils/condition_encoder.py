"""The encoder of the condition h: features for every level of the flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sr_utils.deflow_config import DeFlowConfig
from sr_utils.rrdb import RRDB


class ConditionEncoder(nn.Module):
    """Features of h at each level's resolution: RRDB trunk at h's own size, then upsampling and projection.

    For the gain shift the last three channels are h itself, enlarged.
    """

    def __init__(self, config: DeFlowConfig):
        super().__init__()
        self.checkpointing = config.checkpointing
        self.with_condition = config.shift == "gain"
        width = config.features
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.trunk = nn.Sequential(*(RRDB(width, config.growth or width // 2) for _ in range(config.encoder_blocks)))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU()) for _ in range(config.levels)
        )

    def forward(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        first = self.first(condition - 0.5)
        x = first
        for block in self.trunk:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        encoded = first + x
        features = []
        for project, size in zip(self.projections, sizes, strict=True):
            level = project(_resized(encoded, size))
            features.append(torch.cat([level, _resized(condition, size)], dim=1) if self.with_condition else level)
        return features


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
