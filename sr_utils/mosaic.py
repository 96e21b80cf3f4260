"""One colour a pixel: the mosaic on a camera's sensor, the trace it leaves in photographs, and its interpolation.

Each pixel of a sensor stands behind a red, a green or a blue filter (Bayer's mosaic: half of them are green, on the
squares of one colour of a chessboard). The other two colours of a pixel are made from its neighbours, and what is an
average is less noisy than what was measured. So in a photograph that was never resized every other pixel is noisier
than the ones beside it, wherever the mosaic's squares are. The logarithm of the two halves' power behind a high-pass
filter, in green, ::

    log(E[(g * L)²] on one colour of the chessboard / E[(g * L)²] on the other)

is 0 in any other image but for chance, and says on which squares green was measured. Whether red or blue was at the
others is tried: where an image that came from a mosaic is put through the same mosaic once more and interpolated, it
changes less than with another mosaic (Swaminathan et al.).

References
----------
Gallagher and Chen, "Image authentication by detecting traces of demosaicing", CVPR Workshops 2008 (the two halves).
Swaminathan, Wu and Liu, "Nonintrusive component forensics of visual sensors using output images", IEEE Transactions on
Information Forensics and Security, 2007 (interpolating again).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Phase = tuple[int, int]
"""Row and column, 0 or 1 each, of the first red pixel."""

INTERPOLATIONS = ("bilinear", "edge_aware")
"""Averages of all neighbours; or, for green, of those above and below or of those beside, whichever are more alike."""
EVIDENCE = 0.1
"""Mean imbalance from which a set of images counts as coming from a mosaic."""
AGREEMENT = 0.75
"""Share of the images that must have an imbalance of the same sign."""

_HIGH_PASS = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]) / 20**0.5
"""Of power 1: white noise keeps its deviation."""
_CODES = {
    ("bilinear", (0, 0)): cv2.COLOR_BayerRGGB2RGB,
    ("bilinear", (0, 1)): cv2.COLOR_BayerGRBG2RGB,
    ("bilinear", (1, 0)): cv2.COLOR_BayerGBRG2RGB,
    ("bilinear", (1, 1)): cv2.COLOR_BayerBGGR2RGB,
    ("edge_aware", (0, 0)): cv2.COLOR_BayerRGGB2RGB_EA,
    ("edge_aware", (0, 1)): cv2.COLOR_BayerGRBG2RGB_EA,
    ("edge_aware", (1, 0)): cv2.COLOR_BayerGBRG2RGB_EA,
    ("edge_aware", (1, 1)): cv2.COLOR_BayerBGGR2RGB_EA,
}
_BORDER = 8
"""Mirrored pixels around a mosaic; even, so that its phase stays."""
_BLACK, _WHITE = 2**13, 2**15
"""16-bit values of 0 and 1: noise below 0 and above 1 survives the interpolation."""


def site_colours(height: int, width: int, phase: Phase) -> Tensor:
    """Which colour each pixel of the sensor measures, (H, W): 0 red, 1 green, 2 blue."""
    row, column = phase
    colours = torch.ones(height, width, dtype=torch.long)
    colours[row::2, column::2] = 0
    colours[1 - row :: 2, 1 - column :: 2] = 2
    return colours


def mosaic(image: Tensor, phase: Phase) -> Tensor:
    """What the sensor's pixels measure of an image (3, H, W), one colour each, (H, W)."""
    return image.gather(0, site_colours(*image.shape[1:], phase)[None])[0]


def demosaic(raw: Tensor, phase: Phase, *, interpolation: str) -> Tensor:
    """All three colours at every pixel, (H, W) to (3, H, W), by one of `INTERPOLATIONS`.

    Values are read in steps of 1 / 32768, from -0.25 to 1.75; beyond, they are cut off.
    """
    steps = np.clip(np.rint(raw.cpu().numpy() * _WHITE + _BLACK), 0, 2**16 - 1).astype(np.uint16)
    steps = cv2.copyMakeBorder(steps, *[_BORDER] * 4, cv2.BORDER_REFLECT_101)
    colours = cv2.cvtColor(steps, _CODES[interpolation, phase])[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return torch.from_numpy((colours.transpose(2, 0, 1).astype(np.float32) - _BLACK) / _WHITE).to(raw)


def high_passed(maps: Tensor) -> Tensor:
    """Maps (N, H, W) behind the high-pass filter, without their outermost pixels, (N, H - 2, W - 2)."""
    return F.conv2d(maps[:, None], _HIGH_PASS[None, None].to(maps))[:, 0]


def imbalance(image: Tensor) -> float:
    """How much noisier the green of an image (3, H, W) is on one half of its pixels, as the logarithm of powers.

    Above 0 where row and column add to an odd number; an image smaller than 4x4 pixels, or without any detail, has 0.
    """
    if min(image.shape[1:]) < 4:
        return 0.0
    power = high_passed(image[1:2])[0].square()
    # Pixel (1, 1) of the image is the first of the filtered map: even there, too.
    odd = (torch.arange(power.shape[0])[:, None] + torch.arange(power.shape[1])) % 2 == 1
    ratio = (power[odd].mean() + 1e-9) / (power[~odd].mean() + 1e-9)
    return ratio.log().item()


def find_mosaic(images: Sequence[Tensor]) -> Phase | None:
    """The mosaic that images (3, H, W) in [0, 1] of one camera came from, all with their first pixel on one of its.

    None if they show none: they were resized, or never on such a sensor.
    """
    signs = torch.tensor([imbalance(image) for image in images])
    mean = signs.mean().item() if len(signs) else 0.0
    if abs(mean) < EVIDENCE or (signs * mean > 0).float().mean() < AGREEMENT:
        return None
    candidates = ((0, 0), (1, 1)) if mean > 0 else ((0, 1), (1, 0))
    first, second = (torch.tensor([_change(image, phase) for image in images]) for phase in candidates)
    return candidates[int((first / second).log().median() > 0)]


def _change(image: Tensor, phase: Phase) -> float:
    """By how much an image changes, root mean square, if it passes through a mosaic again."""
    again = demosaic(mosaic(image, phase), phase, interpolation="bilinear")
    return (again - image).square().mean().sqrt().clamp(min=1e-6).item()
