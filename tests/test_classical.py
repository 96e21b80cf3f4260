"""Every classical method gives a rounded image of the right size, and the noise it is told of is the image's own."""

import math

import pytest
import torch

from sr_utils.classical import noise_level, single_image_methods
from sr_utils.images import imresize, quantize

METHODS = single_image_methods(2)


@pytest.fixture(scope="module")
def low():
    ramp = torch.linspace(0.1, 0.9, 48).expand(3, 40, 48)
    noise = torch.randn(3, 40, 48, generator=torch.Generator().manual_seed(0))
    return quantize(ramp + 0.04 * noise)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_enlarges_and_rounds(name, low):
    method = METHODS[name]
    assert method.name == name and method.domain in ("kernel", "frequency", "space")
    large = method.upscale(low)
    assert large.shape == (3, 80, 96) and large.dtype == low.dtype
    assert torch.equal(quantize(large), large)
    assert large.mean().item() == pytest.approx(low.mean().item(), abs=0.01)
    # Copies cost none.
    assert (method.multiplications(40, 48) > 0) == (name != "nearest")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("sinc", 1.0),
        ("sinc_hann", (1 + math.cos(0.75 * math.pi)) / 2),
        # Flat up to 0.7 of the limit, then half a cosine down to the limit.
        ("sinc_tukey", (1 + math.cos(math.pi * 0.05 / 0.3)) / 2),
    ],
)
def test_a_window_keeps_the_share_of_a_wave_that_its_formula_says(name, kept):
    length, cycles = 32, 24  # half waves an axis: three quarters of what 32 samples can carry

    def wave(count):
        phase = math.pi * cycles * (torch.arange(count) + 0.5) / count
        return torch.cos(phase).expand(3, count, count)

    large = METHODS[name].upscale(0.5 + 0.4 * wave(length))
    torch.testing.assert_close(large, 0.5 + 0.4 * kept * wave(2 * length), rtol=0, atol=0.51 / 255)


def test_multiplications_are_those_of_the_formulas():
    # At scale 2 a pixel of the enlargement of 32x32 pixels has a quarter of the small transform, 10 products a pixel,
    # and of the product of each coefficient with its factor; and one transform of 64x64 pixels, 12 products a pixel.
    once = 3 * ((10 + 1) / 4 + 12)
    # Bicubic takes four products for each row of half of the pixels and for each column of all; shrinking as many.
    bicubic, pair = 3 * 4 * (1 / 2 + 1), 3 * 4 * (1 / 2 + 1) + 3 * 8 * (1 / 2 + 1 / 4)
    expected = {name: once for name in ("sinc", "sinc_hann", "sinc_tukey", "wiener", "constrained_least_squares")}
    # Ten times there and back.
    expected["papoulis_gerchberg"] = once + 3 * 10 * 2 * 12
    expected |= {"bicubic": bicubic, "bilinear": bicubic / 2, "lanczos": 2 * bicubic}
    expected["iterative_back_projection"] = bicubic + 10 * pair
    expected["non_local_means_bicubic"] = bicubic + 3 * 2 * 21**2 / 4
    found = {name: METHODS[name].multiplications(32, 32) for name in expected}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1, 4])
def test_other_scales_work_too(scale, low):
    for method in single_image_methods(scale).values():
        assert method.upscale(low).shape == (3, 40 * scale, 48 * scale)


def test_methods_that_know_the_noise_remove_some(low):
    truth = torch.linspace(0.1, 0.9, 96).expand(3, 80, 96)
    plain = (imresize(low, 2) - truth).square().mean()
    for name in ("wiener", "bilateral_bicubic", "non_local_means_bicubic", "total_variation"):
        assert (METHODS[name].upscale(low) - truth).square().mean() < 0.8 * plain


def test_the_noise_is_estimated_and_never_zero(low):
    assert noise_level(low) == pytest.approx(0.04, rel=0.15)
    assert noise_level(torch.full((3, 32, 32), 0.5)) > 0
