import dataclasses

import pytest
import torch
from scipy.ndimage import gaussian_filter

from sr_utils.degradations import GenericDegradation, gaussian_blur, gaussian_noise, jpeg


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(4, 3, 48, 40, generator=seeded())


def test_noise_has_each_images_level():
    grey = torch.full((3, 3, 128, 128), 0.5)
    std = torch.tensor([0.0, 0.05, 0.2])
    noise = gaussian_noise(grey, std, seeded()) - grey
    assert (noise[0] == 0).all()
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), std, rtol=0.02, atol=0)
    neighbours = (noise[2, :, :, 1:] * noise[2, :, :, :-1]).mean() / noise[2].var()
    assert neighbours.abs() < 0.02


def test_blur_equals_scipys_gaussian(images):
    sigmas = torch.tensor([0.0, 0.4, 0.8, 1.7])
    blurred = gaussian_blur(images.double(), sigmas)
    for image, result, sigma in zip(images.double(), blurred, sigmas.tolist(), strict=True):
        expected = image
        if sigma:
            # The kernel's radius is that of the widest blur in the batch.
            filtered = gaussian_filter(image.numpy(), (0, sigma, sigma), mode="mirror", radius=(0, 7, 7))
            expected = torch.from_numpy(filtered)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_blur_of_nothing_and_of_small_images(images):
    torch.testing.assert_close(gaussian_blur(images, 0.0), images)
    torch.testing.assert_close(gaussian_blur(images[..., :1, :1], 2.0), images[..., :1, :1])
    assert gaussian_blur(images[..., :3, :5], 2.0).shape == (4, 3, 3, 5)


def test_jpeg_loses_more_at_a_lower_quality(images):
    smooth = gaussian_blur(images, 1.5)[0]
    losses = [float((jpeg(smooth, quality) - smooth).square().mean()) for quality in (10, 50, 98)]
    assert losses[0] > losses[1] > losses[2] > 0
    colour = torch.tensor([0.8, 0.4, 0.2]).view(3, 1, 1).expand(3, 16, 16)
    assert (jpeg(colour, 98) - colour).abs().max() < 0.02


def test_generic_degradation_is_a_function_of_its_generator(images):
    degradation = GenericDegradation()
    original = images.clone()
    first = degradation(images, seeded(3))
    torch.testing.assert_close(first, degradation(images, seeded(3)), rtol=0, atol=0)
    assert (first != degradation(images, seeded(4))).any()
    assert (images == original).all()
    assert first.shape == images.shape and first.dtype == images.dtype
    assert 0 <= first.min() and first.max() <= 1


def test_images_of_a_batch_differ_in_level():
    grey = torch.full((64, 3, 32, 32), 0.5)
    degradation = GenericDegradation(blur=(0.0, 0.0), jpeg_probability=0.0)
    levels = (degradation(grey, seeded()) - grey).std(dim=(1, 2, 3)) * 255
    assert levels.min() < 2 and levels.max() > 18
    assert abs(levels.mean() - 10) < 2


def test_ranges_and_probability(images):
    none = GenericDegradation(noise=(0, 0), blur=(0, 0), jpeg_probability=0)
    torch.testing.assert_close(none(images, seeded()), images)
    always = dataclasses.replace(none, quality=(70, 70), jpeg_probability=1)
    torch.testing.assert_close(always(images, seeded())[2], jpeg(images[2], 70))


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": (0.2, 0.1)},
        {"blur": (-1, 0)},
        {"quality": (0, 50)},
        {"quality": (50, 101)},
        {"jpeg_probability": 2},
    ],
)
def test_wrong_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenericDegradation(**wrong)
