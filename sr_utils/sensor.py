"""A camera's sensor, as its photographs show it: noise drawn where it arises, before colours are interpolated.

An image x in display values is taken back to linear light l = s(x) (sRGB), seen through the mosaic, given noise that is
white over the sensor's pixels, interpolated, and developed; for a pixel p behind a filter of colour c ::

    raw(p) = l_c(p) + w_c (t v(x_c(p)))^(1/2) e(p),   e ~ N(0, 1) independent
    y = JPEG_q( s^(-1)( demosaic(raw) ) )

v is a curve of brightness, for light that is counted v(x) = a s(x) + b; w_c says how loud a colour is, since white
balance multiplies a pixel's noise with its signal (w = 1 for green); t is one photograph's strength and q its quality.
A photograph borrows both from one of those that the sensor was read from. `sensor_calibration` reads all numbers.

References
----------
Foi, Trimeche, Katkovnik and Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for single-image
raw-data", IEEE Transactions on Image Processing, 2008, equation 3 (the variance).
Brooks et al., "Unprocessing images for learned raw denoising", CVPR 2019 (noise behind inverted development).
The curve of sRGB: IEC 61966-2-1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_utils.degradations import jpeg
from sr_utils.images import to_bytes
from sr_utils.mosaic import Phase, demosaic, mosaic
from sr_utils.parameters import check_range
from sr_utils.tiles import tiles

GOLDEN_RATIO = 0x9E3779B97F4A7C15
"""Its fractional part, times 2⁶⁴."""
LEVELS = torch.tensor([0.06, 0.18, 0.30, 0.42, 0.54, 0.66, 0.78, 0.90])
"""Display values at which v is known; between them its logarithm is interpolated, outside it stays."""
BAND, CONTEXT = 256, 8
"""Rows of a photograph that are exposed at once, and rows above and below that their interpolation may look at."""


def linear_light(display: Tensor) -> Tensor:
    """sRGB display values in [0, 1] to the light that they stand for."""
    return torch.where(display <= 0.04045, display / 12.92, ((display.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def display_value(light: Tensor) -> Tensor:
    """Linear light in [0, 1] to sRGB display values; the inverse of `linear_light`."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def evenly_spread(seed: int, count: int) -> int:
    """An index below ``count`` for each seed; any run of seeds meets all indices about equally often.

    The seed times the golden ratio, less whole numbers (Knuth, The Art of Computer Programming 3, section 6.4).
    """
    return (seed * GOLDEN_RATIO % 2**64 * count) >> 64


@dataclass(frozen=True)
class Sensor:
    """What was read of one camera; see the module's text."""

    phase: Phase
    interpolation: str
    """One of `mosaic.INTERPOLATIONS`."""
    log_variance: Tensor
    """log v at `LEVELS`, of light where 1 is white, (8,)."""
    loudness: Tensor
    """w of red, green and blue, (3,)."""
    log_strengths: Tensor
    """log t of every photograph that was read, (N,)."""
    qualities: Sequence[int | None]
    """Its JPEG quality; None for one that shows none."""

    def numbers(self) -> dict[str, Any]:
        """All that was read, as a JSON file can hold it; `from_numbers` has the same sensor of it."""
        return {
            "phase": list(self.phase),
            "interpolation": self.interpolation,
            "log_variance": self.log_variance.tolist(),
            "loudness": self.loudness.tolist(),
            "log_strengths": self.log_strengths.tolist(),
            "qualities": list(self.qualities),
        }

    @staticmethod
    def from_numbers(numbers: Mapping[str, Any]) -> Sensor:
        """The sensor that `numbers` was called of."""
        tensors = {name: torch.tensor(numbers[name]) for name in ("log_variance", "loudness", "log_strengths")}
        return Sensor(tuple(numbers["phase"]), numbers["interpolation"], **tensors, qualities=numbers["qualities"])

    def deviation(self, image: Tensor) -> Tensor:
        """w v^(1/2), the noise's deviation in light at strength 1, at all values of an image (3, H, W)."""
        curve = np.interp(image.cpu().numpy(), LEVELS.numpy(), self.log_variance.numpy())
        return self.loudness[:, None, None] * torch.from_numpy(0.5 * curve).exp().to(image)

    def expose(
        self,
        image: Tensor,
        *,
        log_strength: float,
        generator: torch.Generator,
        quality: int | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """One shot of an image (3, H, W) in [0, 1], on 8-bit levels; compressed if a ``quality`` is given.

        ``temperature`` scales the noise's deviation.
        """
        noise = torch.randn(image.shape[1:], generator=generator)
        exposed = torch.empty(image.shape, dtype=torch.uint8, device=image.device)
        # In bands, so that a large photograph takes little more memory than itself and its noise.
        for top, bottom, first, last in tiles(image.shape[1], BAND, CONTEXT, multiple=2):
            shown = image[:, top:bottom].clamp(0, 1)
            strength = temperature * math.exp(0.5 * log_strength) * mosaic(self.deviation(shown), self.phase)
            raw = mosaic(linear_light(shown), self.phase) + strength * noise[top:bottom].to(shown)
            light = demosaic(raw, self.phase, interpolation=self.interpolation)[:, first - top : last - top]
            exposed[:, first:last] = to_bytes(display_value(light.clamp(0, 1)))
        return exposed.float().div_(255) if quality is None else jpeg(exposed, quality)

    def photograph(self, image: Tensor, *, seed: int, temperature: float = 1.0) -> Tensor:
        """An image (3, H, W) in [0, 1] as a photograph of this camera; noise and donor follow from ``seed``.

        Consecutive seeds have donors that are spread evenly over all strengths (`evenly_spread`), so that no short
        series is noisier than another by chance. ``temperature`` scales the noise's deviation.

        Raises
        ------
        UserError: the temperature is not from 0 to 100.
        """
        check_range("a photograph", least=0.0, largest=100.0, temperature=temperature)
        generator = torch.Generator().manual_seed(seed)
        donor = int(self.log_strengths.argsort()[evenly_spread(seed, len(self.log_strengths))])
        shot = {"log_strength": self.log_strengths[donor].item(), "quality": self.qualities[donor]}
        return self.expose(image, **shot, generator=generator, temperature=temperature)
