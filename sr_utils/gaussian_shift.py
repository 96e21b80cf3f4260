"""The one-dimensional Gaussian model of a learned degradation, in which everything can be written down.

A clean value x ~ N(mu_x, sigma_x²) and a shift u ~ N(mu_u, sigma_u²), independent of it, give the degraded value
y = x + u, so that y ~ N(mu_x + mu_u, sigma_x² + sigma_u²). This is DeFlow's latent space (Wolf et al., CVPR 2021,
section 3.2, eq. 8-9) with one dimension and a free clean Gaussian. What is seen are n values of x and m values of y
that do not belong together.

The four parameters always come in the order mu_x, sigma_x, mu_u, sigma_u (`PARAMETERS`), in the units of the data, as
the last dimension of a tensor. All functions are in closed form but for `descend` and `bootstrap`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PARAMETERS = ("mu_x", "sigma_x", "mu_u", "sigma_u")


def degraded_moments(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of y; ``parameters`` (..., 4) gives two tensors (...)."""
    mean_x, deviation_x, mean_u, deviation_u = parameters.unbind(-1)
    return mean_x + mean_u, (deviation_x.square() + deviation_u.square()).sqrt()


def draw_unpaired(
    parameters: Tensor, count_x: int, count_y: int, generator: torch.Generator, *, repeats: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Clean values (*repeats, count_x) and degraded ones (*repeats, count_y); no y comes from one of these x."""
    mean_y, deviation_y = degraded_moments(parameters)
    x, y = (torch.randn(*repeats, count, dtype=parameters.dtype, generator=generator) for count in (count_x, count_y))
    return parameters[0] + parameters[1] * x, mean_y + deviation_y * y


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by the count) over the last dimension."""
    return values.mean(-1), values.var(-1, correction=0)


def _gaussian_nll(count: int, mean: Tensor, variance: Tensor, model_mean: Tensor, model_variance: Tensor) -> Tensor:
    """-log likelihood of ``count`` values that have a mean and a variance, under a Gaussian of the model's."""
    misfit = (variance + (mean - model_mean).square()) / model_variance
    return 0.5 * count * (math.log(2 * math.pi) + model_variance.log() + misfit)


def negative_log_likelihood(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """-log p(x) - log p(y) in nats, summed over both samples: DeFlow's eq. 10 in one dimension.

    ``parameters`` (..., 4) gives (...), so that a whole surface is one call. Only counts, means and variances of
    the samples enter: they are sufficient.
    """
    mean_y, deviation_y = degraded_moments(parameters)
    clean = _gaussian_nll(x.shape[-1], *_moments(x), parameters[..., 0], parameters[..., 1].square())
    return clean + _gaussian_nll(y.shape[-1], *_moments(y), mean_y, deviation_y.square())


def maximum_likelihood(x: Tensor, y: Tensor) -> Tensor:
    """The parameters (..., 4) that make samples (..., n) and (..., m) most likely.

    Where y varies more than x, both Gaussians fit exactly: sigma_u² = var(y) - var(x). Where it varies less no u
    helps, and the maximum lies on the boundary: sigma_u = 0, and both samples share one pooled variance.
    """
    (mean_x, variance_x), (mean_y, variance_y) = _moments(x), _moments(y)
    count_x, count_y = x.shape[-1], y.shape[-1]
    pooled = (count_x * variance_x + count_y * variance_y) / (count_x + count_y)
    inside = variance_y > variance_x
    deviation_x = torch.where(inside, variance_x, pooled).sqrt()
    deviation_u = (variance_y - variance_x).clamp(min=0).sqrt()
    return torch.stack([mean_x, deviation_x, mean_y - mean_x, deviation_u], dim=-1)


def gradient(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient (..., 4) of the negative log-likelihood per value, by automatic differentiation."""
    parameters = parameters.detach().requires_grad_()
    loss = negative_log_likelihood(parameters, x, y).sum() / (x.shape[-1] + y.shape[-1])
    return torch.autograd.grad(loss, parameters)[0]


def descend(x: Tensor, y: Tensor, start: Tensor, *, steps: int = 2000, rate: float = 0.5) -> Tensor:
    """The path (steps + 1, 4) of plain gradient descent on the negative log-likelihood per value.

    ``rate`` is relative: each step is multiplied by the variance of x, so that the units of the data do not matter.
    """
    path = [start]
    scale = rate * x.var(correction=0)
    for _ in range(steps):
        path.append(path[-1] - scale * gradient(path[-1], x, y))
    return torch.stack(path)


def fisher_information(parameters: Tensor, count_x: int, count_y: int) -> Tensor:
    """Expected information (4, 4) about the parameters in ``count_x`` clean and ``count_y`` degraded values.

    A Gaussian's mean carries 1 / sigma², its deviation 2 / sigma². For y both depend on the parameters of x and of
    u: mu_y through (1, 1), sigma_y through (sigma_x, sigma_u) / sigma_y. At sigma_u = 0 the last row is zero.
    """
    _, deviation_x, _, deviation_u = parameters
    _, deviation_y = degraded_moments(parameters)
    zero, one = torch.zeros_like(deviation_x), torch.ones_like(deviation_x)
    to_mean_y = torch.stack([one, zero, one, zero])
    to_deviation_y = torch.stack([zero, deviation_x, zero, deviation_u]) / deviation_y
    of_x = torch.diag(torch.stack([one, 2 * one, zero, zero])) * count_x / deviation_x.square()
    of_y = torch.outer(to_mean_y, to_mean_y) + 2 * torch.outer(to_deviation_y, to_deviation_y)
    return of_x + of_y * count_y / deviation_y.square()


def variance_error(parameters: Tensor, count_x: int, count_y: int) -> Tensor:
    """Deviation of the estimate of sigma_u² for large samples: sqrt(2 sigma_x⁴/n + 2 sigma_y⁴/m)."""
    _, deviation_y = degraded_moments(parameters)
    return (2 * parameters[..., 1] ** 4 / count_x + 2 * deviation_y**4 / count_y).sqrt()


def standard_errors(parameters: Tensor, count_x: int, count_y: int) -> Tensor:
    """Deviations (4,) of the estimates for large samples; infinite for sigma_u where sigma_u is 0.

    The square roots of the diagonal of the inverse Fisher information, in closed form.
    """
    _, deviation_x, _, deviation_u = parameters
    _, deviation_y = degraded_moments(parameters)
    return torch.stack(
        [
            deviation_x / math.sqrt(count_x),
            deviation_x / math.sqrt(2 * count_x),
            (deviation_x.square() / count_x + deviation_y.square() / count_y).sqrt(),
            variance_error(parameters, count_x, count_y) / (2 * deviation_u),
        ]
    )


def bootstrap(x: Tensor, y: Tensor, generator: torch.Generator, *, resamples: int = 1000) -> Tensor:
    """Estimates (resamples, 4) from samples drawn out of the two samples, with replacement (Efron 1979)."""
    drawn = []
    for values in (x, y):
        indices = torch.randint(len(values), (resamples, len(values)), generator=generator)
        drawn.append(values[indices])
    return maximum_likelihood(*drawn)


def posterior(y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the clean value given the degraded one: x | y is Gaussian.

    Precisions add: 1 / var(x | y) = 1 / sigma_x² + 1 / sigma_u². The mean lies between y - mu_u and mu_x.
    """
    mean_x, deviation_x, _, deviation_u = parameters.unbind(-1)
    mean_y, deviation_y = degraded_moments(parameters)
    kept = deviation_x.square() / deviation_y.square()
    return mean_x + kept * (y - mean_y), deviation_x * deviation_u / deviation_y


def shift_of_coupling(deviation_x: float, deviation_y: float, correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation of u = y - x, and its correlation with x, when x and y correlate by ``correlation``.

    The marginals are the same for all of them, so unpaired samples cannot choose. u is independent of x only where
    ``correlation`` is deviation_x / deviation_y, which exists only if y varies at least as much as x.
    """
    covariance = correlation * deviation_x * deviation_y
    deviation_u = (deviation_x**2 + deviation_y**2 - 2 * covariance).clamp(min=0).sqrt()
    return deviation_u, (covariance - deviation_x**2) / (deviation_x * deviation_u)


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a symmetric positive semi-definite matrix (C, C)."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


def optimal_transport(
    mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, covariance_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Matrix A (C, C) and offset b (C,) for which A x + b has y's moments and moves x as little as can be.

    A = Sx^(-1/2) (Sx^(1/2) Sy Sx^(1/2))^(1/2) Sx^(-1/2), the optimal transport of one Gaussian to another under
    squared distance (Olkin and Pukelsheim 1982; Peyré and Cuturi, "Computational optimal transport", 2019, eq. 2.40).
    In one dimension A = sigma_y / sigma_x. ``covariance_x`` must be positive definite.
    """
    root = square_root(covariance_x)
    inverse = torch.linalg.inv(root)
    matrix = inverse @ square_root(root @ covariance_y @ root) @ inverse
    return matrix, mean_y - matrix @ mean_x


def profile_likelihood(x: Tensor, y: Tensor, means_u: Tensor, deviations_u: Tensor, *, fineness: int = 41) -> Tensor:
    """How much less likely (nats, >= 0) each (sigma_u, mu_u) is than the best, with mu_x and sigma_x as suits it best.

    ``means_u`` (A,) and ``deviations_u`` (B,) give (B, A). The best mu_x is a weighted mean, since both samples
    measure it; the best sigma_x is sought on a grid of ``fineness`` values around the estimate.
    """
    # Wider than this, the values of x alone would cost more than twenty nats.
    reach = min(1.0, 6 / math.sqrt(2 * x.shape[-1]))
    best = maximum_likelihood(x, y)
    (of_x, _), (of_y, _) = _moments(x), _moments(y)
    deviations_x = best[1] * torch.linspace(-reach, reach, fineness, dtype=x.dtype).exp()
    deviation_x, deviation_u, mean_u = torch.meshgrid(deviations_x, deviations_u, means_u, indexing="ij")
    weight_x = x.shape[-1] / deviation_x.square()
    weight_y = y.shape[-1] / (deviation_x.square() + deviation_u.square())
    mean_x = (weight_x * of_x + weight_y * (of_y - mean_u)) / (weight_x + weight_y)
    surface = negative_log_likelihood(torch.stack([mean_x, deviation_x, mean_u, deviation_u], dim=-1), x, y)
    return (surface.amin(0) - negative_log_likelihood(best, x, y)).clamp(min=0)
