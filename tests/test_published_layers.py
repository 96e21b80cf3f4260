"""The published layers, held to what the authors' code answered (tests/parity) and to the plain twin."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.plain_deflow import PlainDeFlow
from sr_utils import conditional_network
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow, DeFlowConfig, condition_of, official_config
from sr_utils.deflow import load_official as load_official_deflow
from sr_utils.errors import UserError
from sr_utils.level_features import whole_features
from sr_utils.published_layers import DividingCoupling, PublishedFlowStep, PublishedSplit

PARITY = Path(__file__).parent / "parity" / "deflow"


@pytest.fixture(scope="module")
def reference():
    """The released code's weights, inputs and answers."""
    weights = {name: value.float() for name, value in load_file(PARITY / "state_dict.safetensors").items()}
    return weights, load_file(PARITY / "io.safetensors"), json.loads((PARITY / "config.json").read_text())


@pytest.fixture(scope="module")
def model(reference):
    weights, _, config = reference
    return load_official_deflow(weights, config)


def test_likelihood_latents_and_images_are_the_released_codes(model, reference):
    _, io, _ = reference
    with torch.no_grad():
        likelihood = model(io["image"], io["condition"], io["domain"])
        latents = model.encode(io["image"], io["condition"])
        decoded = model.decode([io["shifted_latent_0"], io["shifted_latent_1"]], io["condition"])
    torch.testing.assert_close(likelihood, io["nll_bits_per_dim"], rtol=1e-5, atol=0)
    for index, latent in enumerate(latents):
        torch.testing.assert_close(latent, io[f"latent_{index}"], rtol=0, atol=3e-5)
    torch.testing.assert_close(decoded, io["decoded_from_shifted"], rtol=0, atol=3e-5)


def test_any_patch_size_is_accepted(model):
    image = torch.rand(1, 3, 64, 104, generator=torch.Generator().manual_seed(0))
    condition = condition_of(image, 8)
    with torch.no_grad():
        back = model.decode(model.encode(image, condition), condition)
    torch.testing.assert_close(back, image, rtol=0, atol=1e-4)


def test_a_configuration_that_does_not_fit_is_named(reference):
    weights, _, config = reference
    with pytest.raises(UserError, match="not of a released DeFlow of these sizes"):
        load_official_deflow(weights, {**config, "K": 3})
    with pytest.raises(UserError, match="not of a released DeFlow of these sizes"):
        load_official_deflow(weights, {**config, "hidden_channels": 8})
    with pytest.raises(UserError, match="something"):
        load_official_deflow({**weights, "something": torch.zeros(1)}, config)


def test_the_configuration_is_read_off_the_weights(reference, model):
    weights, _, _ = reference
    found = official_config(weights)
    same = {name: getattr(model.config, name) for name in ("steps", "levels", "hidden", "encoder_blocks", "growth")}
    assert {name: getattr(found, name) for name in same} == same
    assert found.stacked_blocks == (0, 1, 2, 3) and found.condition_factor == 8 and found.mixing_steps == 2
    with pytest.raises(UserError, match="stack 4 of 4 blocks; give their indices"):
        official_config(weights, stacked_blocks=(0, 1))
    with pytest.raises(UserError, match="not the weights of a released DeFlow"):
        official_config({"fc.weight": torch.zeros(1)})


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("stacked", [(), (0, 1)])
def test_every_published_size_is_a_flow(scale, stacked):
    config = DeFlowConfig.published(
        scale=scale, steps=1, blocks=2, stacked_blocks=stacked, hidden=8, features=8, growth=4, initial_shift=0.5
    )
    torch.manual_seed(0)
    model = DeFlow(config).double().train()
    image = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    condition = condition_of(image, scale)
    model(image, condition, torch.tensor([CLEAN, DEGRADED]))
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    model(image, condition, torch.tensor([CLEAN, DEGRADED])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        latents = model.encode(image, condition)
        assert [latent.shape[1] for latent in latents] == [6, 96]
        assert (model.decode(latents, condition) - image).abs().max() < 1e-9
        assert torch.isfinite(model.translate(image, condition)).all()


@pytest.mark.parametrize(
    "layer",
    [
        DividingCoupling(6, 3, 8, 0.001),
        PublishedFlowStep(6, 3, 8, 0.001),
        PublishedFlowStep(6, 3, 8, 0.001, conditional=False),
        PublishedSplit(6),
    ],
    ids=["coupling", "step", "mixing step", "split"],
)
def test_layers_invert_and_report_their_log_determinant(layer):
    torch.manual_seed(0)
    layer = layer.double().eval()
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    z = torch.randn(1, 6, 2, 3, dtype=torch.float64)
    features = whole_features(torch.randn(1, 3, 2, 3, dtype=torch.float64))

    def flat(value):
        out = layer(value, features)
        return torch.cat([part.flatten() for part in out[:-1]])

    jacobian = torch.autograd.functional.jacobian(flat, z).reshape(36, 36)
    *parts, log_det = layer(z, features)
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian).logabsdet)
    assert (layer.inverse(*parts, features) - z).abs().max() < 1e-9


