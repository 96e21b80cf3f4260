"""ESRGAN: the restoring network, its discriminator and its losses.

References
----------
Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018.
Wang et al., "Real-ESRGAN", ICCVW 2021, section 3.4 (pixel-unshuffle for x1 and x2, spectral norm).
Jolicoeur-Martineau, "The relativistic discriminator", 2018 (relativistic average loss).
Irani and Peleg, "Improving resolution by image registration", CVGIP 1991 (back-projection).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from sr_utils.degradations import gaussian_blur
from sr_utils.errors import UserError
from sr_utils.features import IMAGENET_MEAN, IMAGENET_STD
from sr_utils.images import imresize
from sr_utils.parameters import check_range
from sr_utils.published_keys import esrgan_tensors
from sr_utils.rrdb import RRDB

Mean = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RRDBNetConfig:
    """Sizes of the generator; the published one is features 64, growth 32, blocks 23, scale 4."""

    scale: int = 2
    """Upscaling factor: 1, 2 or 4."""
    features: int = 32
    growth: int = 16
    blocks: int = 6
    consistency: float = 6.0
    """Deviation, in input pixels, of the Gaussian window over which the result, shrunk, agrees with the input; 0: no
    window and no agreement, as published."""
    upsampling: int = 4
    """How many times finer than the trunk the result is: 4, as published, or less but at least ``scale``. The lower,
    the finer is what the trunk sees, and the longer it takes."""
    last_features: int | None = None
    """Features behind the trunk, where the image is largest; None: as many as in it, as published."""

    def __post_init__(self):
        if self.scale not in (1, 2, 4):
            raise UserError(f"scale {self.scale} is not supported; choose 1, 2 or 4.")
        if self.upsampling not in (1, 2, 4) or self.upsampling < self.scale:
            raise UserError(
                f"upsampling={self.upsampling} of RRDBNetConfig must be 1, 2 or 4 and at least scale={self.scale}."
            )
        if self.last_features is not None:
            check_range("RRDBNetConfig", least=1, largest=1024, last_features=self.last_features)
        check_range("RRDBNetConfig", least=1, largest=1024, features=self.features, growth=self.growth)
        check_range("RRDBNetConfig", least=1, largest=128, blocks=self.blocks)
        check_range("RRDBNetConfig", least=0.0, largest=256.0, consistency=self.consistency)


class RRDBNet(nn.Module):
    """Restore and upscale: (N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W), not clamped.

    The network upsamples ``upsampling`` times from its trunk, four times as published. For smaller scales its input is
    first pixel-unshuffled, for scale 2 and 1 by 2 and 4 (Real-ESRGAN, section 3.4), so all scales share every weight
    but the first convolution's.

    What is coarse in the result is the input's. With A the antialiased reduction by ``scale``, U bicubic enlargement
    and G a Gaussian window of ``consistency`` input pixels ::

        output = x + U G (input - A x)

    a step of back-projection (Irani and Peleg 1991) that is confined to what G lets through. Over a wide window noise
    averages out, and the input's brightness and colour are nearly the truth's, while losses that compare features or
    realness leave them free to drift. The less noise, the narrower the window may be. Where a degradation changes
    tone and that is to be undone, ``consistency=0``.
    """

    config_class = RRDBNetConfig

    def __init__(self, config: RRDBNetConfig):
        super().__init__()
        self.config = config
        self.unshuffle = config.upsampling // config.scale
        width, last_width = config.features, config.last_features or config.features
        doublings = config.upsampling.bit_length() - 1
        # What each convolution behind the trunk reads.
        read = [width, *[last_width] * doublings]
        self.first = nn.Conv2d(3 * self.unshuffle**2, width, 3, padding=1)
        self.trunk = nn.Sequential(*(RRDB(width, config.growth) for _ in range(config.blocks)))
        self.after_trunk = nn.Conv2d(width, width, 3, padding=1)
        self.upsampled = nn.ModuleList(nn.Conv2d(each, last_width, 3, padding=1) for each in read[:-1])
        self.high_resolution = nn.Conv2d(read[-1], last_width, 3, padding=1)
        self.last = nn.Conv2d(last_width, 3, 3, padding=1)

    def forward(self, low_resolution: Tensor) -> Tensor:
        height, width = low_resolution.shape[2:]
        # Sides that do not divide are padded here and cut from the result.
        pad_bottom, pad_right = -height % self.unshuffle, -width % self.unshuffle
        x = F.pad(low_resolution, (0, pad_right, 0, pad_bottom), mode="replicate")
        first = self.first(F.pixel_unshuffle(x, self.unshuffle))  # (N, F, H*scale/upsampling, W*scale/upsampling)
        x = first + self.after_trunk(self.trunk(first))
        for conv in self.upsampled:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
        x = self.last(F.leaky_relu(self.high_resolution(x), 0.2))
        x = x[:, :, : self.config.scale * height, : self.config.scale * width]
        return agreeing(x, low_resolution, self.config.consistency) if self.config.consistency else x


def agreeing(restored: Tensor, low_resolution: Tensor, consistency: float) -> Tensor:
    """``restored`` (N, 3, scale H, scale W) with what is coarse from the input (N, 3, H, W); see `RRDBNet`."""
    scale = restored.shape[-1] // low_resolution.shape[-1]
    # Half precision would add errors as large as what is mended; double precision stays what it is.
    with torch.autocast(restored.device.type, enabled=False):
        restored = restored.to(torch.promote_types(restored.dtype, torch.float32))
        drift = low_resolution.to(restored.dtype) - imresize(restored, 1 / scale)
        return restored + imresize(gaussian_blur(drift, consistency), scale)


def load_official(state_dict: Mapping[str, Tensor]) -> RRDBNet:
    """An RRDBNet with released weights, in evaluation mode; its sizes and its scale follow from the tensors.

    Parameters
    ----------
    state_dict: tensors of ESRGAN (``RRDB_ESRGAN_x4.pth``, in the old layout or the new) or of Real-ESRGAN, as
        `checkpoints.load_pickled_tensors` reads them.

    Raises
    ------
    UserError: the tensors are not of an RRDBNet.
    """
    tensors = esrgan_tensors(state_dict)
    try:
        blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("trunk."))
        features, in_channels = tensors["first.weight"].shape[:2]
        growth = tensors["trunk.0.blocks.0.convs.0.weight"].shape[0]
        scale = {3: 4, 12: 2, 48: 1}[in_channels]
        network = RRDBNet(RRDBNetConfig(scale, features, growth, blocks, consistency=0.0))
        network.load_state_dict(tensors)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"These weights are not of a released RRDBNet ({reason}); give another file.") from error
    return network.eval()


def with_consistency(network: RRDBNet, consistency: float) -> RRDBNet:
    """The same weights, on their device and of their type, with another window; see `RRDBNet`.

    Raises
    ------
    UserError: ``consistency`` is not from 0 to 256.
    """
    other = RRDBNet(replace(network.config, consistency=consistency)).to(next(network.parameters()))
    other.load_state_dict(network.state_dict())
    return other.eval()


def interpolated(first: RRDBNet, second: RRDBNet, share: float) -> RRDBNet:
    """A network with every weight between those of two, ``(1 - share) first + share second`` (ESRGAN, section 3.4).

    Between a network trained for pixels and one trained from it for looks lies a continuum, without further training.
    The result is on the device and of the type of ``first``.

    Raises
    ------
    ValueError: the two networks have different sizes, or ``share`` is not from 0 to 1.
    """
    if first.config != second.config:
        raise ValueError(f"Networks of different sizes cannot be mixed: {first.config} and {second.config}.")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share:g} must be from 0 to 1.")
    mixed, ours, theirs = RRDBNet(first.config).to(next(first.parameters())), first.state_dict(), second.state_dict()
    mixed.load_state_dict({name: torch.lerp(value, theirs[name], share) for name, value in ours.items()})
    return mixed.eval()


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the U-Net discriminator; the published one has 64 features."""

    features: int = 24

    def __post_init__(self):
        check_range("DiscriminatorConfig", least=1, largest=1024, features=self.features)


