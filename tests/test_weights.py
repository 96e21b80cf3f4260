"""Weights from anywhere: own files, released .pth files, and files that would do harm."""

import itertools
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sr_utils.checkpoints import load_pickled_tensors, save_model
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.weights import load_deflow, load_esrgan

PARITY = Path(__file__).parent / "parity"
TEXTS = [b"hello\n", b"(lp0\n", b"a,b\n1,2\n", b"0.5 1.5\n", b"Rather long\n" * 9]


def test_a_flow_keeps_single_precision_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1))
    load_deflow(save_model(tmp_path / "flow.safetensors", flow, {}))
    assert not torch.backends.cudnn.allow_tf32


def test_own_files_are_loaded(tmp_path):
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1))
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    for model, load in ((flow, load_deflow), (network, load_esrgan)):
        path = save_model(tmp_path / f"{type(model).__name__}.safetensors", model, {})
        assert load(path).config == model.config


def test_a_device_that_is_not_there_is_refused_before_the_file_is_read(tmp_path, monkeypatch):
    for count, names in ((0, ["cuda", "cuda:0", "gpu", ""]), (2, ["cuda:2", "cuda:256", "cuda:-1", "CUDA"])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        known = ["cpu", "cpu, cuda, cuda:0, cuda:1"][count > 0]
        for load, name in itertools.product((load_deflow, load_esrgan), names):
            with pytest.raises(UserError, match=rf"finds no device '{name}' on this machine: choose from {known}\.$"):
                load(tmp_path / "none.safetensors", device=name)


@pytest.mark.parametrize("inside", [None, "params_ema", "state_dict"])
def test_released_files_are_loaded(tmp_path, inside):
    for name, load in (("deflow", load_deflow), ("esrgan", load_esrgan)):
        weights = load_file(PARITY / name / "state_dict.safetensors")
        path = tmp_path / f"{name}.pth"
        torch.save(weights if inside is None else {inside: weights, "step": 3}, path)
        assert not load(path).training
    with pytest.raises(UserError, match="not of a released RRDBNet"):
        load_esrgan(tmp_path / "deflow.pth")
    with pytest.raises(UserError, match="not the weights of a released DeFlow"):
        load_deflow(tmp_path / "esrgan.pth")


class Harm:
    """Unpickling this would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, legacy):
    path, touched = tmp_path / "harm.pth", tmp_path / "touched"
    if legacy:
        path.write_bytes(pickle.dumps({"weight": Harm(touched)}, protocol=2))
    else:
        torch.save({"weight": Harm(touched)}, path)
    with pytest.raises(UserError, match="not safe to open"):
        load_pickled_tensors(path)
    assert not touched.exists()


def test_files_that_hold_no_weights_are_one_sentence(tmp_path):
    for name, content in (("empty.pth", b""), ("text.pth", b"nothing"), ("cut.pth", b"PK\x03\x04 cut")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_pickled_tensors(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no named tensors"):
        load_pickled_tensors(tmp_path / "list.pth")
    with pytest.raises(UserError, match="does not exist"):
        load_pickled_tensors(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [b"hello\n", b"a,b\n1,2\n", b"Released weights\n" * 9, b"q\n"], ids=repr)
def test_a_text_that_is_called_pth_is_one_sentence(tmp_path, content):
    path = tmp_path / "text.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="text.pth is damaged"):
        load_pickled_tensors(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [True, False])
def test_a_damaged_pickle_is_one_sentence_or_what_is_left_of_it(tmp_path, legacy):
    """Whatever the bytes are, nothing but a `UserError` is raised."""
    path, chance = tmp_path / "damaged.pth", random.Random(0)
    torch.save({"a": torch.zeros(3), "b": {"c": torch.ones(2)}}, path, _use_new_zipfile_serialization=not legacy)
    whole, refused = path.read_bytes(), 0
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            load_pickled_tensors(path)
        except UserError:
            refused += 1
    assert refused > 50


def test_tensors_that_are_numbered_and_not_named_are_left_out(tmp_path):
    torch.save({0: torch.zeros(2), 1: torch.ones(2)}, tmp_path / "numbered.pth")
    with pytest.raises(UserError, match="no named tensors"):
        load_esrgan(tmp_path / "numbered.pth")
    torch.save({0: torch.zeros(2), "weight": torch.ones(2)}, tmp_path / "both.pth")
    assert [*load_pickled_tensors(tmp_path / "both.pth")] == ["weight"]


@pytest.mark.parametrize("shape", [(), (0,), (0, 0, 0, 0), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", ["first", "growth", "all"])
def test_a_restoring_network_of_shapes_that_make_no_sense_is_one_sentence(tmp_path, name, shape):
    weights = load_file(PARITY / "esrgan" / "state_dict.safetensors")
    ends = {"first": "conv_first.weight", "growth": "0.RDB1.conv1.weight", "all": ""}
    changed = {key: torch.zeros(shape) if key.endswith(ends[name]) else value for key, value in weights.items()}
    assert any(value.shape == shape for value in changed.values())
    torch.save(changed, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="not of a released RRDBNet"):
        load_esrgan(tmp_path / "odd.pth")
