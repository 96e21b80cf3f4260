"""Gain and noise of a latent: what is learned of them without pairs, what translation does, and the way back."""

import pytest
import torch

from sr_utils.gain_shift import GainShift
from sr_utils.latent_noise import LatentNoise, Population

CHANNELS = 3


def gain_shift(spread=0.3, coherence=1.0):
    """A shift in double precision whose parameters are away from their start."""
    torch.manual_seed(0)
    shift = GainShift(CHANNELS, coherence=coherence).double()
    for parameter in shift.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    shift.log_noise.data += 0.5
    return shift


def chance(images, height, width, *, strength=0.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, CHANNELS, height, width)
    normal, uniform = torch.randn(shape, generator=generator).double(), torch.rand(shape, generator=generator).double()
    return LatentNoise(normal, torch.full((images,), strength).double(), uniform)


def same_context(images, height, width):
    """The same colour everywhere, so that moments can be taken over positions."""
    torch.manual_seed(2)
    return torch.rand(1, 3, 1, 1).double().expand(images, 3, height, width)


def inner(maps):
    """Away from the border, where zero padding makes other features."""
    return maps[:, :, 1:-1, 1:-1].transpose(0, 1).flatten(1)


@pytest.mark.parametrize("coherence", [1.0, 0.4])
def test_a_clean_sample_has_the_mixtures_moments_and_translation_adds_gain_and_noise(coherence):
    shift, context = gain_shift(coherence=coherence), same_context(8, 128, 128)
    with torch.no_grad():
        clean = shift.sample_clean(chance(8, 128, 128), context)
        log_weight, log_variance = shift.mixture(context)
        rotation = shift.rotation()
        variance = (log_weight.exp() * log_variance.exp()).sum(2)[0, :, 5, 5]
        expected = rotation @ torch.diag(variance) @ rotation.T
        torch.testing.assert_close(torch.cov(inner(clean)), expected, rtol=0.05, atol=0.02)
        degraded = shift.transport(clean, chance(8, 128, 128, strength=0.7, seed=3), context)
        noise = (0.7 + shift.noise_log_variance(context)).exp()[0, :, 5, 5]
        expected = rotation @ torch.diag(shift.gains() ** 2 * variance + noise) @ rotation.T
        torch.testing.assert_close(torch.cov(inner(degraded)), expected, rtol=0.05, atol=0.02)
        torch.testing.assert_close(inner(degraded).mean(1), shift.average_mean(), rtol=0, atol=0.03)
        without = shift.transport(clean, chance(8, 128, 128, seed=3), context, temperature=0.0)
        torch.testing.assert_close(
            torch.cov(inner(without)),
            coherence**2 * rotation @ torch.diag(shift.gains() ** 2 * variance) @ rotation.T,
            rtol=0.05,
            atol=0.02,
        )


def test_detail_drawn_strip_by_strip_is_that_drawn_at_once(monkeypatch):
    torch.manual_seed(0)
    shift = gain_shift(coherence=0.5)
    rotated, uniform, context = (torch.rand(1, 3, 21, 9, dtype=torch.float64) for _ in range(3))
    whole = shift._detail_variance(rotated, uniform, context, None)
    monkeypatch.setattr("sr_utils.gain_shift.ROWS", 8)
    torch.testing.assert_close(shift._detail_variance(rotated, uniform, context, None), whole)


def test_coherence_changes_what_the_detail_is_and_not_what_it_looks_like():
    """Every statistic of the degraded latents stays, fourth moments too; only their tie to the clean ones loosens."""
    context = same_context(16, 128, 128)
    seen = []
    for coherence in (1.0, 0.4):
        shift = gain_shift(coherence=coherence)
        shift.log_noise.data.fill_(-20)
        with torch.no_grad():
            clean = shift.sample_clean(chance(16, 128, 128), context)
            degraded = shift.transport(clean, chance(16, 128, 128, seed=3), context)
            clean, degraded = (torch.einsum("ji,njhw->nihw", shift.rotation(), part) for part in (clean, degraded))
        clean, degraded = inner(clean), inner(degraded) - shift.mean.detach()[:, None]
        slope = (clean * degraded).mean(1) / clean.square().mean(1) / shift.gains().detach()
        torch.testing.assert_close(slope, torch.full_like(slope, coherence), rtol=0, atol=0.02)
        seen.append(torch.stack([degraded.square().mean(1), degraded.pow(4).mean(1).sqrt()]))
    torch.testing.assert_close(*seen, rtol=0.05, atol=0)


@pytest.mark.parametrize("coherence", [1.0, 0.4])
def test_going_back_gives_the_clean_distribution_again_and_its_mean_is_the_best_estimate(coherence):
    shift, context = gain_shift(coherence=coherence), same_context(16, 128, 128)
    population = Population(1).double()
    with torch.no_grad():
        clean = shift.sample_clean(chance(16, 128, 128), context)
        degraded = shift.transport(clean, chance(16, 128, 128, seed=3), context)
        back = shift.transport_back(degraded, chance(16, 128, 128, seed=4), context, population)
        torch.testing.assert_close(torch.cov(inner(back)), torch.cov(inner(clean)), rtol=0.05, atol=0.02)
        mean = shift.transport_back(degraded, chance(16, 128, 128), context, population, temperature=0.0)
        # What is left of an estimate that is the posterior's mean is uncorrelated with whatever was seen.
        error, seen = inner(clean - mean), inner(degraded)
        for function in (seen, seen**3, seen.tanh()):
            correlation = torch.corrcoef(torch.cat([error, function]))[:CHANNELS, CHANNELS:]
            assert correlation.abs().max() < 0.02
        assert (inner(clean - mean) ** 2).mean() < (inner(clean - back) ** 2).mean()


