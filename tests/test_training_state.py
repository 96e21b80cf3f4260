"""The last three states are kept, and a damaged newest one falls back to the one before."""

import pytest
import torch
from test_training import run_deflow

from sr_utils.checkpoints import load_state, save_state
from sr_utils.errors import UserError
from sr_utils.training_config import DeFlowTraining
from sr_utils.training_state import TrainingRun, forget_states, state_files, write_state


def test_the_last_three_are_kept_in_order(tmp_path):
    path = tmp_path / "state.safetensors"
    for step in range(5):
        write_state(path, {"step": step})
    assert [load_state(file)["step"] for file in state_files(path)] == [4, 3, 2]
    assert len(list(tmp_path.iterdir())) == 3
    forget_states(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_between_the_renames_leaves_a_whole_one(tmp_path, monkeypatch, moment):
    path, renames = tmp_path / "state.safetensors", []
    for step in range(3):
        write_state(path, {"step": step})
    rename = type(path).replace

    def killed(self, target):
        renames.append(target)
        if len(renames) > moment:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(path), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_state(path, {"step": 3})
    monkeypatch.undo()
    steps = [load_state(file)["step"] for file in state_files(path) if file.exists()]
    assert steps and steps == sorted(steps, reverse=True) and steps[0] >= 2


def damage(path, way):
    content = bytearray(path.read_bytes())
    if way == "cut":
        del content[len(content) // 2 :]
    elif way == "bit":
        content[-100] ^= 4
    else:
        content[:] = b""
    path.write_bytes(content)


@pytest.mark.parametrize("way", ["cut", "bit", "empty"])
def test_a_damaged_newest_one_falls_back_with_a_warning_that_names_it(tmp_path, way):
    whole, history = run_deflow()
    path = tmp_path / "state.safetensors"
    run_deflow(state_path=path, stop_after=4, save_every=2)
    damage(path, way)
    with pytest.warns(UserWarning, match=r"state\.safetensors is damaged. Continuing from state.earlier1.*, step 2"):
        resumed, resumed_history = run_deflow(state_path=path, save_every=2)
    assert resumed_history.records == history.records
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_without_any_whole_one_the_newest_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    run_deflow(state_path=path, stop_after=2, save_every=1)
    for file in state_files(path):
        if file.exists():
            damage(file, "cut")
    with pytest.raises(UserError, match=r"state\.safetensors is damaged. No earlier one is whole: delete"):
        run_deflow(state_path=path)


def test_a_state_with_tensors_of_other_shapes_is_damaged(tmp_path):
    path = tmp_path / "state.safetensors"
    run_deflow(state_path=path, stop_after=2, save_every=2)
    state = load_state(path)
    state["parts"]["model"] = {name: torch.zeros(7) for name in state["parts"]["model"]}
    save_state(path, state)
    with pytest.raises(UserError, match="is damaged"):
        run_deflow(state_path=path)


def number(device):
    return getattr(device, "index", device)


class Cards:
    """Generators of several CUDA devices, each with a state that is a number."""

    def __init__(self, monkeypatch, *states):
        self.states = [torch.tensor([state], dtype=torch.uint8) for state in states]
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.states))
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: self.states[number(device)].clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.change)

    def change(self, state, device):
        self.states[number(device)] = state

    def numbers(self):
        return [int(state) for state in self.states]


def run_on(rank, path):
    """A run whose weights are said to be on CUDA device number ``rank``."""
    run = TrainingRun(DeFlowTraining(steps=1), {"model": torch.nn.Linear(1, 1)}, {}, path, [])
    run.device = torch.device("cuda", rank)
    return run


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_continues_with_the_first_ones_generator(tmp_path, monkeypatch, rank):
    """The first process never draws on the others' devices, so what it sees of those is where they began."""
    cards = Cards(monkeypatch, 7, 1)
    run_on(0, tmp_path / "state.safetensors").save(3)
    cards.states = [torch.tensor([value], dtype=torch.uint8) for value in (50, 60)]
    run_on(rank, tmp_path / "state.safetensors").resume()
    assert cards.numbers() == [7, 60] if rank == 0 else cards.numbers() == [50, 7]


def test_a_run_on_another_device_than_the_first_keeps_its_own_generator(tmp_path, monkeypatch):
    cards = Cards(monkeypatch, 1, 7)
    run_on(1, tmp_path / "state.safetensors").save(3)
    cards.states = [torch.tensor([value], dtype=torch.uint8) for value in (50, 60)]
    run_on(1, tmp_path / "state.safetensors").resume()
    assert cards.numbers() == [50, 7]


def test_of_an_older_state_that_holds_all_devices_the_first_counts(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    cards = Cards(monkeypatch, 7, 1)
    run_on(0, path).save(3)
    save_state(path, load_state(path) | {"random_of_devices": cards.states})
    cards.states = [torch.tensor([value], dtype=torch.uint8) for value in (50, 60)]
    run_on(1, path).resume()
    assert cards.numbers() == [50, 7]
