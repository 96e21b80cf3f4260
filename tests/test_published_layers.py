"""The published layers and released checkpoints, held to what the authors' code answered (tests/parity)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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
    torch.testing.assert_close(likelihood, io["nll_bits_per_dim"], rtol=1e-4, atol=0)
    for index, latent in enumerate(latents):
        torch.testing.assert_close(latent, io[f"latent_{index}"], rtol=0, atol=1e-4)
    torch.testing.assert_close(decoded, io["decoded_from_shifted"], rtol=0, atol=1e-4)


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
