"""The domain-invariant map h: what a flow may know of an image without knowing which domain it came from.

Every map takes an image batch (N, 3, H, W) in [0, 1] and a generator, and gives a picture ``factor`` times smaller,
(N, 3, H / factor, W / factor), so that any of them can be a DeFlow's condition. A good one hides whether an image was
clean or degraded and keeps what it shows; `map_scores` measures both. The published map is `bicubic_noise` (DeFlow,
section 3.3). A new map is one function here and one line in `DOMAIN_MAPS`.

All maps share their parameters:

    image:      (N, 3, H, W) in [0, 1]; sides that ``factor`` does not divide are extended: mirrored within `imresize`
                by bicubic_noise, downsample_then_denoise, guided_filter, non_local_means and quantised_luminance, and
                by replication in all other maps.
    generator:  decides what is left to chance, and the same state gives the same picture; None leaves chance out.
    factor:     how many times smaller h is than the image, 1 or more.
    strength:   scales what the map does to hide the domain, its noise or its smoothing; 1 is the map as named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.checkpoints import load_model
from sr_utils.degradations import gaussian_blur
from sr_utils.denoising_autoencoder import DenoisingAutoencoder
from sr_utils.images import imresize, quantize
from sr_utils.parameters import check_range, refuse_unknown
from sr_utils.repository import resolve

Chance = torch.Generator | None


def bicubic_noise(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The published h: antialiased bicubic downsampling, rounded to 8 bits, and noise of deviation 0.02."""
    return _noisy(quantize(imresize(image, 1 / factor)), 0.02 * strength, generator)


