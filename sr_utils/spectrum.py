"""Single images enlarged in the frequency domain: zero padding, windows, deconvolution, extrapolation.

An image is continued by its mirror image beyond each border. Of such a signal the discrete cosine transform (type II)
is the Fourier transform, so there is no jump at the borders, pixel centres stay where `images.imresize` has them, and
every symmetric filter is one real factor per coefficient. Coefficient K of an axis of N pixels has K / (2 N) cycles per
pixel. All functions take images (..., H, W) and return (..., scale H, scale W), neither clamped nor rounded.

References
----------
Gonzalez and Woods, "Digital image processing", chapter 5 (Wiener and constrained least squares filters).
Hunt, "The application of constrained least squares estimation to image restoration", 1973.
Papoulis, "A new algorithm in spectral analysis and band-limited extrapolation", 1975; Gerchberg, "Super-resolution
through error energy reduction", 1974.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from sr_utils.resampling import BICUBIC

Window = Callable[[np.ndarray], np.ndarray]
"""Factor at a frequency given as a share of the small image's limit (0 to 1)."""


def transform(image: Tensor) -> np.ndarray:
    """Orthonormal cosine coefficients of (..., H, W); the first is the mean."""
    return dctn(image.detach().cpu().numpy(), axes=(-2, -1), norm="ortho")


def inverse(coefficients: np.ndarray, like: Tensor) -> Tensor:
    """The image that has these coefficients."""
    return torch.from_numpy(idctn(coefficients, axes=(-2, -1), norm="ortho")).to(like)


def frequencies(length: int) -> np.ndarray:
    """Cycles per pixel of the cosine coefficients of an axis, from 0 to just under 0.5."""
    return np.arange(length) / (2 * length)


def rectangular(share: np.ndarray) -> np.ndarray:
    """Keep all: the ideal low pass, whose kernel is a sinc."""
    return np.ones_like(share)


def raised_cosine(share: np.ndarray) -> np.ndarray:
    """Von Hann's window: falls smoothly to zero at the limit."""
    return 0.5 * (1 + np.cos(np.pi * share))


def late_roll_off(share: np.ndarray, *, start: float = 0.7) -> np.ndarray:
    """Keep all up to ``start`` of the limit, then half a cosine down to zero (a Tukey window)."""
    return 0.5 * (1 + np.cos(np.pi * ((share - start) / (1 - start)).clip(0, 1)))


def zero_padded(image: Tensor, scale: int, *, window: Window = rectangular) -> Tensor:
    """Sinc enlargement: the spectrum, weighted by a window, with zeros where the small image says nothing."""
    rows, columns = (window(np.arange(side) / side) for side in image.shape[-2:])
    return inverse(_padded(transform(image) * rows[:, None] * columns, scale), image)


def _padded(coefficients: np.ndarray, scale: int) -> np.ndarray:
    height, width = coefficients.shape[-2:]
    large = np.zeros((*coefficients.shape[:-2], scale * height, scale * width), coefficients.dtype)
    # Orthonormal coefficients grow with the root of the number of pixels.
    large[..., :height, :width] = scale * coefficients
    return large


def shrinking_response(length: int, scale: int) -> np.ndarray:
    """What `images.imresize` to 1/scale does to each cosine coefficient of an axis of ``length`` large pixels."""
    offsets = np.arange(-2 * scale, 2 * scale + 1) + (0.5 if scale % 2 == 0 else 0.0)
    weights = BICUBIC.weight(offsets / scale)
    return np.cos(2 * np.pi * frequencies(length)[:, None] * offsets) @ weights / weights.sum()


@dataclass(frozen=True)
class _Observation:
    """Coefficients of a small image, and what shrinking has done to those of the large one."""

    coefficients: np.ndarray
    """(..., H, W)."""
    response: np.ndarray
    """Factor on each coefficient of the large image, (scale H, scale W)."""
    cycles: np.ndarray
    """Distance of each from frequency zero, in cycles per small pixel, (scale H, scale W)."""

    @property
    def own_response(self) -> np.ndarray:
        """The response of the coefficients that the small image has, (H, W)."""
        return self.own(self.response)

    def own(self, values: np.ndarray) -> np.ndarray:
        """The part that belongs to the small image's coefficients."""
        height, width = self.coefficients.shape[-2:]
        return values[:height, :width]


def _observe(image: Tensor, scale: int) -> _Observation:
    height, width = image.shape[-2:]
    rows, columns = (shrinking_response(scale * side, scale) for side in (height, width))
    down, across = (scale * frequencies(scale * side) for side in (height, width))
    return _Observation(transform(image), rows[:, None] * columns, np.hypot(down[:, None], across))