def twins(*, dtype=torch.float64, **choices):
    """A published DeFlow and its plain twin, after their first batch and with parameters away from their start."""
    sizes = {"steps": 2, "blocks": 4, "stacked_blocks": (0, 1, 2, 3), "hidden": 16, "features": 12, "growth": 4}
    config = DeFlowConfig.published(**{**sizes, "initial_shift": 0.5, **choices})
    torch.manual_seed(0)
    fast, plain = DeFlow(config).to(dtype).train(), PlainDeFlow(config).to(dtype).train()
    plain.load_state_dict(fast.state_dict())
    inputs = batch(config, 32, 48, dtype)
    for model in (fast, plain):
        torch.manual_seed(1)
        model(*inputs)
    return fast, plain


def moved(fast, plain):
    """Both twins with the same random parameters, in evaluation mode."""
    for parameter in plain.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    fast.load_state_dict(plain.state_dict())
    return fast.eval(), plain.eval()


def batch(config, height, width, dtype):
    """Images, conditions and domains, one of each."""
    image = torch.rand(2, 3, height, width, dtype=dtype)
    return image, condition_of(image, config.condition_factor), torch.tensor([CLEAN, DEGRADED])


def distance(found, expected):
    """The distance of two tensors relative to the second's norm."""
    return ((found - expected).norm() / expected.norm()).item()


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["double", "single"]
)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("stacked", [(), (0, 1, 2, 3)], ids=["none", "stacked"])
@pytest.mark.parametrize("size", [(16, 24), (40, 24), (72, 56), (96, 128)], ids=str)
@PRECISIONS
def test_the_plain_twin_gives_the_same_numbers(scale, stacked, size, dtype, tolerance):
    fast, plain = moved(*twins(scale=scale, stacked_blocks=stacked, dtype=dtype))
    image, condition, domain = batch(fast.config, *size, dtype)
    # Gradients jump where a rectifier's input changes sign, so the twin is asked in double precision: in single it
    # may itself stand on the wrong side.
    exact = deepcopy(plain).double()
    found, expected = fast(image, condition, domain), exact(image.double(), condition.double(), domain)
    assert distance(found, expected) < tolerance
    found.sum().backward()
    expected.sum().backward()
    for (name, mine), (_, other) in zip(fast.named_parameters(), exact.named_parameters(), strict=True):
        assert distance(mine.grad, other.grad) < tolerance, name
    with torch.no_grad():
        latents = plain.encode(image, condition)
        for mine, other in zip(fast.encode(image, condition), latents, strict=True):
            assert distance(mine, other) < tolerance
        assert distance(fast.decode(latents, condition), plain.decode(latents, condition)) < tolerance
    translated = [
        model.translate(image, condition, generator=torch.Generator().manual_seed(0)) for model in (fast, plain)
    ]
    assert distance(*translated) < tolerance


