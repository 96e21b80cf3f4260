"""How good is a domain-invariant map h? What it gives away of the domain, and what it keeps of the image.

Leakage is measured on matched content: h of clean images and h of degraded ones of the very same scenes, so that what
the images show cannot tell the two apart. A network is shown both h of one place and says which is degraded, the
hardest test; a linear probe sees one picture at a time; a kernel two-sample test compares the two sets. All have a
floor: the same measure after a coin has decided, scene by scene, which of the two is called degraded.

Content is what a small decoder, trained for this h alone, recovers of the clean image.

References
----------
Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017.
Gretton et al., "A Kernel Two-Sample Test", JMLR 2012 (maximum mean discrepancy).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.errors import UserError
from sr_utils.metrics import lpips, psnr
from sr_utils.patch_samplers import PatchSampler
from sr_utils.residual_distances import area_under_curve, grid_patches

PATCH = 16
"""Side of the patches of h that the classifier sees, or h's own if that is smaller."""


def swapped(clean: Tensor, degraded: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both sets (N, ...) after a fair coin has exchanged the two images of each scene or not."""
    coin = torch.rand(len(clean), generator=generator) < 0.5
    coin = coin.reshape(-1, *[1] * (clean.ndim - 1))
    return torch.where(coin, degraded, clean), torch.where(coin, clean, degraded)


def picture_statistics(pictures: Tensor) -> Tensor:
    """What a linear probe looks at: 15 numbers a picture (N, 3, h, w) of at least 3x3.

    For each channel: its mean, and the logarithms of its deviation and of the mean square of its first differences
    along both axes and of its Laplacian.
    """
    rows, columns = pictures.diff(dim=2), pictures.diff(dim=3)
    inside = pictures[:, :, 1:-1, 1:-1]
    around = pictures[:, :, 2:, 1:-1] + pictures[:, :, :-2, 1:-1] + pictures[:, :, 1:-1, 2:] + pictures[:, :, 1:-1, :-2]
    powers = [pictures - pictures.mean((2, 3), keepdim=True), rows, columns, around - 4 * inside]
    logs = [(power.square().mean((2, 3)) + 1e-8).log() for power in powers]
    return torch.cat([pictures.mean((2, 3)), *logs], dim=1)


def leakage(
    clean: Tensor, degraded: Tensor, *, steps: int = 150, permutations: int = 200, seed: int = 0
) -> dict[str, float]:
    """How well h of clean images can be told from h of degraded ones, three ways, with their floors.

    Parameters
    ----------
    clean, degraded: h of the same scenes in the same order, (N, 3, h, w), N at least 4.
    steps: how long the classifier trains, on every second scene; the others test it.

    Returns
    -------
    ``leakage_auc`` of `matched_auc` and ``leakage_auc_floor``; ``probe_auc`` of `linear_probe_auc` and
    ``probe_auc_floor``; ``mmd``, its ``mmd_floor`` (the permutations' 95th percentile) and ``mmd_p_value``. An area
    of 0.5 is chance, 1 gives the domain away for certain.

    Raises
    ------
    UserError: there are fewer than four scenes, or h has fewer than three pixels a side.
    """
    if len(clean) < 4:
        raise UserError(f"Leakage needs at least 4 scenes, two to learn from and two to test; there are {len(clean)}.")
    if min(clean.shape[2:]) < 3:
        size = "x".join(str(side) for side in clean.shape[2:])
        raise UserError(f"Leakage needs an h of at least 3x3 pixels, and it has {size}: give larger images.")
    generator = torch.Generator().manual_seed(seed)
    exchanged = swapped(clean, degraded, generator)
    scores = {}
    for ending, (first, second) in (("", (clean, degraded)), ("_floor", exchanged)):
        scores[f"leakage_auc{ending}"] = matched_auc(first, second, steps=steps, seed=seed)
        scores[f"probe_auc{ending}"] = linear_probe_auc(picture_statistics(first), picture_statistics(second))
    statistics = [picture_statistics(each) for each in (clean, degraded)]
    return scores | mmd(*statistics, permutations=permutations, generator=generator)


def matched_auc(clean: Tensor, degraded: Tensor, *, steps: int = 150, batch: int = 32, seed: int = 0) -> float:
    """How often a network that sees h (N, 3, h, w) of one place twice, clean and degraded, says which is which.

    The network gives each picture a score and learns that the degraded one's is higher. The share of held-out places
    where it is, equal scores counting half, is an area under the curve within scenes: 0.5 is chance. Even scenes train
    it, odd ones test it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _Scorer()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    both = torch.cat([clean, degraded], dim=1)  # so that both are cut at the same places
    sampler = PatchSampler(list(both[0::2]), min(PATCH, *clean.shape[2:]), seed=seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        first, second = sampler.next(batch // 2).chunk(2, dim=1)
        loss = F.softplus(network(first) - network(second)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        first, second = (network(grid_patches(each[1::2], sampler.patch)) for each in (clean, degraded))
    return ((second > first).double() + 0.5 * (second == first).double()).mean().item()


class _Scorer(nn.Module):
    """Pictures (N, 3, h, w) to a score (N,); it is given the pictures' finest detail beside them, enlarged."""

    def __init__(self, width: int = 24):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(6, width, 3, padding=1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.LeakyReLU(0.2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 1), nn.Flatten(0)),
        )

    def forward(self, picture: Tensor) -> Tensor:
        detail = picture - F.avg_pool2d(picture, 3, stride=1, padding=1, count_include_pad=False)
        return self.body(torch.cat([2 * (picture - 0.5), 10 * detail], dim=1))


def linear_probe_auc(clean: Tensor, degraded: Tensor, *, ridge: float = 0.1) -> float:
    """Held-out area under the curve of a linear classifier (Fisher's, shrunk) on features (N, F) of the same scenes.

    Even scenes train it, odd ones test it.
    """
    train = torch.cat([clean[0::2], degraded[0::2]]).double()
    centre, scale = train.mean(0), train.std(0) + 1e-9
    first, second = ((each.double() - centre) / scale for each in (clean, degraded))
    within = torch.cat([first[0::2] - first[0::2].mean(0), second[0::2] - second[0::2].mean(0)])
    covariance = within.T @ within / len(within) + ridge * torch.eye(clean.shape[1], dtype=torch.float64)
    direction = torch.linalg.solve(covariance, second[0::2].mean(0) - first[0::2].mean(0))
    return area_under_curve(second[1::2] @ direction, first[1::2] @ direction)


def mmd(clean: Tensor, degraded: Tensor, *, permutations: int, generator: torch.Generator) -> dict[str, float]:
    """Maximum mean discrepancy of two feature sets (N, F) of the same scenes, and its floor (Gretton et al. 2012).

    Gaussian kernel, its width the median distance; the biased estimate, as a distance and not its square. A
    permutation exchanges the two features of a scene or not, so the scenes' own variety is in the floor too.
    """
    both = torch.cat([clean, degraded]).double()
    both = (both - both.mean(0)) / (both.std(0) + 1e-9)
    squared = torch.cdist(both, both).square()
    width = squared[squared > 0].median() if bool((squared > 0).any()) else squared.new_tensor(1.0)
    kernel = (-squared / width).exp()
    count = len(clean)

    def distance(sign: Tensor) -> float:
        signs = torch.cat([sign, -sign])
        return (signs @ kernel @ signs / count**2).clamp_min(0).sqrt().item()

    found = distance(torch.ones(count, dtype=torch.float64))
    chance = sorted(
        distance(2.0 * torch.randint(2, (count,), generator=generator).double() - 1) for _ in range(permutations)
    )
    beaten = sum(value >= found - 1e-12 for value in chance)
    return {
        "mmd": found,
        "mmd_floor": chance[min(len(chance) - 1, int(0.95 * len(chance)))],
        "mmd_p_value": (beaten + 1) / (len(chance) + 1),
    }


class _Decoder(nn.Module):
    """h (N, 3, h, w) to an image ``factor`` times as large."""

    def __init__(self, factor: int, width: int = 32):
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(width, 3 * factor**2, 1), nn.PixelShuffle(factor)),
        )

    def forward(self, picture: Tensor) -> Tensor:
        enlarged = F.interpolate(picture, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return enlarged + self.body(picture - 0.5)


def content_kept(
    domain_map: str,
    train: Sequence[Tensor],
    test: Sequence[Tensor],
    *,
    factor: int = 8,
    strength: float = 1.0,
    steps: int = 250,
    seed: int = 0,
) -> dict[str, float]:
    """What a small decoder recovers of clean images from their h: ``content_psnr`` in dB and ``content_lpips``.

    ``train`` and ``test`` are images (3, H, W) in [0, 1]; the decoder learns from patches of the first and is scored
    on the second. Its budget and size are the same for every map.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = _Decoder(factor)
    h, options = DOMAIN_MAPS[domain_map], {"factor": factor, "strength": strength}
    sampler = PatchSampler(train, 8 * factor, seed=seed)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=3e-3, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        image = sampler.next(16)
        loss = F.l1_loss(decoder(h(image, sampler.generator, **options)), image)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    scores = {"content_psnr": [], "content_lpips": []}
    with torch.no_grad():
        for image in test:
            image = image[None, :, : image.shape[1] // factor * factor, : image.shape[2] // factor * factor]
            recovered = decoder(h(image, sampler.generator, **options)).clamp(0, 1)
            scores["content_psnr"].append(psnr(recovered, image, data_range=1.0).item())
            scores["content_lpips"].append(lpips(recovered, image, data_range=1.0).item())
    return {name: sum(values) / len(values) for name, values in scores.items()}
