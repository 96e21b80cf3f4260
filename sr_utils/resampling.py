"""Enlargement by a kernel: nearest, bilinear, bicubic, Lanczos, each from its formula, and its frequency response.

A kernel k turns samples y_j into a function of the continuous position t, and that function is sampled anew::

    x(t) = sum_j k(t - j) y_j / sum_j k(t - j)

with pixel centres at integers. Output pixel i of an enlargement by s lies at t = (i + 1/2) / s - 1/2; beyond the border
the edge pixel is repeated. Over two axes the kernels are products, so rows and columns are done one after the other.
These are the conventions of OpenCV's ``resize``. (`images.imresize` follows MATLAB instead: mirrored borders, and
kernels that widen when an image shrinks.)

References
----------
Keys, "Cubic convolution interpolation for digital image processing", 1981 (equation 4).
Duchon, "Lanczos filtering in one and two dimensions", 1979.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sr_utils.images import cubic, quantize


@dataclass(frozen=True)
class Kernel:
    """A one-dimensional interpolation kernel."""

    name: str
    radius: int
    """It is zero from this distance on, in pixels of the smaller image."""
    weight: Callable[[np.ndarray], np.ndarray]
    """Its value at a distance; a function of arrays."""

    @property
    def taps(self) -> int:
        """How many samples contribute to a value between them."""
        return int((self.weight(np.arange(-self.radius, self.radius) + 0.75) != 0).sum())


def _box(distance: np.ndarray) -> np.ndarray:
    # Half open, so that a position in the middle between two samples takes one of them.
    return ((distance > -0.5) & (distance <= 0.5)).astype(float)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0.0)


def _windowed_sinc(radius: int, distance: np.ndarray) -> np.ndarray:
    return np.where(np.abs(distance) < radius, np.sinc(distance) * np.sinc(distance / radius), 0.0)


NEAREST = Kernel("nearest", 1, _box)
BILINEAR = Kernel("bilinear", 1, _triangle)
BICUBIC_OPENCV = Kernel("bicubic_opencv", 2, functools.partial(cubic, a=-0.75))
"""Keys' kernel with a = -0.75, as OpenCV has it; it sharpens a little."""
BICUBIC = Kernel("bicubic", 2, functools.partial(cubic, a=-0.5))
"""Keys' kernel with a = -0.5, exact for quadratics, as MATLAB and Pillow have it."""
LANCZOS = Kernel("lanczos", 4, functools.partial(_windowed_sinc, 4))
"""A sinc under the middle lobe of a wider sinc; OpenCV's LANCZOS4 has the same radius of 4."""

KERNELS = (NEAREST, BILINEAR, BICUBIC, BICUBIC_OPENCV, LANCZOS)


# Rows and columns of two images or kernels: of large photographs each matrix takes hundreds of megabytes.
@functools.lru_cache(maxsize=4)
def interpolation_matrix(length: int, scale: int, kernel: Kernel) -> np.ndarray:
    """The (scale * length, length) matrix that enlarges one axis; each row sums to 1."""
    positions = (np.arange(scale * length) + 0.5) / scale - 0.5
    first = np.floor(positions).astype(int) - kernel.radius + 1
    taps = first[:, None] + np.arange(2 * kernel.radius)
    weights = kernel.weight(positions[:, None] - taps)
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((scale * length, length))
    np.add.at(matrix, (np.arange(scale * length)[:, None], taps.clip(0, length - 1)), weights)
    return matrix


def enlarge(image: Tensor, scale: int, kernel: Kernel) -> Tensor:
    """Enlarge (..., H, W) by a kernel to (..., scale H, scale W); values are neither clamped nor rounded.

    Raises
    ------
    ValueError: ``scale`` is not a whole number above 0, or the image is not floating point.
    """
    if scale < 1 or scale != int(scale):
        raise ValueError(f"enlarge needs a whole scale above 0, not {scale}.")
    if not image.is_floating_point():
        raise ValueError(f"enlarge needs a floating-point image, not {image.dtype}.")
    rows, columns = (
        torch.from_numpy(interpolation_matrix(side, int(scale), kernel)).to(image) for side in image.shape[-2:]
    )
    return rows @ image @ columns.T


def enlarge_quantized(image: Tensor, scale: int, kernel: Kernel) -> Tensor:
    """`enlarge`, clamped to [0, 1] and rounded to 8 bits, as a file would hold it."""
    return quantize(enlarge(image, scale, kernel))


def frequency_response(kernel: Kernel, frequencies: Tensor, *, step: float = 1 / 512) -> Tensor:
    """The kernel's Fourier transform, real since kernels are even, at frequencies in cycles per small pixel.

    1 below one half and 0 above would be perfect: all that the samples can carry, and no repetition of it. What is left
    above one half are images of the spectrum, seen as jaggedness; what is missing below is blur.
    """
    distance = torch.arange(-kernel.radius, kernel.radius, step, dtype=torch.float64) + step / 2
    weight = torch.from_numpy(kernel.weight(distance.numpy()))
    weight = weight / weight.sum()
    return torch.cos(2 * math.pi * frequencies.double()[:, None] * distance) @ weight


def kernel_multiplications(kernel: Kernel, scale: int) -> float:
    """Real multiplications per pixel of the enlarged RGB image; a copy costs none.

    Columns are enlarged first, at the small image's height, then rows.
    """
    return 0.0 if kernel is NEAREST else 3 * kernel.taps * (1 + 1 / scale)
