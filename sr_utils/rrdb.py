"""Residual-in-residual dense blocks, the trunk of ESRGAN and of DeFlow's condition encoder.

Reference: Wang et al., "ESRGAN", ECCV Workshops 2018, section 3.1, figure 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESIDUAL_SCALE = 0.2
"""The residual scaling of ESRGAN, section 3.1, which keeps deep stacks stable without batch normalisation."""


class ResidualDenseBlock(nn.Module):
    """Five 3x3 convolutions, each reading all earlier outputs; (N, F, H, W) to the same shape."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        widths = [growth, growth, growth, growth, features]
        self.convs = nn.ModuleList(
            nn.Conv2d(features + index * growth, width, 3, padding=1) for index, width in enumerate(widths)
        )
        for conv in self.convs:
            # ESRGAN, section 3.1: a smaller initialisation than He's, by the same factor of ten.
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for conv in self.convs[:-1]:
            known = torch.cat([known, F.leaky_relu(conv(known), 0.2)], dim=1)
        return x + RESIDUAL_SCALE * self.convs[-1](known)


class RRDB(nn.Module):
    """Three dense blocks in a scaled residual; (N, F, H, W) to the same shape."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualDenseBlock(features, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * self.blocks(x)
