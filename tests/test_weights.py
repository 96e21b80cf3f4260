"""Weights from anywhere: own files, released .pth files, and files that would do harm."""

import os
import pickle
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


def test_own_files_are_loaded(tmp_path):
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1))
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    for model, load in ((flow, load_deflow), (network, load_esrgan)):
        path = save_model(tmp_path / f"{type(model).__name__}.safetensors", model, {})
        assert load(path).config == model.config


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
