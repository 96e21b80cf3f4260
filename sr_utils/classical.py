"""The classical ways to enlarge one image, side by side: nothing is learned, and each knows only the image itself.

`single_image_methods` names them all. The kernels are in `resampling`, the frequency domain in `spectrum`, the spatial
domain in `spatial`; `multi_frame` has what needs several images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sr_utils import resampling, spatial, spectrum
from sr_utils.images import imresize, quantize
from sr_utils.noise_model import fit_noise_model

Upscale = Callable[[Tensor], Tensor]

_ITERATIONS = 10
"""Of back-projection and of the projections onto sets."""
_VARIATION_ITERATIONS = 40


@dataclass(frozen=True)
class Method:
    """One way to enlarge an image."""

    name: str
    domain: str
    """``kernel``, ``frequency`` or ``space``."""
    upscale: Upscale
    """Takes (3, H, W) in [0, 1], gives (3, scale H, scale W), clamped and rounded to 8 bits."""
    multiplications: Callable[[int, int], float]
    """Real multiplications per pixel of the enlarged RGB image, by the small image's height and width."""


def noise_level(image: Tensor) -> float:
    """Deviation of the noise of an image (3, H, W), from its flat places; at least that of rounding to 8 bits."""
    return max(fit_noise_model([image], multiplicative=False).additive, 1 / 255 / 12**0.5)


def single_image_methods(scale: int) -> dict[str, Method]:
    """Every method by its name, cheapest first within its domain."""
    methods = [
        Method(
            kernel.name,
            "kernel",
            lambda low, kernel=kernel: resampling.enlarge_quantized(low, scale, kernel),
            lambda height, width, kernel=kernel: resampling.kernel_multiplications(kernel, scale),
        )
        for kernel in resampling.KERNELS
    ]
    methods += [Method(name, "frequency", *parts) for name, parts in _frequency(scale).items()]
    methods += [Method(name, "space", *parts) for name, parts in _space(scale).items()]
    return {method.name: method for method in methods}


def _frequency(scale: int) -> dict[str, tuple[Upscale, Callable[[int, int], float]]]:
    def transforms(pairs: int) -> Callable[[int, int], float]:
        """A transform of the small image and one of the large, a product a frequency; ``pairs`` more both ways."""

        def count(height: int, width: int) -> float:
            large = spectrum.transform_multiplications(scale * height, scale * width)
            small = spectrum.transform_multiplications(height, width) + height * width
            return 3 * (small + (1 + 2 * pairs) * large) / (scale**2 * height * width)

        return count

    return {
        "sinc": (lambda low: quantize(spectrum.zero_padded(low, scale)), transforms(0)),
        "sinc_hann": (
            lambda low: quantize(spectrum.zero_padded(low, scale, window=spectrum.raised_cosine)),
            transforms(0),
        ),
        "sinc_tukey": (
            lambda low: quantize(spectrum.zero_padded(low, scale, window=spectrum.late_roll_off)),
            transforms(0),
        ),
        "wiener": (lambda low: quantize(spectrum.wiener(low, scale, noise=noise_level(low))), transforms(0)),
        "constrained_least_squares": (
            lambda low: quantize(spectrum.constrained(low, scale, noise=noise_level(low))),
            transforms(0),
        ),
        "papoulis_gerchberg": (
            lambda low: quantize(spectrum.papoulis_gerchberg(low, scale, iterations=_ITERATIONS)),
            transforms(_ITERATIONS),
        ),
    }


def _space(scale: int) -> dict[str, tuple[Upscale, Callable[[int, int], float]]]:
    bicubic = 12 * (1 + 1 / scale)
    pair = spatial.back_projection_multiplications(scale, 1) - bicubic

    def bilateral(low: Tensor) -> Tensor:
        return imresize(spatial.bilateral(low, noise=noise_level(low)), scale)

    def projected(low: Tensor) -> Tensor:
        start, tolerance = bilateral(low), 2 * noise_level(low)
        return spatial.project_onto_sets(low, scale, start=start, tolerance=tolerance, iterations=_ITERATIONS)

    def variation(low: Tensor) -> Tensor:
        return spatial.total_variation(low, scale, noise=noise_level(low), iterations=_VARIATION_ITERATIONS)

    # A bilateral weight is looked up; then three channels are multiplied by it, in a disc of radius 1.5 sigma.
    looked_at = 4 * 3.14 * (1.5 * spatial.BILATERAL_SIGMA) ** 2 / scale**2
    # OpenCV sums squared differences over windows by sliding: one square a channel for each of 21 x 21 neighbours.
    compared = 2 * 3 * 21**2 / scale**2
    return {
        "iterative_back_projection": (
            lambda low: quantize(spatial.back_project(low, scale, iterations=_ITERATIONS)),
            lambda height, width: bicubic + _ITERATIONS * pair,
        ),
        "bilateral_bicubic": (lambda low: quantize(bilateral(low)), lambda height, width: looked_at + bicubic),
        "non_local_means_bicubic": (
            lambda low: quantize(imresize(spatial.non_local_means(low, noise=noise_level(low)), scale)),
            lambda height, width: compared + bicubic,
        ),
        "total_variation": (
            lambda low: quantize(variation(low)),
            # Two multiplications for each of six slopes, and one for the length of the gradient.
            lambda height, width: bicubic + _VARIATION_ITERATIONS * (pair + 3 + 6 + 6 + 7),
        ),
        "projections_onto_sets": (
            lambda low: quantize(projected(low)),
            lambda height, width: looked_at + bicubic + _ITERATIONS * pair,
        ),
    }
