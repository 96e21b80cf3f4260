"""DeFlow: a conditional flow that learns a degradation from images that are not paired.

Clean images x and degraded images y share one flow f, given the domain-invariant condition h of each. In its
latent space clean images are standard normal and degraded ones are shifted by a random u that does not
depend on x (DeFlow, section 3.2, eq. 7-9)::

    f(x; h(x)) = z_x ~ N(0, I)
    f(y; h(y)) = z_y = z_x + u ~ N(mu, I + M Mᵀ),   u ~ N(mu, M Mᵀ)

so the exact likelihood of either domain follows from the change of variables, and a clean image is degraded
by y = f⁻¹(f(x; h(x)) + u; h(x)) (eq. 11). Every finished latent of the multi-scale flow has its own mean
``mu`` and full matrix ``M`` over its channels, the same at every position.

``M`` must not start at zero: the gradient of I + M Mᵀ with respect to M is then exactly zero and the
covariance never learns. It starts at ``initial_shift`` times the identity.

Reference: Wolf, Lugmayr, Danelljan, Van Gool and Timofte, "DeFlow: Learning Complex Image Degradations from
Unpaired Data with Conditional Flows", CVPR 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.flow_layers import FlowStep, Split, squeeze, sum_image, unsqueeze
from sr_utils.images import imresize, quantize
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
    initial_shift: float = 0.5
    """M starts at this times the identity."""
    domain_normalisation: bool = False
    """Match the degraded domain's channel mean and deviation to the clean domain's, as the AIM setting does."""

    @property
    def side_multiple(self) -> int:
        """What both sides of an image must be multiples of, for the squeezes and for h."""
        return max(self.condition_factor, 2**self.levels)


def condition_of(image: Tensor, factor: int) -> Tensor:
    """h(x): antialiased bicubic downsampling by ``factor``, rounded to 8 bits; (N, 3, H, W) in [0, 1]."""
    return quantize(imresize(image, 1 / factor))


class LatentShift(nn.Module):
    """The random shift u ~ N(mu, M Mᵀ) of one latent, and the densities it implies (DeFlow, eq. 8-9)."""

    def __init__(self, channels: int, initial_shift: float):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.factor = nn.Parameter(initial_shift * torch.eye(channels))

    def covariance(self) -> Tensor:
        """I + M Mᵀ, the covariance of a degraded latent; (C, C)."""
        return torch.eye(len(self.mean), dtype=self.factor.dtype, device=self.factor.device) + (
            self.factor @ self.factor.T
        )

    def log_prob(self, z: Tensor, domain: Tensor) -> Tensor:
        """Log-density of latents ``z`` (N, C, H, W) under each image's ``domain`` (N,); shape (N,)."""
        positions = z.shape[2] * z.shape[3]
        constant = -0.5 * z[0].numel() * math.log(2 * math.pi)
        clean = -0.5 * sum_image(z.square())
        lower = torch.linalg.cholesky(self.covariance())
        centred = (z - self.mean[:, None, None]).transpose(0, 1).flatten(1)
        whitened = torch.linalg.solve_triangular(lower, centred, upper=False)
        squared = whitened.square().sum(0).unflatten(0, (len(z), positions)).sum(1)
        degraded = -0.5 * squared - positions * torch.log(torch.diagonal(lower)).sum()
        return constant + torch.where(domain == DEGRADED, degraded, clean)

    def sample_like(self, z: Tensor, *, temperature: float, generator: torch.Generator | None) -> Tensor:
        """Draw u for every position of ``z``; temperature scales its deviation, not its mean."""
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device="cpu").to(z.device)
        coloured = torch.einsum("ij,njhw->nihw", self.factor, noise)
        return self.mean[:, None, None] + temperature * coloured


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
            self.shifts.append(LatentShift(channels, config.initial_shift))
        self.register_buffer("domain_mean", torch.zeros(2, 3))
        self.register_buffer("domain_deviation", torch.ones(2, 3))

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

    def _flow(self, image: Tensor, condition: Tensor) -> tuple[list[Tensor], Tensor]:
        features = self._features(condition, *image.shape[2:])
        z, latents = image - 0.5, []
        log_det = torch.zeros(len(image), dtype=image.dtype, device=image.device)
        for level, steps in enumerate(self.steps):
            z = squeeze(z)
            for step in steps:
                z, step_log_det = step(z, features[level])
                log_det = log_det + step_log_det
            if level < len(self.splits):
                z, finished, split_log_det = self.splits[level](z, features[level])
                latents.append(finished)
                log_det = log_det + split_log_det
        return [*latents, z], log_det

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
        latents, log_det = self._flow(image, condition)
        likelihood = likelihood + log_det
        for shift, latent in zip(self.shifts, latents, strict=True):
            likelihood = likelihood + shift.log_prob(latent, domain)
        return -likelihood / (math.log(2) * dimensions)

    def encode(self, image: Tensor, condition: Tensor) -> list[Tensor]:
        """Latents of an image (N, 3, H, W) under its condition, finest level first; no noise is added."""
        return self._flow(image, condition)[0]

    def decode(self, latents: list[Tensor], condition: Tensor) -> Tensor:
        """The image (N, 3, H, W) whose latents these are; the exact inverse of `encode`, not clamped."""
        coarse_height, coarse_width = latents[-1].shape[2:]
        features = self._features(condition, coarse_height << len(self.steps), coarse_width << len(self.steps))
        z = latents[-1]
        for level in reversed(range(len(self.steps))):
            if level < len(self.splits):
                z = self.splits[level].inverse(z, latents[level], features[level])
            for step in reversed(self.steps[level]):
                z = step.inverse(z, features[level])
            z = unsqueeze(z)
        return z + 0.5

    @torch.no_grad()
    def translate(
        self,
        image: Tensor,
        condition: Tensor,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Degrade clean images: y = f⁻¹(f(x) + u), u ~ N(mu, temperature² M Mᵀ) (DeFlow, eq. 11).

        ``image`` is (N, 3, H, W) in [0, 1] and the result has its shape, not clamped. With a ``generator``
        (on the CPU) the draw repeats exactly. Dequantisation noise is never added, so none is left over.
        """
        latents = [
            latent + shift.sample_like(latent, temperature=temperature, generator=generator)
            for shift, latent in zip(self.shifts, self.encode(image, condition), strict=True)
        ]
        translated = self.decode(latents, condition)
        if self.config.domain_normalisation:
            scale, offset = self._normalisation()
            translated = (translated - offset) / scale
        return translated
