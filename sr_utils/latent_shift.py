"""What degradation does to a latent: the published constant shift, and one that looks where it is.

Both give the density of a degraded latent, for training, and move a clean latent to a degraded one, for
translation, with standard normal noise of the latent's shape. In what follows z is one position's vector of C
channels, N(0, I) where the image is clean.

**Constant** (DeFlow, eq. 8-9): z_y = z_x + u with u ~ N(mu, M Mᵀ) independent of z_x and the same at every
position, hence z_y ~ N(mu, I + M Mᵀ). Two things it cannot say. Variance only grows, so blur, which takes detail
away, has no u. And u is as strong in a flat sky as in foliage, in the dark as in the light.

**Local**: z_y ~ N(m(c), Q diag(s(c)) Qᵀ) with one rotation Q, and with mean and variances s > 0 that depend on a
context c, which is what the flow already knows when it comes to z_y: the condition h and the coarser part of the
same image. The chain rule keeps the likelihood exact, since a multi-scale flow factorises from coarse to fine::

    log p(y) = log |det f'(y)| + sum over levels of log p(z_l | coarser z, h)
    log p(z | c) = -1/2 sum over i of [ (r_i - m_i)² / s_i + log s_i + log 2 pi ],   r = Qᵀ z

A clean latent is moved along the eigenvectors, noise only where variance grows, contraction where it shrinks::

    r_i' = m_i + min(1, sqrt(s_i)) r_i + sqrt(max(0, s_i - 1)) e_i,   e ~ N(0, 1)

which has exactly the variance s_i. Where every s_i >= 1 and c is left out this is the constant shift; where
s_i < 1 it is the optimal transport of one Gaussian to the other.

**Back**: with r' = m + k r + a e, where k = min(1, sqrt(s)) and a² = max(0, s - 1), and r ~ N(0, 1), the posterior
of the clean r given the degraded r' is Gaussian, with mean k (r' - m) / s and variance 1 - k² / s: 1 - 1 / s where
noise was added, and 0 where variance was only taken away. It needs eigenvectors, never an inverse.

Reference: Wolf et al., "DeFlow", CVPR 2021, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sr_utils.flow_layers import bounded, sum_image, zero_conv
from sr_utils.latent_noise import LatentNoise, Population

MEAN_BOUND = 0.5
"""How far, in clean deviations, the context may move the mean: enough for a tone, too little for a content."""
VARIANCE_BOUND = 2.0
"""How far the context may move a log-variance to either side."""


def standard_log_prob(z: Tensor) -> Tensor:
    """Log-density of latents (N, C, H, W) under N(0, I), the clean domain's; shape (N,)."""
    return -0.5 * sum_image(z.square()) - 0.5 * z[0].numel() * math.log(2 * math.pi)