class Discriminator(nn.Module):
    """U-Net with spectral normalisation: a realness logit for every pixel, (N, 3, H, W) to (N, 1, H, W).

    Sides must be multiples of ``side_multiple`` (Real-ESRGAN, section 3.4).
    """

    config_class = DiscriminatorConfig
    side_multiple = 8

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        width = config.features

        def normalised(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, stride, padding=1, bias=False))

        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(normalised(width << i, width << (i + 1), 4, 2) for i in range(3))
        self.up = nn.ModuleList(normalised(width << (i + 1), width << i, 3, 1) for i in reversed(range(3)))
        self.smooth = nn.Sequential(normalised(width, width, 3, 1), nn.LeakyReLU(0.2))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(image), 0.2)
        skipped = []
        for conv in self.down:
            skipped.append(x)
            x = F.leaky_relu(conv(x), 0.2)
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + skipped.pop()
        return self.last(self.smooth(x))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *, mean: Mean = torch.mean) -> Tensor:
    """Relativistic average loss of the discriminator (ESRGAN, eq. 1): real more realistic than fake.

    ``mean`` is that of the whole batch; where processes share one, `processes.Processes.mean`.
    """
    real = real_logits - mean(fake_logits)
    fake = fake_logits - mean(real_logits)
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def adversarial_loss(real_logits: Tensor, fake_logits: Tensor, *, mean: Mean = torch.mean) -> Tensor:
    """The generator's side of the relativistic average loss (ESRGAN, eq. 2): the same with roles exchanged."""
    return discriminator_loss(fake_logits, real_logits, mean=mean)


class PerceptualLoss(nn.Module):
    """L1 distance of VGG-16 features before activation (ESRGAN, section 3.3); trained with, never measured with.

    Parameters
    ----------
    features: VGG-16 feature layers in torchvision's order, as `features.imagenet_features("vgg16")` gives.
    layers: indices of the convolutions compared, with their weights. Each distance is divided by the mean
        magnitude of the reference's features, so the weights are comparable between layers.
    """

    def __init__(self, features: nn.Sequential, layers: tuple[tuple[int, float], ...] = ((7, 0.5), (14, 1.0))):
        super().__init__()
        self.weights = dict(layers)
        self.features = features[: max(self.weights) + 1]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_STD)[:, None, None])
        self.requires_grad_(False)

    def _compared(self, image: Tensor) -> list[Tensor]:
        x, compared = (image - self.mean) / self.deviation, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.weights:
                compared.append(x)
        return compared

    def forward(self, restored: Tensor, reference: Tensor, *, mean: Mean = torch.mean) -> Tensor:
        """Scalar loss of images (N, 3, H, W) in [0, 1]; gradients reach ``restored`` only.

        ``mean`` is that of the whole batch, as in `discriminator_loss`.
        """
        with torch.no_grad():
            targets = self._compared(reference)
        losses = [
            weight * F.l1_loss(found, target) / mean(target.abs().float())
            for weight, found, target in zip(self.weights.values(), self._compared(restored), targets, strict=True)
        ]
        return torch.stack(losses).sum()
