"""DeFlow: a conditional flow that learns a degradation from images that are not paired.

Clean images x and degraded images y share one flow f, given the domain-invariant condition h of each. In its
latent space clean images are standard normal and degraded ones are shifted (DeFlow, section 3.2, eq. 7-9)::

    f(x; h(x)) = z_x ~ N(0, I)
    f(y; h(y)) = z_y ~ N(m, S)

so the exact likelihood of either domain follows from the change of variables, and a clean image is degraded by
moving its latents from the first Gaussian to the second and decoding (eq. 11). `latent_shift` has the two kinds
of shift: the published one, and one whose mean and variances follow the image's coarser part.

Reference: Wolf, Lugmayr, Danelljan, Van Gool and Timofte, "DeFlow: Learning Complex Image Degradations from
Unpaired Data with Conditional Flows", CVPR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.errors import UserError
from sr_utils.flow_layers import FlowStep, Split, squeeze, unsqueeze
from sr_utils.images import imresize, quantize
from sr_utils.latent_shift import ConstantShift, LocalShift, standard_log_prob
from sr_utils.rrdb import RRDB

CLEAN, DEGRADED = 0, 1


@dataclass(frozen=True)
class DeFlowConfig:
    """Sizes of a compact DeFlow; the defaults train on two CPU cores in about an hour."""

    levels: int = 3
    """Squeezes of the flow; all but the last are followed by a split."""
    steps: int = 5
    """Flow steps of each level (K in the paper)."""
    hidden: int = 48
    """Channels inside each coupling network."""
    features: int = 32
    """Channels of the encoded condition."""
    encoder_blocks: int = 2
    """RRDBs of the condition encoder."""
    condition_factor: int = 8
    """h(x) is x downsampled by this factor; image sides must be multiples of it and of 2 ** levels."""
    condition_noise: float = 0.02
    """Deviation of the Gaussian noise added to h in training, in image units of [0, 1]."""
    quantisation: int = 256
    """Levels of an image channel; training adds uniform noise of one level (dequantisation)."""
    bound: float = 1.0
    """Largest absolute log-scale of one affine layer."""
    shift: Literal["constant", "local"] = "local"
    """The published shift, the same everywhere, or one that follows the image's coarser part."""
    initial_shift: float = 0.5
    """Deviation of the shift at the start of training; a constant shift that starts at 0 stays there."""
    domain_normalisation: bool = False
    """Match the degraded domain's channel mean and deviation to the clean domain's, as the AIM setting does."""

    def __post_init__(self):
        if self.shift not in ("constant", "local"):
            raise UserError(f"shift {self.shift!r} is not known; choose constant or local.")

    @property
    def side_multiple(self) -> int:
        """What both sides of an image must be multiples of, for the squeezes and for h."""
        return max(self.condition_factor, 2**self.levels)


def condition_of(image: Tensor, factor: int) -> Tensor:
    """h(x): antialiased bicubic downsampling by ``factor``, rounded to 8 bits; (N, 3, H, W) in [0, 1]."""
    return quantize(imresize(image, 1 / factor))