def _power_law(seen: _Observation, noise: float) -> tuple[float, float]:
    """Strength c and fall p of the spectrum c / f^p that the image shows above its noise, by a line in log-log."""
    power = np.square(seen.coefficients).mean(tuple(range(seen.coefficients.ndim - 2)), dtype=np.float64)
    signal = (power - noise**2) / seen.own_response**2
    cycles = seen.own(seen.cycles)
    edges = np.geomspace(1.5 / min(power.shape), 0.45, 9)
    points = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        ring = (cycles > low) & (cycles <= high)
        # Rings where noise is all there is to see say nothing of the spectrum.
        if ring.any() and signal[ring].mean() > 0.2 * noise**2:
            points.append((np.log(cycles[ring]).mean(), np.log(signal[ring].mean()), ring.sum() ** 0.5))
    if len(points) < 2:
        return max(float(signal[0, 1:].sum() + signal[1:, 0].sum()), 1e-12) / power.size, 2.0
    where, height, weight = map(np.array, zip(*points, strict=True))
    slope, offset = np.polyfit(where, height, 1, w=weight)
    return float(np.exp(offset)), float(-slope)


def _folded(power: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Sum over all frequencies that sampling makes one: the axis is folded like paper at multiples of ``size``."""
    parts = np.split(power, power.shape[axis] // size, axis)
    # Folding puts coefficient 2 size - k onto k; size itself, on the fold, has no partner.
    turned = [np.roll(np.flip(part, axis), 1, axis) if index % 2 else part for index, part in enumerate(parts)]
    return sum(turned)


def wiener(image: Tensor, scale: int, *, noise: float) -> Tensor:
    """Enlarge and undo the blur of shrinking, as far as noise and aliasing allow (the Wiener filter).

    Of all linear filters it has the least mean squared error for images whose spectrum falls with a power of the
    frequency, as that of photographs roughly does. Strength and power are this image's own. Aliasing, whose power the
    same law foretells, counts as noise.

    Parameters
    ----------
    noise: deviation of the white noise in the image, in its units.
    """
    seen = _observe(image, scale)
    strength, fall = _power_law(seen, noise)
    spectrum = strength * seen.cycles.clip(0.5 / max(image.shape[-2:])) ** -fall
    observed = seen.response**2 * spectrum
    folded = _folded(_folded(observed, image.shape[-2], -2), image.shape[-1], -1)
    # What the small image shows at a frequency: the signal's own power, its aliases' and the noise's.
    gain = seen.own(spectrum * seen.response) / (folded + noise**2)
    gain[0, 0] = 1.0
    return inverse(_padded(seen.coefficients * gain.astype(seen.coefficients.dtype), scale), image)


def constrained(image: Tensor, scale: int, *, noise: float) -> Tensor:
    """Enlarge and undo the blur of shrinking: the smoothest image that explains the small one up to its noise.

    Smoothness is the power of the Laplacian. The multiplier g of ``|y - G x|² + g |L x|²`` is found by bisection, so
    that the residual has the power of the noise (Hunt 1973; Gonzalez and Woods, equation 5.9-6).

    Parameters
    ----------
    noise: deviation of the white noise in the image, in its units.
    """
    seen = _observe(image, scale)
    down, across = (2 - 2 * np.cos(2 * np.pi * frequencies(side)) for side in image.shape[-2:])
    roughness = (down[:, None] + across) ** 2
    wanted = noise**2 * seen.coefficients.size

    def left_over(multiplier: float) -> float:
        share = multiplier * roughness / (seen.own_response**2 + multiplier * roughness)
        return float(np.square(share * seen.coefficients).sum())

    low, high = -12.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if left_over(10**middle) < wanted else (low, middle)
    gain = seen.own_response / (seen.own_response**2 + 10**low * roughness)
    return inverse(_padded(seen.coefficients * gain.astype(seen.coefficients.dtype), scale), image)


def papoulis_gerchberg(
    image: Tensor, scale: int, *, iterations: int = 20, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Extrapolate the spectrum: alternate between what is known of it and what is known of the picture.

    The low frequencies are those of the small image; the picture lies within ``bounds``. Each step is a projection onto
    a convex set, so the error cannot grow. Where nothing touches the bounds nothing is gained over `zero_padded`.
    """
    height, width = image.shape[-2:]
    known = _padded(transform(image), scale)
    estimate = inverse(known, image)
    for _ in range(iterations):
        coefficients = transform(estimate.clamp(*bounds))
        coefficients[..., :height, :width] = known[..., :height, :width]
        estimate = inverse(coefficients, image)
    return estimate


def transform_multiplications(height: int, width: int) -> float:
    """Real multiplications of a fast transform of a real image, one channel: N log2 N for N pixels.

    A radix-2 transform of complex data has N/2 log2 N complex products of four real ones each; real data need half.
    """
    return height * width * math.log2(height * width)
