"""Distances between sets of residuals: zero for equals, known values, and blind to what they should not see."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from sr_utils.errors import UserError
from sr_utils.residual_distances import (
    ROUNDING_VARIANCE,
    akld,
    area_under_curve,
    classifier_auc,
    grid_patches,
    histogram_divergence,
    local_variance,
    repeat_correlation,
    sliced_wasserstein,
    spectrum_distance,
)


def residuals(seed, deviation=0.04, count=12, side=64):
    generator = torch.Generator().manual_seed(seed)
    return deviation * torch.randn(count, 3, side, side, generator=generator)


def test_local_variance_is_a_gaussian_window_of_opencvs_width():
    residual = residuals(0, count=1)
    kernel = np.exp(-0.5 * ((np.arange(7) - 3) / 1.4) ** 2)
    kernel /= kernel.sum()
    expected = residual[0, 0].numpy() ** 2
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, kernel, axis=axis, mode="mirror")
    np.testing.assert_allclose(local_variance(residual)[0, 0].numpy(), expected, rtol=1e-4)


def test_akld_of_known_variances_is_the_divergence_of_two_gaussians():
    constant = torch.full((1, 3, 16, 16), 0.1)
    assert akld(constant, constant) == pytest.approx(0)
    assert akld(2 * constant, constant) == pytest.approx(0.5 * (4 - 1 - math.log(4)), rel=1e-4)
    assert akld(100 * constant, constant) == pytest.approx(0.5 * (10 - 1 - math.log(10)), rel=1e-4)


def test_akld_sees_noise_in_the_wrong_place_and_not_only_of_the_wrong_strength():
    bright = torch.linspace(0.2, 2, 64).expand(12, 3, 64, 64)
    real, again = bright * residuals(1), bright * residuals(2)
    white = real.std() * residuals(3, deviation=1.0)
    assert akld(again, real) < 0.8 * akld(white, real)


def test_histogram_divergence_is_scipys_of_smoothed_counts():
    real, generated = residuals(1), residuals(2, deviation=0.06)
    bins = np.arange(-64.5, 65.5)
    counts = [np.histogram(np.clip(np.rint(255 * r.numpy()), -64, 64), bins)[0] + 1 for r in (real, generated)]
    assert histogram_divergence(generated, real) == pytest.approx(stats.entropy(*counts), rel=1e-6)
    assert histogram_divergence(residuals(3), real) < 0.01 < histogram_divergence(generated, real)


def test_sliced_wasserstein_of_two_gaussians_is_their_difference_of_deviations():
    # W1 of N(0, a²) and N(0, b²) is |a - b| sqrt(2 / pi).
    found = sliced_wasserstein(residuals(1, 0.06), residuals(2, 0.04))
    assert found == pytest.approx(255 * 0.02 * math.sqrt(2 / math.pi), rel=0.1)
    assert sliced_wasserstein(residuals(1), residuals(2)) < 0.3


def test_spectrum_distance_is_in_decibels():
    power = torch.rand(12) + 0.1
    assert spectrum_distance(10 * power, power) == pytest.approx(10)
    assert 0 < spectrum_distance(power, torch.zeros(12)) < 200 and spectrum_distance(0 * power, 0 * power) == 0


def test_repeat_correlation_is_the_share_of_variance_that_both_draws_have():
    shared = residuals(0)
    assert repeat_correlation(residuals(1), residuals(2)) == pytest.approx(0, abs=0.02)
    assert repeat_correlation(shared + residuals(1), shared + residuals(2)) == pytest.approx(0.5, abs=0.02)


def test_area_under_the_curve_is_the_probability_of_the_right_order():
    positive, negative = torch.randn(300) + 0.7, torch.randn(200).round()
    expected = stats.mannwhitneyu(positive.numpy(), negative.numpy()).statistic / (300 * 200)
    assert area_under_curve(positive, negative) == pytest.approx(expected, abs=1e-6)
    assert area_under_curve(torch.ones(3), torch.ones(5)) == 0.5


def test_the_classifier_finds_grain_and_cannot_tell_equals():
    coarse = torch.nn.functional.avg_pool2d(residuals(2), 3, 1, 1)
    coarse = coarse * 0.04 / coarse.std()
    assert classifier_auc(coarse, residuals(1), steps=60) > 0.95
    many = [residuals(seed, count=60) for seed in (3, 4)]
    assert abs(classifier_auc(*many, steps=60) - 0.5) < 0.1


def test_the_classifier_leaves_pytorchs_own_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    classifier_auc(residuals(1, count=4), residuals(2, count=4), steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_patches_lie_side_by_side():
    images = torch.arange(2 * 3 * 5 * 7.0).view(2, 3, 5, 7)
    patches = grid_patches(images, 2)
    assert patches.shape == (2 * 2 * 3, 3, 2, 2)
    assert torch.equal(patches[7], images[1, :, :2, 2:4])


def test_the_classifier_is_tested_on_scenes_that_it_has_not_seen():
    generator = torch.Generator().manual_seed(0)
    generated, real = 0.04 * torch.randn(2, 40, 3, 32, 32, generator=generator)
    generated[0::2] *= 2
    assert classifier_auc(generated, real, steps=60) < 0.8


def opposed(count=24, side=32):
    """Two sets that differ in even scenes as they do in odd ones, the other way round."""
    generator = torch.Generator().manual_seed(0)
    quiet, loud = (level * torch.randn(count, 3, side, side, generator=generator) for level in (0.02, 0.08))
    even = (torch.arange(count) % 2 == 0)[:, None, None, None]
    return torch.where(even, loud, quiet), torch.where(even, quiet, loud)


def test_the_classifier_is_tested_on_scenes_that_it_has_not_learned_from():
    assert classifier_auc(*opposed(), steps=60) < 0.2


def test_akld_knows_no_variance_below_that_of_rounding():
    zero = torch.zeros(1, 3, 16, 16)
    assert akld(zero, zero + ROUNDING_VARIANCE**0.5) == pytest.approx(0, abs=1e-6)


def test_too_little_for_a_classifier_is_said_with_its_size():
    with pytest.raises(UserError, match="not 3 of 32x32"):
        classifier_auc(torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32), steps=1)
    with pytest.raises(UserError, match="4 images of 32x32 pixels, not 6 of 40x20"):
        classifier_auc(torch.rand(6, 3, 20, 40), torch.rand(6, 3, 20, 40), steps=1)


def test_a_score_that_is_no_number_gives_no_area():
    assert math.isnan(area_under_curve(torch.tensor([math.nan, 1.0]), torch.tensor([0.0])))