def _posterior(rotated: Tensor, mean: Tensor, variance: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A draw of the clean latent along the eigenvectors, given the degraded one; see the module's text."""
    kept = variance.clamp(max=1).sqrt()
    deviation = (1 - kept.square() / variance).clamp(min=0).sqrt()
    return kept * (rotated - mean) / variance + temperature * deviation * noise


class GaussianShift(nn.Module):
    """A shift whose clean latents are standard normal; subclasses say how degraded ones are distributed."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of degraded latents ``z`` (N, C, H, W); shape (N,)."""
        raise NotImplementedError

    def clean_log_prob(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Log-density of clean latents ``z`` (N, C, H, W); shape (N,)."""
        return standard_log_prob(z)

    def degraded_log_prob(self, z: Tensor, context: Tensor | None, population: Population) -> Tensor:
        """Log-density of degraded latents at each strength of noise an image may have; here there is one, (N, 1)."""
        return self.log_prob(z, context)[:, None]

    def sample_clean(self, noise: LatentNoise, context: Tensor | None = None) -> Tensor:
        """A clean latent."""
        return noise.normal


class ConstantShift(GaussianShift):
    """The published shift u ~ N(mu, M Mᵀ), the same at every position of every image (DeFlow, eq. 8-9).

    ``M`` must not start at zero: the gradient of I + M Mᵀ with respect to M is then exactly zero and the
    covariance never learns. It starts at ``initial_shift`` times the identity. ``context`` is ignored.
    """

    def __init__(self, channels: int, initial_shift: float):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.factor = nn.Parameter(initial_shift * torch.eye(channels))
        self._known_eigen: tuple | None = None

    def average_mean(self, context: Tensor | None = None) -> Tensor:
        """The mean of a degraded latent; (C,)."""
        return self.mean

    def covariance(self, context: Tensor | None = None) -> Tensor:
        """I + M Mᵀ, the covariance of a degraded latent; (C, C)."""
        return torch.eye(len(self.mean), dtype=self.factor.dtype, device=self.factor.device) + (
            self.factor @ self.factor.T
        )

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of degraded latents ``z`` (N, C, H, W); shape (N,)."""
        positions = z.shape[2] * z.shape[3]
        lower = torch.linalg.cholesky(self.covariance())
        centred = (z - self.mean[:, None, None]).transpose(0, 1).flatten(1)
        whitened = torch.linalg.solve_triangular(lower, centred, upper=False)
        squared = whitened.square().sum(0).unflatten(0, (len(z), positions)).sum(1)
        constant = 0.5 * z[0].numel() * math.log(2 * math.pi)
        return -0.5 * squared - positions * torch.log(torch.diagonal(lower)).sum() - constant

    def transport(
        self,
        z: Tensor,
        noise: LatentNoise,
        context: Tensor | None = None,
        population: Population | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """A degraded latent for a clean one: z + u. Temperature scales the deviation of u, not its mean."""
        coloured = torch.einsum("ij,njhw->nihw", self.factor, noise.normal)
        return z + self.mean[:, None, None] + temperature * coloured

    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the covariance, worked out once for every state of M."""
        version = (self.factor._version, self.factor.data_ptr(), self.factor.dtype)
        if self._known_eigen is None or self._known_eigen[0] != version:
            self._known_eigen = (version, torch.linalg.eigh(self.covariance().detach()))
        return self._known_eigen[1]

    def transport_back(
        self,
        z: Tensor,
        noise: LatentNoise,
        context: Tensor | None = None,
        population: Population | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """A draw of the clean latent that became the degraded ``z``; temperature 0 gives the posterior's mean."""
        values, vectors = self._eigen()
        rotated = torch.einsum("ji,njhw->nihw", vectors, z - self.mean[:, None, None])
        clean = _posterior(rotated, torch.zeros_like(rotated), values[:, None, None], noise.normal, temperature)
        return torch.einsum("ij,njhw->nihw", vectors, clean)


class LocalShift(GaussianShift):
    """Mean and variances that depend on the context, along learned directions; see the module's text.

    Parameters
    ----------
    channels: of the latent.
    context_channels: of what the shift may look at; 0 makes mean and variances the same everywhere.
    initial_shift: every variance starts at 1 + initial_shift².
    """

    def __init__(self, channels: int, initial_shift: float, *, context_channels: int, hidden: int):
        super().__init__()
        # A random start: along the axes, equal variances could hide a correlation from the gradient for ever.
        self.turn = nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels))
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_variance = nn.Parameter(torch.full((channels,), math.log1p(initial_shift**2)))
        self.local = None
        if context_channels:
            self.local = nn.Sequential(
                nn.Conv2d(context_channels, hidden, 3, padding=1), nn.SiLU(), zero_conv(hidden, 2 * channels, 1)
            )

    def rotation(self) -> Tensor:
        """Q = exp(A - Aᵀ), orthogonal, whose columns are the eigenvectors of every covariance; (C, C)."""
        return torch.matrix_exp(self.turn - self.turn.T)

    def moments(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance along the eigenvectors, each (N, C, H, W), or (1, C, 1, 1) without a context."""
        mean, log_variance = self.mean[None, :, None, None], self.log_variance[None, :, None, None]
        if self.local is None:
            return mean, log_variance
        to_mean, to_log_variance = self.local(context).chunk(2, dim=1)
        return mean + bounded(to_mean, MEAN_BOUND), log_variance + bounded(to_log_variance, VARIANCE_BOUND)

    def average_mean(self, context: Tensor | None = None) -> Tensor:
        """Q m with the means m averaged over images and positions; (C,)."""
        return self.rotation() @ self.moments(context)[0].mean((0, 2, 3))

    def covariance(self, context: Tensor | None = None) -> Tensor:
        """Q diag(s) Qᵀ with the variances s averaged over images and positions; (C, C)."""
        rotation = self.rotation()
        variance = self.moments(context)[1].exp().mean((0, 2, 3))
        return rotation @ torch.diag(variance) @ rotation.T

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of degraded latents ``z`` (N, C, H, W), given their context; shape (N,)."""
        mean, log_variance = self.moments(context)
        rotated = torch.einsum("ji,njhw->nihw", self.rotation(), z)
        standard = (rotated - mean) * torch.exp(-0.5 * log_variance)
        return standard_log_prob(standard) - 0.5 * sum_image(log_variance.expand_as(z))

    def transport(
        self,
        z: Tensor,
        noise: LatentNoise,
        context: Tensor | None = None,
        population: Population | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """A degraded latent for a clean one. Temperature scales the deviation of the noise, nothing else."""
        mean, log_variance = self.moments(context)
        variance, rotation = log_variance.exp(), self.rotation()
        rotated = torch.einsum("ji,njhw->nihw", rotation, z)
        kept, added = variance.clamp(max=1).sqrt(), (variance - 1).clamp(min=0).sqrt()
        moved = mean + kept * rotated + temperature * added * noise.normal
        return torch.einsum("ij,njhw->nihw", rotation, moved)

    def transport_back(
        self,
        z: Tensor,
        noise: LatentNoise,
        context: Tensor | None = None,
        population: Population | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """A draw of the clean latent that became the degraded ``z``; temperature 0 gives the posterior's mean."""
        mean, log_variance = self.moments(context)
        rotation = self.rotation()
        rotated = torch.einsum("ji,njhw->nihw", rotation, z)
        clean = _posterior(rotated, mean, log_variance.exp(), noise.normal, temperature)
        return torch.einsum("ij,njhw->nihw", rotation, clean)
