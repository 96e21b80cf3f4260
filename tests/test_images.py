import math
import shutil

import pytest
import torch
from PIL import Image

from sr_utils.errors import UserError
from sr_utils.images import (
    crop_to_multiple,
    imresize,
    list_images,
    load_image,
    quantize,
    resize_matrix,
    save_image,
    stacked,
    to_y,
)


def test_list_images(tmp_path, picture):
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG"]
    with pytest.raises(UserError, match=r"folder\.png holds no images"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(UserError, match="nowhere"):
        list_images(tmp_path / "nowhere")


# Writing


def test_save_and_load(tmp_path):
    image = torch.rand(3, 9, 13, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    path = tmp_path / "neu" / "ü.png"
    save_image(image, path)
    torch.testing.assert_close(load_image(path), quantize(image), rtol=0, atol=1e-7)
    assert [entry.name for entry in path.parent.iterdir()] == ["ü.png"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (torch.zeros(1, 4, 4), "a.png"),
        (torch.zeros(1, 3, 4, 4), "a.png"),
        (torch.zeros(3, 4, 4), "a.jpg"),
        (torch.full((3, 4, 4), torch.nan), "a.png"),
    ],
)
def test_save_refuses(tmp_path, image, name):
    with pytest.raises(ValueError, match=r"a\.|tensor"):
        save_image(image, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_quantize():
    values = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 2.0])
    torch.testing.assert_close(quantize(values), torch.tensor([0.0, 0.0, 0.0, 1 / 255, 1.0]))


def test_to_y_is_bt601():
    colours = torch.eye(3, dtype=torch.float64).T.reshape(3, 1, 3)
    # MATLAB: rgb2ycbcr([1 0 0; 0 1 0; 0 0 1]) has the lumas 0.3196, 0.5669, 0.1606.
    torch.testing.assert_close(
        to_y(colours).flatten(), torch.tensor([0.3196, 0.5669, 0.1606]).double(), rtol=0, atol=1e-4
    )
    black_and_white = torch.tensor([0.0, 1.0]).expand(2, 3, 1, 2)
    expected = torch.tensor([16 / 255, 235 / 255]).expand(2, 1, 1, 2)
    torch.testing.assert_close(to_y(black_and_white), expected)


# Resizing


def ramp(side):
    """0, 1, 2, ... row by row."""
    return torch.arange(side * side, dtype=torch.float64).reshape(1, side, side)


