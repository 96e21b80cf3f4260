"""Colourfulness: measured where a camera leaves it alone, and given without touching brightness."""

import pytest
import torch

from sr_utils.colourfulness import as_colourful_as, colourfulness, with_colour
from sr_utils.errors import UserError
from sr_utils.grain import LUMA


def scenes(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    blocks = 0.3 + 0.4 * torch.rand(count, 3, 6, 4, generator=generator)
    return list(blocks.repeat_interleave(16, 2).repeat_interleave(16, 3))


def test_duller_scenes_are_measured_as_they_were_made():
    bright = scenes()
    dull = [with_colour(image, 0.6) for image in scenes(3, 1)]
    assert as_colourful_as(scenes(3, 1), dull) == pytest.approx(0.6, abs=1e-4)
    assert as_colourful_as(dull, bright) == 1.0, "photographs are not pushed out of range"
    assert colourfulness([with_colour(image, 0.0) for image in bright]) == pytest.approx(0, abs=1e-4)


def test_brightness_and_range_stay():
    image = torch.rand(3, 20, 30)
    dull = with_colour(image, 0.4)
    light = torch.tensor(LUMA)[:, None, None]
    torch.testing.assert_close((dull * light).sum(0), (image * light).sum(0))
    assert dull.min() >= 0 and dull.max() <= 1
    torch.testing.assert_close(with_colour(image, 1.0), image)


def test_noise_and_fine_colour_hardly_count():
    clean = scenes(4)
    noisy = [(image + 0.05 * torch.randn(image.shape)).clamp(0, 1) for image in clean]
    assert as_colourful_as(clean, noisy) == pytest.approx(1, abs=0.02)


def test_what_cannot_be_measured_is_one_sentence():
    with pytest.raises(UserError, match="An image of 8x40 has no block of 16 pixels"):
        colourfulness([torch.rand(3, 8, 40)])
    with pytest.raises(UserError, match="No image varies in brightness"):
        colourfulness([torch.full((3, 32, 32), 0.5)])


def test_a_cast_that_is_the_same_everywhere_is_no_colourfulness():
    light = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    light = light.repeat_interleave(16, 1).repeat_interleave(16, 2)
    cast = 0.5 * light + torch.tensor([0.3, 0.1, 0.0])[:, None, None]
    assert colourfulness([cast]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("level", [0.3, 0.5, 0.7])
def test_a_flat_image_has_nothing_to_compare_its_colours_with(level):
    with pytest.raises(UserError, match="varies in brightness"):
        colourfulness([torch.full((3, 64, 64), level)])