def test_gain_and_noise_are_learned_from_sets_that_are_not_paired():
    """Two unpaired sets of the same kind: the scene's roughness varies and is known, so both numbers can be told."""
    torch.manual_seed(0)
    roughness = torch.rand(2, 64, 1, 16, 16) * 3 - 2
    clean, other = roughness.exp() * torch.randn(2, 64, CHANNELS, 16, 16)
    gain, deviation = torch.tensor([0.5, 0.8, 1.0])[:, None, None], torch.tensor([0.5, 0.3, 0.2])[:, None, None]
    degraded = gain * other + deviation * torch.randn_like(other)
    shift, population = GainShift(CHANNELS), Population(1)
    shift.turn.data.zero_()  # the channels are the directions here, so leave them
    shift.turn.requires_grad_(False)
    contexts = [torch.cat([each, torch.full((64, 2, 16, 16), 0.5)], dim=1) for each in roughness]
    optimiser = torch.optim.Adam([value for value in shift.parameters() if value.requires_grad], lr=0.02)
    for _ in range(300):
        of_clean = shift.clean_log_prob(clean, contexts[0])
        of_degraded = shift.degraded_log_prob(degraded, contexts[1], population)[:, 0]
        optimiser.zero_grad()
        (-(of_clean + of_degraded).mean() / clean[0].numel()).backward()
        optimiser.step()
    torch.testing.assert_close(shift.gains().detach(), gain.flatten(), rtol=0.1, atol=0)
    flat = torch.tensor([-2.0, 0.5, 0.5])[None, :, None, None]  # where the noise is most of what there is
    found = (0.5 * shift.noise_log_variance(flat)).exp().flatten().detach()
    torch.testing.assert_close(found, deviation.flatten(), rtol=0.1, atol=0)


def test_noise_follows_the_colour_of_the_condition():
    shift, context = gain_shift(), same_context(1, 4, 4).clone()
    before = shift.noise_log_variance(context)
    context[:, :, :, 2:] = 0.9
    after = shift.noise_log_variance(context)
    assert torch.equal(before[..., :2], after[..., :2]) and not torch.equal(before[..., 2:], after[..., 2:])


@pytest.mark.parametrize("strengths", [1, 5])
def test_a_population_is_a_distribution_and_finds_the_strength_of_an_image(strengths):
    torch.manual_seed(0)
    population = Population(strengths)
    assert population.log_weights().exp().sum().item() == pytest.approx(1)
    drawn = population.draw(2000, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == set(population.log_strengths.tolist())
    shift, context = gain_shift().float(), same_context(4, 32, 32).float()
    for strength in population.log_strengths:
        noise = chance(4, 32, 32, strength=strength.item()).to(context)
        degraded = shift.transport(shift.sample_clean(chance(4, 32, 32, seed=9).to(context), context), noise, context)
        log_prob = shift.degraded_log_prob(degraded, context, population)
        assert log_prob.shape == (4, strengths)
        assert (population.most_likely(log_prob) == strength).all()


def test_flatter_scenes_are_not_taken_for_a_gain():
    """Half the contrast in the degraded set: the coarsest latent's best gains stay 1, and the others are right."""
    torch.manual_seed(0)
    roughness = torch.rand(2, 64, 1, 16, 16) * 3 - 2
    clean, other = roughness.exp() * torch.randn(2, 64, 4, 16, 16)
    gain = torch.tensor([1.0, 1.0, 1.0, 0.5])
    degraded = 0.5 * gain[:, None, None] * other + 0.1 * torch.randn_like(other)
    shift, population = GainShift(4, coarsest=True), Population(2)
    shift.turn.data.zero_()
    shift.turn.requires_grad_(False)
    contexts = [torch.cat([each, torch.full((64, 2, 16, 16), 0.5)], dim=1) for each in roughness]
    learned = [value for value in (*shift.parameters(), *population.parameters()) if value.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=0.02)
    for _ in range(300):
        of_clean = shift.clean_log_prob(clean, contexts[0])
        of_degraded = population.over_strengths(shift.degraded_log_prob(degraded, contexts[1], population))
        optimiser.zero_grad()
        (-(of_clean + of_degraded).mean() / clean[0].numel()).backward()
        optimiser.step()
    assert shift.gains()[:3].log().mean().item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(shift.gains().detach(), gain, rtol=0.1, atol=0)
    assert population.log_contrast.exp().item() == pytest.approx(0.5, rel=0.1)
    context = contexts[1][:1]
    with torch.no_grad():
        flat = LatentNoise(torch.zeros(1, 4, 16, 16), torch.zeros(1))
        translated = shift.transport(clean[:1], flat, context)
    expected = shift.mean[:, None, None] + shift.gains()[:, None, None] * clean[:1]
    torch.testing.assert_close(translated, expected.detach())