@pytest.mark.parametrize("scale", [1, 2])
def test_a_condition_larger_than_the_coarse_levels_is_no_trouble(scale):
    fast, plain = moved(*twins(scale=scale))
    image, condition, domain = batch(fast.config, 40, 24, torch.float64)
    assert distance(fast(image, condition, domain), plain(image, condition, domain)) < 1e-10
    with torch.no_grad():
        decoded = fast.decode(fast.encode(image, condition), condition)
    assert (decoded - image).abs().max() < 1e-9


@pytest.mark.parametrize("scale", [4, 8])
def test_the_plain_twin_gives_the_same_numbers_with_the_local_shift(scale):
    fast, plain = moved(*twins(scale=scale, shift="local"))
    image, condition, domain = batch(fast.config, 32, 48, torch.float64)
    found, expected = fast(image, condition, domain), plain(image, condition, domain)
    assert distance(found, expected) < 1e-10
    found.sum().backward()
    expected.sum().backward()
    for (name, mine), (_, other) in zip(fast.named_parameters(), plain.named_parameters(), strict=True):
        assert distance(mine.grad, other.grad) < 1e-10, name


@PRECISIONS
def test_a_first_batch_sets_the_actnorms_of_both_twins_alike(dtype, tolerance):
    fast, plain = twins(dtype=dtype)
    state = plain.state_dict()
    for name, value in fast.state_dict().items():
        if name.endswith(".initialised"):
            assert value
        elif ".norm." in name or ".actnorm." in name:
            torch.testing.assert_close(value, state[name], rtol=tolerance, atol=tolerance)


def test_gradients_reach_an_image_and_its_condition():
    fast, plain = moved(*twins())
    image, condition, domain = batch(fast.config, 16, 24, torch.float64)
    image.requires_grad_()
    condition.requires_grad_()
    found, expected = (
        torch.autograd.grad(model(image, condition, domain).sum(), (image, condition)) for model in (fast, plain)
    )
    for mine, other in zip(found, expected, strict=True):
        assert distance(mine, other) < 1e-10


def bytes_kept_and_gradients(model, image, condition, domain):
    """What a training step keeps for the backward pass, in bytes, and the gradient of each parameter."""
    torch.manual_seed(2)
    model.zero_grad(set_to_none=True)
    sizes = {}

    def count(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = model(image, condition, domain).sum()
    loss.backward()
    return sum(sizes.values()), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("form", ["compact", "published"])
def test_checkpointing_changes_the_memory_and_nothing_else(form):
    fast, _ = moved(*twins())
    if form == "compact":
        fast = DeFlow(DeFlowConfig(steps=2, hidden=8, features=6, encoder_blocks=2)).double()
        for parameter in fast.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    config = replace(fast.config, checkpointing=True)
    again = DeFlow(config).double()
    again.load_state_dict(fast.state_dict())
    image, condition, domain = batch(config, 32, 48, torch.float64)
    (kept, gradients), (kept_again, gradients_again) = (
        bytes_kept_and_gradients(model.train(), image, condition, domain) for model in (fast, again)
    )
    assert kept_again < 0.7 * kept
    for name, gradient in gradients.items():
        assert distance(gradients_again[name], gradient) < 1e-12, name


def test_an_injectors_map_is_kept_or_made_again_and_nothing_else_changes(monkeypatch):
    fast, _ = moved(*twins())
    image, condition, domain = batch(fast.config, 32, 48, torch.float64)
    kept, gradients = {}, {}
    for limit in (0, float("inf")):
        monkeypatch.setattr(conditional_network, "LARGE_MAP", limit)
        kept[limit], gradients[limit] = bytes_kept_and_gradients(fast, image, condition, domain)
    maps = 2 * fast.config.steps * sum(16 * (32 >> level) * (48 >> level) for level in (1, 2, 3))
    assert kept[float("inf")] - kept[0] == maps * image.element_size()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[float("inf")][name], gradient), name


