"""How far apart are real and generated residuals? Distances between two sets, each 0 (or 0.5) where they agree.

Residuals are tensors (N, 3, H, W), degraded minus clean, in image units where 1 is white. Where a distance is
between images of the same scenes, entry i of both sets must be of the same scene.

References
----------
Yue, Zhao, Zhang and Meng, "Dual Adversarial Network", ECCV 2020, section 4.1 (AKLD).
Abdelhamed, Brubaker and Brown, "Noise Flow", ICCV 2019 (divergence of marginal histograms).
Karras et al., "Progressive Growing of GANs", ICLR 2018, section 5 (sliced Wasserstein distance of small patches).
Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.errors import UserError

ROUNDING_VARIANCE = 1 / 12 / 255**2
"""Variance that rounding to 8 bits adds; no residual of an 8-bit image has less."""
WORST_RATIO = 10.0
"""AKLD limits the ratio of two variances to this, as its authors do, so that single pixels cannot decide it."""


def local_variance(residual: Tensor, *, window: int = 7) -> Tensor:
    """Mean square of a residual around every pixel under a Gaussian window, at least rounding's; same shape."""
    deviation = 0.3 * ((window - 1) * 0.5 - 1) + 0.8  # OpenCV's rule for a window without a given deviation
    offsets = torch.arange(window, dtype=residual.dtype) - window // 2
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, window)
    padded = F.pad(residual.square(), [window // 2] * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[:, :, :, None], groups=3)
    return F.conv2d(rows, kernel[:, :, None, :], groups=3).clamp_min(ROUNDING_VARIANCE)


def akld(generated: Tensor, real: Tensor) -> float:
    """Average KL divergence of local noise levels, of the same scenes (DANet, section 4.1); smaller is better.

    At every pixel both residuals count as draws of zero-mean Gaussians with their local variances, and
    KL = (v_g / v_r - 1 - log(v_g / v_r)) / 2.

    Notes
    -----
    The published setting: window of 7, ratio limited to [0.1, 10]. Local variances of single draws are uncertain, so
    a perfect generator does not reach 0: compare with the residuals of a second real shot.
    """
    ratio = (local_variance(generated) / local_variance(real)).clamp(1 / WORST_RATIO, WORST_RATIO)
    return 0.5 * (ratio - 1 - ratio.log()).mean().item()


def histogram_divergence(generated: Tensor, real: Tensor, *, reach: int = 64) -> float:
    """KL divergence, in nats, of the real histogram of residual values from the generated one.

    One bin a grey level from ``-reach`` to ``reach``, the rest in the outermost; every count is raised by one
    (Laplace's smoothing), so that an empty bin costs much but not infinitely much.
    """
    histograms = []
    for residual in (real, generated):
        levels = (255 * residual).round().clamp(-reach, reach).long().flatten() + reach
        counts = torch.bincount(levels, minlength=2 * reach + 1).double() + 1
        histograms.append(counts / counts.sum())
    return (histograms[0] * (histograms[0] / histograms[1]).log()).sum().item()


def sliced_wasserstein(
    generated: Tensor, real: Tensor, *, size: int = 7, patches: int = 8192, directions: int = 256, seed: int = 0
) -> float:
    """Mean Wasserstein-1 distance, in grey levels, of random projections of ``size`` x ``size`` x 3 patches.

    Directions have unit length, so the number is on the scale of the residuals themselves. Patches are taken at the
    same places of both sets.
    """
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = real.shape
    which = torch.randint(count, (patches,), generator=generator)
    top = torch.randint(height - size + 1, (patches,), generator=generator)
    left = torch.randint(width - size + 1, (patches,), generator=generator)
    axis = torch.arange(size)
    rows, columns = (top[:, None] + axis)[:, :, None], (left[:, None] + axis)[:, None, :]
    projection = torch.randn(3 * size**2, directions, generator=generator)
    projection = projection / projection.norm(dim=0)
    sides = []
    for residual in (generated, real):
        cut = residual[which[:, None, None], :, rows, columns]  # (patches, size, size, 3)
        sides.append((cut.flatten(1) @ projection).sort(dim=0).values)
    return 255 * (sides[0] - sides[1]).abs().mean().item()


def spectrum_distance(generated_power: Tensor, real_power: Tensor) -> float:
    """Root mean square difference in decibels of two radial spectra, as `fidelity.radial_spectrum` gives them."""
    # A residual of nothing has no power, and rounding would give it some.
    generated_power, real_power = (power.clamp_min(ROUNDING_VARIANCE / 100) for power in (generated_power, real_power))
    decibels = 10 * (generated_power / real_power).log10()
    return decibels.square().mean().sqrt().item()


def repeat_correlation(first: Tensor, second: Tensor) -> float:
    """Correlation of two draws' residuals of the same scenes: 0 is pure chance, 1 is no chance at all.

    What both draws share is the degradation's certain part, such as blur, so even a real camera is not at 0.
    """
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


class _ResidualClassifier(nn.Sequential):
    """Patches (N, 3, s, s) to logits (N,); no normalisation layer, which would hide the strength of noise."""

    def __init__(self, width: int = 24):
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 1),
            nn.Flatten(0),
        )


def classifier_auc(
    generated: Tensor, real: Tensor, *, size: int = 32, steps: int = 400, batch: int = 64, seed: int = 0
) -> float:
    """Held-out area under the ROC curve of a small network that tells generated residual patches from real ones.

    0.5 means that it cannot, 1 that it never errs. Images with an even index train it, the others test it, so no scene
    is on both sides; both classes have the same scenes, so content cannot give them away.

    Raises
    ------
    UserError: there are fewer than 4 images, or they are smaller than a patch.
    """
    if len(real) < 4 or min(real.shape[2:]) < size:
        found = f"{len(real)} of {real.shape[3]}x{real.shape[2]}"
        raise UserError(f"A classifier needs at least 4 images of {size}x{size} pixels, not {found}: give it more.")
    scale = real.std().clamp_min(ROUNDING_VARIANCE**0.5)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _ResidualClassifier()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    train = [residual[0::2] / scale for residual in (generated, real)]
    labels = torch.cat([torch.zeros(batch // 2), torch.ones(batch // 2)])
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        patches = torch.cat([_random_patches(residual, batch // 2, size, generator) for residual in train])
        loss = F.binary_cross_entropy_with_logits(network(patches), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        logits = [network(grid_patches(residual[1::2] / scale, size)) for residual in (generated, real)]
    return area_under_curve(logits[1], logits[0])


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """Probability that a random positive score exceeds a random negative one, ties counting half; NaN if a score is."""
    if positive.isnan().any() or negative.isnan().any():
        return math.nan
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return ((below + not_above).double().mean() / (2 * len(negative))).item()


def _random_patches(images: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random crops, flipped and turned at random."""
    patches = []
    for _ in range(count):
        which, top, left, turns, flip = (
            int(torch.randint(limit, (), generator=generator))
            for limit in (len(images), images.shape[2] - size + 1, images.shape[3] - size + 1, 4, 2)
        )
        patch = images[which, :, top : top + size, left : left + size].rot90(turns, (1, 2))
        patches.append(patch.flip(2) if flip else patch)
    return torch.stack(patches)


def grid_patches(images: Tensor, size: int) -> Tensor:
    """All whole patches of images (N, C, H, W) side by side, (M, C, size, size)."""
    cut = images.unfold(2, size, size).unfold(3, size, size)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
