"""At which temperature generated images are as noisy as real ones: measured in flat patches of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sr_utils import fidelity
from sr_utils.deflow import DeFlow
from sr_utils.sampling import degrade_image


@dataclass(frozen=True)
class Calibration:
    """At which temperature generated images are as noisy as real ones, and the curve that says so."""

    temperature: float
    target: float
    """Deviation of the real images' flat patches, in image units."""
    temperatures: list[float]
    deviations: list[float]
    """Deviation of the generated images' flat patches at each of ``temperatures``."""


def _flat_deviation(images: list[Tensor]) -> float:
    """Deviation in the flattest hundredth of the patches, or in 64 of them if that is more."""
    share = max(0.01, 64 / len(fidelity.to_patches(images, 16)))
    return fidelity.flat_patches(images, share=min(1.0, share)).residual.std().item()


def calibrate_temperature(
    model: DeFlow,
    clean: list[Tensor],
    real: list[Tensor],
    *,
    temperatures: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5),
    qualities: Sequence[int] = (),
    seed: int = 0,
    device: str = "cpu",
) -> Calibration:
    """The temperature at which flat patches of generated images deviate as much as those of real ones.

    Parameters
    ----------
    clean, real: images (3, H, W) in [0, 1] at one resolution; they need not show the same.
    qualities: as in `degrade_image`.
    temperatures: increasing candidates. Between two of them the answer is interpolated; outside, it is the nearest.

    Notes
    -----
    No ground truth is used. A flow with affine couplings explains part of a noisy image by its noisy neighbourhood,
    which a clean image does not have, so at temperature 1 it adds too little noise where the scene is flat. The gain
    shift's flow is linear, and should answer about 1.
    """
    target = _flat_deviation(real)
    deviations = []
    for temperature in temperatures:
        generated = [
            degrade_image(model, image, qualities=qualities, temperature=temperature, seed=seed + index, device=device)
            for index, image in enumerate(clean)
        ]
        deviations.append(_flat_deviation(generated))
    chosen = float(np.interp(target, np.maximum.accumulate(deviations), temperatures))
    return Calibration(round(chosen, 4), target, list(temperatures), deviations)
