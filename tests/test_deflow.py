"""DeFlow as a density and as a translator: inversion, likelihood, covariance, sampling, normalisation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_utils.checkpoints import load_model
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow, DeFlowConfig, condition_of, reconfigured
from sr_utils.errors import UserError
from sr_utils.gain_shift import GainShift
from sr_utils.latent_shift import ConstantShift

SMALL = DeFlowConfig(steps=2, hidden=8, features=6, encoder_blocks=1)
NAMES = ["constant", "local", "gain"]
KINDS = [replace(SMALL, shift=name) for name in NAMES]
CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "base_deflow.safetensors"


def random_model(config=SMALL, spread=0.05):
    """A double-precision model with initialised actnorms and parameters away from their start."""
    torch.manual_seed(0)
    model = DeFlow(config).double().train()
    image = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    model(image, condition_of(image, config.condition_factor), torch.tensor([0, 1, 0, 1]))
    for parameter in model.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return model.eval()


def moments_at(shift, context, row, column):
    """Mean and covariance of a degraded latent at one position, put together without the shift's own formulas."""
    if isinstance(shift, ConstantShift):
        return shift.mean, torch.eye(len(shift.mean)).double() + shift.factor @ shift.factor.T
    mean, log_variance = shift.moments(context)
    where = (0, slice(None), row, column) if context is not None else (0, slice(None), 0, 0)
    rotation = shift.rotation()
    return rotation @ mean[where], rotation @ torch.diag(log_variance[where].exp()) @ rotation.T


@pytest.fixture
def image():
    torch.manual_seed(3)
    return torch.rand(2, 3, 32, 48, dtype=torch.float64)


@pytest.mark.parametrize("levels,factor", [(1, 8), (2, 4), (3, 8), (3, 2)])
def test_decode_inverts_encode(levels, factor):
    config = replace(SMALL, levels=levels, condition_factor=factor)
    model = random_model(config)
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    condition = condition_of(image, factor)
    decoded = model.decode(model.encode(image, condition), condition)
    assert (decoded - image).abs().max() < 1e-9


@pytest.mark.parametrize("levels,factor,multiple", [(3, 8, 8), (3, 2, 8), (1, 8, 8), (3, 12, 24), (2, 3, 12)])
def test_sides_that_fit_the_squeezes_and_the_condition(levels, factor, multiple):
    config = replace(SMALL, levels=levels, condition_factor=factor)
    assert config.side_multiple == multiple
    model, image = DeFlow(config).eval(), torch.rand(1, 3, multiple, 2 * multiple)
    with torch.no_grad():
        assert model(image, model.condition(image), torch.tensor([CLEAN])).isfinite().all()


def test_latents_have_as_many_numbers_as_the_image(image):
    latents = random_model().encode(image, condition_of(image, 8))
    assert [tuple(latent.shape) for latent in latents] == [(2, 6, 16, 24), (2, 12, 8, 12), (2, 48, 4, 6)]
    assert sum(latent[0].numel() for latent in latents) == image[0].numel()


