"""Reading a JPEG quality off the pixels: right for compressed photographs, silent about all others."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.fft
import torch

from sr_utils.compression import block_coefficients, estimate_qualities, estimate_quality, quantisation_steps
from sr_utils.datasets import clean_at_input_size, open_data_root
from sr_utils.degradations import jpeg
from sr_utils.images import quantize


@pytest.fixture(scope="module")
def photograph():
    data = open_data_root(Path(__file__).parent.parent / "data")
    return clean_at_input_size(data.validation[:1], data.scale)[0][:, :256, :256]


def test_coefficients_are_the_orthonormal_transform_of_the_luma():
    image = 0.2 + 0.6 * torch.rand(3, 20, 27, generator=torch.Generator().manual_seed(0))
    image[1, 9, 12] = 1.0
    found = block_coefficients(image)
    luma = (255 * image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).double().numpy() - 128
    corners = [(0, 0), (0, 8), (0, 16), (8, 0), (8, 16)]  # the block with the white value is missing
    expected = [scipy.fft.dctn(luma[top : top + 8, left : left + 8], norm="ortho") for top, left in corners]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("quality", [10, 50, 75, 93, 100])
def test_steps_are_those_that_a_file_carries(quality):
    encoded = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    begin = encoded.index(b"\xff\xdb") + 5
    in_zigzag = np.frombuffer(encoded[begin : begin + 64], np.uint8)
    order = sorted(np.ndindex(8, 8), key=lambda place: (sum(place), place[sum(place) % 2 == 0]))
    steps = quantisation_steps(quality)
    assert [int(steps[place]) for place in order] == in_zigzag.tolist()


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("quality", [40, 60, 75, 84, 90, 95])
def test_the_quality_of_a_compressed_photograph_is_found(photograph, quality, noise):
    generator = torch.Generator().manual_seed(0)
    image = quantize((photograph + noise * torch.randn(photograph.shape, generator=generator)).clamp(0, 1))
    assert estimate_quality(jpeg(image, quality)) == quality


@pytest.mark.parametrize("turned", [lambda x: x.rot90(1, (1, 2)), lambda x: x.rot90(2, (1, 2)), lambda x: x.flip(2)])
@pytest.mark.parametrize("size", [(256, 256), (203, 189)])
def test_the_quality_is_found_in_a_photograph_that_was_turned(photograph, turned, size):
    compressed = jpeg(quantize(photograph[:, : size[0], : size[1]]), 80)
    assert estimate_quality(turned(compressed)) == 80
    assert estimate_quality(turned(photograph[:, : size[0], : size[1]])) is None


def test_images_that_show_none_are_left_out(photograph):
    moved = jpeg(photograph, 80)[:, 3:-2, 5:-1]  # no block begins at an end
    flat = torch.full((3, 64, 64), 0.5)
    assert estimate_quality(photograph) is None
    assert estimate_quality(moved) is None
    assert estimate_quality(flat) is None and estimate_quality(flat[:, :4]) is None
    assert estimate_qualities([photograph, jpeg(photograph, 70), flat, jpeg(photograph, 88)]) == [70, 88]


@pytest.mark.parametrize("quality", [5, 10, 20, 25])
def test_strong_compression_is_read_too(quality):
    (photograph,) = clean_at_input_size(open_data_root("data").validation[:1], 2)
    assert estimate_quality(jpeg(photograph, quality)) == quality
