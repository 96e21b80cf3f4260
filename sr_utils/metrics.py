"""How close an image is to its reference: PSNR, SSIM and LPIPS, one number for each image of a batch.

All three take an image batch and a reference batch (N, C, H, W) of one shape and the keywords

    data_range:   what white minus black is: 1.0 for this project's images, 255.0 for 8-bit values.
    crop_border:  how many pixels to leave out at each side.
    y_channel:    measure the BT.601 luma of RGB (`images.to_y`) instead of the channels.

and give a tensor (N,). Pixels are taken as they are: round them by `images.quantize` first to score what a
file would hold. Shapes that differ raise a UserError that names both.
"""

import functools
import warnings

import torch

from sr_utils.errors import UserError
from sr_utils.features import imagenet_features
from sr_utils.images import to_y

# Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5, K1 and K2.
_WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03

# Below this side AlexNet's last layers have no pixel.
_SMALLEST_FOR_ALEXNET = 31


def psnr(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    data_range: float,
    crop_border: int = 0,
    y_channel: bool = False,
) -> torch.Tensor:
    """Peak signal-to-noise ratio in decibels over all pixels and channels; infinite where both are equal."""
    image, reference = _prepare(image, reference, data_range, crop_border, y_channel)
    error = (image - reference).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(data_range**2 / error)


def ssim(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    data_range: float,
    crop_border: int = 0,
    y_channel: bool = False,
) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004, equation 13), the mean over channels and full windows.

    Variances are those of the window's population, not of a sample.
    """
    image, reference = _prepare(image, reference, data_range, crop_border, y_channel)
    _require_side(image, _WINDOW, "SSIM")
    means = _window_mean(torch.stack((image, reference, image**2, reference**2, image * reference)))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    structure = (2 * (mean_xy - mean_x * mean_y) + c2) / (variances + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def lpips(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    data_range: float,
    crop_border: int = 0,
    y_channel: bool = False,
) -> torch.Tensor:
    """Learned perceptual distance (Zhang et al. 2018), version 0.1 on AlexNet; 0 for equal images.

    Luma is repeated over the three channels.

    Raises:
        UserError: the AlexNet features are not in the cache and the package registry cannot be reached.
    """
    image, reference = _prepare(image, reference, data_range, crop_border, y_channel)
    _require_side(image, _SMALLEST_FOR_ALEXNET, "LPIPS")
    # The network expects three channels in [-1, 1].
    image, reference = ((2 * batch / data_range - 1).float().expand(-1, 3, -1, -1) for batch in (image, reference))
    return _lpips_network(image.device)(image, reference).flatten()


@functools.cache
def _lpips_network(device: torch.device) -> torch.nn.Module:
    """The lpips package's linear heads on AlexNet's features, without its download."""
    # Slow to import, and not needed for the other metrics.
    from lpips import LPIPS

    # The package makes random networks first; that must not move the course's own random numbers.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    features = imagenet_features("alexnet").state_dict()
    # lpips cuts the features into slices that keep torchvision's layer numbers: slice1.0, slice2.3, ...
    network.net.load_state_dict({name: features[name.split(".", 1)[1]] for name in network.net.state_dict()})
    return network.to(device).eval().requires_grad_(False)


def _prepare(
    image: torch.Tensor, reference: torch.Tensor, data_range: float, crop_border: int, y_channel: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check, crop and convert, to float64: sums of squares of a large image lose digits in float32."""
    if image.shape != reference.shape or image.ndim != 4:
        raise UserError(
            f"Metrics compare two batches (N, C, H, W) of one shape, not {tuple(image.shape)} and "
            f"{tuple(reference.shape)}: crop or resize one of them."
        )
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, not {data_range}.")
    if crop_border < 0 or 2 * crop_border >= min(image.shape[2:]):
        raise UserError(
            f"crop_border={crop_border} leaves nothing of images of {image.shape[3]}x{image.shape[2]}: "
            "choose a smaller one."
        )
    batches = []
    for batch in (image, reference):
        batch = batch.double()
        if crop_border:
            batch = batch[..., crop_border:-crop_border, crop_border:-crop_border]
        if y_channel:
            batch = to_y(batch / data_range) * data_range
        batches.append(batch)
    return batches[0], batches[1]


def _require_side(image: torch.Tensor, side: int, name: str) -> None:
    if min(image.shape[2:]) < side:
        raise UserError(
            f"{name} needs images of at least {side}x{side} after cropping, "
            f"not {image.shape[3]}x{image.shape[2]}: use larger ones."
        )


def _window_mean(stack: torch.Tensor) -> torch.Tensor:
    """Gaussian-weighted means over every full window of (..., H, W)."""
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    kernel = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = (kernel / kernel.sum()).tolist()
    # Sums of shifted maps: in double precision several times faster than a convolution of one channel.
    for axis in (-2, -1):
        length = stack.shape[axis] - _WINDOW + 1
        total = weights[0] * stack.narrow(axis, 0, length)
        for shift, weight in enumerate(weights[1:], start=1):
            total.add_(stack.narrow(axis, shift, length), alpha=weight)
        stack = total
    return stack
