"""The flow that both domains share: images to latents and back, given a condition (DeFlow, section 3.2).

A level squeezes its map, takes it through conditional steps, and factors out half of the channels as a finished
latent; what is left at the end is the last one (SRFlow, section 3.2). Beside every latent there is the shift that
`deflow` moves it by, because what a shift looks at is met on the way.

References
----------
Wolf, Lugmayr, Danelljan, Van Gool and Timofte, "DeFlow", CVPR 2021.
Lugmayr, Danelljan, Van Gool and Timofte, "SRFlow", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sr_utils.deflow_config import DeFlowConfig
from sr_utils.flow_layers import ConditionNetwork, squeeze, unsqueeze
from sr_utils.flow_parts import condition_encoder, flow_steps, latent_shift, split
from sr_utils.level_features import LevelFeatures

Features = Tensor | LevelFeatures
"""Features of one level: a map in the compact form."""


def unmoved(level: int, latent: Tensor, context: Tensor | None) -> Tensor:
    """A latent as it is, for decoding."""
    return latent


def keep_single_precision() -> None:
    """Let CUDA's convolutions compute with all bits of float32, in this process.

    PyTorch lets them round to TF32's ten bits of mantissa, and a flow is inverted by running the same convolutions
    again on other numbers: what an encoding rounds, the decoding does not undo.
    """
    torch.backends.cudnn.allow_tf32 = False


class ConditionalFlow(nn.Module):
    """An invertible map from images (N, 3, H, W) to latents, finest level first, given the condition's features."""

    def __init__(self, config: DeFlowConfig):
        super().__init__()
        self.config = config
        # The published flow sees values from 0 to 1, ours centred ones.
        self.offset = 0.0 if config.form == "published" else 0.5
        self.encoder = condition_encoder(config)
        self.steps = nn.ModuleList()
        self.splits = nn.ModuleList()
        self.shifts = nn.ModuleList()
        channels, splits = 3, config.levels - 1 if config.splits is None else config.splits
        for level in range(config.levels):
            channels *= 4
            self.steps.append(flow_steps(config, channels))
            if level < splits:
                self.splits.append(split(config, channels))
                channels //= 2
            if level < splits or level == config.levels - 1:
                ends = {"finest": not self.shifts, "coarsest": level == config.levels - 1}
                self.shifts.append(latent_shift(config, channels, **ends))
        for module in self.modules():
            if isinstance(module, ConditionNetwork):
                module.mixed_precision = config.mixed_precision

    def _features(self, condition: Tensor, height: int, width: int, *, twice: bool = False) -> list[Features]:
        """Features of every level, for an image of this size; ``twice`` if it is first encoded and then decoded."""
        sizes = [(height >> level, width >> level) for level in range(1, self.config.levels + 1)]
        features = self.encoder(condition, sizes)
        if twice and self.config.form == "published":
            # The finest level's convolved features would take three quarters of the memory of all.
            return [level.remembering(convolved=index > 0) for index, level in enumerate(features)]
        return features

    def _context(self, z: Tensor | None, features: Features) -> Tensor | None:
        """What the shift of a latent looks at; ``z`` is what goes on at a split, None at the end.

        The gain shift looks at h, the local shift at both, but at the end at nothing, the constant shift at nothing
        at all.
        """
        if self.config.shift == "constant" or (self.config.shift == "local" and z is None):
            return None
        maps = features if isinstance(features, Tensor) else features.maps()
        return maps[:, -3:] if self.config.shift == "gain" else torch.cat([z, maps], dim=1)

    def _kept_small(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function`` of its arguments; with checkpointing, what is inside is computed again and not kept."""
        if self.config.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
        return function(*arguments)

    def _flow(self, image: Tensor, features: list[Features]) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
        """Latents and each one's context, finest level first, and the log-determinant (N,)."""
        z, latents, contexts = image - self._expected(image.shape[2:], features), [], []
        log_det = torch.zeros(len(image), dtype=image.dtype, device=image.device)
        for level, steps in enumerate(self.steps):
            z = squeeze(z)
            for step in steps:
                z, step_log_det = self._kept_small(step, z, features[level])
                log_det = log_det + step_log_det
            if level < len(self.splits):
                z, finished, split_log_det = self.splits[level](z, features[level])
                latents.append(finished)
                contexts.append(self._context(z, features[level]))
                log_det = log_det + split_log_det
        return [*latents, z], [*contexts, self._context(None, features[-1])], log_det

    def _inverse(self, latents: list[Tensor], features: list[Features], moved: Callable[..., Tensor]) -> Tensor:
        """Decode from coarse to fine, with every latent first replaced by ``moved(its number, latent, context)``."""
        z = moved(len(latents) - 1, latents[-1], self._context(None, features[-1]))
        for level in reversed(range(len(self.steps))):
            if level < len(self.splits):
                context = self._context(z, features[level])
                finished = moved(level, latents[level], context)
                z = self.splits[level].inverse(z, finished, features[level])
            for step in reversed(self.steps[level]):
                z = step.inverse(z, features[level])
            z = unsqueeze(z)
        return z + self._expected(z.shape[2:], features)

    def _expected(self, size: torch.Size, features: list[Features]) -> Tensor | float:
        """What is subtracted from an image first: in the gain form h, enlarged, which leaves only detail."""
        if self.config.shift != "gain":
            return self.offset
        return F.interpolate(features[0][:, -3:], size=tuple(size), mode="bilinear", align_corners=False)

    def latent_shapes(self, images: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Shapes (N, C, H, W) of the latents of so many images of this size, finest level first."""
        channels, shapes = 3, []
        for level in range(1, self.config.levels + 1):
            channels *= 4
            if level <= len(self.splits) or level == self.config.levels:
                finished = channels // 2 if level <= len(self.splits) else channels
                shapes.append((images, finished, height >> level, width >> level))
                channels -= finished
        return shapes

    def encode(self, image: Tensor, condition: Tensor) -> list[Tensor]:
        """Latents of an image (N, 3, H, W) under its condition, finest level first; no noise is added."""
        return self._flow(image, self._features(condition, *image.shape[2:]))[0]

    def decode(self, latents: list[Tensor], condition: Tensor) -> Tensor:
        """The image (N, 3, H, W) whose latents these are; the exact inverse of `encode`, not clamped."""
        height, width = (side << len(self.steps) for side in latents[-1].shape[2:])
        return self._inverse(latents, self._features(condition, height, width), unmoved)

    def encode_in_context(self, image: Tensor, condition: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Each latent of `encode` with what its shift looks at, finest level first; None where that is nothing."""
        latents, contexts, _ = self._flow(image, self._features(condition, *image.shape[2:]))
        return list(zip(latents, contexts, strict=True))
