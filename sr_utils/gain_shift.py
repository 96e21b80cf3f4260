"""The degradation of a latent as a camera makes one: a gain for what is there, and noise for what is not.

z is one position's vector of C latent channels and r = Qᵀ z its coordinates along learned directions, h the condition.
Clean and degraded coordinates are tied by::

    r_y = m + k r_x + a(b) e,   e ~ N(0, 1)

with a gain k for each direction (blur, demosaicing and compression take detail away: k < 1) and noise whose deviation
a depends on the local colour b of h (a sensor's noise depends on brightness). Translating is this one line: it needs
no density at all.

Learning it without pairs does. One Gaussian a direction cannot tell gain from noise, as only k² σ² + a² shows. Where
σ varies, it can: noise is what is left where the scene is flat, gain what is missing where it is rough. So clean
coordinates are a scale mixture of Gaussians whose weights and scales follow h (Portilla et al.)::

    r_x | h ~ sum over j of w_j(h) N(0, σ_j²(h))
    r_y | h ~ sum over j of w_j(h) N(m, k² c² σ_j²(h) + s a²(b))

The likelihood is exact: sums of Gaussian densities. s is the strength of the noise in one image relative to the
others', from a small set of values with learned weights (`latent_noise.Population`), since no two photographs of one
camera are equally noisy; it is drawn anew for every translated image.

No likelihood of unpaired images can say how much of the detail that y shows is x's own. Interpolation of colours and
compression replace fine detail by other detail of the same size, and the sums above stay what they are. What can be
said is said by an assumption, the coherence q: r_x goes on as q r_x, and a fresh draw of its component, of variance
(1 - q²) σ_j², takes the rest of its place. With q = 1 all that survives is x's own, as in the published model. How much
does survive, the grain can say (`detail_calibration`), and after that little is left to make up: q is 1 unless set.

All this holds if noise that is added to an image adds to its latents, whatever the image shows. A flow that reacts to
what it sees, as affine couplings do, shrinks its latents where the image is noisy; the noise is then explained by the
flow and missing from the shift. So the flow of this shift is linear in the image, given h: h, enlarged, is subtracted,
and what is left goes through a learned wavelet transform (`lifting.LiftingStep`).

Without pairs a set of flatter scenes looks just like a gain below 1. The contrast c of the degraded set's scenes, one
number for all latents, takes that up. What tells it from the gains is one assumption: some details survive whole, so
the largest gains of the coarsest latent, three for three colours, are 1 on average. c is of the scenes, not of the
camera: translating a clean image leaves it out.

References
----------
Wolf et al., "DeFlow", CVPR 2021, section 3.2.
Portilla, Strela, Wainwright and Simoncelli, "Image Denoising Using Scale Mixtures of Gaussians in the Wavelet
Domain", IEEE Transactions on Image Processing, 2003, section II.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sr_utils.flow_layers import bounded, sum_image, zero_conv
from sr_utils.latent_noise import LatentNoise, Population

SURVIVORS = 3
"""Directions of the coarsest latent whose gain is 1 on average: a coarsest one in each colour."""
WIDTH = 16
"""Channels inside the networks that read h."""
COMPONENTS = 5
"""Gaussians in the mixture of one clean coordinate."""
SMALLEST, LARGEST = -6.0, 1.5
"""Log-variances of the first and the last of them at the start of training."""
SCALE_BOUND = 2.0
"""How far h may move a component's log-variance to either side."""
TONE_BOUND = 2.0
"""How far the colour of h may move the noise's log-variance to either side."""
INITIAL_NOISE = -1.5
"""Log-variance of the noise at the start, where the latents' own is about 0."""
ROWS = 32
"""Rows of a latent whose mixtures are laid out at once in `GainShift.transport`: they need many times its memory."""


