"""Measures of noise against closed forms and against numpy, SciPy and scikit-image."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
import torch
from skimage.util import view_as_blocks
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sr_utils import fidelity
from sr_utils.errors import UserError

SIGMA = 0.04


def white(*size, sigma=SIGMA, seed=0):
    return sigma * torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def plane(side, slopes=(0.3, -0.2)):
    """A plane (3, side, side) within [0.25, 0.75] whose channels rise differently."""
    ramp = torch.linspace(-0.5, 0.5, side)
    flat = 0.5 + slopes[0] * ramp[:, None] + slopes[1] * ramp
    return torch.stack([flat, 1 - flat, flat.T])


def test_images_are_cut_into_blocks_and_the_remainder_is_dropped():
    large, small = torch.rand(3, 19, 26), torch.rand(3, 7, 30)
    blocks = view_as_blocks(large[:, :16, :24].numpy(), (3, 8, 8)).reshape(-1, 3, 8, 8)
    np.testing.assert_array_equal(fidelity.to_patches([small, large, large], 8), np.concatenate([blocks] * 2))
    with pytest.raises(UserError, match="as large as a patch of 8x8"):
        fidelity.to_patches([small], 8)


@pytest.mark.parametrize("side", [4, 16, 17])
def test_the_plane_is_that_of_least_squares(side):
    patches = torch.rand(5, 3, side, side, dtype=torch.float64)
    rows, columns = np.mgrid[:side, :side]
    basis = np.stack([np.ones(side**2), rows.ravel(), columns.ravel()], axis=1)
    values = patches.reshape(15, -1).numpy().T
    left = values - basis @ np.linalg.lstsq(basis, values)[0]
    expected = left.T.reshape(patches.shape) * math.sqrt(side**2 / (side**2 - 3))
    np.testing.assert_allclose(fidelity.without_plane(patches), expected, atol=1e-12)
    assert fidelity.without_plane(plane(side)[None]).abs().max() < 1e-6


def test_taking_out_the_plane_keeps_the_deviation_of_noise():
    residual = fidelity.without_plane(white(20_000, 3, 4, 4))
    assert residual.square().mean().sqrt().item() == pytest.approx(SIGMA, rel=0.01)


def mosaic(kinds):
    """An image of one row of 16x16 patches; its noise-free waves vary less, at full size, than noise does."""
    rows = torch.arange(16.0)[:, None].expand(16, 16)
    makers = {
        "flat": lambda: plane(16, (0.02, 0.02)) + white(3, 16, 16),
        "wave": lambda: (0.5 + 0.03 * torch.sin(rows * math.pi / 8)).expand(3, 16, 16),
        "black": lambda: torch.full((3, 16, 16), 0.02),
        "white": lambda: torch.full((3, 16, 16), 0.98),
        "yellow": lambda: torch.tensor([0.98, 0.5, 0.5])[:, None, None].expand(3, 16, 16),
    }
    return torch.cat([makers[kind]() for kind in kinds], dim=2)


def test_flat_patches_are_those_with_little_content_however_noisy_and_not_the_clipped_ones():
    image = mosaic(["black", "wave", "flat", "white", "wave", "flat", "yellow", "wave", "wave"])
    flat = fidelity.flat_patches([image], share=2 / 6)
    chosen = {round(each, 4) for each in flat.level[:, 0].tolist()}
    assert chosen == {round(image[0, :, start : start + 16].mean().item(), 4) for start in (32, 80)}
    assert flat.levels().shape == flat.residual.shape == (2, 3, 16, 16)
    assert torch.equal(flat.levels()[1, 2], flat.level[1, 2].expand(16, 16))
    expected = fidelity.without_plane(torch.stack([image[..., 32:48], image[..., 80:96]]))
    torch.testing.assert_close(flat.residual.sum(0), expected.sum(0), atol=1e-6, rtol=0)


def test_draws_with_noise_of_their_own_are_uncorrelated_and_shared_noise_shows():
    certain, shared = torch.rand(3, 64, 64), white(3, 64, 64, seed=9)
    own = [white(3, 64, 64, seed=seed) for seed in range(4)]
    assert abs(fidelity.draw_correlation([certain + part for part in own], certain)) < 0.01
    found = fidelity.draw_correlation([certain + part + shared for part in own], certain)
    assert found == pytest.approx(0.5, abs=0.02)


def test_flat_places_are_the_patches_that_flat_patches_takes():
    image = mosaic(["wave", "flat", "black", "flat", "wave", "white"])
    places = fidelity.flat_places(image, share=0.5)
    assert places.tolist() == [[False, True, False, True, False, False]]
    assert not fidelity.flat_places(mosaic(["black", "white"])).any()
    with pytest.raises(UserError, match="as large as a patch of 16x16"):
        fidelity.flat_places(image[:, :15])


def test_residuals_of_flat_patches_have_the_noise_and_nothing_of_the_planes():
    image = plane(320) + white(3, 320, 320)
    flat = fidelity.flat_patches([image], share=1)
    assert len(flat.level) == 400
    assert flat.residual.std().item() == pytest.approx(SIGMA, rel=0.01)
    assert flat.residual.mean((2, 3)).abs().max() < 1e-6


def test_one_patch_is_always_chosen_but_none_of_black_and_white():
    assert len(fidelity.flat_patches([mosaic(["wave", "flat"])], share=0.01).level) == 1
    with pytest.raises(UserError, match="Every patch is black or white"):
        fidelity.flat_patches([mosaic(["black", "white", "yellow"])])


def test_an_even_border_is_not_flat_unless_there_is_nothing_else():
    image = 0.5 + 0.05 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    image[:, :16] = 0.5
    assert not fidelity.flat_places(image, share=0.5)[0].any()
    assert fidelity.flat_places(image, share=1.0)[1:].all()
    assert fidelity.flat_places(torch.full((3, 64, 64), 0.5), share=1.0).all()


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_statistics_of_a_coin_are_those_of_the_textbook(share):
    """Values 0.1 with probability p and 0 else: skewness (q - p) / sqrt(pq), excess kurtosis (1 - 6pq) / pq."""
    pixels = 0.1 * (torch.arange(300) < 300 * share).double()
    found = fidelity.residual_statistics(pixels.view(3, 1, 10, 10).expand(3, 3, 10, 10))
    variance = share * (1 - share)
    expected = {
        "mean": 0.1 * share,
        "deviation": 0.1 * math.sqrt(variance),
        "skewness": (1 - 2 * share) / math.sqrt(variance),
        "excess_kurtosis": (1 - 6 * variance) / variance,
        "channel_correlation": 1,
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_statistics_are_those_of_scipy():
    values = np.random.default_rng(0).gamma(2, 0.1, (50, 3, 8, 8))
    values[:, 1] += 0.5 * values[:, 0]
    found = fidelity.residual_statistics(torch.from_numpy(values))
    assert found["skewness"] == pytest.approx(scipy.stats.skew(values, axis=None))
    assert found["excess_kurtosis"] == pytest.approx(scipy.stats.kurtosis(values, axis=None))
    between = np.corrcoef(values.transpose(1, 0, 2, 3).reshape(3, -1))
    assert found["channel_correlation"] == pytest.approx((between[0, 1] + between[0, 2] + between[1, 2]) / 3)
    assert found["channel_correlation"] > 0.1


def test_statistics_of_a_constant_are_finite():
    found = fidelity.residual_statistics(torch.full((2, 3, 8, 8), 0.25))
    assert found == {"mean": 0.25, "deviation": 0, "skewness": 0, "excess_kurtosis": -3, "channel_correlation": 0}


@pytest.mark.parametrize(("size", "bins"), [(16, 8), (32, 12), (17, 5)])
def test_white_noise_has_its_variance_at_every_frequency(size, bins):
    frequencies, powers = fidelity.radial_spectrum(white(2000 * 256 // size**2, 3, size, size) + 0.3, bins=bins)
    assert len(frequencies) == bins and (frequencies.diff() > 0).all()
    assert 0 < frequencies[0] and frequencies[-1] <= 0.5
    np.testing.assert_allclose(powers, SIGMA**2, rtol=0.06)


def test_blurred_noise_loses_power_as_the_gaussian_says():
    noise = white(400, 3, 32, 32).numpy()
    blurred = scipy.ndimage.gaussian_filter(noise, 0.8, axes=(2, 3), mode="wrap")
    frequencies, powers = fidelity.radial_spectrum(torch.from_numpy(blurred), bins=14)
    expected = SIGMA**2 * np.exp(-((2 * np.pi * 0.8 * frequencies.numpy()) ** 2))
    np.testing.assert_allclose(powers[frequencies < 0.3], expected[frequencies < 0.3], rtol=0.1)


@pytest.mark.parametrize(("down", "right"), [(0, 5), (5, 0), (3, 4)])
def test_a_wave_stands_at_its_frequency_whatever_its_direction(down, right):
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    wave = torch.sin(2 * math.pi * (down * rows + right * columns) / 32).expand(1, 3, 32, 32)
    frequencies, powers = fidelity.radial_spectrum(wave, bins=15)
    assert frequencies[powers.argmax()].item() == pytest.approx(5 / 32, abs=0.5 / 32)
    assert powers.sort().values[-2] < 1e-6 * powers.max()


def test_white_noise_goes_with_none_of_its_neighbours():
    found = fidelity.neighbour_correlation(white(100, 3, 40, 40) + 0.5, reach=2)
    np.testing.assert_allclose(found, np.outer(*[[0, 0, 1, 0, 0]] * 2), atol=0.01)


@pytest.mark.parametrize("axis", [2, 3])
def test_box_blurred_noise_has_the_correlation_of_overlapping_boxes(axis):
    blurred = scipy.ndimage.uniform_filter1d(white(60, 3, 64, 64).numpy(), 3, axis=axis, mode="wrap")
    found = fidelity.neighbour_correlation(torch.from_numpy(blurred)).numpy()
    found = found if axis == 3 else found.T
    np.testing.assert_allclose(found[3], [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0], atol=0.02)
    np.testing.assert_allclose(np.delete(found, 3, axis=0), 0, atol=0.02)


def test_autoregressive_noise_forgets_geometrically():
    noise = scipy.signal.lfilter([1], [1, -0.6], white(60, 3, 64, 80).numpy(), axis=3)[..., 16:]
    found = fidelity.neighbour_correlation(torch.from_numpy(noise), reach=2)
    np.testing.assert_allclose(found[2], [0.36, 0.6, 1, 0.6, 0.36], atol=0.03)


def test_the_map_keeps_directions_apart():
    noise = white(60, 3, 48, 48)
    found = fidelity.neighbour_correlation(noise + noise.roll((1, 1), (2, 3)), reach=1)
    np.testing.assert_allclose(found, [[0.5, 0, 0], [0, 1, 0], [0, 0, 0.5]], atol=0.01)


def test_deviation_that_rises_with_brightness_is_recovered_as_a_line():
    levels = torch.linspace(0.1, 0.9, 300_000).view(100, 3, 25, 40)
    means, deviations = fidelity.signal_dependence(levels, (0.02 + 0.1 * levels) * white(*levels.shape, sigma=1))
    np.testing.assert_allclose(means, 0.15 + 0.1 * np.arange(8), atol=1e-3)
    slope, offset = np.polyfit(means, deviations, 1)
    assert (slope, offset) == (pytest.approx(0.1, rel=0.03), pytest.approx(0.02, abs=0.001))


def test_brightness_classes_with_few_pixels_are_left_out_unless_none_is_left():
    levels = torch.tensor([0.1] * 600 + [0.5] * 499 + [0.9] * 500)
    residual = torch.tensor([1.0, -1.0] * 300 + [9.0] * 499 + [2.0, -2.0] * 250)
    means, deviations = fidelity.signal_dependence(levels, residual)
    np.testing.assert_allclose([*means, *deviations], [0.1, 0.9, 1, 2], rtol=1e-6)
    means, deviations = fidelity.signal_dependence(levels, residual, fewest=1000)
    np.testing.assert_allclose([*means, *deviations], [0.1, 1], rtol=1e-6)


def test_one_brightness_is_one_class():
    means, deviations = fidelity.signal_dependence(torch.full((1000,), 0.4), torch.tensor([3.0, -3.0] * 500))
    np.testing.assert_allclose([*means, *deviations], [0.4, 3], rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.005, 0.05])
def test_noise_on_planes_and_straight_edges_is_measured(sigma):
    clean = plane(256)
    clean[:, 100:] += 0.2
    clean[:, :, 50:90] -= 0.2
    assert fidelity.high_pass_deviation([clean]) < 1e-6
    assert fidelity.high_pass_deviation([clean + white(3, 256, 256, sigma=sigma)]) == pytest.approx(sigma, rel=0.02)


def test_the_median_image_counts_and_correlated_noise_comes_out_too_small():
    images = [0.5 + white(3, 128, 128, sigma=sigma) for sigma in (0.3, 0.01, 0.02)]
    assert fidelity.high_pass_deviation(images) == pytest.approx(0.02, rel=0.03)
    blurred = F.avg_pool2d(images[0], 3, stride=1)
    assert fidelity.high_pass_deviation([blurred]) < 0.5 * blurred.std()


def test_bootstrapped_means_spread_as_the_error_of_the_mean():
    values = 0.5 + white(64, 2, seed=3)
    means = fidelity.bootstrap_means(values)
    assert means.shape == (2000, 2)
    np.testing.assert_allclose(means.std(0), values.std(0, correction=0) / 8, rtol=0.08)
    np.testing.assert_allclose(means.mean(0), values.mean(0), atol=4 * SIGMA / 8 / math.sqrt(2000))


def test_whole_photographs_are_resampled_and_the_seed_is_kept():
    means = fidelity.bootstrap_means(torch.eye(4), resamples=50, seed=1)
    torch.testing.assert_close(means.sum(1), torch.ones(50))
    torch.testing.assert_close(4 * means, (4 * means).round())
    assert torch.equal(means, fidelity.bootstrap_means(torch.eye(4), resamples=50, seed=1))
    assert not torch.equal(means, fidelity.bootstrap_means(torch.eye(4), resamples=50, seed=2))


def test_frames_of_one_view_are_found_in_other_light_and_noise():
    view, other = (F.interpolate(white(1, 3, 8, 8, sigma=0.2, seed=s) + 0.5, (64, 60))[0] for s in (1, 2))
    frames = [view, other, 0.6 * view + 0.1, view + white(3, 64, 60, sigma=0.1), view[:, :-1], 1 - view]
    assert fidelity.same_view(frames) == [0, 2, 3]
    assert fidelity.same_view(frames[1:]) == [0]
    assert fidelity.same_view(frames, like=-0.5) == [0, 1, 2, 3]
    # Without averaging, the noise hides the view.
    assert fidelity.same_view(frames[:4], factor=1) == [0, 2]


def test_the_first_frame_shows_its_own_view_even_if_it_is_black():
    assert fidelity.same_view([torch.zeros(3, 16, 16), torch.rand(3, 16, 16)]) == [0]


def test_a_plane_is_taken_out_where_the_patches_are():
    with FakeTensorMode():
        assert fidelity.without_plane(torch.rand(2, 3, 16, 16, device="cuda")).device.type == "cuda"
