"""The published DeFlow written down plainly, as the yardstick for speed and the reference for equality.

Every level's features are one concatenated map at the level's full size, every convolution runs on it in full,
every normalisation is an operation of its own, the factors of every 1x1 convolution are multiplied, or solved for,
wherever it is used, and translation encodes and decodes without knowing that the features are the same. Names of
parameters are those of `sr_utils.deflow.DeFlow`, so either takes the other's ``state_dict``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.deflow_config import DEGRADED, DeFlowConfig
from sr_utils.flow_layers import ActNorm, InvertibleConv1x1, squeeze, sum_image, unsqueeze
from sr_utils.latent_noise import LatentNoise
from sr_utils.latent_shift import ConstantShift, LocalShift, standard_log_prob
from sr_utils.published_layers import SPLIT_EPSILON
from sr_utils.rrdb import RRDB


class PlainNormalisedConv(nn.Module):
    """A convolution without bias, then actnorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = ActNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))[0]


class PlainGainedZeroConv(nn.Module):
    """A convolution that starts at zero, with a learned gain exp(3 g) for every output channel (Glow, appendix)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.log_gain = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * torch.exp(3 * self.log_gain)


def _network(in_channels: int, out_channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        PlainNormalisedConv(in_channels, hidden, 3),
        nn.ReLU(),
        PlainNormalisedConv(hidden, hidden, 1),
        nn.ReLU(),
        PlainGainedZeroConv(hidden, out_channels),
    )


def _interleaved(values: Tensor) -> tuple[Tensor, Tensor]:
    """Even and odd channels, as the released networks order their two outputs."""
    return values[:, 0::2], values[:, 1::2]


class PlainDividingCoupling(nn.Module):
    """Conditional coupling, then injector, both of the form z / scale - shift."""

    def __init__(self, channels: int, features: int, hidden: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        changed = channels - channels // 2
        self.coupling = _network(channels // 2 + features, 2 * changed, hidden)
        self.injector = _network(features, 2 * channels, hidden)

    def _shift_and_scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = _interleaved(raw)
        return shift, torch.sigmoid(scale + 2) + self.epsilon

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        shift, scale = self._shift_and_scale(self.coupling(torch.cat([kept, features], dim=1)))
        z = torch.cat([kept, changed / scale - shift], dim=1)
        log_det = -sum_image(scale.log())
        shift, scale = self._shift_and_scale(self.injector(features))
        return z / scale - shift, log_det - sum_image(scale.log())

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        shift, scale = self._shift_and_scale(self.injector(features))
        z = (z + shift) * scale
        kept, changed = z[:, : z.shape[1] // 2], z[:, z.shape[1] // 2 :]
        shift, scale = self._shift_and_scale(self.coupling(torch.cat([kept, features], dim=1)))
        return torch.cat([kept, (changed + shift) * scale], dim=1)


class PlainFlowStep(nn.Module):
    """Actnorm, 1x1 convolution and, unless ``conditional`` is off, coupling and injector."""

    def __init__(self, channels: int, features: int, hidden: int, epsilon: float, *, conditional: bool = True):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = InvertibleConv1x1(channels)
        self.coupling = PlainDividingCoupling(channels, features, hidden, epsilon) if conditional else None

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.actnorm(z)
        z, log_det_mixing = self.mixing(z)
        log_det = log_det + log_det_mixing
        if self.coupling is not None:
            z, log_det_coupling = self.coupling(z, features)
            log_det = log_det + log_det_coupling
        return z, log_det

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        if self.coupling is not None:
            z = self.coupling.inverse(z, features)
        return self.actnorm.inverse(self.mixing.inverse(z))


class PlainSplit(nn.Module):
    """Factor out half of the channels, standardised by what the other half predicts."""

    def __init__(self, channels: int):
        super().__init__()
        self.prior = PlainGainedZeroConv(channels - channels // 2, 2 * (channels // 2))

    def _mean_and_deviation(self, continued: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_deviation = _interleaved(self.prior(continued))
        return mean, log_deviation.exp() + SPLIT_EPSILON

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        consumed = z.shape[1] // 2
        continued, finished = z[:, :-consumed], z[:, -consumed:]
        mean, deviation = self._mean_and_deviation(continued)
        return continued, (finished - mean) / deviation, -sum_image(deviation.log())

    def inverse(self, continued: Tensor, finished: Tensor, features: Tensor) -> Tensor:
        mean, deviation = self._mean_and_deviation(continued)
        return torch.cat([continued, mean + deviation * finished], dim=1)


class PlainEncoder(nn.Module):
    """Features of h for every level: an RRDBNet's trunk and doublings, with inner blocks' outputs stacked on.

    Parameters
    ----------
    features, growth, blocks: sizes of the RRDBs.
    stacked_blocks: indices of the RRDBs whose outputs are stacked onto every level's features.
    condition_factor: h is smaller than the image by this.
    """

    def __init__(self, features: int, growth: int, blocks: int, stacked_blocks: tuple[int, ...], condition_factor: int):
        super().__init__()
        self.stacked_blocks = stacked_blocks
        self.first = nn.Conv2d(3, features, 3, padding=1)
        self.trunk = nn.ModuleList(RRDB(features, growth) for _ in range(blocks))
        self.after_trunk = nn.Conv2d(features, features, 3, padding=1)
        # Level 1 of the flow has half the image's size, so it needs one doubling less than the factor has.
        doublings = condition_factor.bit_length() - 2
        self.upsampled = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(doublings))

    def forward(self, condition: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        x, stacked = self.first(condition), []
        for index, block in enumerate(self.trunk):
            x = block(x)
            if index in self.stacked_blocks:
                stacked.append(x)
        x = x + self.after_trunk(x)
        by_size = {tuple(x.shape[2:]): x}
        for height, width in (size for size in sizes if size[0] < x.shape[2]):
            by_size[height, width] = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        for conv in self.upsampled:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
            by_size[tuple(x.shape[2:])] = x
        if not stacked:
            return [by_size[tuple(size)] for size in sizes]
        inner = torch.cat(stacked, dim=1)
        return [torch.cat([by_size[tuple(size)], F.interpolate(inner, tuple(size))], dim=1) for size in sizes]


class PlainDeFlow(nn.Module):
    """A published DeFlow without domain normalisation, which costs nothing either way."""

    def __init__(self, config: DeFlowConfig):
        super().__init__()
        self.config = config
        growth = config.growth or config.features // 2
        features = config.features * (1 + len(config.stacked_blocks))
        self.encoder = PlainEncoder(
            config.features, growth, config.encoder_blocks, config.stacked_blocks, config.condition_factor
        )
        self.steps, self.splits, self.shifts = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels, splits = 3, config.levels - 1 if config.splits is None else config.splits
        for level in range(config.levels):
            channels *= 4
            conditional = [False] * config.mixing_steps + [True] * config.steps
            sizes = (channels, features, config.hidden, config.epsilon)
            self.steps.append(nn.ModuleList(PlainFlowStep(*sizes, conditional=each) for each in conditional))
            if level < splits:
                self.splits.append(PlainSplit(channels))
                channels //= 2
            if level < splits or level == config.levels - 1:
                context = 0 if level == config.levels - 1 else channels + features
                self.shifts.append(self._shift(channels, context))
        self.register_buffer("domain_mean", torch.zeros(2, 3))
        self.register_buffer("domain_deviation", torch.ones(2, 3))

    def _shift(self, channels: int, context: int) -> ConstantShift | LocalShift:
        if self.config.shift == "constant":
            return ConstantShift(channels, self.config.initial_shift)
        return LocalShift(channels, self.config.initial_shift, context_channels=context, hidden=self.config.hidden)

    def _features(self, condition: Tensor, height: int, width: int) -> list[Tensor]:
        return self.encoder(condition, [(height >> level, width >> level) for level in range(1, len(self.steps) + 1)])

    def _flow(self, image: Tensor, condition: Tensor) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
        features = self._features(condition, *image.shape[2:])
        z, latents, contexts, log_det = image, [], [], image.new_zeros(len(image))
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

    def _inverse(self, latents: list[Tensor], condition: Tensor, generator: torch.Generator | None) -> Tensor:
        """Decode; with a generator, every latent is first moved to the degraded domain."""

        def moved(shift: nn.Module, latent: Tensor, context: Tensor | None) -> Tensor:
            if generator is None:
                return latent
            noise = torch.randn(latent.shape, generator=generator, dtype=latent.dtype)
            return shift.transport(latent, LatentNoise(noise, torch.zeros(len(latent))), context)

        height, width = (side << len(self.steps) for side in latents[-1].shape[2:])
        features = self._features(condition, height, width)
        z = moved(self.shifts[-1], latents[-1], None)
        for level in reversed(range(len(self.steps))):
            if level < len(self.splits):
                context = torch.cat([z, features[level]], dim=1)
                finished = moved(self.shifts[level], latents[level], context)
                z = self.splits[level].inverse(z, finished, features[level])
            for step in reversed(self.steps[level]):
                z = step.inverse(z, features[level])
            z = unsqueeze(z)
        return z

    def forward(self, image: Tensor, condition: Tensor, domain: Tensor) -> Tensor:
        """As `DeFlow.forward`; in training mode with its noise, drawn in the same order."""
        likelihood = image.new_zeros(len(image))
        if self.training:
            image = image + (torch.rand_like(image) - 0.5) / self.config.quantisation
            condition = condition + self.config.condition_noise * torch.randn_like(condition)
            likelihood = likelihood - image[0].numel() * math.log(self.config.quantisation)
        latents, contexts, log_det = self._flow(image, condition)
        likelihood = likelihood + log_det
        for shift, latent, context in zip(self.shifts, latents, contexts, strict=True):
            density = torch.where(domain == DEGRADED, shift.log_prob(latent, context), standard_log_prob(latent))
            likelihood = likelihood + density
        return -likelihood / (math.log(2) * (image[0].numel() // 3))

    def encode(self, image: Tensor, condition: Tensor) -> list[Tensor]:
        """As `DeFlow.encode`."""
        return self._flow(image, condition)[0]

    def decode(self, latents: list[Tensor], condition: Tensor) -> Tensor:
        """As `DeFlow.decode`."""
        return self._inverse(latents, condition, None)

    @torch.no_grad()
    def translate(self, image: Tensor, condition: Tensor, *, generator: torch.Generator) -> Tensor:
        """As `DeFlow.translate` at temperature 1."""
        return self._inverse(self.encode(image, condition), condition, generator)
