"""`train-esrgan` and notebook 5 are one training: the state of the first is where the second goes on."""

import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from sr_utils import report
from sr_utils.checkpoints import load_model, load_state, save_model
from sr_utils.cli import train_esrgan
from sr_utils.course import begin
from sr_utils.datasets import open_data_root
from sr_utils.deflow import DeFlow
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet
from sr_utils.fine_tuning import fine_tune_esrgan
from sr_utils.images import save_image
from sr_utils.processes import launched
from sr_utils.profiles import PROFILES
from sr_utils.repository import repository_root
from sr_utils.sensor import LEVELS, Sensor
from sr_utils.training_pairs import make_pairs

SMOKE = PROFILES["smoke"]


SENSOR = Sensor((0, 1), "bilinear", (0.004 * LEVELS).log(), torch.ones(3), torch.zeros(2), [None, 85])


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    """The settings of a run that notebooks 3 and 4 have gone through: a flow's weights, and pairs that it made.

    A sensor, if the fixture is given one, has photographed the pairs.
    """
    monkeypatch.setattr(report, "show", lambda *_, **__: None)
    generator = torch.Generator().manual_seed(0)
    for part, side in (("clean", 96), ("task1/Input", 48), ("task1/GroundTruth", 96)):
        for index in range(3):
            save_image(torch.rand(3, side, side, generator=generator), tmp_path / "data" / part / f"{index}.png")
    torch.manual_seed(0)
    weights = tmp_path / "run" / "deflow.safetensors"
    save_model(weights, DeFlow(SMOKE.deflow).eval(), {})
    options = {"scale": 2, "temperatures": [1.2], "qualities": [80], "seed": 3, "model_path": weights}
    options["sensor"] = getattr(request, "param", None)
    make_pairs(load_model(weights, DeFlow), open_data_root(tmp_path / "data").train, tmp_path / "run", **options)
    return {"profile": "smoke", "seed": 5, "data_root": str(tmp_path / "data"), "run_root": str(tmp_path / "run")}


def notebook_5(settings):
    """What notebook 5 has in its variables after its training, and how many steps its optimisers took."""
    cells = nbformat.read(repository_root() / "notebooks" / "05_esrgan_training.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    steps, variables = [], dict(settings)
    hook = register_optimizer_step_post_hook(lambda optimiser, *_: steps.append(optimiser))
    try:
        for needed in ("= begin(", "RRDBNet(course.profile.", "= make_pairs(", "= train_esrgan("):
            (source,) = (source for source in code if needed in source)
            exec(source, variables)
    finally:
        hook.remove()
    return variables, len(steps)


def trained(settings):
    """The state of `train-esrgan`, and where it lies."""
    course = begin("train_esrgan", **settings)
    torch.rand(7)  # the start must not depend on what has been drawn since
    path = fine_tune_esrgan(course, launched())
    return load_state(path), path


@pytest.mark.parametrize("run", [None, SENSOR], ids=["flow", "sensor"], indirect=True)
def test_notebook_5_finds_nothing_left_to_train_and_has_the_averaged_weights(run):
    state, path = trained(run)
    assert path == Path(run["run_root"]) / "states" / "esrgan.safetensors"
    assert state["step"] == SMOKE.esrgan_training.pixel_steps + SMOKE.esrgan_training.gan_steps
    variables, steps = notebook_5(run)
    assert steps == 0 and variables["pairs"].made == 0
    assert variables["history"].records == state["history"] and len(state["history"]) > 1
    averages = state["parts"]["average"]
    for name, value in variables["network"].state_dict().items():
        assert torch.equal(value, averages[f"module.{name}"]), name


def test_notebook_5_alone_trains_the_same(run, tmp_path):
    alone = run | {"run_root": str(shutil.copytree(run["run_root"], tmp_path / "alone"))}
    state, path = trained(run)
    variables, steps = notebook_5(alone)
    assert steps == SMOKE.esrgan_training.pixel_steps + 2 * SMOKE.esrgan_training.gan_steps
    assert variables["history"].records == state["history"]
    kept, expected = (
        load_model(Path(folder) / "esrgan_pixels.safetensors", RRDBNet).state_dict()
        for folder in (run["run_root"], alone["run_root"])
    )
    for name, value in variables["network"].state_dict().items():
        assert torch.equal(value, state["parts"]["average"][f"module.{name}"]), name
        assert torch.equal(kept[name], expected[name]), name


def test_the_pairs_of_notebook_4_must_be_there(run):
    (Path(run["run_root"]) / "pairs" / "settings.json").unlink()
    with pytest.raises(UserError, match="has no DeFlow with generated pairs: run notebooks 3 and 4 there first"):
        train_esrgan(tuple(f"{name}={value}" for name, value in run.items()))
