"""Score a learned degradation on task 1: the same clean scenes, degraded by it and by the real camera.

Only here, after everything is learned, are task 1's ground truths opened for the degradation: shrunk to the inputs'
size they are the clean images behind them, and input less clean is the real residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils import fidelity
from sr_utils.datasets import DataRoot, clean_at_input_size, load_images
from sr_utils.deflow import DeFlow
from sr_utils.images import stacked
from sr_utils.patch_samplers import PatchSampler
from sr_utils.residual_distances import (
    akld,
    classifier_auc,
    histogram_divergence,
    sliced_wasserstein,
    spectrum_distance,
)

STABILITY_PATCH, STABILITY_BATCH = 32, 50
"""Side and number at a time of the patches that `non_finite_patches` translates."""

FEWEST = 4
"""Pairs that a classifier needs: two to learn from and two to be judged by."""


@dataclass(frozen=True)
class TaskPairs:
    """Clean images of task 1 at the inputs' size, and the inputs: both (N, 3, H, W), 8-bit levels in [0, 1]."""

    clean: Tensor
    degraded: Tensor

    @property
    def residual(self) -> Tensor:
        """What the real degradation did, (N, 3, H, W)."""
        return self.degraded - self.clean


def task_pairs(data: DataRoot, *, limit: int | None = None) -> TaskPairs:
    """The pairs of task 1, cut to the largest rectangle that all of them have; ``limit`` takes only the first."""
    pairs = data.pairs[:limit]
    degraded = load_images([input_path for input_path, _ in pairs])
    clean = clean_at_input_size([truth_path for _, truth_path in pairs], data.scale)
    return TaskPairs(*stacked(clean, degraded))


def score_degradation(generated: Tensor, pairs: TaskPairs, *, steps: int = 400, seed: int = 0) -> dict[str, float]:
    """All fidelity measures of generated images (N, 3, H, W) of the very scenes of ``pairs``.

    ``steps`` is how long the classifier of `residual_distances.classifier_auc` trains; of fewer than `FEWEST` pairs
    there is none. ``deviation``, in grey levels, and the two correlations are of the generated residuals alone, to be
    compared with the real ones'.
    """
    residual, real = generated - pairs.clean, pairs.residual
    powers = [fidelity.radial_spectrum(fidelity.to_patches(list(each)))[1] for each in (residual, real)]
    enough = len(real) >= FEWEST
    return {
        "akld": akld(residual, real),
        **({"auc": classifier_auc(residual, real, steps=steps, seed=seed)} if enough else {}),
        "histogram_divergence": histogram_divergence(residual, real),
        "sliced_wasserstein": sliced_wasserstein(residual, real, seed=seed),
        "spectrum_distance": spectrum_distance(*powers),
        **describe_residual(residual),
    }


def describe_residual(residual: Tensor) -> dict[str, float]:
    """Deviation in grey levels, correlation between channels and with the next pixel, of residuals (N, 3, H, W)."""
    return {
        "deviation": 255 * residual.std().item(),
        "channel_correlation": fidelity.residual_statistics(residual)["channel_correlation"],
        "neighbour_correlation": fidelity.neighbour_correlation(residual, reach=1)[1, 2].item(),
    }


def non_finite_patches(
    model: DeFlow,
    images: list[Tensor],
    *,
    patches: int,
    temperatures: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
) -> int:
    """How many of so many translated patches hold a NaN or an infinity, before anything is clamped.

    Every twentieth patch is flat, uniform noise, black or white, by turns, where a flow that reacts to what it sees
    is most likely to divide by nothing; the others are cut from ``images`` (3, H, W) at random places. The
    temperatures take turns from batch to batch.
    """
    sampler, generator = PatchSampler(images, STABILITY_PATCH, seed=seed), torch.Generator().manual_seed(seed)
    bad = 0
    for begun in range(0, patches, STABILITY_BATCH):
        batch = sampler.next(min(STABILITY_BATCH, patches - begun))
        for place in range(0, len(batch), 20):
            noise, grey = torch.rand(batch[0].shape, generator=generator), torch.rand(3, 1, 1, generator=generator)
            kinds = (grey.expand_as(noise), noise, torch.zeros_like(noise), torch.ones_like(noise))
            batch[place] = kinds[(begun + place) // 20 % 4]
        temperature = temperatures[begun // STABILITY_BATCH % len(temperatures)]
        translated = model.translate(batch, model.condition(batch), temperature=temperature, generator=generator)
        bad += int((~translated.isfinite()).flatten(1).any(1).sum())
    return bad
