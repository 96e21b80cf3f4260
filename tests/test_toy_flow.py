"""Flows of one and two pixels: invertible, honest about their densities, and able to learn a known degradation."""

import pytest
import torch

from sr_utils.latent_shift import ConstantShift, LocalShift
from sr_utils.toy_flow import MonotoneFlow, Scenes, ToyDeFlow, TriangularFlow, train_toy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stirred(module, spread=0.5):
    """The same module in double precision, away from its start."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return module


def test_a_monotone_flow_rises_runs_backwards_and_knows_its_slope():
    flow = stirred(MonotoneFlow())
    x = torch.linspace(-30, 30, 301, dtype=torch.float64)
    z, log_derivative = flow(x)
    assert (z.diff() > 0).all()
    torch.testing.assert_close(flow.inverse(z), x)
    slopes = torch.autograd.functional.jacobian(lambda values: flow(values)[0], x).diagonal()
    torch.testing.assert_close(slopes.log(), log_derivative)


def test_the_determinant_is_that_of_the_full_jacobian_and_images_come_back():
    flow = stirred(TriangularFlow(3, condition=2))
    x, h = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator())[:, :, :3].unbind()
    h = h[:, :2]
    z, log_determinant = flow(x, h)
    for index in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda v, i=index: flow(v[None], h[i : i + 1])[0][0], x[index])
        assert torch.equal(jacobian, jacobian.tril())
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_determinant[index])
    torch.testing.assert_close(flow.inverse(z, h), x)
    assert (flow(x, h + 1)[0] - z).abs().max() > 0.01


@pytest.mark.parametrize("domain", ["clean", "degraded"])
def test_densities_integrate_to_one(domain):
    model = ToyDeFlow(stirred(TriangularFlow(1)), stirred(ConstantShift(1, 0.5)))
    x = torch.linspace(-40, 40, 100_001, dtype=torch.float64)[:, None]
    density = getattr(model, f"{domain}_log_prob")(x).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-5)


def test_translated_images_are_distributed_as_the_degraded_density_says_and_restored_ones_as_the_clean():
    model = ToyDeFlow(stirred(TriangularFlow(1)), stirred(ConstantShift(1, 0.5))).requires_grad_(False)
    clean = model.flow.inverse(torch.randn(40_000, 1, dtype=torch.float64, generator=generator()))
    degraded = model.translate(clean, generator(1))
    places = torch.linspace(-40, 40, 50_001, dtype=torch.float64)
    shares = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    for images, log_prob in (
        (degraded, model.degraded_log_prob),
        (model.restore(degraded, generator(2)), model.clean_log_prob),
    ):
        density = log_prob(places[:, None]).exp()
        cumulated = torch.cumulative_trapezoid(density, places)
        expected = cumulated[torch.searchsorted(places, torch.quantile(images, shares))]
        torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)


def test_scenes_have_the_degradation_they_name():
    scenes = Scenes(gain=0.7)
    clean, degraded, h = scenes.draw(50_000, generator())
    texture = clean.log() - h
    torch.testing.assert_close(torch.cov(texture.T), scenes.texture_covariance(), atol=0.003, rtol=0)
    added = degraded.log() - h - 0.7 * texture
    # h is off by a little, which is in both.
    assert added.mean().item() == pytest.approx(scenes.offset, abs=0.01)
    assert added.std().item() == pytest.approx(scenes.noise, abs=0.01)
    assert h.mean().item() == pytest.approx(scenes.brightness, abs=0.01)


def test_content_is_learned_without_a_condition_and_the_degradation_with_it():
    scenes, evening = Scenes(), Scenes(brightness=-0.6, spread=0.4)
    clean, _, clean_h = scenes.draw(4000, generator())
    _, degraded, degraded_h = evening.draw(4000, generator(1))
    added = {}
    for given in (False, True):
        torch.manual_seed(0)
        model = ToyDeFlow(TriangularFlow(1, condition=int(given)), ConstantShift(1, 0.5))
        sets = [(images[:, :1], h if given else None) for images, h in ((clean, clean_h), (degraded, degraded_h))]
        losses = train_toy(model, *sets, steps=400)
        assert losses[-1] < losses[0]
        made = model.requires_grad_(False).translate(clean[:, :1], generator(2), clean_h if given else None)
        added[given] = made.clamp(min=0.02).log() - clean[:, :1].log()
    assert added[True].mean().item() == pytest.approx(scenes.offset, abs=0.06)
    assert added[True].std().item() == pytest.approx(scenes.noise, abs=0.08)
    assert added[False].mean() < scenes.offset - 0.45


def test_only_a_shift_that_may_shrink_finds_a_blur():
    blur = Scenes(gain=0.4, noise=0.05)
    clean, _, clean_h = blur.draw(4000, generator())
    _, degraded, degraded_h = blur.draw(4000, generator(1))
    spreads = []
    for shift in (ConstantShift(1, 0.5), LocalShift(1, 0.0, context_channels=0, hidden=1)):
        torch.manual_seed(0)
        model = ToyDeFlow(TriangularFlow(1, condition=1), shift)
        train_toy(model, (clean[:, :1], clean_h), (degraded[:, :1], degraded_h), steps=400)
        made = model.requires_grad_(False).translate(clean[:, :1], generator(2), clean_h)
        spreads.append((made.clamp(min=0.02).log() - clean_h).std().item())
    true = (degraded[:, :1].log() - degraded_h).std().item()
    assert spreads[0] > 1.4 * true and spreads[1] == pytest.approx(true, rel=0.2)


def test_training_is_the_same_for_the_same_seed():
    clean, degraded, _ = Scenes().draw(200, generator())
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = ToyDeFlow(TriangularFlow(2), ConstantShift(2, 0.5))
        runs.append(train_toy(model, (clean, None), (degraded, None), steps=5, batch=16, seed=seed))
    assert runs[0] == runs[1] != runs[2]
