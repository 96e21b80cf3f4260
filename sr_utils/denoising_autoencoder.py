"""A denoising autoencoder whose bottleneck is a picture: the learned candidates for the domain-invariant map h.

It sees degraded photographs and gives the clean ones back, through a bottleneck of three channels that is ``factor``
times smaller. What the bottleneck keeps is what the decoder needs, and noise is not. With a confusion term, a
classifier reads off the bottleneck whether the image was degraded, and the encoder learns to give it nothing to read.

Only clean photographs and generic degradations train it; no task is looked at.

References
----------
Vincent, Larochelle, Bengio and Manzagol, "Extracting and Composing Robust Features with Denoising Autoencoders",
ICML 2008.
Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.degradations import GenericDegradation
from sr_utils.patch_samplers import PatchSampler
from sr_utils.progress import progress

DEPARTURE = 0.25
"""How far the bottleneck may depart from the mean of a block, in image units."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder; the defaults make fifty thousand weights."""

    factor: int = 8
    """The bottleneck is this much smaller than the image."""
    features: int = 24


@dataclass(frozen=True)
class AutoencoderTraining:
    """How it is trained."""

    steps: int = 500
    batch: int = 8
    patch: int = 64
    learning_rate: float = 2e-3
    confusion: float = 0.0
    """Weight of the confusion term; 0 leaves the classifier out."""
    thumbnail: float = 0.2
    """Weight of the distance between the bottleneck and the clean image's block means, which keeps it a picture."""
    seed: int = 0


class DenoisingAutoencoder(nn.Module):
    """Images (N, 3, H, W) in [0, 1] through a bottleneck (N, 3, H / factor, W / factor) and back."""

    config_class = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        width, factor = config.features, config.factor
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(factor),
            nn.Conv2d(3 * factor**2, 2 * width, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, width, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(width, 3, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(3, 2 * width, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(2 * width, 3 * factor**2, 1),
            nn.PixelShuffle(factor),
        )

    def encode(self, image: Tensor, *, strength: float = 1.0) -> Tensor:
        """The bottleneck: block means plus a learned departure, which ``strength`` scales."""
        means = F.avg_pool2d(image, self.config.factor)
        return means + strength * DEPARTURE * torch.tanh(self.encoder(image - 0.5))

    def decode(self, bottleneck: Tensor) -> Tensor:
        """The image that a bottleneck stands for; not clamped."""
        enlarged = F.interpolate(bottleneck, scale_factor=self.config.factor, mode="bilinear", align_corners=False)
        return enlarged + self.decoder(bottleneck - 0.5)

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.encode(image))


def train_autoencoder(
    images: Sequence[Tensor], degradation: GenericDegradation, training: AutoencoderTraining, config: AutoencoderConfig
) -> tuple[DenoisingAutoencoder, list[dict[str, float]]]:
    """Train on clean images (3, H, W) and fresh degradations of them; gives the network and its losses.

    Every batch is half clean and half degraded, of the same crops, so that the classifier of the confusion term can
    learn nothing from what they show.
    """
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        network = DenoisingAutoencoder(config)
        critic = _critic()
    sampler = PatchSampler(images, training.patch, seed=training.seed)
    rates = {"lr": training.learning_rate, "betas": (0.9, 0.99)}
    optimiser = torch.optim.Adam(network.parameters(), **rates)
    critic_optimiser = torch.optim.Adam(critic.parameters(), **rates)
    records = []
    for step in progress(range(training.steps), label="Autoencoder", total=training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate * (1 - step / training.steps) + 1e-5
        clean = sampler.next(training.batch)
        both = torch.cat([clean, degradation(clean, sampler.generator)])
        target = torch.cat([clean, clean])
        bottleneck = network.encode(both)
        losses = {
            "reconstruction": F.l1_loss(network.decode(bottleneck), target),
            "thumbnail": F.l1_loss(bottleneck, F.avg_pool2d(target, config.factor)),
        }
        loss = losses["reconstruction"] + training.thumbnail * losses["thumbnail"]
        if training.confusion:
            domain = torch.cat([torch.zeros(training.batch), torch.ones(training.batch)])
            judged = F.binary_cross_entropy_with_logits(critic(bottleneck.detach()), domain)
            critic_optimiser.zero_grad(set_to_none=True)
            judged.backward()
            critic_optimiser.step()
            # The encoder wants the classifier undecided: both answers are as likely.
            confused = F.binary_cross_entropy_with_logits(critic(bottleneck), torch.full_like(domain, 0.5))
            losses |= {"classifier": judged, "confusion": confused}
            loss = loss + training.confusion * confused
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 20 == 0 or step == training.steps - 1:
            records.append({"step": step, **{name: value.item() for name, value in losses.items()}})
    return network.eval(), records


def _critic(width: int = 24) -> nn.Sequential:
    """Bottlenecks (N, 3, h, w) to logits (N,)."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 1),
        nn.Flatten(0),
    )
