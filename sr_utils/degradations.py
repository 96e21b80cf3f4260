"""Generic degradations: slight blur, noise and JPEG.

They train the base checkpoints and make the simple baselines. They are deliberately not task 1's camera: a
learner that met the camera's noise before its task would prove nothing.
"""

import dataclasses
import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sr_utils.errors import UserError
from sr_utils.images import to_bytes

LONGEST_SIDE = 65500
"""Of a JPEG file, in pixels, as its library writes it."""


def gaussian_noise(image: torch.Tensor, std: torch.Tensor | float, generator: torch.Generator) -> torch.Tensor:
    """Add white Gaussian noise to an image batch (N, 3, H, W); not clamped.

    Args:
        std: standard deviation, in the image's units; one number, or one an image (N,).
    """
    std = torch.as_tensor(std, dtype=image.dtype).reshape(-1, 1, 1, 1).to(image.device)
    noise = torch.randn(image.shape, generator=generator, device=generator.device, dtype=image.dtype)
    return image + std * noise.to(image.device)


def grain_noise(
    image: torch.Tensor,
    std: torch.Tensor,
    *,
    grain: torch.Tensor,
    grey: torch.Tensor,
    shot: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Add Gaussian noise that neighbours and channels share, to an image batch (N, 3, H, W) in [0, 1]; not clamped.

    Args:
        std: standard deviation on mid-grey, an image (N,), like all below.
        grain: deviation in pixels of the Gaussian that the noise was blurred with; 0 is white noise.
        grey: share of the variance that is the same in all three channels, 0 to 1.
        shot: share of the variance that grows with the pixel's own value, as a photon count's does, 0 to 1.
    """

    def randn(channels: int) -> torch.Tensor:
        shape = (image.shape[0], channels, *image.shape[2:])
        drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=image.dtype)
        return drawn.to(image.device)

    std, grey, shot = (value.to(image).view(-1, 1, 1, 1) for value in (std, grey, shot))
    noise = gaussian_blur((1 - grey).sqrt() * randn(3) + grey.sqrt() * randn(1), grain)
    noise = noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()
    return image + std * (1 - shot + 2 * shot * image).sqrt() * noise


def gaussian_blur(image: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """Blur an image batch (N, 3, H, W) by isotropic Gaussians, borders mirrored.

    Args:
        sigma: standard deviation in pixels; one number, or one an image (N,). Zero leaves an image unchanged.
    """
    count, channels, height, width = image.shape
    sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1).expand(count)
    # Four deviations hold all but 6e-5 of the weight; a mirrored border cannot be wider than the image on its axis.
    widest = math.ceil(4 * float(sigma.max()))
    down, across = min(widest, height - 1), min(widest, width - 1)
    if down == across == 0:
        return image.clone()

    def kernels(radius: int) -> torch.Tensor:
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-6).unsqueeze(1)) ** 2)
        weights = (weights / weights.sum(1, keepdim=True)).to(image.device, image.dtype)
        return weights.repeat_interleave(channels, 0).unsqueeze(1)

    # Images as groups: each has its own kernel, and the two axes separate.
    flat = image.reshape(1, count * channels, height, width)
    flat = F.pad(flat, (across, across, down, down), mode="reflect")
    flat = F.conv2d(flat, kernels(across).unsqueeze(2), groups=count * channels)
    flat = F.conv2d(flat, kernels(down).unsqueeze(3), groups=count * channels)
    return flat.reshape(image.shape)


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """Write and read one image (3, H, W) in [0, 1], or of bytes, as 8-bit JPEG of a quality from 1 to 100; no gradient.

    Raises
    ------
    UserError: a side is longer than the format can hold.
    """
    if max(image.shape[1:]) > LONGEST_SIDE:
        size = "x".join(map(str, reversed(image.shape[1:])))
        raise UserError(f"JPEG holds sides of {LONGEST_SIDE} pixels at most, and an image has {size}: cut it in parts.")
    array = to_bytes(image.detach()).permute(1, 2, 0).cpu().numpy()
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(array[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    decoded = np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1))
    kind = image.dtype if image.is_floating_point() else torch.float32
    return torch.from_numpy(decoded).to(image.device, kind).div_(255)


@dataclasses.dataclass(frozen=True)
class GenericDegradation:
    """Random slight blur, then Gaussian noise of a random level, then sometimes JPEG, for each image.

    Ranges are (lowest, highest), sampled uniformly. The noise is white unless one of the last three is above 0.

    Attributes:
        noise: standard deviation of the noise, for images in [0, 1].
        blur: standard deviation of the Gaussian blur in pixels.
        quality: JPEG quality, 1 to 100.
        jpeg_probability: how often an image is compressed at all.
        grain, grey, shot: see `grain_noise`.
    """

    noise: tuple[float, float] = (0.0, 20 / 255)
    blur: tuple[float, float] = (0.0, 0.8)
    quality: tuple[int, int] = (60, 98)
    jpeg_probability: float = 0.5
    grain: tuple[float, float] = (0.0, 0.0)
    grey: tuple[float, float] = (0.0, 0.0)
    shot: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("noise", "blur", "quality", "grain", "grey", "shot"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"The range {name}={getattr(self, name)} must be (lowest, highest), both >= 0.")
        for name in ("grey", "shot"):
            if getattr(self, name)[1] > 1:
                raise ValueError(f"The share {name}={getattr(self, name)} must not exceed 1.")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"quality={self.quality} must lie between 1 and 100.")
        if not 0 <= self.jpeg_probability <= 1:
            raise ValueError(f"jpeg_probability={self.jpeg_probability} must lie between 0 and 1.")

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Degrade an image batch (N, 3, H, W) in [0, 1]; the result is clamped to [0, 1]."""
        count = image.shape[0]

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(count, generator=generator, device=generator.device).cpu()

        degraded = gaussian_blur(image, uniform(*self.blur))
        std = uniform(*self.noise)
        if max(self.grain[1], self.grey[1], self.shot[1]) > 0:
            structure = {name: uniform(*getattr(self, name)) for name in ("grain", "grey", "shot")}
            degraded = grain_noise(degraded, std, **structure, generator=generator).clamp(0, 1)
        else:
            degraded = gaussian_noise(degraded, std, generator).clamp(0, 1)
        qualities = uniform(*self.quality).round()
        compressed = uniform(0, 1) < self.jpeg_probability
        for index in compressed.nonzero().flatten().tolist():
            degraded[index] = jpeg(degraded[index], int(qualities[index]))
        return degraded
