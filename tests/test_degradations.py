import dataclasses

import pytest
import torch
from scipy.ndimage import gaussian_filter

from sr_utils.degradations import GenericDegradation, gaussian_blur, gaussian_noise, grain_noise, jpeg
from sr_utils.errors import UserError
from sr_utils.images import quantize, to_bytes


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


def test_grain_is_shared_as_asked():
    level = torch.tensor([0.1, 0.5, 0.9, 0.5]).view(4, 1, 1, 1).expand(4, 3, 192, 192)
    noise = (
        grain_noise(
            level,
            torch.full((4,), 0.05),
            grain=torch.tensor([0.0, 0.0, 0.0, 1.0]),
            grey=torch.tensor([0.0, 0.6, 0.0, 0.0]),
            shot=torch.tensor([1.0, 0.0, 1.0, 0.0]),
            generator=seeded(),
        )
        - level
    )
    deviation = noise.std(dim=(1, 2, 3))
    expected = 0.05 * torch.tensor([0.2**0.5, 1.0, 1.8**0.5, 1.0])  # variance 2 x std² where all of it is shot
    torch.testing.assert_close(deviation, expected, rtol=0.01, atol=0)
    for image, share in zip(noise, (0.0, 0.6, 0.0, 0.0), strict=True):
        correlation = torch.corrcoef(image.flatten(1))[0, 1]
        assert abs(correlation - share) < 0.03
    for image, expected_neighbour in ((noise[1], 0.0), (noise[3], 0.779)):  # exp(-1 / 4) for a Gaussian of 1 pixel
        found = (image[:, :, 1:] * image[:, :, :-1]).mean() / image.square().mean()
        assert abs(found - expected_neighbour) < 0.03


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


@pytest.mark.parametrize("height,width", [(1, 40), (3, 40), (48, 2)])
def test_blur_of_a_narrow_image_is_limited_along_its_short_side_only(images, height, width):
    narrow = images[..., :height, :width].double()
    radii = [min(8, side - 1) for side in (height, width)]
    expected = gaussian_filter(narrow.numpy(), (0, 0, 2.0, 2.0), mode="mirror", radius=(0, 0, *radii))
    torch.testing.assert_close(gaussian_blur(narrow, 2.0), torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_jpeg_loses_more_at_a_lower_quality(images):
    smooth = gaussian_blur(images, 1.5)[0]
    losses = [float((jpeg(smooth, quality) - smooth).square().mean()) for quality in (10, 50, 98)]
    assert losses[0] > losses[1] > losses[2] > 0
    colour = torch.tensor([0.8, 0.4, 0.2]).view(3, 1, 1).expand(3, 16, 16)
    assert (jpeg(colour, 98) - colour).abs().max() < 0.02


def test_a_side_that_jpeg_cannot_hold_is_one_sentence():
    with pytest.raises(UserError, match="JPEG holds sides of 65500 pixels at most, and an image has 65501x8"):
        jpeg(torch.zeros(3, 8, 65501), 90)
    assert jpeg(torch.zeros(3, 8, 65500), 90).shape == (3, 8, 65500)


def test_jpeg_takes_bytes_as_well(images):
    image = quantize(images[0])
    assert torch.equal(jpeg(to_bytes(image), 80), jpeg(image, 80))


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
        {"grain": (-1, 0)},
        {"grey": (0, 1.1)},
        {"shot": (0.5, 2)},
    ],
)
def test_wrong_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenericDegradation(**wrong)
