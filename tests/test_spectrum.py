"""The frequency domain: sinc enlargement is exact for what is band-limited; filters do what their definitions say."""

import numpy as np
import pytest
import torch
from scipy import optimize

from sr_utils import spectrum
from sr_utils.images import imresize


def cosines(size, highest, seed=0):
    """A random image (3, size, size) whose cosine coefficients end at a share of the limit."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = np.zeros((3, size, size))
    count = int(highest * size)
    coefficients[:, :count, :count] = torch.randn(3, count, count, generator=generator).numpy() / count
    coefficients[:, 0, 0] = size / 2
    return spectrum.inverse(coefficients, torch.zeros(1, dtype=torch.float64))


def test_zero_padding_is_exact_for_what_the_samples_can_carry():
    fine = torch.arange(48, dtype=torch.float64)
    coarse = (torch.arange(24, dtype=torch.float64) + 0.5) * 2 - 0.5

    def wave(t):
        return (torch.cos(torch.pi * 9 * (t + 0.5) / 48) + 2).expand(1, len(t), -1)

    assert torch.allclose(spectrum.zero_padded(wave(coarse), 2)[0, 0], wave(fine)[0, 0])


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_mean_is_kept_and_sides_grow(scale):
    image = torch.rand(3, 12, 15)
    large = spectrum.zero_padded(image, scale, window=spectrum.late_roll_off)
    assert large.shape == (3, 12 * scale, 15 * scale)
    assert large.mean() == pytest.approx(image.mean().item(), abs=1e-6)


def test_windows_ring_less_than_the_rectangle():
    step = torch.zeros(3, 32, 32, dtype=torch.float64)
    step[..., 16:] = 1
    over = {
        window.__name__: spectrum.zero_padded(step, 2, window=window).max().item() - 1
        for window in (spectrum.rectangular, spectrum.late_roll_off, spectrum.raised_cosine)
    }
    assert over["rectangular"] > over["late_roll_off"] + 0.005 and over["late_roll_off"] > 0.05
    assert -1e-9 < over["raised_cosine"] < 0.01


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_response_is_what_imresize_does_to_a_wave(scale):
    size = 24 * scale
    wave = cosines(size, 0.9)
    kept = spectrum.shrinking_response(size, scale)
    seen = spectrum.transform(wave) * kept[:, None] * kept
    # Shrunk, a coefficient k of the large image becomes coefficient k of the small, those above fold onto it.
    low = wave if scale == 1 else imresize(wave, 1 / scale)
    inside = cosines(size, 0.5 / scale)
    small = spectrum.transform(imresize(inside, 1 / scale))
    expected = spectrum.transform(inside)[:, :24, :24] * np.outer(kept[:24], kept[:24]) / scale
    assert low.shape[-1] == 24 and seen.shape == (3, size, size)
    assert np.abs(small - expected).max() < 1e-9


def test_wiener_and_constrained_undo_the_blur_of_shrinking():
    truth = cosines(48, 0.45)
    low = imresize(truth, 0.5)
    error = {
        "sinc": spectrum.zero_padded(low, 2) - truth,
        "wiener": spectrum.wiener(low, 2, noise=1e-4) - truth,
        "constrained": spectrum.constrained(low, 2, noise=1e-4) - truth,
    }
    error = {name: value.square().mean().item() for name, value in error.items()}
    assert error["constrained"] < 0.01 * error["sinc"]
    assert error["wiener"] < error["sinc"]


def test_the_constrained_residual_has_the_power_of_the_noise():
    truth, noise = cosines(64, 0.2), 0.05
    generator = torch.Generator().manual_seed(3)
    low = imresize(truth, 0.5) + noise * torch.randn(3, 32, 32, generator=generator, dtype=torch.float64)
    estimate = spectrum.constrained(low, 2, noise=noise)
    # What shrinking the estimate would give, without the aliasing of what was put above the limit: nothing was.
    residual = low - imresize(estimate, 0.5)
    assert residual.square().mean().sqrt().item() == pytest.approx(noise, rel=1e-3)


def test_more_noise_makes_both_smoother():
    low = imresize(cosines(48, 0.45), 0.5)
    for restore in (spectrum.wiener, spectrum.constrained):
        rough = [restore(low, 2, noise=noise).diff(dim=-1).square().mean().item() for noise in (0.001, 0.01, 0.03)]
        assert rough[0] > rough[1] > rough[2]


def test_extrapolation_gains_where_bounds_are_touched_and_nothing_elsewhere():
    bars = torch.zeros(3, 64, 64, dtype=torch.float64)
    bars[..., 20:23], bars[..., 40:47] = 1, 1
    low = torch.from_numpy(np.ascontiguousarray(spectrum.transform(bars)[:, :32, :32])) / 2
    low = spectrum.inverse(low.numpy(), bars)
    plain = (spectrum.zero_padded(low, 2) - bars).square().mean()
    better = (spectrum.papoulis_gerchberg(low, 2, iterations=50) - bars).square().mean()
    assert better < 0.8 * plain
    grey = 0.25 * low + 0.4
    assert torch.allclose(spectrum.papoulis_gerchberg(grey, 2), spectrum.zero_padded(grey, 2))


def test_a_transform_of_a_larger_image_costs_more_a_pixel():
    assert spectrum.transform_multiplications(4, 4) == 16 * 4
    assert spectrum.transform_multiplications(64, 64) / 64**2 > spectrum.transform_multiplications(32, 32) / 32**2


def test_constrained_restoration_is_hunts():
    generator = torch.Generator().manual_seed(0)
    low, noise = imresize(torch.rand(1, 6, 6, generator=generator, dtype=torch.float64), 4), 0.03
    low = low + noise * torch.randn(low.shape, generator=generator, dtype=torch.float64)
    seen, response = spectrum.transform(low), spectrum.shrinking_response(48, 2)[:24]
    response, laplacian = np.outer(response, response), 2 - 2 * np.cos(np.pi * np.arange(24) / 24)
    laplacian = (laplacian[:, None] + laplacian) ** 2

    def misfit(exponent):
        left = 10**exponent * laplacian / (response**2 + 10**exponent * laplacian) * seen
        return np.square(left).sum() - noise**2 * seen.size

    expected = 2 * seen * response / (response**2 + 10 ** optimize.brentq(misfit, -12, 6) * laplacian)
    found = spectrum.transform(spectrum.constrained(low, 2, noise=noise))[:, :24, :24]
    assert np.abs(found - expected).max() < 1e-4


def test_frequencies_beyond_the_limit_fold_onto_those_below():
    assert spectrum._folded(np.arange(8.0)[:, None], 4, 0)[:, 0].tolist() == [0 + 4, 1 + 7, 2 + 6, 3 + 5]