# What MATLAB's imresize(x, size, 'bicubic') answers, as published by the author of bicubic_pytorch.
MATLAB = [
    (ramp(8), 1 / 2, 0, [4.04296875, 6.08203125, 8.10546875, 10.14453125]),
    (ramp(8), 1 / 2, 3, [52.85546875, 54.89453125, 56.91796875, 58.95703125]),
    (ramp(15), 1 / 3, 0, [14.4197530864, 17.5061728395, 20.5185185185, 23.5308641975, 26.6172839506]),
    (ramp(15), 1 / 3, 4, [197.3827160494, 200.4691358025, 203.4814814815, 206.4938271605, 209.5802469136]),
    (ramp(8), 1 / 4, 0, [12.3837890625, 16.6318359375]),
    (ramp(8), 1 / 4, 1, [46.3681640625, 50.6162109375]),
    (ramp(15), 1 / 5, 0, [29.1072, 34.288, 39.4688]),
    (ramp(15), 1 / 5, 2, [184.5312, 189.712, 194.8928]),
    (ramp(4), 3 / 4, 0, [0.7505518764, 2.1004415011, 3.4503311258]),
    (ramp(4), 3 / 4, 1, [6.1501103753, 7.5, 8.8498896247]),
    (
        torch.tensor([[[100, 1, 0, 100], [10, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]).double(),
        5 / 4,
        0,
        [108.685225, 27.6970975, -12.4465625, 26.8841925, 109.2025],
    ),
    (
        torch.tensor([[[100, 1, 0, 100], [10, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]).double(),
        5 / 4,
        2,
        [-0.6503125, -0.21221875, 0.39453125, -1.60790625, -6.53125],
    ),
]


@pytest.mark.parametrize(("image", "scale", "row", "expected"), MATLAB)
def test_imresize_equals_matlab(image, scale, row, expected):
    resized = imresize(image, scale)
    assert resized.shape[1] == resized.shape[2] == len(expected)
    torch.testing.assert_close(resized[0, row], torch.tensor(expected).double(), rtol=0, atol=1e-4)


def brute_force(signal, scale):
    """Keys' cubic interpolation of a 1-D list, pixel by pixel, written as the definition reads."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def pixel(position):
        while not 0 <= position < len(signal):
            position = -1 - position if position < 0 else 2 * len(signal) - 1 - position
        return signal[position]

    width = max(1.0, 1 / scale)
    resized = []
    for index in range(math.ceil(round(len(signal) * scale, 9))):
        centre = (index + 0.5) / scale - 0.5
        taps = range(math.floor(centre - 2 * width) - 1, math.ceil(centre + 2 * width) + 2)
        weights = [kernel((centre - tap) / width) for tap in taps]
        total = sum(weight * pixel(tap) for weight, tap in zip(weights, taps, strict=True))
        resized.append(total / sum(weights))
    return torch.tensor(resized, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1 / 16, 1 / 8, 1 / 3, 1 / 2, 0.7, 1, 1.1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 5, 16, 33, 100])
def test_imresize_equals_brute_force(length, scale):
    signal = torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    expected = brute_force(signal.tolist(), scale)
    rows = imresize(signal.reshape(1, length, 1).expand(1, length, length), scale)
    torch.testing.assert_close(rows, expected[None, :, None].expand_as(rows), rtol=0, atol=1e-12)
    columns = imresize(signal.expand(2, 3, length, length), scale)
    torch.testing.assert_close(columns, expected.expand_as(columns), rtol=0, atol=1e-12)


def test_weights_of_one_half():
    """A unit impulse far from the borders meets the kernel at 1/4, 3/4, 5/4 and 7/4, over two."""
    impulse = torch.zeros(1, 1, 32, dtype=torch.float64)
    impulse[..., 16] = 1
    response = imresize(impulse.expand(1, 32, 32), 0.5)[0, 0]
    weights = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 256
    assert float(weights[0]) == -0.01171875
    torch.testing.assert_close(response[6:10], weights[[0, 2, 4, 6]])
    assert response.count_nonzero() == 4


@pytest.mark.parametrize("scale", [1 / 8, 0.3, 2, 2.5])
def test_constant_stays_and_a_ramp_stays_straight(scale):
    constant = torch.full((1, 40, 40), 0.3, dtype=torch.float64)
    resized = imresize(constant, scale)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.3))
    line = torch.arange(96, dtype=torch.float64).expand(1, 96, 96)
    resized = imresize(line, scale)[0, 0]
    positions = (torch.arange(len(resized)) + 0.5) / scale - 0.5
    inside = (positions > 20) & (positions < 75)
    # Cubic interpolation of a line is exact; a widened kernel only nearly so between its phases.
    torch.testing.assert_close(resized[inside], positions[inside].double(), rtol=0, atol=0.03)


def test_imresize_gradient_dtype_and_float32_accuracy():
    image = torch.rand(2, 3, 24, 17, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x[:1, :1, :6, :5], 0.5), image)
    difference = imresize(image.detach().float(), 1 / 3).double() - imresize(image.detach(), 1 / 3)
    assert difference.abs().max() < 1e-5 < 1 / 255
    assert imresize(image.float(), 2).dtype == torch.float32
    assert imresize(image, 2).shape == (2, 3, 48, 34)
    assert imresize(image, 0.1).shape == (2, 3, 3, 2)


def test_matrices_are_kept_for_one_image_there_and_back():
    resize_matrix.cache_clear()
    for side in range(8, 40):
        for _ in range(3):
            imresize(imresize(torch.rand(3, side, side + 100), 2), 0.5)
    found = resize_matrix.cache_info()
    assert (found.misses, found.hits, found.currsize) == (32 * 4, 32 * 8, 4)


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_imresize_refuses_scales(scale):
    with pytest.raises(ValueError, match="positive scale"):
        imresize(torch.zeros(3, 4, 4), scale)


def test_imresize_refuses_other_tensors():
    for image in (torch.zeros(4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="float tensor"):
            imresize(image, 2)


def test_a_copy_of_a_good_file_survives_a_failed_save(tmp_path, picture):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    shutil.copy(path, tmp_path / "b.png")
    with pytest.raises(ValueError):
        save_image(torch.full((3, 4, 4), torch.inf), path)
    assert path.read_bytes() == (tmp_path / "b.png").read_bytes()


def test_cropping_to_a_multiple_refuses_what_is_smaller():
    assert crop_to_multiple(torch.zeros(3, 9, 17), 8).shape == (3, 8, 16)
    with pytest.raises(UserError, match=r"^photo\.png is 17x7, smaller than 8 pixels"):
        crop_to_multiple(torch.zeros(3, 7, 17), 8, name="photo.png")


def test_sets_of_images_are_cut_alike_to_what_all_have():
    first, second = [torch.rand(3, 5, 9), torch.rand(3, 6, 7)], [torch.rand(3, 8, 8)]
    batches = stacked(first, second)
    assert [batch.shape for batch in batches] == [(2, 3, 5, 7), (1, 3, 5, 7)]
    assert torch.equal(batches[0][0], first[0][:, :, :7]) and torch.equal(batches[1][0], second[0][:, :5, :7])
