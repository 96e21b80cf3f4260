"""The one-dimensional model: each formula against simulation, automatic differentiation or another formula."""

import math

import pytest
import torch

from sr_utils import gaussian_shift
from sr_utils.latent_noise import LatentNoise
from sr_utils.latent_shift import LocalShift

TRUTH = torch.tensor([0.3, 1.0, 0.5, 0.6], dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def samples():
    return gaussian_shift.draw_unpaired(TRUTH, 300, 500, generator())


def test_drawn_values_have_the_moments_of_the_model_and_are_not_paired():
    x, y = gaussian_shift.draw_unpaired(TRUTH, 100_000, 100_000, generator())
    mean, deviation = gaussian_shift.degraded_moments(TRUTH)
    assert (mean, deviation) == (pytest.approx(0.8), pytest.approx(math.sqrt(1.36)))
    assert x.mean() == pytest.approx(0.3, abs=0.02) and x.std() == pytest.approx(1.0, abs=0.01)
    assert y.mean() == pytest.approx(0.8, abs=0.02) and y.std() == pytest.approx(math.sqrt(1.36), abs=0.01)
    assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1]) < 0.01


def test_likelihood_is_the_sum_of_log_densities(samples):
    x, y = samples
    mean, deviation = gaussian_shift.degraded_moments(TRUTH)
    clean, degraded = torch.distributions.Normal(TRUTH[0], TRUTH[1]), torch.distributions.Normal(mean, deviation)
    expected = -clean.log_prob(x).sum() - degraded.log_prob(y).sum()
    torch.testing.assert_close(gaussian_shift.negative_log_likelihood(TRUTH, x, y), expected)


def test_nothing_near_the_estimate_is_likelier(samples):
    best = gaussian_shift.maximum_likelihood(*samples)
    nearby = best + 0.05 * torch.randn(2000, 4, dtype=torch.float64, generator=generator())
    values = gaussian_shift.negative_log_likelihood(nearby, *samples)
    assert (values > gaussian_shift.negative_log_likelihood(best, *samples)).all()
    torch.testing.assert_close(gaussian_shift.gradient(best, *samples), torch.zeros_like(best), atol=1e-12, rtol=0)


def test_where_the_variance_shrinks_the_estimate_is_on_the_boundary(samples):
    x, y = samples[0], 0.5 * samples[1]
    best = gaussian_shift.maximum_likelihood(x, y)
    assert best[3] == 0 and y.std() < best[1] < x.std()
    values = best + 0.05 * torch.randn(2000, 4, dtype=torch.float64, generator=generator())
    lowest = gaussian_shift.negative_log_likelihood(best, x, y)
    assert (gaussian_shift.negative_log_likelihood(values, x, y) > lowest).all()


def test_estimates_of_many_samples_are_those_of_each():
    x, y = gaussian_shift.draw_unpaired(TRUTH, 20, 20, generator(), repeats=(50,))
    together = gaussian_shift.maximum_likelihood(x, y)
    for index in range(50):
        torch.testing.assert_close(together[index], gaussian_shift.maximum_likelihood(x[index], y[index]))
    assert (together[:, 3] == 0).any() and (together[:, 3] > 0).any()


