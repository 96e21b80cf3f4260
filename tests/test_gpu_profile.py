"""The `gpu` profile at its true sizes: two steps of each model on a CPU, in single precision."""

from dataclasses import replace

import pytest
import torch

from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.evaluate import parameter_count
from sr_utils.patch_samplers import PairSampler
from sr_utils.profiles import PROFILES
from sr_utils.training import train_deflow, train_esrgan

GPU = PROFILES["gpu"]


def test_it_is_the_published_setting():
    flow, network = GPU.deflow_training, GPU.esrgan_training
    assert (GPU.deflow.levels, GPU.deflow.steps, GPU.deflow.encoder_blocks, GPU.deflow.features) == (3, 16, 23, 64)
    assert (flow.steps, flow.patch, flow.batch) == (100_000, 160, 8)
    assert (GPU.esrgan.features, GPU.esrgan.growth, GPU.esrgan.blocks) == (64, 32, 23)
    assert network.pixel_steps + network.gan_steps == 60_000
    assert (network.patch * GPU.esrgan.scale, network.batch) == (128, 16)


def test_the_flow_is_as_deep_as_the_published_one_and_its_steps_are_half_as_wide(monkeypatch):
    published = DeFlowConfig.published()
    sizes = ("levels", "steps", "encoder_blocks", "features", "hidden", "condition_factor", "mixing_steps")
    shared = {name for name in sizes if getattr(GPU.deflow, name) == getattr(published, name)}
    assert shared == {"levels", "steps", "encoder_blocks", "features", "condition_factor"}
    assert (GPU.deflow.growth or GPU.deflow.features // 2) == published.growth
    assert GPU.deflow.form == "compact" and 2 * GPU.deflow.hidden == published.hidden
    # Weights are counted, so they need neither memory nor values.
    for name in ("kaiming_normal_", "kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda weight, *_, **__: weight)
    with torch.device("meta"):
        ours, theirs = DeFlow(GPU.deflow), DeFlow(published)
    assert 2 * parameter_count(ours) < parameter_count(theirs)
    assert parameter_count(ours.encoder) == parameter_count(theirs.encoder)


@pytest.mark.timeout(1800)
def test_two_steps_of_the_flow():
    torch.manual_seed(0)
    model = DeFlow(replace(GPU.deflow, mixed_precision=False))
    images = [torch.rand(3, 192, 192, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    training = replace(GPU.deflow_training, steps=2)
    history = train_deflow(model, images[:2], images[2:], training, log_every=1)
    assert len(history.curve("nll")[1]) == 2 and all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.timeout(1800)
def test_a_step_of_either_stage_of_the_restoring_network():
    torch.manual_seed(0)
    network, discriminator = RRDBNet(GPU.esrgan), Discriminator(GPU.discriminator)
    before = network.first.weight.detach().clone()
    training = replace(GPU.esrgan_training, pixel_steps=1, gan_steps=1, mixed_precision=False)
    pairs = PairSampler([[torch.rand(3, 80, 80)]], [torch.rand(3, 160, 160)], training.patch, 2, seed=0)
    history = train_esrgan(network, discriminator, pairs, training, log_every=1)
    assert len(history.curve("pixel")[1]) == 2 and len(history.curve("adversarial")[1]) == 1
    assert not torch.equal(before, network.first.weight)
