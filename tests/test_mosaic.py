"""A sensor's mosaic: what is measured stays, what is interpolated is found, and images without one show none."""

from pathlib import Path

import pytest
import torch

from sr_utils.datasets import clean_at_input_size, load_images, open_data_root
from sr_utils.degradations import jpeg
from sr_utils.images import quantize
from sr_utils.mosaic import INTERPOLATIONS, demosaic, find_mosaic, imbalance, mosaic, site_colours

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


@pytest.fixture(scope="module")
def data():
    return open_data_root(Path(__file__).parent.parent / "data")


@pytest.fixture(scope="module")
def photographs(data):
    return [image[:, :128, :160] for image in clean_at_input_size(data.validation[:6], data.scale)]


def from_sensor(image, phase, interpolation, seed, noise=0.03):
    """An image with noise on the sensor."""
    raw = mosaic(image, phase)
    raw = raw + noise * torch.randn(raw.shape, generator=torch.Generator().manual_seed(seed))
    return quantize(demosaic(raw, phase, interpolation=interpolation))


@pytest.mark.parametrize("phase", PHASES)
def test_half_of_the_sites_are_green_and_red_begins_at_the_phase(phase):
    colours = site_colours(6, 8, phase)
    assert colours.flatten().bincount().tolist() == [12, 24, 12]
    assert colours[phase] == 0 and colours[1 - phase[0], 1 - phase[1]] == 2


@pytest.mark.parametrize("size", [(12, 16), (13, 17), (2, 3)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_interpolation_keeps_what_was_measured(phase, interpolation, size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    raw = mosaic(image, phase)
    colours = demosaic(raw, phase, interpolation=interpolation)
    assert colours.shape == image.shape
    torch.testing.assert_close(mosaic(colours, phase), raw, atol=1 / 2**15, rtol=0)
    plain = torch.tensor([-0.2, 0.5, 1.6])[:, None, None].expand(3, *size)
    torch.testing.assert_close(
        demosaic(mosaic(plain, phase), phase, interpolation=interpolation), plain, atol=1 / 2**15, rtol=0
    )


def test_edge_aware_follows_the_edge():
    """Along a vertical edge, green is an average of what lies above and below."""
    raw = torch.zeros(12, 12)
    raw[:, 6:] = 1.0
    bilinear, aware = (demosaic(raw, (0, 0), interpolation=way)[1] for way in INTERPOLATIONS)
    torch.testing.assert_close(aware, raw, atol=1e-4, rtol=0)
    assert (bilinear - raw).abs().max() > 0.2


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_the_mosaic_is_found_behind_compression(photographs, phase, interpolation):
    images = [jpeg(from_sensor(image, phase, interpolation, index), 85) for index, image in enumerate(photographs)]
    assert find_mosaic(images) == phase


def test_the_imbalance_says_which_half_is_green(photographs):
    for phase, sign in zip(PHASES, (1, -1, -1, 1), strict=True):
        assert sign * imbalance(from_sensor(photographs[0], phase, "bilinear", 0)) > 0.2
    generator = torch.Generator().manual_seed(0)
    assert abs(imbalance(photographs[0] + 0.03 * torch.randn(photographs[0].shape, generator=generator))) < 0.03


def test_other_images_show_none(data, photographs):
    generator = torch.Generator().manual_seed(0)
    assert find_mosaic([image + 0.03 * torch.randn(image.shape, generator=generator) for image in photographs]) is None
    assert find_mosaic(photographs) is None
    assert find_mosaic(load_images(data.task2[::8])) is None
    # Mosaics of several phases, as photographs that were cut anywhere have them, are none.
    assert find_mosaic([from_sensor(photographs[i // 2], PHASES[i % 2], "bilinear", i) for i in range(4)]) is None


def test_what_is_too_small_or_empty_shows_none():
    assert find_mosaic([]) is None
    assert find_mosaic([torch.rand(3, 3, 9)]) is None
    assert imbalance(torch.full((3, 16, 16), 0.5)) == 0