@pytest.mark.parametrize("config", KINDS[:2], ids=NAMES[:2])
@pytest.mark.parametrize("domain", [CLEAN, DEGRADED])
def test_likelihood_equals_the_change_of_variables_by_autograd(domain, config):
    model = random_model(config)
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    condition = condition_of(image, 8)

    def flat(value):
        return torch.cat([latent.flatten() for latent in model.encode(value, condition)])

    jacobian = torch.autograd.functional.jacobian(flat, image).reshape(192, 192)
    log_density = torch.linalg.slogdet(jacobian).logabsdet
    for shift, (latent, context) in zip(model.shifts, model.encode_in_context(image, condition), strict=True):
        for row, column in np.ndindex(*latent.shape[2:]):
            mean, covariance = moments_at(shift, context, row, column) if domain == DEGRADED else (None, None)
            normal = torch.distributions.MultivariateNormal
            channels = latent.shape[1]
            standard = normal(torch.zeros(channels).double(), torch.eye(channels).double())
            density = standard if mean is None else normal(mean, covariance)
            log_density = log_density + density.log_prob(latent[0, :, row, column])
    found = model(image, condition, torch.tensor([domain]))
    torch.testing.assert_close(found[0], -log_density / (192 * math.log(2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("domain", [CLEAN, DEGRADED])
def test_likelihood_of_the_gain_shift_is_a_mixture_over_strengths_and_components(domain):
    model = random_model(replace(SMALL, shift="gain"))
    model.population.weights.data = torch.tensor([0.3, -0.5, 0.1, 0.7, 0.0]).double()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    condition = condition_of(image, 8)

    def flat(value):
        return torch.cat([latent.flatten() for latent in model.encode(value, condition)])

    jacobian = torch.autograd.functional.jacobian(flat, image).reshape(192, 192)
    each_strength = []
    for strength in model.population.log_strengths:
        total = torch.zeros(())
        for shift, (latent, context) in zip(model.shifts, model.encode_in_context(image, condition), strict=True):
            log_weight, log_variance = shift.mixture(context)
            variance, mean = log_variance.exp(), torch.zeros(()).double()
            if domain == DEGRADED:
                noise = (strength + shift.noise_log_variance(context)).exp()
                gain = (model.population.log_contrast.exp() * shift.gains())[:, None, None, None]
                variance, mean = gain**2 * variance + noise.unsqueeze(2), shift.mean[:, None, None, None]
            components = torch.distributions.Normal(mean, variance.sqrt().movedim(2, -1))
            weights = torch.distributions.Categorical(logits=log_weight.movedim(2, -1))
            rotated = torch.einsum("ji,njhw->nihw", shift.rotation(), latent)
            mixture = torch.distributions.MixtureSameFamily(weights, components)
            total = total + mixture.log_prob(rotated).sum()
        each_strength.append(total)
    log_density = torch.logsumexp(torch.stack(each_strength) + model.population.log_weights(), 0)
    log_density = log_density + torch.linalg.slogdet(jacobian).logabsdet
    found = model(image, condition, torch.tensor([domain]))
    torch.testing.assert_close(found[0], -log_density / (192 * math.log(2)), rtol=1e-9, atol=1e-9)


def test_training_adds_noise_and_its_bits_and_evaluation_neither(image):
    model, domain = random_model(), torch.tensor([0, 1])
    condition = condition_of(image, 8)
    assert torch.equal(model(image, condition, domain), model(image, condition, domain))
    noisy = model(image, condition, domain, noise=True)
    assert not torch.equal(noisy, model(image, condition, domain, noise=True))
    assert (noisy - model(image, condition, domain) - 8).abs().max() < 2  # ln(256) is 8 bits


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_gradients_reach_every_parameter(image, config):
    model = random_model(config).train()
    model(image, condition_of(image, 8), torch.tensor([0, 1])).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_translate_repeats_by_seed_and_temperature_zero_has_no_randomness(image, config):
    model, condition = random_model(config), condition_of(image, 8)

    def draw(seed, temperature=1.0):
        return model.translate(image, condition, temperature=temperature, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(draw(1, 0.0), draw(2, 0.0))
    assert not draw(1).requires_grad


def no_shift(shift):
    """Make a shift leave every latent as it is."""
    shift.mean.data.zero_()
    if isinstance(shift, ConstantShift):
        shift.factor.data.zero_()
    elif isinstance(shift, GainShift):
        shift.coherence = 1.0
        shift.log_gain.data.zero_()
        shift.log_noise.data.fill_(-80.0)
    else:
        shift.log_variance.data.zero_()
        for parameter in shift.local.parameters() if shift.local else ():
            parameter.data.zero_()


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_without_a_shift_translation_returns_the_image(image, config):
    model = random_model(config)
    for shift in model.shifts:
        no_shift(shift)
    assert (model.translate(image, condition_of(image, 8)) - image).abs().max() < 1e-9


def test_with_the_gain_shift_noise_adds_to_the_latents_whatever_the_image_shows(image):
    model, condition = random_model(replace(SMALL, shift="gain")), condition_of(image, 8)
    noise = 0.1 * torch.randn_like(image)
    effects = []
    for scene in (image, torch.zeros_like(image)):
        pairs = zip(model.encode(scene + noise, condition), model.encode(scene, condition), strict=True)
        effects.append([noisy - clean for noisy, clean in pairs])
    for found, expected in zip(*effects, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_local_shift_sees_the_degraded_coarse_part_not_the_clean_one(image):
    model, condition = random_model(replace(SMALL, shift="local")), condition_of(image, 8)
    seen = []
    for shift in model.shifts[:-1]:
        shift.local.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    translated = model.translate(image, condition, generator=torch.Generator().manual_seed(0))
    expected = model.encode_in_context(translated, condition)[:-1]
    for used, (_, again) in zip(reversed(seen), expected, strict=True):
        assert (used - again).abs().max() < 1e-9


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_translating_there_and_back_returns_the_image_where_nothing_was_drawn(image, config):
    model, condition = random_model(config), condition_of(image, 8)
    for shift in model.shifts:
        no_shift(shift)
    assert (model.translate_back(image, condition) - image).abs().max() < 1e-9


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
@pytest.mark.parametrize("domain", [CLEAN, DEGRADED])
def test_samples_have_the_latents_of_their_domain(config, domain):
    model, condition = random_model(config), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = model.sample(condition, domain, generator=generator)
    assert drawn.shape == (2, 3, 128, 128)
    latents, contexts = zip(*model.encode_in_context(drawn, condition), strict=True)
    strength = model.population.most_likely(model._log_prob_at_strengths(latents, contexts))
    for level, (shift, latent, context) in enumerate(zip(model.shifts, latents, contexts, strict=True)):
        noise = replace(model.draw_noise(2, 128, 128, generator=generator, uniform=True)[level], log_strength=strength)
        clean = latent if domain == CLEAN else shift.transport_back(latent, noise, context, model.population)
        if isinstance(shift, GainShift):
            log_weight, log_variance = shift.mixture(context)
            deviation = (log_weight.exp() * log_variance.exp()).sum(2).sqrt()
            clean = torch.einsum("ji,njhw->nihw", shift.rotation(), clean) / deviation
        assert abs(clean.mean()) < 0.05 and abs(clean.std() - 1) < 0.05
    assert torch.equal(*(model.sample(condition, domain, temperature=0.0) for _ in range(2)))


def test_degraded_samples_have_the_contrast_of_the_degraded_scenes():
    """Of every coordinate the variance is k² c² σ² and the noise's, whatever the coherence."""
    model, condition = random_model(replace(SMALL, shift="gain", coherence=0.3)), torch.full((4, 3, 16, 16), 0.4)
    model.population.log_contrast.data.fill_(-0.7)
    model.population.weights.data = torch.tensor([-50.0, -50.0, 0.0, -50.0, -50.0]).double()
    condition = condition.double()
    drawn = model.sample(condition, DEGRADED, generator=torch.Generator().manual_seed(0))
    latent, context = model.encode_in_context(drawn, condition)[0]
    shift = model.shifts[0]
    log_weight, log_variance = shift.mixture(context)
    clean = (log_weight.exp() * log_variance.exp()).sum(2).mean((0, 2, 3))
    expected = shift.gains() ** 2 * math.exp(-1.4) * clean + shift.noise_log_variance(context).exp().mean((0, 2, 3))
    rotated = torch.einsum("ji,njhw->nihw", shift.rotation(), latent) - shift.mean[:, None, None]
    torch.testing.assert_close(rotated.square().mean((0, 2, 3)), expected, rtol=0.06, atol=0)


def test_only_the_finest_details_are_drawn_afresh():
    model = DeFlow(replace(SMALL, shift="gain", coherence=0.3))
    assert [shift.coherence for shift in model.shifts] == [0.3] + [1.0] * (len(model.shifts) - 1)
    with pytest.raises(UserError, match="coherence=1.5 of DeFlowConfig must be a number from 0 to 1"):
        replace(SMALL, coherence=1.5)


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_a_reconfigured_copy_has_the_weights_type_and_every_bit_of_them(config):
    model = random_model(config)
    copy = reconfigured(model, blur=0.5)
    assert copy.config.blur == 0.5 and not copy.training
    for name, value in copy.state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype and torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("config", KINDS[:2], ids=NAMES[:2])
def test_a_reconfigured_copy_is_where_the_weights_are(config):
    assert all(value.is_meta for value in reconfigured(DeFlow(config).to("meta")).parameters())


def test_an_unknown_shift_is_one_sentence():
    with pytest.raises(UserError, match="shift 'moving' is not known; choose constant, local or gain"):
        DeFlowConfig(shift="moving")
    with pytest.raises(UserError, match="affine couplings, so shift='gain' does not suit it"):
        DeFlowConfig.published(shift="gain")


@pytest.mark.parametrize("level,told", [(0.05, True), (0.45, False)])
def test_a_normalisation_that_would_clip_is_refused(level, told):
    clean = [0.3 + 0.4 * torch.rand(3, 32, 32)]
    degraded = [level + 0.1 * torch.rand(3, 32, 32)]
    degraded[0][:, :4] = 0.9 if told else level
    model = DeFlow(replace(SMALL, domain_normalisation=True))
    if told:
        with pytest.raises(UserError, match="would push .* of the values out of range.*turn it off"):
            model.set_domain_statistics(clean, degraded)
        DeFlow(SMALL).set_domain_statistics(clean, degraded)
    else:
        model.set_domain_statistics(clean, degraded)


def test_domain_normalisation_matches_statistics_and_stays_a_density(image):
    config = replace(SMALL, domain_normalisation=True)
    model = random_model(config)
    clean, degraded = [image[0].float()], [(0.5 * image[1] + 0.2).float()]
    model.set_domain_statistics(clean, degraded)
    scale, offset = model._normalisation()
    moved = degraded[0] * scale.float() + offset.float()
    torch.testing.assert_close(moved.mean((1, 2)), clean[0].mean((1, 2)), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.std((1, 2)), clean[0].std((1, 2)), atol=1e-4, rtol=0)
    # A density integrates to one whatever the units, so stretching by s costs exactly log2(s) a dimension.
    plain = random_model(SMALL)
    plain.load_state_dict(model.state_dict())
    condition, domain = condition_of(image, 8), torch.tensor([DEGRADED, DEGRADED])
    by_hand = plain(image * scale + offset, condition * scale + offset, domain) - scale.log2().mean()
    torch.testing.assert_close(model(image, condition, domain), by_hand)


@pytest.mark.skipif(not CHECKPOINT.is_file(), reason="no base checkpoint yet")
def test_ten_thousand_sampled_patches_are_finite_and_of_sane_size():
    model = load_model(CHECKPOINT, DeFlow)
    generator = torch.Generator().manual_seed(0)
    furthest = 0.0
    for _ in range(20):
        # Smooth ramps, flat patches and white noise: what photographs hold and what they do not.
        ramp = torch.linspace(-0.5, 0.5, 16) * torch.rand(500, 3, 16, 1, generator=generator)
        noise = torch.randn(500, 3, 16, 16, generator=generator) * torch.rand(500, 1, 1, 1, generator=generator) / 4
        patch = (torch.rand(500, 3, 1, 1, generator=generator) + ramp + noise).clamp(0, 1)
        degraded = model.translate(patch, condition_of(patch, 8), temperature=1.2, generator=generator)
        assert torch.isfinite(degraded).all()
        furthest = max(furthest, degraded.abs().max().item())
    assert furthest < 3


@pytest.mark.parametrize("shift", ["gain", "local"])
def test_mixed_precision_changes_the_likelihood_by_less_than_a_hundredth_of_a_bit(shift):
    config = DeFlowConfig(steps=2, hidden=16, features=16, encoder_blocks=1, shift=shift)
    full = random_model(config).float()
    mixed = DeFlow(replace(config, mixed_precision=True))
    mixed.load_state_dict(full.state_dict())
    torch.manual_seed(3)
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), scale_factor=4, mode="bilinear")
    condition = condition_of(image, 8)
    seen = []
    mixed.steps[0][0].coupling.network[0].register_forward_hook(lambda *call: seen.append(call[2].dtype))
    likelihoods = [model(image, condition, torch.tensor([CLEAN, DEGRADED]), noise=False) for model in (full, mixed)]
    assert seen[0] == torch.bfloat16 and all(latent.dtype == torch.float32 for latent in mixed.encode(image, condition))
    assert not torch.equal(*likelihoods)
    torch.testing.assert_close(*likelihoods, rtol=0, atol=0.01)
    likelihoods[1].mean().backward()
    assert all(value.grad.dtype == torch.float32 for value in mixed.parameters() if value.grad is not None)
    # What was encoded is decoded by the same networks, so inversion loses nothing.
    decoded = mixed.decode(mixed.encode(image, condition), condition)
    assert (decoded - image).abs().max() < 1e-3


def test_the_published_form_has_full_precision_only():
    with pytest.raises(UserError, match="held to released numbers, so mixed_precision must be off"):
        DeFlowConfig.published(mixed_precision=True)
