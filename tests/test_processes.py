"""One training on two processes is the training of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sr_utils.checkpoints import load_state
from sr_utils.errors import UserError
from sr_utils.files import read_json
from sr_utils.images import save_image
from sr_utils.processes import ALONE, Processes, launched
from sr_utils.training_state import state_files
from tests.shared_training import losses

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("accelerate.commands.launch", "--num_processes", "2", "--cpu")


def launch(*arguments):
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_two_processes_give_the_losses_of_one(tmp_path):
    """Within 1e-4 over 20 steps, at the same batch for both together."""
    status, said = launch(*TORCHRUN, "-m", "tests.shared_training", tmp_path)
    assert status == 0, said
    shared = read_json(tmp_path / "losses.json")
    assert shared["processes"] == 2 and shared["step"] == 20
    alone = losses(tmp_path / "alone.safetensors")
    for model, records in alone.items():
        assert len(records) == len(shared[model]) == 20
        for one, other in zip(records, shared[model], strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert other[name] == pytest.approx(value, abs=1e-4, rel=1e-4), (model, one["step"], name)
    # The middle state of two processes, continued by one, ends where both would have.
    newest, middle, _ = state_files(tmp_path / "state.safetensors")
    assert load_state(middle)["step"] == 10
    newest.unlink()
    continued = losses(tmp_path / "state.safetensors")["deflow"]
    assert continued[:10] == shared["deflow"][:10]
    for one, other in zip(continued, shared["deflow"], strict=True):
        assert one["nll"] == pytest.approx(other["nll"], abs=1e-4)


@pytest.fixture
def photographs(tmp_path):
    """The least that the smoke profile trains on: three photographs and three pairs of scale 2."""
    generator = torch.Generator().manual_seed(0)
    for part, side in (("clean", 96), ("task1/Input", 48), ("task1/GroundTruth", 96)):
        for index in range(3):
            save_image(torch.rand(3, side, side, generator=generator), tmp_path / "data" / part / f"{index}.png")
    return tmp_path / "data"


def test_accelerate_launches_the_command(tmp_path, photographs):
    settings = ("profile=smoke", f"data_root={photographs}", f"run_root={tmp_path / 'run'}")
    status, said = launch(*ACCELERATE, "-m", "sr_utils.cli", "train-deflow", *settings)
    assert status == 0 and said.count("Trained on 2 processes: ") == 1, said
    assert load_state(tmp_path / "run" / "states" / "deflow.safetensors")["step"] == 2


def test_shares_are_put_together_in_order():
    assert ALONE.is_first and ALONE.share(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    two = Processes(None)
    two.count, two.rank = 2, 1
    assert two.share_of_names(["a", "b", "c", "d"]) == ["b", "d"] and not two.is_first
    with pytest.raises(UserError, match="A batch of 5 images cannot be shared by 2 processes"):
        two.check_batch(5)


def test_the_precision_of_accelerates_settings_does_not_reach_the_models(monkeypatch):
    """It would take log-determinants out of single precision, and differ from what one process computes."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert launched().mixed_precision == "no"


@pytest.mark.parametrize(
    "found,refused", [([[4, 7], [4, 7]], False), ([[4, 7], [0, 7]], True), ([[4, 7], [4, 8]], True)]
)
def test_processes_that_would_begin_apart_are_refused(found, refused):
    class Two:
        num_processes, process_index = 2, 0

        def gather(self, own):
            assert own.tolist() == [[4, 7]]
            return torch.tensor(found)

    start = (4, 7, torch.device("cpu"))
    if refused:
        with pytest.raises(UserError, match=r"The processes start at steps \[4, [04]\]"):
            Processes(Two()).check_start(*start)
    else:
        Processes(Two()).check_start(*start)
    ALONE.check_start(*start)
