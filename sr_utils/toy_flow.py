"""Flows of one or two pixels: DeFlow small enough to be drawn, trained in seconds.

`MonotoneFlow` bends one number, `TriangularFlow` bends two or more by letting each pixel's flow look at the pixels
before it, which is what the coupling layers of the real model do with channels. `ToyDeFlow` puts one of them before
the latent shifts of `sr_utils.latent_shift`, and so is the real model with images of one position.

`Scenes` are photographs of two neighbouring pixels whose degradation is known. Light multiplies: the pixels are
positive, and their logarithms are Gaussian given the brightness of their surroundings, which is the condition h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.latent_noise import LatentNoise
from sr_utils.latent_shift import GaussianShift

BISECTIONS = 60
"""Halvings of the interval in which an inverse is sought: more than a float64's digits need."""


class MonotoneFlow(nn.Module):
    """f(x; h) = b + s x + sum over k of w_k tanh(c_k (x - t_k)), with s, w, c > 0, so that it can be inverted.

    Parameters
    ----------
    condition: how many numbers h has; 0 for none.
    bends: how many terms the sum has.
    """

    def __init__(self, condition: int = 0, *, bends: int = 8, hidden: int = 24):
        super().__init__()
        self.bends = bends
        weights, places = torch.full((bends,), -2.0), torch.linspace(-2, 4, bends)
        start = torch.cat([torch.zeros(2), weights, torch.zeros(bends), places])
        self.start = nn.Parameter(start)
        self.network = None
        if condition:
            last = nn.Linear(hidden, len(start))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.network = nn.Sequential(nn.Linear(condition, hidden), nn.SiLU(), last)

    def _terms(self, condition: Tensor | None) -> Sequence[Tensor]:
        """b, s (..., 1) and w, c, t (..., bends)."""
        raw = self.start if self.network is None else self.start + self.network(condition)
        offset, slope, weight, steepness, place = raw.split([1, 1, self.bends, self.bends, self.bends], dim=-1)
        return offset, F.softplus(slope), F.softplus(weight), F.softplus(steepness), place

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent z and log f'(x), both (N,), of values x (N,) given conditions (N, condition)."""
        offset, slope, weight, steepness, place = self._terms(condition)
        bent = torch.tanh(steepness * (x[:, None] - place))
        z = offset + slope * x[:, None] + (weight * bent).sum(-1, keepdim=True)
        derivative = slope + (weight * steepness * (1 - bent.square())).sum(-1, keepdim=True)
        return z[:, 0], derivative[:, 0].log()

    @torch.no_grad()
    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The x (N,) whose latent is z (N,), by bisection."""
        offset, slope, weight, _, _ = (term.sum(-1) for term in self._terms(condition))
        # The sum of bends lies between -weight and weight, hence x between these two.
        low, high = (z - offset - weight) / slope, (z - offset + weight) / slope
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self(middle, condition)[0] < z
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class TriangularFlow(nn.Module):
    """Pixel i through a monotone flow whose condition is h and the pixels before i.

    The Jacobian is triangular, so its log-determinant is a sum of log-derivatives. Among such flows exactly one makes
    a given distribution standard normal (the Knothe-Rosenblatt map).
    """

    def __init__(self, pixels: int, condition: int = 0, **options: int):
        super().__init__()
        self.flows = nn.ModuleList(MonotoneFlow(condition + before, **options) for before in range(pixels))

    def _seen(self, x: Tensor, before: int, condition: Tensor | None) -> Tensor:
        parts = [x[:, :before]] if condition is None else [condition, x[:, :before]]
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents (N, pixels) and the log-determinant (N,) of images (N, pixels) given conditions (N, condition)."""
        latents, log_determinant = [], torch.zeros_like(x[:, 0])
        for before, flow in enumerate(self.flows):
            z, log_derivative = flow(x[:, before], self._seen(x, before, condition))
            latents.append(z)
            log_determinant = log_determinant + log_derivative
        return torch.stack(latents, dim=1), log_determinant

    @torch.no_grad()
    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The images (N, pixels) of latents (N, pixels), one pixel after the other."""
        x = z[:, :0]
        for before, flow in enumerate(self.flows):
            x = torch.cat([x, flow.inverse(z[:, before], self._seen(x, before, condition))[:, None]], dim=1)
        return x


Sample = tuple[Tensor, Tensor | None]
"""Images (N, pixels) and their conditions (N, condition)."""


def _as_image(z: Tensor) -> Tensor:
    """Latents (N, C) as the shifts want them, with one position: (N, C, 1, 1)."""
    return z[:, :, None, None]


def _chance(z: Tensor, generator: torch.Generator) -> LatentNoise:
    normal = torch.randn(z.shape, dtype=z.dtype, generator=generator)
    return LatentNoise(_as_image(normal), torch.zeros(len(z), dtype=z.dtype))


class ToyDeFlow(nn.Module):
    """A flow for both domains and a shift between their latents (DeFlow, eq. 7-10)."""

    def __init__(self, flow: TriangularFlow, shift: GaussianShift):
        super().__init__()
        self.flow = flow
        self.shift = shift

    def clean_log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x | h) (N,) of clean images (N, pixels): log N(f(x); 0, I) + log |det f'(x)|."""
        z, log_determinant = self.flow(x, condition)
        return self.shift.clean_log_prob(_as_image(z), None) + log_determinant

    def degraded_log_prob(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(y | h) (N,) of degraded images (N, pixels)."""
        z, log_determinant = self.flow(y, condition)
        return self.shift.log_prob(_as_image(z)) + log_determinant

    @torch.no_grad()
    def translate(self, x: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """A degraded version of each clean image: y = f⁻¹(f(x) + u) (DeFlow, eq. 11)."""
        z, _ = self.flow(x, condition)
        moved = self.shift.transport(_as_image(z), _chance(z, generator))
        return self.flow.inverse(moved[:, :, 0, 0], condition)

    @torch.no_grad()
    def restore(self, y: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """A draw from p(x | y, h) for each degraded image: the Gaussian posterior of the latent, taken back."""
        z, _ = self.flow(y, condition)
        moved = self.shift.transport_back(_as_image(z), _chance(z, generator))
        return self.flow.inverse(moved[:, :, 0, 0], condition)


def _batch(sample: Sample, count: int, generator: torch.Generator) -> Sample:
    images, conditions = sample
    chosen = torch.randint(len(images), (count,), generator=generator)
    return images[chosen], None if conditions is None else conditions[chosen]


def train_toy(
    model: ToyDeFlow,
    clean: Sample,
    degraded: Sample,
    *,
    steps: int,
    batch: int = 256,
    rate: float = 0.02,
    seed: int = 0,
) -> list[float]:
    """Fit flow and shift to two unpaired sets by Adam, the rate falling to zero; the loss of every step in nats.

    The loss is the mean of -log p(x) plus the mean of -log p(y) over a batch from each set.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for _ in range(steps):
        images, conditions = zip(*(_batch(sample, batch, generator) for sample in (clean, degraded)), strict=True)
        # Both domains in one pass: they share the flow.
        z, log_determinant = model.flow(torch.cat(images), None if clean[1] is None else torch.cat(conditions))
        log_prob = model.shift.clean_log_prob(_as_image(z[:batch]), None) + model.shift.log_prob(_as_image(z[batch:]))
        loss = -(log_prob + log_determinant[:batch] + log_determinant[batch:]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@dataclass(frozen=True)
class Scenes:
    """Photographs of two neighbouring pixels, and a degradation that is known.

    Given the log-brightness b of a scene, log x ~ N(b, texture² C) with ``correlation`` between the two pixels. A
    degraded value is log y = b + gain (log x - b) + offset + noise e with e ~ N(0, I). The condition h is b, as an
    average over many pixels shows it: nearly exactly, and the same for clean and degraded images.
    """

    brightness: float = 0.0
    """Mean of b."""
    spread: float = 0.5
    """Deviation of b between scenes."""
    texture: float = 0.3
    correlation: float = 0.8
    offset: float = -0.1
    noise: float = 0.3
    gain: float = 1.0
    condition_noise: float = 0.02
    """What is left of noise and texture in h."""

    def texture_covariance(self) -> Tensor:
        """Covariance (2, 2) of log x given b."""
        ones = torch.ones(2, 2)
        return self.texture**2 * (self.correlation * ones + (1 - self.correlation) * torch.eye(2))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Clean (count, 2) and degraded (count, 2) versions of the same scenes, and their conditions (count, 1).

        For unpaired sets draw twice, and use the clean ones of one and the degraded ones of the other.
        """
        brightness = self.brightness + self.spread * torch.randn(count, 1, generator=generator)
        texture = torch.randn(count, 2, generator=generator) @ torch.linalg.cholesky(self.texture_covariance()).T
        noise = self.noise * torch.randn(count, 2, generator=generator)
        degraded = brightness + self.gain * texture + self.offset + noise
        condition = brightness + self.condition_noise * torch.randn(count, 1, generator=generator)
        return (brightness + texture).exp(), degraded.exp(), condition
