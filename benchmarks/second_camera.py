"""A camera that nothing was tuned for: what another pipeline does to a clean picture.

Task 1's camera (`sr_utils.camera`) was in view while the methods of this repository were made. This one was written
afterwards, once, and its numbers were never changed. It differs in form: no mosaic, no JPEG, noise along rows, and a
picture that the camera itself has cleaned and sharpened. For x at the size of the result ::

    1.5 times as large; lens blur; light l = x^2.2
    raw = l + (shot l + read)^(1/2) e + r,    r one value a row
    colours mixed by a matrix, as sensors with broad filters need it; x = l^(1/2.2)
    median of both colour differences over 3x3 pixels
    shrunk to the size of the result; sharpened; WebP

Only `benchmarks.blind_ladder` imports it, for the inputs and for the oracle.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from sr_utils.degradations import gaussian_blur
from sr_utils.images import imresize, to_bytes

OVERSIZE, GAMMA = 1.5, 2.2
BLUR = (0.5, 1.0)
"""Deviation of the lens blur, pixels of the larger picture."""
SHOT, READ = (0.002, 0.012), (1e-5, 2e-4)
"""Variance of the light's noise, in proportion to the light and without it."""
ROWS = (0.0005, 0.004)
"""Deviation of what all pixels of a row have in common."""
SHARPENING, QUALITY = (0.3, 0.8), (60, 90)
MIXING = torch.tensor([[1.5, -0.35, -0.15], [-0.25, 1.45, -0.20], [-0.10, -0.45, 1.55]])
"""From the sensor's colours to those of the picture; grey stays grey."""


def take_picture(image: Tensor, generator: torch.Generator) -> Tensor:
    """A picture of a clean image (3, H, W) in [0, 1], on 8-bit levels; settings and noise are drawn."""

    def drawn(low: float, high: float, *, evenly_in: str = "value") -> float:
        share = torch.rand((), generator=generator).item()
        return low * (high / low) ** share if evenly_in == "logarithm" else low + (high - low) * share

    large = imresize(image, OVERSIZE).clamp(0, 1)
    light = gaussian_blur(large[None], drawn(*BLUR))[0].clamp(0, 1) ** GAMMA
    seen = torch.einsum("ij,jhw->ihw", torch.linalg.inv(MIXING), light)
    shot, read = drawn(*SHOT, evenly_in="logarithm"), drawn(*READ, evenly_in="logarithm")
    noise = torch.randn(seen.shape, generator=generator) * (shot * seen.clamp(min=0) + read).sqrt()
    rows = drawn(*ROWS, evenly_in="logarithm") * torch.randn(1, seen.shape[1], 1, generator=generator)
    developed = torch.einsum("ij,jhw->ihw", MIXING, seen + noise + rows).clamp(0, 1) ** (1 / GAMMA)
    height, width = image.shape[1:]
    # Sides were rounded up to whole pixels, and are again.
    smaller = max(height / developed.shape[1], width / developed.shape[2])
    small = imresize(_cleaned(developed), smaller)[:, :height, :width].clamp(0, 1)
    soft = gaussian_blur(small[None], 1.0)[0]
    return _webp(small + drawn(*SHARPENING) * (small - soft), round(drawn(*QUALITY)))


def _cleaned(image: Tensor) -> Tensor:
    """The median of both colour differences, over 3x3 pixels."""
    planes = cv2.cvtColor(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2YCrCb)
    for plane in (1, 2):
        planes[..., plane] = cv2.medianBlur(np.ascontiguousarray(planes[..., plane]), 3)
    return torch.from_numpy(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB).transpose(2, 0, 1)).clamp(0, 1)


def _webp(image: Tensor, quality: int) -> Tensor:
    """Written and read as WebP."""
    array = to_bytes(image).permute(1, 2, 0).numpy()
    encoded = cv2.imencode(".webp", np.ascontiguousarray(array[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(decoded)).float() / 255
