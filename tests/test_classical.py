"""Every classical method gives a rounded image of the right size, and the noise it is told of is the image's own."""

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
    assert method.multiplications(40, 48) >= 0


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
