"""Base checkpoints: generic pairs, domains without shared photographs, and trainings that go on where they ended."""

from dataclasses import replace

import pytest
import torch

from sr_utils.base import (
    ANY_GRAIN,
    BASE_ESRGAN,
    BASE_REFINEMENT,
    GenericPairSampler,
    generic_domains,
    train_base_deflow,
    train_base_esrgan,
    train_base_refinement,
)
from sr_utils.checkpoints import load_model
from sr_utils.datasets import open_data_root
from sr_utils.deflow import DeFlow
from sr_utils.degradations import GenericDegradation
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.files import read_json
from sr_utils.hybrid import RefinementConfig
from sr_utils.images import save_image
from sr_utils.training_config import DeFlowTraining, ESRGANTraining

STAGES = (
    (ESRGANTraining(pixel_steps=2, gan_steps=1, patch=16, batch=2), GenericDegradation()),
    (ESRGANTraining(pixel_steps=1, gan_steps=1, patch=16, batch=2, seed=1), ANY_GRAIN),
)
ABOUT = {"profile": "full", "commit": "0000000", "device": "cpu"}


@pytest.fixture
def data(tmp_path):
    """Four small photographs, one of them for validation."""
    for index in range(4):
        image = torch.rand(3, 160, 176, generator=torch.Generator().manual_seed(index))
        save_image(image, tmp_path / "data" / "clean" / f"{index}.png")
    return open_data_root(tmp_path / "data")


def weights(path, model_class):
    return load_model(path, model_class).state_dict()


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_generic_pairs_match_in_size_and_continue(scale):
    images = [torch.rand(3, 80, 80)]

    def sampler():
        return GenericPairSampler(images, 16, scale, GenericDegradation(), seed=0)

    first = sampler()
    low, high = first.next(2)
    assert low.shape == (2, 3, 16, 16) and high.shape == (2, 3, 16 * scale, 16 * scale)
    state = first.state()
    expected = first.next(2)
    other = sampler()
    other.load_state(state)
    assert all(torch.equal(a, b) for a, b in zip(other.next(2), expected, strict=True))


def test_generic_domains_share_no_photograph():
    images = [torch.full((3, 32, 32), value) for value in (0.1, 0.5, 0.9)]
    clean, degraded = generic_domains(images, 2, seed=0)
    assert [round(image.mean().item(), 1) for image in clean] == [0.1, 0.9]
    assert all(abs(image.mean().item() - 0.5) < 0.05 for image in degraded) and len(degraded) == 4


def test_one_photograph_is_not_two_domains():
    with pytest.raises(UserError, match="One photograph cannot be both clean and degraded: give at least two"):
        generic_domains([torch.rand(3, 32, 32)], 2, seed=0)


def test_two_stages_say_where_they_come_from_and_go_on_with_what_is_missing(data, tmp_path):
    def train(folder):
        return train_base_esrgan(
            data, folder, scale=2, state_path=tmp_path / "states" / "x2.safetensors", about=ABOUT, stages=STAGES
        )

    first = train(tmp_path / "first")
    provenance = read_json(first.with_suffix(".json"))
    assert provenance["steps"] == 2 and provenance["degradation"]["grain"] == [0.0, 1.0]
    (earlier,) = provenance["earlier_stages"]
    assert earlier["steps"] == 3 and earlier["degradation"]["grain"] == [0.0, 0.0]
    assert provenance["commit"] == "0000000" and len(provenance["data"]["checksum"]) == 64

    (tmp_path / "states" / "x2_stage2_network.safetensors").unlink()
    kept = (tmp_path / "states" / "x2_stage1_network.safetensors").stat().st_mtime_ns
    again = train(tmp_path / "again")
    assert (tmp_path / "states" / "x2_stage1_network.safetensors").stat().st_mtime_ns == kept
    assert_equal(weights(first, RRDBNet), weights(again, RRDBNet))
    names = [folder / "base_discriminator.safetensors" for folder in (tmp_path / "first", tmp_path / "again")]
    assert_equal(*(weights(name, Discriminator) for name in names))


def test_a_finished_stage_of_other_photographs_or_settings_is_refused(data, tmp_path):
    def train(data, training):
        state = tmp_path / "states" / "x2.safetensors"
        stages = ((training, ANY_GRAIN),)
        return train_base_esrgan(data, tmp_path, scale=2, state_path=state, about=ABOUT, stages=stages)

    training = ESRGANTraining(pixel_steps=1, gan_steps=0, patch=16, batch=1)
    train(data, training)
    train(data, training)
    with pytest.raises(UserError, match="not the same: training.: remove it"):
        train(data, replace(training, learning_rate=1e-5))
    save_image(torch.rand(3, 160, 176), data.root / "clean" / "0.png")
    with pytest.raises(UserError, match="not the same: data.: remove it"):
        train(open_data_root(data.root), training)


@pytest.mark.parametrize("scale", [1, 4])
def test_other_scales_start_from_scale_2(data, tmp_path, scale):
    def train(scale, stages):
        state = tmp_path / "states" / f"x{scale}.safetensors"
        return train_base_esrgan(data, tmp_path, scale=scale, state_path=state, about=ABOUT, stages=stages)

    known = weights(train(2, STAGES[:1]), RRDBNet)
    still = (ESRGANTraining(pixel_steps=1, gan_steps=0, patch=16, batch=1, learning_rate=0.0), ANY_GRAIN)
    moved = weights(train(scale, (still,)), RRDBNet)
    for name, value in moved.items():
        assert name.startswith("first.") or torch.equal(value, known[name]), name


def test_the_base_flow_says_where_it_comes_from(data, tmp_path):
    training = DeFlowTraining(steps=2, patch=32, batch=2)
    path = train_base_deflow(data, tmp_path, state_path=tmp_path / "state.safetensors", about=ABOUT, training=training)
    assert load_model(path, DeFlow).config.shift == "gain"
    provenance = read_json(path.with_suffix(".json"))
    assert provenance["training"]["steps"] == 2 and provenance["data"]["photographs"] == 3


def test_a_photograph_that_is_too_small_is_named(data, tmp_path):
    options = {"state_path": tmp_path / "state.safetensors", "about": ABOUT}
    # Photographs 0 and 2 are the clean ones, 1 is degraded.
    for name in "01":
        save_image(torch.rand(3, 40, 160), data.root / "clean" / f"{name}.png")
        with pytest.raises(UserError, match=rf"larger than {name}\.png, which is 80x20"):
            train_base_deflow(data, tmp_path, training=DeFlowTraining(steps=1, patch=32, batch=2), **options)
        save_image(torch.rand(3, 160, 176), data.root / "clean" / f"{name}.png")
    save_image(torch.rand(3, 40, 160), data.root / "clean" / "2.png")
    training = ESRGANTraining(pixel_steps=1, gan_steps=0, patch=32, batch=1)
    with pytest.raises(UserError, match=r"patch of 64x64 is larger than 2\.png, which is 160x40"):
        train_base_esrgan(data, tmp_path, scale=2, stages=((training, ANY_GRAIN),), **options)
    config, training = RefinementConfig(("bicubic",)), replace(training, patch=64)
    with pytest.raises(UserError, match=r"patch of 64x64 is larger than 2\.png, which is 160x40"):
        train_base_refinement(data, tmp_path, name="tiny", config=config, scale=2, training=training, **options)


def test_the_stages_of_the_committed_checkpoint_differ_in_seed():
    assert BASE_ESRGAN.seed != BASE_REFINEMENT.seed