def test_without_gradients_the_networks_of_a_level_overwrite_one_map():
    fast, _ = moved(*twins())
    _, condition, _ = batch(fast.config, 32, 48, torch.float64)
    injectors = [step.coupling.injector for step in fast.steps[0] if step.coupling is not None]
    features, once = (fast._features(condition, 32, 48, twice=twice)[0] for twice in (True, False))
    with torch.no_grad():
        answers = [injector(None, features) for injector in injectors]
    assert list(features.scratch) == [16] and once.scratch is None
    for injector, answer in zip(injectors, answers, strict=True):
        assert distance(answer, injector(None, once)) < 1e-12


def test_below_the_finest_level_two_passes_convolve_the_features_once():
    fast, _ = moved(*twins())
    image, condition, _ = batch(fast.config, 32, 48, torch.float64)
    finest, *coarser = fast._features(condition, *image.shape[2:], twice=True)
    assert finest.convolved is None
    for features, steps in zip(coarser, fast.steps[1:], strict=True):
        network = next(step.coupling.coupling for step in steps if step.coupling is not None)
        channels = network[0].conv.in_channels - features.maps().shape[1]
        first, second = torch.randn(2, len(image), channels, *features.own.shape[2:], dtype=torch.float64)
        with torch.no_grad():
            network(first, features)
            kept = features.convolved[network]
            answer = network(second, features)
        assert features.convolved[network] is kept
        assert distance(answer, network(second, replace(features, convolved=None))) < 1e-12


def test_translation_asks_every_injector_once():
    fast, _ = moved(*twins())
    asked = []
    for level in fast.steps:
        for step in level:
            if step.coupling is not None:
                step.coupling.injector.register_forward_hook(lambda *_: asked.append("injector"))
                step.coupling.coupling.register_forward_hook(lambda *_: asked.append("coupling"))
    image, condition, _ = batch(fast.config, 16, 24, torch.float64)
    for translate in (fast.translate, fast.translate_back):
        asked.clear()
        translate(image, condition)
        assert asked.count("injector") == 6 and asked.count("coupling") == 12


def test_released_weights_give_the_plain_twins_answers(model):
    plain = PlainDeFlow(model.config).eval()
    plain.load_state_dict(model.state_dict())
    image, condition, domain = batch(model.config, 64, 104, torch.float32)
    with torch.no_grad():
        assert distance(model(image, condition, domain), plain(image, condition, domain)) < 1e-5
        for mine, other in zip(model.encode(image, condition), plain.encode(image, condition), strict=True):
            assert distance(mine, other) < 1e-5


@pytest.mark.parametrize("scale", [3, 12])
def test_a_condition_that_no_doublings_reach_is_refused(reference, scale):
    weights, _, config = reference
    said = f"condition_factor={scale} of DeFlowConfig must be a power of two in the published form"
    with pytest.raises(UserError, match=said):
        DeFlowConfig.published(scale=scale)
    with pytest.raises(UserError, match=said):
        load_official_deflow(weights, {**config, "scale": scale})


@pytest.mark.parametrize("shape", [(), (0,), (0, 0, 0, 0), (1, 1, 1, 1), (3, 2, 3, 3)], ids=str)
@pytest.mark.parametrize("name", ["mean_shift", "RRDB.conv_first.weight", "all"])
def test_tensors_of_shapes_that_fit_no_flow_are_one_sentence(reference, name, shape):
    weights = {key: torch.zeros(shape) if name in (key, "all") else value for key, value in reference[0].items()}
    with pytest.raises(UserError):
        load_official_deflow(weights, official_config(weights))


def test_weights_without_a_level_are_one_sentence(reference):
    # Three channels are what an image has before any squeeze.
    weights = {key: value for key, value in reference[0].items() if not key.endswith(".mean_shift")}
    with pytest.raises(UserError, match="their shapes do not fit together"):
        official_config(weights | {"mean_shift": torch.zeros(3)})