def additive_noise(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """White noise of deviation 0.1 drowns what the degradation added; then every block's centre is taken."""
    return _centres(_noisy(image, 0.1 * strength, generator), factor)


def multiplicative_noise(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """Noise in proportion to the light, deviation 0.2 of it, as speckle is; then every block's centre is taken."""
    gains = _noisy(torch.ones_like(image), 0.2 * strength, generator)
    return _centres(image * gains, factor)


def mean_filter(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The mean of a window half as large again as a block."""
    return _windows(image, factor, strength).mean(-1)


def gaussian_filter(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """A Gaussian blur whose deviation is half a block, sampled at the blocks' centres."""
    return _centres(gaussian_blur(_whole_blocks(image, factor), 0.5 * strength * factor), factor)


def median_filter(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The median of a window half as large again as a block: outliers do not move it."""
    return _windows(image, factor, strength).quantile(0.5, dim=-1)


def bilateral_filter(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The mean of those pixels of a window whose colour is near its median's (Tomasi and Manduchi 1998).

    The median stands for the centre, which alone would let its own noise through.
    """
    windows = _windows(image, factor, strength)
    distance = (windows - windows.quantile(0.5, dim=-1, keepdim=True)).square().sum(1, keepdim=True)
    weights = (-0.5 * distance / 0.1**2).softmax(-1)
    return (weights * windows).sum(-1)


def max_pool_noise(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The largest value of every block, and noise of deviation 0.02."""
    return _noisy(F.max_pool2d(_whole_blocks(image, factor), factor), 0.02 * strength, generator)


def denoising_autoencoder(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The bottleneck of an autoencoder that gives clean photographs back from noisy ones (Vincent et al. 2008).

    ``strength`` scales how far the bottleneck departs from the plain mean of a block.
    """
    return _encoded("map_autoencoder", image, factor, strength)


def confusion_autoencoder(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The same, trained against a classifier that tells clean from noisy by the bottleneck (Ganin et al. 2016)."""
    return _encoded("map_confusion_autoencoder", image, factor, strength)


def downsample_then_denoise(
    image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0
) -> Tensor:
    """Antialiased bicubic, then a guided filter: what noise survives the shrinking is smoothed at h's own size."""
    return _guided(imresize(image, 1 / factor), radius=1, noise=0.02 * strength)


def guided_filter(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """A guided filter of the full image, which keeps edges and flattens the rest, then antialiased bicubic."""
    return imresize(_guided(image, radius=max(1, factor // 2), noise=0.1 * strength), 1 / factor)


def non_local_means(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """Mean of places that look alike (Buades et al. 2005), at twice the size of h, which is then halved."""
    finer = imresize(image, min(1.0, 2 / factor))
    radius = min(3, *(side - 1 for side in finer.shape[2:]))
    padded = F.pad(finer, [radius] * 4, mode="reflect")
    height, width = finer.shape[2:]
    total, weight_sum = torch.zeros_like(finer), torch.zeros_like(finer[:, :1])
    for top in range(2 * radius + 1):
        for left in range(2 * radius + 1):
            moved = padded[:, :, top : top + height, left : left + width]
            distance = _box((moved - finer).square().mean(1, keepdim=True), 1)
            weight = (-distance / (0.05 * max(strength, 1e-3)) ** 2).exp()
            total, weight_sum = total + weight * moved, weight_sum + weight
    return imresize(total / weight_sum, 1 / min(2, factor))


def wavelet_band(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """The approximation band of the biorthogonal 1.3 wavelet, one level for each factor of two.

    What is left of the factor is bicubic. ``strength`` below 1 mixes the plain bicubic picture in.
    """
    band, left = _whole_blocks(image, factor), factor
    while left % 2 == 0:
        band, left = _wavelet_level(band), left // 2
    band = imresize(band, 1 / left)
    return band if strength == 1 else torch.lerp(imresize(_whole_blocks(image, factor), 1 / factor), band, strength)


def quantised_luminance(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """Bicubic, brightness rounded to 32 levels and colour blurred: small differences fall between the levels."""
    small = imresize(image, 1 / factor)
    grey = small.mean(1, keepdim=True)
    step = strength / 32
    coarse = (grey / step).round() * step if step > 0 else grey
    return coarse + gaussian_blur(small - grey, strength)


def min_max_pool(image: Tensor, generator: Chance = None, *, factor: int = 8, strength: float = 1.0) -> Tensor:
    """Halfway between the smallest and the largest value of every block: noise that widens both cancels.

    ``strength`` below 1 mixes the mean of the block in.
    """
    blocks = _whole_blocks(image, factor)
    middle = (F.max_pool2d(blocks, factor) - F.max_pool2d(-blocks, factor)) / 2
    return torch.lerp(F.avg_pool2d(blocks, factor), middle, strength)


DOMAIN_MAPS: dict[str, Callable[..., Tensor]] = {
    "bicubic_noise": bicubic_noise,
    "additive_noise": additive_noise,
    "multiplicative_noise": multiplicative_noise,
    "mean_filter": mean_filter,
    "gaussian_filter": gaussian_filter,
    "median_filter": median_filter,
    "bilateral_filter": bilateral_filter,
    "max_pool_noise": max_pool_noise,
    "denoising_autoencoder": denoising_autoencoder,
    "confusion_autoencoder": confusion_autoencoder,
    "downsample_then_denoise": downsample_then_denoise,
    "guided_filter": guided_filter,
    "non_local_means": non_local_means,
    "wavelet_band": wavelet_band,
    "quantised_luminance": quantised_luminance,
    "min_max_pool": min_max_pool,
}
"""All maps by name; the first nine are the published one and what is commonly proposed, the others this project's."""


def check_map(name: str, strength: float, *, owner: str) -> None:
    """Refuse the name of no map, and a strength that none can have.

    Raises
    ------
    UserError: there is no such map, or the strength is below 0 or not finite; ``owner`` names whose parameter it is.
    """
    refuse_unknown(name, DOMAIN_MAPS, what="map")
    check_range(owner, least=0.0, map_strength=strength)


def _noisy(image: Tensor, deviation: float, generator: Chance) -> Tensor:
    """White Gaussian noise added; none without a generator."""
    if generator is None:
        return image
    noise = torch.randn(image.shape, generator=generator, device=generator.device, dtype=image.dtype)
    return image + deviation * noise.to(image.device)


def _whole_blocks(image: Tensor, factor: int) -> Tensor:
    """Bottom and right extended by replication until ``factor`` divides both sides."""
    bottom, right = (-side % factor for side in image.shape[2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _centres(image: Tensor, factor: int) -> Tensor:
    """The centre of every block: its middle pixel, or the mean of its four middle ones if the factor is even."""
    blocks = _whole_blocks(image, factor)
    start = (factor - 1) // 2
    return F.avg_pool2d(blocks[:, :, start:, start:], 2 - factor % 2, stride=factor)


def _windows(image: Tensor, factor: int, strength: float) -> Tensor:
    """A window around every block, (N, 3, h, w, pixels), wider by a quarter of a block to each side at strength 1."""
    blocks = _whole_blocks(image, factor)
    margin = round(strength * max(1, factor / 4))
    blocks = F.pad(blocks, [margin] * 4, mode="replicate")
    side = factor + 2 * margin
    return blocks.unfold(2, side, factor).unfold(3, side, factor).flatten(4)


def _box(maps: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 radius + 1, fewer at borders."""
    return F.avg_pool2d(maps, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def _guided(image: Tensor, *, radius: int, noise: float) -> Tensor:
    """Guided filter of an image by itself (He, Sun and Tang 2010): flat where it varies less than ``noise``."""
    mean = _box(image, radius)
    variance = (_box(image.square(), radius) - mean.square()).clamp_min(0)
    slope = variance / (variance + noise**2 + 1e-12)
    return _box(slope, radius) * image + _box((1 - slope) * mean, radius)


# Low-pass analysis filter of the biorthogonal 1.3 wavelet (Cohen, Daubechies and Feauveau 1992), of sum 1. It is
# symmetric about the middle between two pixels, so h stays in place.
_LOW_PASS = (-1 / 16, 1 / 16, 8 / 16, 8 / 16, 1 / 16, -1 / 16)


def _wavelet_level(image: Tensor) -> Tensor:
    """The approximation band of one level, half as large."""
    channels = image.shape[1]
    kernel = image.new_tensor(_LOW_PASS).expand(channels, 1, len(_LOW_PASS))
    padded = F.pad(image, [2] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, :, None], stride=(2, 1), groups=channels)
    return F.conv2d(rows, kernel[:, :, None, :], stride=(1, 2), groups=channels)


def _encoded(name: str, image: Tensor, factor: int, strength: float) -> Tensor:
    """The bottleneck of a committed autoencoder; for another factor than its own the image is resized first."""
    network = _autoencoder(name).to(image.device, image.dtype)
    own = network.config.factor
    blocks = _whole_blocks(image, factor)
    return network.encode(blocks if factor == own else imresize(blocks, own / factor), strength=strength)


@functools.cache
def _autoencoder(name: str) -> DenoisingAutoencoder:
    return load_model(resolve(f"checkpoints/{name}.safetensors"), DenoisingAutoencoder).requires_grad_(False)