class GainShift(nn.Module):
    """Gain and noise of one latent; see the module's text.

    Parameters
    ----------
    channels: of the latent.
    coarsest: this is the latent whose largest gains are 1.
    coherence: q, from 0 to 1.

    The context of all methods is h at the latent's resolution, (N, 3, H, W).
    """

    def __init__(self, channels: int, *, coarsest: bool = False, coherence: float = 1.0):
        super().__init__()
        self.channels, self.coarsest, self.coherence = channels, coarsest, coherence
        # Close to the axes, which start as wavelets of one colour; not on them, where a gradient could be zero.
        self.turn = nn.Parameter(0.01 * torch.randn(channels, channels) / math.sqrt(channels))
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_gain = nn.Parameter(torch.zeros(channels))
        self.log_noise = nn.Parameter(torch.full((channels,), INITIAL_NOISE))
        # Small and close to h: a network that could tell images apart would take an image's noise for its texture.
        self.scales = nn.Sequential(
            *(nn.Conv2d(3, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 1), nn.SiLU()),
            zero_conv(WIDTH, 2 * channels * COMPONENTS, 1),
        )
        self.tone = nn.Sequential(nn.Conv2d(3, WIDTH, 1), nn.SiLU(), zero_conv(WIDTH, channels, 1))
        self.register_buffer("start", torch.linspace(SMALLEST, LARGEST, COMPONENTS))

    def rotation(self) -> Tensor:
        """Q = exp(A - Aᵀ), orthogonal, (C, C)."""
        return torch.matrix_exp(self.turn - self.turn.T)

    def mixture(self, context: Tensor, population: Population | None = None) -> tuple[Tensor, Tensor]:
        """Log-weights and log-variances of the clean components, each (N, C, components, H, W).

        Of clean images, or, given the ``population``, of what the degraded ones were before: its scenes' contrast.
        """
        raw = self.scales(context - 0.5).unflatten(1, (2, self.channels, COMPONENTS))
        log_variance = self.start[:, None, None] + bounded(raw[:, 1], SCALE_BOUND)
        if population is not None:
            log_variance = log_variance + 2 * population.log_contrast
        return raw[:, 0].log_softmax(2), log_variance

    def noise_log_variance(self, context: Tensor) -> Tensor:
        """log a², (N, C, H, W), at strength 1."""
        return self.log_noise[:, None, None] + bounded(self.tone(context - 0.5), TONE_BOUND)

    def clean_log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of clean latents (N, C, H, W); shape (N,)."""
        log_weight, log_variance = self.mixture(context)
        rotated = torch.einsum("ji,njhw->nihw", self.rotation(), z)
        return _mixture_log_prob(rotated, log_weight, log_variance.exp())

    def degraded_log_prob(self, z: Tensor, context: Tensor, population: Population) -> Tensor:
        """Log-density of degraded latents (N, C, H, W) at each strength of noise an image may have; shape (N, S)."""
        log_weight, log_variance = self.mixture(context, population)
        centred = torch.einsum("ji,njhw->nihw", self.rotation(), z) - self.mean[:, None, None]
        kept = (log_variance + 2 * self.log_gains()[:, None, None, None]).exp()
        noise = self.noise_log_variance(context).exp().unsqueeze(2)
        variances = (kept + noise * each.exp() for each in population.log_strengths)
        return torch.stack([_mixture_log_prob(centred, log_weight, variance) for variance in variances], dim=1)

    def transport(
        self,
        z: Tensor,
        noise: LatentNoise,
        context: Tensor,
        population: Population | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """A degraded latent for a clean one, of a clean image or of a scene of the ``population``.

        Temperature scales all that is drawn, noise and fresh detail.
        """
        rotation, gain = self.rotation(), self.gains()[:, None, None]
        rotated = torch.einsum("ji,njhw->nihw", rotation, z)
        variance = (self.noise_log_variance(context) + noise.log_strength[:, None, None, None]).exp()
        if self.coherence < 1:
            detail = self._detail_variance(rotated, noise.uniform, context, population)
            variance = variance + gain.square() * (1 - self.coherence**2) * detail
        moved = self.mean[:, None, None] + self.coherence * gain * rotated
        return torch.einsum("ij,njhw->nihw", rotation, moved + temperature * variance.sqrt() * noise.normal)

    def _detail_variance(
        self, rotated: Tensor, uniform: Tensor, context: Tensor, population: Population | None
    ) -> Tensor:
        """Variance of a component of the clean mixture, drawn from its posterior given the coordinates (N, C, H, W)."""
        chosen, height = [], rotated.shape[2]
        for start in range(0, height, ROWS):
            stop, above = min(start + ROWS, height), min(start, 1)
            # The mixture's network sees one row to either side.
            parts = self.mixture(context[:, :, start - above : stop + 1], population)
            log_weight, log_variance = (part[..., above : above + stop - start, :] for part in parts)
            squared = rotated[:, :, start:stop].unsqueeze(2).square()
            log_posterior = log_weight - 0.5 * (squared / log_variance.exp() + log_variance)
            component = _choose(log_posterior, uniform[:, :, start:stop])
            chosen.append(log_variance.gather(2, component).squeeze(2).exp())
        return torch.cat(chosen, dim=2)

    def transport_back(
        self, z: Tensor, noise: LatentNoise, context: Tensor, population: Population, *, temperature: float = 1.0
    ) -> Tensor:
        """A draw of the clean latent that became the degraded ``z``, at the noise's strength.

        The posterior is a mixture too: a component is taken in proportion to w_j times its density; given it, with
        g = q k and b² = s a² + (1 - q²) k² σ² for all that was drawn, the mean is the Wiener estimate
        g σ² / (g² σ² + b²) and the variance σ² b² / (g² σ² + b²). Temperature 0 gives the mean over all components.
        The scene is one of the degraded set, so σ has its contrast.
        """
        rotation = self.rotation()
        centred = (torch.einsum("ji,njhw->nihw", rotation, z) - self.mean[:, None, None]).unsqueeze(2)
        log_weight, log_variance = self.mixture(context, population)
        gain, variance = self.gains()[:, None, None, None], log_variance.exp()
        added = (self.noise_log_variance(context) + noise.log_strength[:, None, None, None]).exp().unsqueeze(2)
        added = added + gain.square() * (1 - self.coherence**2) * variance
        gain = self.coherence * gain
        total = gain.square() * variance + added
        log_posterior = log_weight - 0.5 * (centred.square() / total + total.log())
        mean, deviation = gain * variance / total * centred, (variance * added / total).sqrt()
        if temperature == 0:
            clean = (log_posterior.softmax(2) * mean).sum(2)
        else:
            chosen = _choose(log_posterior, noise.uniform)
            mean, deviation = (part.gather(2, chosen).squeeze(2) for part in (mean, deviation))
            clean = mean + temperature * deviation * noise.normal
        return torch.einsum("ij,njhw->nihw", rotation, clean)

    def sample_clean(self, noise: LatentNoise, context: Tensor) -> Tensor:
        """A clean latent drawn from its mixture."""
        log_weight, log_variance = self.mixture(context)
        chosen = log_variance.gather(2, _choose(log_weight, noise.uniform)).squeeze(2)
        return torch.einsum("ij,njhw->nihw", self.rotation(), (0.5 * chosen).exp() * noise.normal)

    def average_mean(self, context: Tensor | None = None) -> Tensor:
        """Q m, what every degraded latent has more of than its clean one; (C,)."""
        return self.rotation() @ self.mean

    def noise_covariance(self, context: Tensor) -> Tensor:
        """Q diag(a²) Qᵀ with a² averaged over images and positions; (C, C)."""
        rotation = self.rotation()
        return rotation @ torch.diag(self.noise_log_variance(context).exp().mean((0, 2, 3))) @ rotation.T

    def log_gains(self) -> Tensor:
        """log k of every direction, (C,)."""
        if not self.coarsest:
            return self.log_gain
        return self.log_gain - self.log_gain.topk(min(SURVIVORS, self.channels)).values.mean()

    def gains(self) -> Tensor:
        """k of every direction, (C,)."""
        return self.log_gains().exp()


def _mixture_log_prob(rotated: Tensor, log_weight: Tensor, variance: Tensor) -> Tensor:
    """Log-density (N,) of coordinates (N, C, H, W) under zero-mean mixtures (N, C, components, H, W)."""
    exponent = rotated.unsqueeze(2).square() / variance + variance.log()
    density = torch.logsumexp(log_weight - 0.5 * exponent, dim=2)
    return sum_image(density) - 0.5 * rotated[0].numel() * math.log(2 * math.pi)


def _choose(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Indices (N, C, 1, H, W) of components drawn by inversion of their cumulated weights."""
    below = log_weight.softmax(2).cumsum(2) < uniform.unsqueeze(2)
    return below.sum(2, keepdim=True).clamp(max=log_weight.shape[2] - 1)