class ConditionEncoder(nn.Module):
    """Features of h at each level's resolution: RRDB trunk at h's own size, then upsampling and projection."""

    def __init__(self, config: DeFlowConfig):
        super().__init__()
        width = config.features
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.trunk = nn.Sequential(*(RRDB(width, width // 2) for _ in range(config.encoder_blocks)))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU()) for _ in range(config.levels)
        )

    def forward(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        first = self.first(condition - 0.5)
        encoded = first + self.trunk(first)
        return [
            project(F.interpolate(encoded, size=size, mode="bilinear", align_corners=False))
            for project, size in zip(self.projections, sizes, strict=True)
        ]


class DeFlow(nn.Module):
    """Conditional multi-scale flow shared by both domains, with a learned shift for every latent."""

    config_class = DeFlowConfig

    def __init__(self, config: DeFlowConfig):
        super().__init__()
        self.config = config
        self.encoder = ConditionEncoder(config)
        self.steps = nn.ModuleList()
        self.splits = nn.ModuleList()
        self.shifts = nn.ModuleList()
        channels = 3
        for level in range(config.levels):
            channels *= 4
            sizes = (channels, config.features, config.hidden, config.bound)
            self.steps.append(nn.ModuleList(FlowStep(*sizes) for _ in range(config.steps)))
            if level < config.levels - 1:
                self.splits.append(Split(*sizes))
                channels //= 2
            self.shifts.append(self._new_shift(channels, coarsest=level == config.levels - 1))
        self.register_buffer("domain_mean", torch.zeros(2, 3))
        self.register_buffer("domain_deviation", torch.ones(2, 3))

    def _new_shift(self, channels: int, *, coarsest: bool) -> ConstantShift | LocalShift:
        config = self.config
        if config.shift == "constant":
            return ConstantShift(channels, config.initial_shift)
        # The coarsest latent sees nothing: of h alone, it would learn what the two sets show, not how.
        context = 0 if coarsest else channels + config.features
        return LocalShift(channels, config.initial_shift, context_channels=context, hidden=config.hidden)

    def shift_constants(self) -> list[nn.Parameter]:
        """The parameters of the shifts that hold for all images; see `training.DeFlowTraining.shift_rate_factor`."""
        return [value for name, value in self.shifts.named_parameters() if ".local." not in name]

    def set_domain_statistics(self, clean: list[Tensor], degraded: list[Tensor]) -> None:
        """Measure each domain's channel mean and deviation from images (3, H, W), for the normalisation switch."""
        for domain, images in ((CLEAN, clean), (DEGRADED, degraded)):
            pixels = torch.cat([image.flatten(1) for image in images], dim=1)
            self.domain_mean[domain] = pixels.mean(1)
            self.domain_deviation[domain] = pixels.std(1)

    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Scale and offset, (3, 1, 1) each, that take a degraded image to the clean domain's statistics."""
        scale = self.domain_deviation[CLEAN] / self.domain_deviation[DEGRADED]
        offset = self.domain_mean[CLEAN] - scale * self.domain_mean[DEGRADED]
        return scale[:, None, None], offset[:, None, None]

    def _features(self, condition: Tensor, height: int, width: int) -> list[Tensor]:
        sizes = [(height >> level, width >> level) for level in range(1, self.config.levels + 1)]
        return self.encoder(condition, sizes)

    def _flow(self, image: Tensor, condition: Tensor) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
        """Latents and each one's context, finest level first, and the log-determinant (N,)."""
        features = self._features(condition, *image.shape[2:])
        z, latents, contexts = image - 0.5, [], []
        log_det = torch.zeros(len(image), dtype=image.dtype, device=image.device)
        for level, steps in enumerate(self.steps):
            z = squeeze(z)
            for step in steps:
                z, step_log_det = step(z, features[level])
                log_det = log_det + step_log_det
            if level < len(self.splits):
                z, finished, split_log_det = self.splits[level](z, features[level])
                latents.append(finished)
                contexts.append(torch.cat([z, features[level]], dim=1))
                log_det = log_det + split_log_det
        return [*latents, z], [*contexts, None], log_det

    def _inverse(self, latents: list[Tensor], condition: Tensor, moved: Callable[..., Tensor]) -> Tensor:
        """Decode from coarse to fine, with every latent first replaced by ``moved(shift, latent, context)``."""
        coarse_height, coarse_width = latents[-1].shape[2:]
        features = self._features(condition, coarse_height << len(self.steps), coarse_width << len(self.steps))
        z = moved(self.shifts[-1], latents[-1], None)
        for level in reversed(range(len(self.steps))):
            if level < len(self.splits):
                context = torch.cat([z, features[level]], dim=1)
                finished = moved(self.shifts[level], latents[level], context)
                z = self.splits[level].inverse(z, finished, features[level])
            for step in reversed(self.steps[level]):
                z = step.inverse(z, features[level])
            z = unsqueeze(z)
        return z + 0.5

    def forward(self, image: Tensor, condition: Tensor, domain: Tensor, *, noise: bool | None = None) -> Tensor:
        """Negative log-likelihood in bits per dimension, one per image.

        Parameters
        ----------
        image: (N, 3, H, W) in [0, 1], sides multiples of ``condition_factor`` and of 2 ** levels.
        condition: h of each image, (N, 3, H / condition_factor, W / condition_factor).
        domain: (N,) integers, 0 clean and 1 degraded.
        noise: add dequantisation and condition noise, and count ln(quantisation) per dimension, so that the
            result bounds the code length of the 8-bit image; the default does so in training mode only.
        """
        noise = self.training if noise is None else noise
        likelihood = torch.zeros(len(image), dtype=image.dtype, device=image.device)
        dimensions = image[0].numel()
        if noise:
            image = image + torch.rand_like(image) / self.config.quantisation
            condition = condition + self.config.condition_noise * torch.randn_like(condition)
            likelihood = likelihood - dimensions * math.log(self.config.quantisation)
        if self.config.domain_normalisation:
            scale, offset = self._normalisation()
            degraded = (domain == DEGRADED)[:, None, None, None]
            image = torch.where(degraded, image * scale + offset, image)
            condition = torch.where(degraded, condition * scale + offset, condition)
            pixels = image.shape[2] * image.shape[3]
            likelihood = likelihood + (domain == DEGRADED) * pixels * scale.log().sum()
        latents, contexts, log_det = self._flow(image, condition)
        likelihood = likelihood + log_det
        for shift, latent, context in zip(self.shifts, latents, contexts, strict=True):
            density = torch.where(domain == DEGRADED, shift.log_prob(latent, context), standard_log_prob(latent))
            likelihood = likelihood + density
        return -likelihood / (math.log(2) * dimensions)

    def encode(self, image: Tensor, condition: Tensor) -> list[Tensor]:
        """Latents of an image (N, 3, H, W) under its condition, finest level first; no noise is added."""
        return self._flow(image, condition)[0]

    def decode(self, latents: list[Tensor], condition: Tensor) -> Tensor:
        """The image (N, 3, H, W) whose latents these are; the exact inverse of `encode`, not clamped."""
        return self._inverse(latents, condition, lambda shift, latent, context: latent)

    def contexts(self, image: Tensor, condition: Tensor) -> list[Tensor | None]:
        """What each latent's shift looks at for this image, finest level first; None at the coarsest."""
        return self._flow(image, condition)[1]

    @torch.no_grad()
    def translate(
        self,
        image: Tensor,
        condition: Tensor,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Degrade clean images: encode, move every latent to the degraded domain, decode (DeFlow, eq. 11).

        ``image`` is (N, 3, H, W) in [0, 1] and the result has its shape, not clamped. ``temperature`` scales the
        deviation of the drawn noise. With a ``generator`` (on the CPU) the draw repeats exactly. Dequantisation
        noise is never added, so none is left over.
        """

        def moved(shift, latent, context):
            return shift.transport(latent, context, temperature=temperature, generator=generator)

        translated = self._inverse(self.encode(image, condition), condition, moved)
        if self.config.domain_normalisation:
            scale, offset = self._normalisation()
            translated = (translated - offset) / scale
        return translated
