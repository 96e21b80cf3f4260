"""Weights on disk: round trips, refusals in one sentence, nothing executed, nothing whole damaged."""

import json
import pickle

import pytest
import torch

from sr_utils.checkpoints import load_model, load_state, save_model, save_state
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, DiscriminatorConfig, RRDBNet, RRDBNetConfig

MODELS = [
    DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)),
    RRDBNet(RRDBNetConfig(scale=4, features=4, growth=2, blocks=1)),
    Discriminator(DiscriminatorConfig(features=2)),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_model_comes_back_as_it_was(tmp_path, model):
    path = save_model(tmp_path / "model.safetensors", model, {"seed": 3})
    loaded = load_model(path, type(model))
    assert loaded.config == model.config and not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["seed"] == 3 and beside["architecture"] == type(model).__name__
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_equal_weights_give_equal_files(tmp_path):
    """In other processes too: the order of the header's entries is drawn anew in each."""
    for name in ("a", "b", "c", "d", "e", "f"):
        save_model(tmp_path / f"{name}.safetensors", MODELS[1], {})
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1
    content = (tmp_path / "a.safetensors").read_bytes()
    entries = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(entries) == sorted(entries) and list(entries["__metadata__"]) == ["architecture", "config", "sum"]


def refused(path, model_class, *words):
    with pytest.raises(UserError) as caught:
        load_model(path, model_class)
    sentence = str(caught.value)
    assert "\n" not in sentence and str(path) in sentence
    assert all(word in sentence for word in words), sentence


def test_a_missing_file_is_named(tmp_path):
    for name in ("none", "x" * 300):
        refused(tmp_path / f"{name}.safetensors", DeFlow, "does not exist")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = save_model(tmp_path / "model.safetensors", MODELS[1], {})
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, RRDBNet, "damaged")


def test_one_changed_bit_of_a_weight_is_noticed(tmp_path):
    path = save_model(tmp_path / "model.safetensors", MODELS[1], {})
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    refused(path, RRDBNet, "the sum of its bytes does not match")


def test_another_architecture_is_named(tmp_path):
    refused(save_model(tmp_path / "model.safetensors", MODELS[1], {}), DeFlow, "RRDBNet", "DeFlow")


def test_other_sizes_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    path = save_model(tmp_path / "model.safetensors", MODELS[1], {})
    config = json.dumps({"scale": 4, "features": 8, "growth": 2, "blocks": 1})
    save_file(load_file(path), path, {"architecture": "RRDBNet", "config": config})
    refused(path, RRDBNet, "does not fit")


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    refused(path, RRDBNet, "damaged")
    assert not (tmp_path / "executed").exists()


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = save_model(tmp_path / "model.safetensors", MODELS[1], {})
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match="disk is full"):
        save_model(path, MODELS[1], {})
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "model.json"}


def test_a_place_that_holds_no_files_is_one_sentence():
    with pytest.raises(UserError, match="/dev/null/x/a.safetensors cannot be written"):
        save_model("/dev/null/x/a.safetensors", MODELS[1], {})


def test_a_training_state_comes_back_as_it_was(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    state = {
        "step": 7,
        "history": [{"step": 0, "nll": 1.5}, {"step": 1, "nll": 1.25}],
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "nothing": None,
    }
    save_state(tmp_path / "state.safetensors", state)
    loaded = load_state(tmp_path / "state.safetensors")
    assert loaded["step"] == 7 and loaded["history"] == state["history"] and loaded["nothing"] is None
    assert torch.equal(loaded["random"], state["random"])
    fresh = torch.optim.Adam(torch.nn.Linear(2, 2).parameters())
    fresh.load_state_dict(loaded["optimiser"])
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])


def test_a_damaged_training_state_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"nothing of use")
    with pytest.raises(UserError, match="state.safetensors"):
        load_state(path)
