"""Thresholded block spectra: the transform is one, noise goes wherever its power lies, and edges stay."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sr_utils.compression import cosine_basis
from sr_utils.degradations import gaussian_blur
from sr_utils.errors import UserError
from sr_utils.metrics import psnr
from sr_utils.spectral_shrinkage import noise_powers, shrink, shrink_multiplications


def scene(height=96, width=128):
    """A slow ramp with a bright square."""
    image = torch.linspace(0.3, 0.5, width).expand(3, height, width).clone()
    image[:, 32:64, 32:64] += 0.3
    return image


def grain(size, sigma, deviation=0.05, seed=0):
    """Noise whose neighbours are alike."""
    white = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
    noise = gaussian_blur(white, sigma)[0]
    return deviation * noise / noise.std()


def test_the_basis_is_orthonormal():
    basis = cosine_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(96, 128), (35, 41), (16, 17)])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_without_noise_nothing_changes(size, step):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    same = shrink(image, torch.zeros(3, 8, 8), step=step)
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)


def test_powers_of_white_noise_are_its_variance_everywhere():
    images = [0.5 + grain((3, 128, 128), 0.0, seed=seed) for seed in range(4)]
    powers = noise_powers(images, share=1.0)
    # The plane that each patch loses takes some of the lowest frequencies.
    torch.testing.assert_close(powers[:, 2:, 2:], torch.full((3, 6, 6), 0.05**2), atol=0.05**2 * 0.1, rtol=0)


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_white_and_coarse_noise_go_and_edges_stay(sigma):
    clean = scene()
    noisy = (clean + grain(clean.shape, sigma)).clamp(0, 1)
    found = shrink(noisy)
    gain = psnr(found[None], clean[None], data_range=1.0) - psnr(noisy[None], clean[None], data_range=1.0)
    assert gain > (9 if sigma == 0 else 4)
    assert (found[:, 48, 44:52].mean() - found[:, 48, 76:84].mean()) > 0.2


def test_knowing_the_grain_is_worth_more_than_knowing_the_deviation():
    clean = scene()
    noisy = (clean + grain(clean.shape, 0.8)).clamp(0, 1)
    flat = torch.full((3, 8, 8), 0.05**2)
    scores = [psnr(shrink(noisy, powers)[None], clean[None], data_range=1.0) for powers in (None, flat)]
    assert scores[0] > scores[1] + 1


def test_an_image_without_mid_tones_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="black or white"):
        noise_powers([torch.ones(3, 32, 32)])


@pytest.mark.parametrize("step", [2, 4])
def test_multiplications_are_those_of_the_convolutions(step):
    image, powers = torch.rand(3, 256, 256), torch.ones(3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        shrink(image, powers, step=step)
    counted = counter.get_total_flops() / 2 / 256**2
    # The border's blocks come on top, and the products of the thresholds are no convolutions.
    assert counted == pytest.approx(shrink_multiplications(step), rel=0.1)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_image_that_shows_no_noise_stays_as_it_is(level):
    image = torch.full((3, 48, 40), level)
    assert torch.equal(shrink(image), image)


def test_powers_that_are_given_are_used_and_the_result_stays_in_range():
    white = 1 - 0.02 * torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert shrink(white, torch.full((3, 8, 8), 1.0)).std() < 0.3 * white.std()
    assert shrink(1.2 * white, torch.zeros(3, 8, 8)).max() <= 1
    with pytest.raises(UserError, match="holds no block of 8x8"):
        shrink(torch.rand(3, 5, 5), torch.zeros(3, 8, 8))
