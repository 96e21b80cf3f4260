"""Refinement networks: the classical result to begin with, any size, one budget, and training that improves on it."""

from dataclasses import replace

import pytest
import torch

from sr_utils.base import BASE_HYBRID, generic_results, train_base_refinement
from sr_utils.checkpoints import load_model
from sr_utils.datasets import open_data_root
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, DiscriminatorConfig
from sr_utils.evaluate import bicubic
from sr_utils.files import read_json
from sr_utils.hybrid import (
    CLASSICAL,
    REFINEMENTS,
    RefinementConfig,
    RefinementNetwork,
    classical_results,
    refine_image,
)
from sr_utils.images import quantize, save_image
from sr_utils.training import train_esrgan

SMALL = {"features": 8, "blocks": 1}


def noisy(seed=0, size=(40, 48)):
    """A ramp with noise."""
    chance = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.2, 0.8, size[1]).expand(3, *size)
    return (ramp + 0.05 * torch.randn(ramp.shape, generator=chance)).clamp(0, 1)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_every_classical_method_enlarges_and_stays_in_range(name, scale):
    result = CLASSICAL[name](noisy(size=(33, 40)), scale)
    assert result.shape == (3, 33 * scale, 40 * scale)
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("name", ["non_local_means", "shrunk_spectrum"])
def test_denoising_methods_come_nearer_to_the_truth(name):
    truth = torch.linspace(0.2, 0.8, 96).expand(3, 80, 96)
    errors = {each: (CLASSICAL[each](noisy(), 2) - truth).square().mean() for each in ("bicubic", name)}
    assert errors[name] < errors["bicubic"] / 3


@pytest.mark.parametrize("name", REFINEMENTS)
def test_an_untrained_network_returns_its_first_classical_result(name):
    network, low = RefinementNetwork(REFINEMENTS[name]), noisy()
    expected = quantize(CLASSICAL[network.config.inputs[0]](low, 2))
    assert torch.equal(refine_image(network, low, 2), expected)
    if name == "refinement_bicubic":
        assert torch.equal(expected, bicubic(low, 2))


@pytest.mark.parametrize("size", [(16, 16), (17, 21), (30, 19)])
def test_any_size_is_kept(size):
    network = RefinementNetwork(RefinementConfig(("bicubic", "bicubic"), **SMALL))
    torch.nn.init.normal_(network.last.weight)
    assert network(torch.rand(2, 6, *size)).shape == (2, 3, *size)
    assert refine_image(network, torch.rand(3, *size), 2).shape == (3, 2 * size[0], 2 * size[1])


def test_unknown_methods_are_refused_in_a_sentence():
    for inputs in (("sharper",), ()):
        with pytest.raises(UserError, match="must name some of bicubic, non_local_means"):
            RefinementConfig(inputs)


def test_training_improves_on_the_classical_result_and_gradients_reach_every_parameter():
    torch.manual_seed(0)
    ramp = torch.linspace(0.1, 0.9, 128).expand(3, 96, 128)
    truths = [ramp, 1 - ramp]
    training = replace(BASE_HYBRID, pixel_steps=60, patch=32, batch=4, learning_rate=3e-3, ema_decay=0.9)
    pairs = generic_results(truths, 2, ("bicubic",), training)
    network = RefinementNetwork(RefinementConfig(("bicubic",), **SMALL))
    stack, truth = pairs.next(8)
    before = (network(stack) - truth).abs().mean()
    train_esrgan(network, Discriminator(DiscriminatorConfig(features=4)), pairs, training)
    assert (network(stack) - truth).abs().mean() < 0.95 * before
    network.zero_grad()
    network(stack).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_generic_results_are_aligned_and_go_on_where_they_stopped():
    truths = [torch.rand(3, 96, 104, generator=torch.Generator().manual_seed(index)) for index in range(2)]
    training = replace(BASE_HYBRID, patch=64)

    def sampler():
        return generic_results(truths, 2, ("bicubic", "shrunk_spectrum"), training)

    first = sampler()
    for _ in range(6):
        stack, truth = first.next(2)
    assert stack.shape == (2, 6, 64, 64) and truth.shape == (2, 3, 64, 64)
    assert first.numbers.max() > 0, "a photograph was degraded anew"
    again = sampler()
    again.load_state(first.state())
    assert all(torch.equal(one, other) for one, other in zip(first.next(2), again.next(2), strict=True))


def test_a_base_refinement_is_written_with_its_provenance_and_repeats(tmp_path):
    for index in range(4):
        image = torch.rand(3, 96, 112, generator=torch.Generator().manual_seed(index))
        save_image(image, tmp_path / "data" / "clean" / f"{index}.png")
    data = open_data_root(tmp_path / "data")
    training = replace(BASE_HYBRID, pixel_steps=3, patch=32, batch=2)
    options = {"name": "tiny", "config": RefinementConfig(("bicubic",), **SMALL), "scale": 2, "training": training}
    options["about"] = {"commit": "0"}
    paths = [
        train_base_refinement(data, tmp_path / part, state_path=tmp_path / f"{part}.safetensors", **options)
        for part in ("one", "other")
    ]
    one, other = (load_model(path, RefinementNetwork) for path in paths)
    assert one.config.features == 8
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    about = read_json(paths[0].with_suffix(".json"))
    assert about["steps"] == 3 and about["scale"] == 2 and about["data"]["photographs"] == 3
    assert not list(tmp_path.glob("*state*")) and not list(tmp_path.glob("one*.safetensors"))
    # Another training in the same place begins anew, and at another scale, too.
    options |= {"scale": 4, "training": replace(training, seed=1)}
    again = train_base_refinement(data, tmp_path / "one", state_path=tmp_path / "one.safetensors", **options)
    assert read_json(again.with_suffix(".json"))["scale"] == 4


def test_results_are_stacked_in_their_order():
    low = noisy()
    stack = classical_results(low, 2, ("shrunk_spectrum", "bicubic"))
    assert torch.equal(stack[3:], CLASSICAL["bicubic"](low, 2))
