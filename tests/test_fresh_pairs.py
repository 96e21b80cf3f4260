"""Pairs that are drawn anew: when, with which numbers, and the same after an interruption."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sr_utils import fine_tuning
from sr_utils.checkpoints import load_state, save_model, save_state
from sr_utils.datasets import open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig, reconfigured
from sr_utils.errors import UserError
from sr_utils.files import read_json
from sr_utils.fresh_pairs import RedrawnPairs, draws_of
from sr_utils.images import imresize, load_image, save_image
from sr_utils.profiles import PROFILES
from sr_utils.sampling import translate_image
from sr_utils.sensor import LEVELS, Sensor
from sr_utils.training_pairs import make_pairs

SIDE, PATCH = 16, 8
SENSOR = Sensor((0, 1), "bilinear", (0.004 * LEVELS).log(), torch.tensor([1.5, 1.0, 1.2]), torch.zeros(2), [None, 85])


class Counted:
    """Inputs whose only value is the number of their draw; remembers what was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, index, number):
        self.asked.append((index, number))
        return torch.full((3, SIDE, SIDE), float(number))


def sampler(draw=None, count=1, seed=0):
    truths = [torch.full((3, 2 * SIDE, 2 * SIDE), float(index)) for index in range(count)]
    return RedrawnPairs(draw or Counted(), truths, PATCH, 2, seed=seed)


def test_an_image_is_drawn_again_once_its_area_has_been_seen():
    pairs = sampler()
    numbers = [pairs.next(1)[0].unique().item() for _ in range(12)]
    # 16x16 pixels are four patches of 8x8.
    assert numbers == [0] * 4 + [1] * 4 + [2] * 4
    assert pairs.draw.asked == [(0, 0), (0, 1), (0, 2)]


def test_each_image_has_a_count_of_its_own_and_keeps_its_truth():
    pairs = sampler(count=3)
    for _ in range(15):
        low, high = pairs.next(4)
        assert low.shape == (4, 3, PATCH, PATCH) and high.shape == (4, 3, 2 * PATCH, 2 * PATCH)
    drawn = {index: [number for which, number in pairs.draw.asked if which == index] for index in range(3)}
    assert all(numbers == list(range(len(numbers))) for numbers in drawn.values())
    # 60 patches fill 15 images of four.
    assert 12 <= sum(map(len, drawn.values())) <= 17


def test_a_continued_sequence_is_the_same(tmp_path):
    whole = sampler(count=2)
    expected = [whole.next(3) for _ in range(20)]
    broken = sampler(count=2)
    for _ in range(11):
        broken.next(3)
    save_state(tmp_path / "state.safetensors", {"pairs": broken.state()})
    continued = sampler(count=2)
    continued.load_state(load_state(tmp_path / "state.safetensors")["pairs"])
    for low, high in expected[11:]:
        ours = continued.next(3)
        assert torch.equal(ours[0], low) and torch.equal(ours[1], high)


def test_what_a_run_starts_from_does_not_change_as_it_goes_on():
    pairs = sampler(count=2)
    before = [image.clone() for image in pairs.sources()]
    for _ in range(10):
        pairs.next(4)
    assert all(torch.equal(a, b) for a, b in zip(before, pairs.sources(), strict=True)) and len(before) == 4


def test_an_input_of_the_wrong_size_is_refused():
    with pytest.raises(UserError, match="2 times as large"):
        RedrawnPairs(lambda index, number: torch.zeros(3, 9, 9), [torch.zeros(3, 32, 32)], PATCH, 2, seed=0)


@pytest.mark.parametrize("given", [{"qualities": [70, 90]}, {"sensor": SENSOR}], ids=["flow", "sensor"])
def test_the_first_draws_are_the_files_of_the_folder_and_later_ones_are_new(tmp_path, given):
    torch.manual_seed(0)
    model = DeFlow(DeFlowConfig(levels=2, steps=1, hidden=8, features=8, encoder_blocks=1, blur=0.8)).eval()
    paths = [save_image(torch.rand(3, 64, 80), tmp_path / f"{name}.png") or tmp_path / f"{name}.png" for name in "ab"]
    pairs = make_pairs(model, paths, tmp_path, scale=2, temperatures=[1.0, 0.5], seed=3, **given)
    inputs, truths = pairs.load()
    draw = draws_of(model, truths, read_json(tmp_path / "pairs" / "settings.json"), scale=2)
    for index in range(2):
        assert torch.equal(draw(index, 0), inputs[index][0]) and torch.equal(draw(index, 1), inputs[index][1])
        assert not torch.equal(draw(index, 2), inputs[index][0])
    if "sensor" in given:
        certain = translate_image(reconfigured(model, blur=0.0), imresize(truths[0], 0.5).clamp(0, 1), temperature=0.0)
        # The pairs are of what an 8-bit file of the small photograph holds.
        assert (SENSOR.photograph(certain, seed=3) - inputs[0][0]).abs().mean() < 1 / 255


def test_a_training_on_another_device_begins_with_what_is_in_the_files(root, tmp_path, monkeypatch):
    """There is no CUDA device here; `meta` computes nothing, so that a draw that was made there would not be a file."""
    data, run_root, given = open_data_root(root), tmp_path / "run", []
    profile = replace(PROFILES["smoke"], esrgan_training=replace(PROFILES["smoke"].esrgan_training, patch=8))
    torch.manual_seed(0)
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)).eval()
    weights = save_model(run_root / "deflow.safetensors", flow, {})
    make_pairs(flow, data.train, run_root, scale=data.scale, temperatures=[1.0], model_path=weights)
    monkeypatch.setattr(fine_tuning, "train_esrgan", lambda *arguments, **options: given.extend((arguments, options)))
    course = SimpleNamespace(data=data, profile=profile, seed=0, run_root=run_root)
    accelerator = SimpleNamespace(device=torch.device("meta"), main_process_first=nullcontext)
    fine_tuning.fine_tune_esrgan(course, accelerator)
    (_, _, samples, _), options = given
    assert options["device"] == "meta" and len(samples.first) == len(data.train)
    for path, drawn in zip(sorted((run_root / "pairs" / "draw_0").glob("*.png")), samples.first, strict=True):
        assert torch.equal(drawn, load_image(path))
