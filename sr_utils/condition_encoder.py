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
        self.checkpointing, self.mixed_precision = config.checkpointing, config.mixed_precision
        self.with_condition = config.shift == "gain"
        width = config.features
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.trunk = nn.Sequential(*(RRDB(width, config.growth or width // 2) for _ in range(config.encoder_blocks)))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU()) for _ in range(config.levels)
        )

    def forward(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        with torch.autocast(condition.device.type, dtype=torch.bfloat16, enabled=self.mixed_precision):
            levels = self._levels(condition, sizes)
        levels = [level.to(condition.dtype) for level in levels]
        if not self.with_condition:
            return levels
        return [torch.cat([level, _resized(condition, size)], dim=1) for level, size in zip(levels, sizes, strict=True)]

    def _levels(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """Features of every level without the condition itself."""
        first = self.first(condition - 0.5)
        x = first
        for block in self.trunk:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return [project(_resized(first + x, size)) for project, size in zip(self.projections, sizes, strict=True)]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
