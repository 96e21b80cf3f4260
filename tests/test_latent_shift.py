"""The two shifts of a latent: densities, what they learn, what transport does to a Gaussian."""

import math

import pytest
import torch

from sr_utils.latent_noise import LatentNoise
from sr_utils.latent_shift import ConstantShift, LocalShift, standard_log_prob


def local_shift(channels=4, context_channels=3, spread=0.5):
    """A local shift in double precision whose parameters are away from their start."""
    torch.manual_seed(0)
    shift = LocalShift(channels, 0.5, context_channels=context_channels, hidden=8).double()
    for parameter in shift.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return shift


def learn(shift, z, context=None, steps=400, rate=0.03):
    """Fit a shift to latents by maximum likelihood."""
    optimiser = torch.optim.Adam(shift.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (-shift.log_prob(z, context).mean() / z[0].numel()).backward()
        optimiser.step()


def noise_like(z, generator=None):
    """What chance decides about a latent; nothing without a generator."""
    normal = torch.zeros_like(z) if generator is None else torch.randn(z.shape, generator=generator, dtype=z.dtype)
    return LatentNoise(normal, torch.zeros(len(z), dtype=z.dtype))


def moments_of(z):
    flat = z.transpose(0, 1).flatten(1)
    return flat.mean(1), torch.cov(flat)


def test_the_constant_covariance_learns_from_its_start_and_would_not_from_zero():
    def gradient(start):
        torch.manual_seed(0)
        shift = ConstantShift(4, start)
        shift.log_prob(3 * torch.randn(2, 4, 8, 8)).sum().backward()
        return shift.factor.grad

    assert gradient(0.5).abs().max() > 1
    assert torch.equal(gradient(0.0), torch.zeros(4, 4))


def test_the_standard_density_is_that_of_independent_normals():
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(standard_log_prob(z), expected)


@pytest.mark.parametrize("kind", ["constant", "local"])
def test_a_shift_recovers_known_moments(kind):
    torch.manual_seed(0)
    true_mean, factor = torch.tensor([0.5, -1.0]), torch.tensor([[1.5, 0.0], [0.8, 0.3]])
    z = torch.randn(64, 2, 16, 16) + true_mean[:, None, None]
    z = z + torch.einsum("ij,njhw->nihw", factor, torch.randn_like(z))
    shift = ConstantShift(2, 0.5) if kind == "constant" else LocalShift(2, 0.5, context_channels=0, hidden=1)
    learn(shift, z)
    mean = shift.mean if kind == "constant" else shift.rotation() @ shift.mean
    torch.testing.assert_close(mean.detach(), true_mean, atol=0.05, rtol=0)
    torch.testing.assert_close(shift.covariance().detach(), torch.eye(2) + factor @ factor.T, atol=0.1, rtol=0)


def test_a_variance_below_one_is_learned_by_the_local_shift_and_cannot_be_by_the_constant_one():
    torch.manual_seed(0)
    z = (torch.randn(64, 3, 8, 8) * torch.tensor([0.5, 1.0, 2.0])[:, None, None]).double()
    local, constant = LocalShift(3, 0.5, context_channels=0, hidden=1).double(), ConstantShift(3, 0.5).double()
    for shift in (local, constant):
        learn(shift, z)
    found = torch.linalg.eigvalsh(local.covariance().detach())
    torch.testing.assert_close(found, torch.tensor([0.25, 1.0, 4.0]).double(), rtol=0.1, atol=0)
    assert torch.linalg.eigvalsh(constant.covariance().detach()).min() >= 1 - 1e-9
    assert local.log_prob(z).mean() > constant.log_prob(z).mean()


def test_noise_that_depends_on_brightness_is_learned_by_its_context():
    torch.manual_seed(0)
    brightness = torch.rand(32, 1, 16, 16)
    z = torch.randn(32, 2, 16, 16) * (1 + brightness)
    shift = LocalShift(2, 0.5, context_channels=1, hidden=8)
    learn(shift, z, brightness, steps=300)
    for level in (0.1, 0.9):
        variance = shift.moments(torch.full((1, 1, 3, 3), level))[1].exp()[0, :, 1, 1]
        torch.testing.assert_close(variance.detach(), torch.full((2,), (1 + level) ** 2), rtol=0.15, atol=0)


@pytest.mark.parametrize("kind", ["constant", "local"])
def test_transport_gives_a_standard_latent_the_shifts_own_moments(kind):
    shift = ConstantShift(4, 0.5).double() if kind == "constant" else local_shift(context_channels=0)
    if kind == "constant":
        torch.manual_seed(1)
        shift.factor.data += 0.4 * torch.randn(4, 4)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20, 4, 100, 100, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        mean, covariance = moments_of(shift.transport(z, noise_like(z, generator)))
        expected = shift.mean if kind == "constant" else shift.rotation() @ shift.mean
        torch.testing.assert_close(mean, expected, atol=0.03, rtol=0)
        torch.testing.assert_close(covariance, shift.covariance(), atol=0.04, rtol=0.03)


def either_shift(kind):
    """A shift away from its start, in double precision, with variances on both sides of 1 if it can have them."""
    if kind == "local":
        return local_shift(context_channels=0)
    torch.manual_seed(1)
    shift = ConstantShift(4, 0.5).double()
    shift.factor.data += 0.4 * torch.randn(4, 4)
    shift.mean.data += torch.randn(4)
    return shift


@pytest.mark.parametrize("kind", ["constant", "local"])
def test_going_back_gives_a_standard_latent_again_and_is_bayes_rule(kind):
    shift, generator = either_shift(kind), torch.Generator().manual_seed(0)
    z = torch.randn(20, 4, 100, 100, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        degraded = shift.transport(z, noise_like(z, generator))
        mean, covariance = moments_of(shift.transport_back(degraded, noise_like(z, generator)))
        torch.testing.assert_close(mean, torch.zeros(4).double(), atol=0.02, rtol=0)
        torch.testing.assert_close(covariance, torch.eye(4).double(), atol=0.02, rtol=0)
        # The posterior's mean is the best linear estimate, so a regression on the pairs must find it.
        estimate = shift.transport_back(degraded, noise_like(z))
        flat = degraded.transpose(0, 1).flatten(1)
        design = torch.cat([flat, torch.ones_like(flat[:1])]).T
        fitted = design @ torch.linalg.lstsq(design, z.transpose(0, 1).flatten(1).T).solution
        torch.testing.assert_close(estimate.transpose(0, 1).flatten(1).T, fitted, atol=0.05, rtol=0)


def test_the_eigenvectors_of_a_constant_shift_follow_its_matrix():
    shift, z = either_shift("constant"), torch.randn(1, 4, 3, 3, dtype=torch.float64)
    before = shift.transport_back(z, noise_like(z))
    assert shift._eigen() is shift._eigen()
    with torch.no_grad():
        shift.factor.mul_(2.0)
    assert not torch.equal(before, shift.transport_back(z, noise_like(z)))


def test_the_local_density_is_that_of_a_full_gaussian_at_every_position():
    shift = local_shift()
    z, context = torch.randn(2, 4, 3, 5, dtype=torch.float64), torch.randn(2, 3, 3, 5, dtype=torch.float64)
    mean, log_variance = shift.moments(context)
    rotation = shift.rotation()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(4, dtype=torch.float64))
    expected = torch.zeros(2, dtype=torch.float64)
    for image in range(2):
        for row in range(3):
            for column in range(5):
                where = (image, slice(None), row, column)
                covariance = rotation @ torch.diag(log_variance[where].exp()) @ rotation.T
                normal = torch.distributions.MultivariateNormal(rotation @ mean[where], covariance)
                expected[image] += normal.log_prob(z[where])
    torch.testing.assert_close(shift.log_prob(z, context), expected)


def test_the_context_can_move_the_moments_only_so_far():
    shift = local_shift(spread=50.0)
    mean, log_variance = shift.moments(100 * torch.randn(1, 3, 8, 8, dtype=torch.float64))
    assert (mean - shift.mean[:, None, None]).abs().max() < 0.5 + 1e-9
    assert (log_variance - shift.log_variance[:, None, None]).abs().max() < 2.0 + 1e-9


@pytest.mark.parametrize("context_channels", [0, 3])
def test_a_new_local_shift_is_the_same_everywhere(context_channels):
    shift = LocalShift(5, 0.5, context_channels=context_channels, hidden=4)
    context = torch.randn(2, 3, 4, 4) if context_channels else None
    torch.testing.assert_close(shift.covariance(context), 1.25 * torch.eye(5), atol=1e-5, rtol=0)
    assert math.isclose(shift.moments(context)[1].exp().max().item(), 1.25, rel_tol=1e-6)
