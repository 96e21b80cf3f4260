"""Single images enlarged in the spatial domain: denoise first, back-project, total variation, projections onto sets.

The model is y = A x + n: the small image y (3, H, W) is the large one shrunk by antialiased bicubic, `images.imresize`,
plus noise. All functions return (3, scale H, scale W), neither clamped nor rounded, from values in [0, 1].

References
----------
Irani and Peleg, "Improving resolution by image registration", 1991 (iterative back-projection).
Tomasi and Manduchi, "Bilateral filtering for gray and color images", 1998.
Buades, Coll and Morel, "A non-local algorithm for image denoising", 2005.
Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms", 1992.
Chambolle and Pock, "A first-order primal-dual algorithm for convex problems with applications to imaging", 2011.
Stark and Oskoui, "High-resolution image recovery from image-plane arrays, using convex projections", 1989.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from sr_utils.images import imresize, resize_matrix, to_bytes

BILATERAL_SIGMA = 1.5
"""Pixels; deviation of the weight that falls with distance."""


def back_project(image: Tensor, scale: int, *, iterations: int = 10, step: float = 1.0) -> Tensor:
    """Bicubic enlargement, corrected until it shrinks to the small image again (Irani and Peleg 1991).

    Each iteration shrinks the estimate, enlarges what is missing and adds it.
    """
    estimate = imresize(image, scale)
    for _ in range(iterations):
        estimate = estimate + step * imresize(image - imresize(estimate, 1 / scale), scale)
    return estimate


def _to_array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).contiguous().numpy()


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def non_local_means(image: Tensor, *, noise: float) -> Tensor:
    """Average each pixel of (3, H, W) with those whose 7x7 surroundings look alike, within 21x21 (OpenCV, 8 bits).

    Parameters
    ----------
    noise: deviation of the noise, in image units; the filter is that strong.
    """
    # OpenCV takes BGR; its luma and chroma are filtered apart.
    pixels = _to_array(to_bytes(image))[..., ::-1].copy()
    clean = cv2.fastNlMeansDenoisingColored(pixels, None, 255 * noise, 255 * noise, 7, 21)
    return _to_tensor(clean[..., ::-1]).float() / 255


def bilateral(image: Tensor, *, noise: float) -> Tensor:
    """Average each pixel of (3, H, W) with near ones of like colour (OpenCV).

    Parameters
    ----------
    noise: deviation of the noise, in image units; colours that differ by much more than this are not averaged.
    """
    # The distance of two equal colours is that of six noisy numbers; a little above it separates noise from edges.
    return _to_tensor(cv2.bilateralFilter(_to_array(image), -1, 2.5 * 3**0.5 * noise, BILATERAL_SIGMA))


def _gradient(image: Tensor) -> Tensor:
    """Differences to the next pixel down and across, (2, 3, H, W); none at the far border."""
    slopes = image.new_zeros(2, *image.shape)
    slopes[0, :, :-1] = image[:, 1:] - image[:, :-1]
    slopes[1, :, :, :-1] = image[:, :, 1:] - image[:, :, :-1]
    return slopes


def _divergence(slopes: Tensor) -> Tensor:
    """Minus the transpose of `_gradient`, for slopes that are zero at the far border."""
    total = slopes[0] + slopes[1]
    total[:, 1:] -= slopes[0, :, :-1]
    total[:, :, 1:] -= slopes[1, :, :, :-1]
    return total


def _shrinking(image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The matrices of A: A x = rows x columns^T."""
    rows, columns = (torch.from_numpy(resize_matrix(scale * side, 1 / scale)).to(image) for side in image.shape[1:])
    return rows, columns


def total_variation(image: Tensor, scale: int, *, noise: float, strength: float = 0.6, iterations: int = 60) -> Tensor:
    """The x that minimises ``|A x - y|² / 2 + w TV(x)``, with edges that all channels share (primal-dual method).

    Parameters
    ----------
    noise: deviation of the noise, in image units; the weight w is ``strength`` times it.
    """
    rows, columns = _shrinking(image, scale)
    weight = strength * noise
    # The condition 1 / step - 8 dual_step >= |A|² / 2 with |A|² just above 1 / scale² (Condat 2013, theorem 3.1).
    step, dual_step = 0.25 * scale**2, 0.42 / scale**2
    estimate = imresize(image, scale)
    dual = torch.zeros_like(_gradient(estimate))
    for _ in range(iterations):
        slope = rows.T @ (rows @ estimate @ columns.T - image) @ columns
        moved = estimate - step * (slope - _divergence(dual))
        dual = dual + dual_step * _gradient(2 * moved - estimate)
        dual = dual / (dual.square().sum((0, 1)).sqrt() / max(weight, 1e-12)).clamp_min(1)
        estimate = moved
    return estimate


def project_onto_sets(image: Tensor, scale: int, *, start: Tensor, tolerance: float, iterations: int = 10) -> Tensor:
    """From ``start``, an image near it that lies in [0, 1] and explains the small one to within ``tolerance``.

    Each iteration projects onto the sets in turn (POCS): what the small image's residual has beyond the tolerance is
    handed back to the large pixels it was made of, and values outside [0, 1] are cut.

    Parameters
    ----------
    start: (3, scale H, scale W), for instance an enlargement of a denoised image.
    tolerance: largest residual of a small pixel, in image units; twice the deviation of the noise is usual.
    """
    rows, columns = _shrinking(image, scale)
    # Of a projection onto one small pixel's set; neighbours overlap, so the step is an approximation.
    norm = rows.square().sum(1)[:, None] * columns.square().sum(1)
    estimate = start
    for _ in range(iterations):
        residual = image - rows @ estimate @ columns.T
        excess = residual - residual.clamp(-tolerance, tolerance)
        estimate = (estimate + rows.T @ (excess / norm) @ columns).clamp(0, 1)
    return estimate


def back_projection_multiplications(scale: int, iterations: int) -> float:
    """Real multiplications per pixel of the enlarged RGB image of `back_project`."""
    enlarging = 3 * 4 * (1 + 1 / scale)
    shrinking = 3 * 4 * scale * (1 / scale + 1 / scale**2)
    return enlarging + iterations * (enlarging + shrinking)