def test_descent_finds_the_estimate_unless_it_starts_at_zero(samples):
    start = torch.tensor([0.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    path = gaussian_shift.descend(*samples, start)
    torch.testing.assert_close(path[-1], gaussian_shift.maximum_likelihood(*samples), atol=1e-4, rtol=0)
    start[3] = 0.0
    assert (gaussian_shift.descend(*samples, start, steps=200)[:, 3] == 0).all()


def test_information_is_the_expected_curvature():
    mean, deviation = gaussian_shift.degraded_moments(TRUTH)
    ideal = []
    for count, centre, spread in ((70, TRUTH[0], TRUTH[1]), (50, mean, deviation)):
        values = torch.randn(count, dtype=torch.float64, generator=generator())
        ideal.append(centre + spread * (values - values.mean()) / values.std(correction=0))
    bend = torch.autograd.functional.hessian(lambda p: gaussian_shift.negative_log_likelihood(p, *ideal), TRUTH)
    torch.testing.assert_close(gaussian_shift.fisher_information(TRUTH, 70, 50), bend)


def test_errors_are_the_spread_of_estimates_and_the_bootstrap_sees_it_too():
    x, y = gaussian_shift.draw_unpaired(TRUTH, 1500, 1000, generator(), repeats=(1500,))
    spread = gaussian_shift.maximum_likelihood(x, y).std(0)
    errors = gaussian_shift.standard_errors(TRUTH, 1500, 1000)
    torch.testing.assert_close(spread, errors, rtol=0.08, atol=0)
    information = gaussian_shift.fisher_information(TRUTH, 1500, 1000)
    torch.testing.assert_close(torch.linalg.inv(information).diagonal().sqrt(), errors)
    resampled = gaussian_shift.bootstrap(x[0], y[0], generator()).std(0)
    torch.testing.assert_close(resampled, errors, rtol=0.3, atol=0)


def test_without_noise_there_is_no_information_about_its_deviation():
    without = torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    assert (gaussian_shift.fisher_information(without, 10, 10)[3] == 0).all()
    assert gaussian_shift.standard_errors(without, 10, 10)[3] == math.inf
    assert gaussian_shift.variance_error(without, 10, 10) == pytest.approx(math.sqrt(0.4))


def test_posterior_is_what_pairs_show():
    x = TRUTH[0] + TRUTH[1] * torch.randn(400_000, dtype=torch.float64, generator=generator())
    y = x + TRUTH[2] + TRUTH[3] * torch.randn(400_000, dtype=torch.float64, generator=generator(1))
    for seen in (-0.5, 2.0):
        mean, deviation = gaussian_shift.posterior(torch.tensor(seen, dtype=torch.float64), TRUTH)
        near = x[(y - seen).abs() < 0.02]
        assert near.mean() == pytest.approx(mean.item(), abs=0.03)
        assert near.std() == pytest.approx(deviation.item(), abs=0.03)


def test_couplings_share_their_marginals_and_one_of_them_is_independent():
    correlations = torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    deviation, with_x = gaussian_shift.shift_of_coupling(1.0, 1.25, correlations)
    # var(y) = var(x) + var(u) + 2 cov(x, u), whatever the coupling.
    torch.testing.assert_close(1 + deviation**2 + 2 * with_x * deviation, torch.full_like(deviation, 1.25**2))
    assert deviation[-1] == pytest.approx(0.25) and deviation[0] == pytest.approx(2.25)
    independent, none = gaussian_shift.shift_of_coupling(1.0, 1.25, torch.tensor([0.8], dtype=torch.float64))
    assert none.item() == pytest.approx(0, abs=1e-12) and independent.item() == pytest.approx(0.75)


def test_transport_has_the_moments_of_its_target_and_moves_least():
    roots = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator())
    of_x, of_y = roots[0] @ roots[0].T + torch.eye(3), roots[1] @ roots[1].T
    centres = torch.randn(2, 3, dtype=torch.float64, generator=generator(1))
    matrix, offset = gaussian_shift.optimal_transport(centres[0], of_x, centres[1], of_y)
    torch.testing.assert_close(matrix @ of_x @ matrix.T, of_y)
    torch.testing.assert_close(matrix @ centres[0] + offset, centres[1])
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator(2)))[0]
    other = gaussian_shift.square_root(of_y) @ turn @ torch.linalg.inv(gaussian_shift.square_root(of_x))
    torch.testing.assert_close(other @ of_x @ other.T, of_y)
    # E|A x - x|² for centred x is least where trace(A Sx) is largest.
    assert torch.trace(matrix @ of_x) > torch.trace(other @ of_x)


def test_from_clean_latents_transport_is_what_the_local_shift_does():
    shift = LocalShift(3, 0.0, context_channels=0, hidden=1).double()
    torch.manual_seed(0)
    shift.log_variance.data = -torch.rand(3, dtype=torch.float64)  # every variance shrinks
    shift.mean.data = torch.randn(3, dtype=torch.float64)
    z = torch.randn(5, 3, 1, 1, dtype=torch.float64)
    moved = shift.transport(z, LatentNoise(torch.randn_like(z), torch.zeros(5)))[:, :, 0, 0]
    identity, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    matrix, offset = gaussian_shift.optimal_transport(zero, identity, shift.average_mean(), shift.covariance())
    torch.testing.assert_close(moved, z[:, :, 0, 0] @ matrix.T + offset)


def test_the_surface_is_zero_at_the_estimate_and_right_elsewhere(samples):
    best = gaussian_shift.maximum_likelihood(*samples)
    means = best[2] + torch.tensor([-0.2, 0.0, 0.2], dtype=torch.float64)
    deviations = best[3] + torch.tensor([-0.2, 0.0, 0.2], dtype=torch.float64)
    worse = gaussian_shift.profile_likelihood(*samples, means, deviations, fineness=201)
    assert worse[1, 1] < 1e-9 and (worse.flatten()[[0, 1, 2, 3, 5, 6, 7, 8]] > 0.1).all()
    # Elsewhere: what an optimiser gets over mu_x and sigma_x.
    free = best[:2].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([free], line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        parameters = torch.stack([free[0], free[1], means[2], deviations[0]])
        value = gaussian_shift.negative_log_likelihood(parameters, *samples)
        value.backward()
        return value

    for _ in range(5):
        value = optimiser.step(loss)
    expected = value - gaussian_shift.negative_log_likelihood(best, *samples)
    assert worse[0, 2].item() == pytest.approx(expected.item(), abs=0.02)
