"""Kernels: equal to OpenCV's, exact for what they promise, and the frequency responses of their formulas."""

import cv2
import pytest
import torch

from sr_utils.images import imresize
from sr_utils.resampling import (
    BICUBIC,
    BICUBIC_OPENCV,
    BILINEAR,
    KERNELS,
    LANCZOS,
    NEAREST,
    enlarge,
    enlarge_quantized,
    frequency_response,
    interpolation_matrix,
    kernel_multiplications,
)

OPENCV = {
    NEAREST: cv2.INTER_NEAREST,
    BILINEAR: cv2.INTER_LINEAR,
    BICUBIC_OPENCV: cv2.INTER_CUBIC,
    LANCZOS: cv2.INTER_LANCZOS4,
}


@pytest.fixture
def image():
    return torch.rand(3, 20, 27, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kernel", OPENCV, ids=lambda kernel: kernel.name)
def test_kernels_equal_opencv_far_below_one_level_of_255(image, kernel, scale):
    theirs = cv2.resize(image.permute(1, 2, 0).numpy(), (27 * scale, 20 * scale), interpolation=OPENCV[kernel])
    ours = enlarge(image, scale, kernel)
    # Borders too: both repeat the edge pixel.
    assert (ours.permute(1, 2, 0) - torch.from_numpy(theirs)).abs().max() < 0.01 / 255


def test_the_kernel_with_half_is_matlabs_inside(image):
    inside = (..., slice(4, -4), slice(4, -4))
    assert torch.allclose(enlarge(image, 2, BICUBIC)[inside], imresize(image, 2)[inside], atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_constants_stay_and_scale_one_changes_nothing(image, kernel):
    assert torch.allclose(enlarge(torch.full((3, 9, 9), 0.3), 3, kernel), torch.full((3, 27, 27), 0.3))
    assert torch.allclose(enlarge(image, 1, kernel), image, atol=1e-6)


def test_matrices_are_kept_for_few_images():
    interpolation_matrix.cache_clear()
    for side in range(8, 40):
        for _ in range(3):
            enlarge(torch.rand(3, side, side + 100), 2, BICUBIC)
    found = interpolation_matrix.cache_info()
    assert (found.misses, found.hits, found.currsize) == (32 * 2, 32 * 4, 4)


def test_slopes_are_kept_and_keys_keeps_parabolas():
    t = torch.arange(16, dtype=torch.float64)
    fine = (torch.arange(32, dtype=torch.float64) + 0.5) / 2 - 0.5

    def line(kernel, values):
        return enlarge(values.expand(1, 4, -1), 2, kernel)[0, 4, 8:-8]

    for kernel in (BILINEAR, BICUBIC):
        assert torch.allclose(line(kernel, t), fine[8:-8])
    assert torch.allclose(line(BICUBIC, t**2), fine[8:-8] ** 2)
    assert (line(BICUBIC_OPENCV, t**2) - fine[8:-8] ** 2).abs().max() > 0.05


def test_responses_are_those_of_the_formulas():
    frequencies = torch.linspace(0, 1.5, 31, dtype=torch.float64)
    sinc = torch.sinc(frequencies)
    assert torch.allclose(frequency_response(NEAREST, frequencies), sinc, atol=1e-4)
    assert torch.allclose(frequency_response(BILINEAR, frequencies), sinc**2, atol=1e-4)
    # The longer the kernel, the nearer to the ideal at a third of a cycle and at its image.
    at = torch.tensor([1 / 3, 2 / 3])
    errors = [(frequency_response(kernel, at) - torch.tensor([1.0, 0.0])).abs().sum() for kernel in KERNELS]
    assert errors[-1] < min(errors[:-1]) and errors[2] < errors[1]


def test_a_file_holds_what_is_asked_for_and_nonsense_is_refused(image):
    levels = 255 * enlarge_quantized(image, 2, LANCZOS)
    assert torch.equal(levels.round(), levels) or (levels.round() - levels).abs().max() < 1e-4
    with pytest.raises(ValueError, match="whole scale"):
        enlarge(image, 1.5, BICUBIC_OPENCV)
    with pytest.raises(ValueError, match="floating-point"):
        enlarge(image.byte(), 2, BICUBIC_OPENCV)


def test_multiplications_are_those_of_the_passes():
    # At scale 2, four taps: one pass over half of the large pixels, one over all, three channels.
    assert kernel_multiplications(BICUBIC_OPENCV, 2) == 3 * (4 / 2 + 4)
    assert kernel_multiplications(NEAREST, 2) == 0
