"""The JPEG quality that an image was once saved with, read from its pixels.

JPEG cuts the luma into blocks of 8x8, transforms each (DCT) and rounds every coefficient to a multiple of a step from
a table. Whatever the image is saved as afterwards, its coefficients still lie near multiples of those steps, off by
no more than the rounding of pixels to 8 bits, a quarter of a grey level. A coefficient that is not near zero has, if
the table is right, the density ::

    p(c) / (1 / S) = (1 - e) S / (s √(2π)) exp(-(c - k S)² / (2 s²)) + e

relative to a coefficient that lies anywhere, with S its step, k S the multiple next to it, s = `DEVIATION`, and e the
share of `OUTLIERS`. The quality whose table has the largest mean logarithm is the answer; divisors of the true steps
fit as well, but promise less, since S is a factor. Where no table promises anything, the image was not compressed, or
was changed since.

Reference: Fan and de Queiroz, "Identification of Bitmap Compression History: JPEG Detection and Quantizer Estimation",
IEEE Transactions on Image Processing, 2003. The tables: ITU-T T.81, annex K.1, scaled as the Independent JPEG Group's
library scales them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

BLOCK = 8
QUALITIES = range(1, 99)
"""What is looked for; above, the steps are 1 and leave no trace."""
DEVIATION, OUTLIERS = 0.35, 0.1
"""Of a coefficient from its multiple, in grey levels; and how many follow no multiple, as clipping makes them."""
SMALLEST = 1.5
"""Coefficients below this, in grey levels, could be zeros of any table."""
EVIDENCE = 0.15
"""Mean log-density from which an image counts as compressed."""
FEWEST = 200
"""Coefficients that are needed to say anything."""

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def quantisation_steps(quality: int) -> Tensor:
    """Steps of the luma's coefficients at a quality from 1 to 100, (8, 8), in grey levels."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(_LUMINANCE) * percent + 50) // 100).clamp(1, 255).double()


def cosine_basis(size: int = BLOCK) -> Tensor:
    """The orthonormal cosine transform of ``size`` values as a square matrix, double; each row is one frequency."""
    place = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * place[:, None] * (place + 0.5) / size) * (2 / size) ** 0.5
    basis[0] /= 2**0.5
    return basis


def block_coefficients(image: Tensor) -> Tensor:
    """DCT coefficients of the luma in grey levels, (blocks, 8, 8), of an image (3, H, W) in [0, 1].

    The grid begins at the image's first pixel. Blocks that do not fit are left out, and those with a black or white
    value, where what was decoded has been cut off.
    """
    blocks = image.unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK).flatten(1, 2).double()
    inside = ((blocks > 0) & (blocks < 1)).all(3).all(2).all(0)
    red, green, blue = 255 * blocks[:, inside]
    blocks = 0.299 * red + 0.587 * green + 0.114 * blue - 128
    basis = cosine_basis()
    return basis @ blocks @ basis.T


def estimate_quality(image: Tensor) -> int | None:
    """The JPEG quality, one of `QUALITIES`, that an image (3, H, W) in [0, 1] was saved with; None if it shows none.

    If the image shows none as it is, it may have been turned since: the table of steps is not the same in both
    directions, and of sides that are no multiples of 8 the blocks may begin at the other end.
    """
    for turned in (image, image.transpose(1, 2)):
        rows, columns = (sorted({0, side % BLOCK}) for side in turned.shape[1:])
        for top, left in itertools.product(rows, columns):
            quality = _quality(turned[:, top:, left:])
            if quality is not None:
                return quality
    return None


def _quality(image: Tensor) -> int | None:
    """`estimate_quality` of an image that was not turned, whose first block begins at its first pixel."""
    if min(image.shape[1:]) < BLOCK:
        return None
    coefficients = block_coefficients(image).flatten(1)[:, 1:]
    large = coefficients.abs() > SMALLEST
    if int(large.sum()) < FEWEST:
        return None
    values = coefficients[large]
    evidence = {}
    for quality in QUALITIES:
        steps = quantisation_steps(quality).flatten()[1:].expand_as(coefficients)[large]
        off = values - steps * (values / steps).round()
        peak = steps / (DEVIATION * (2 * math.pi) ** 0.5) * (-0.5 * (off / DEVIATION).square()).exp()
        evidence[quality] = ((1 - OUTLIERS) * peak + OUTLIERS).log().mean().item()
    best = max(evidence, key=evidence.__getitem__)
    return best if evidence[best] > EVIDENCE else None


def estimate_qualities(images: Iterable[Tensor]) -> list[int]:
    """The qualities of those images (3, H, W) that show one, in their order."""
    return [quality for quality in map(estimate_quality, images) if quality is not None]
