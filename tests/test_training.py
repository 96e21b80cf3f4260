"""Training: it learns, it resumes bit for bit, it stops at the first value that is not finite."""

import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from sr_utils import training
from sr_utils.checkpoints import load_model
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.descent import Suspects, TrainingError, descend, learning_rate_at
from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, DiscriminatorConfig, PerceptualLoss, RRDBNet, RRDBNetConfig
from sr_utils.features import imagenet_features
from sr_utils.patch_samplers import PairSampler
from sr_utils.profiles import PROFILES
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_config import DeFlowTraining, ESRGANTraining, bfloat16_is_native

FLOW = DeFlowConfig(steps=2, hidden=8, features=8, encoder_blocks=1)
DEFLOW = DeFlowTraining(steps=6, patch=16, batch=4)
ESRGAN = ESRGANTraining(pixel_steps=3, gan_steps=3, patch=16, batch=2)
OTHER = "was written with other images, starting weights or settings of the network"


def smooth(count, seed, noise=0.0):
    """Images with structure: random ramps, and white noise of a given deviation."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 0.5, 48) * torch.rand(count, 3, 48, 1, generator=generator)
    return list((0.25 + ramp + noise * torch.randn(count, 3, 48, 48, generator=generator)).clamp(0, 1))


def run_deflow(config=DEFLOW, *, flow=FLOW, **options):
    torch.manual_seed(0)
    model = DeFlow(flow)
    return model, train_deflow(model, smooth(3, 0), smooth(3, 1, 0.02), config, log_every=1, **options)


def run_esrgan(config=ESRGAN, consistency=6.0, **options):
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1, consistency=consistency))
    truths = [torch.nn.functional.interpolate(image[None], scale_factor=2.0)[0] for image in smooth(3, 0)]
    pairs = PairSampler([[image] for image in smooth(3, 0, 0.05)], truths, config.patch, 2, seed=0)
    discriminator = Discriminator(DiscriminatorConfig(features=4))
    return network, train_esrgan(network, discriminator, pairs, config, log_every=1, **options)


@pytest.mark.parametrize(("shift", "of_degraded"), [("local", 0.5), ("gain", 0.1)])
def test_deflow_learns_both_domains(shift, of_degraded):
    """White noise of deviation 0.02 alone costs 4.4 bits a value.

    The local form starts above 6 in both domains. The gain form starts from wavelets of what h leaves, below 5 and 6,
    so there is less to be won, least in the domain that is mostly noise.
    """
    training = DeFlowTraining(steps=150, patch=16, batch=8, learning_rate=3e-3)
    _, history = run_deflow(training, flow=replace(FLOW, shift=shift))
    for name, least in (("nll_clean", 0.5), ("nll_degraded", of_degraded)):
        values = history.curve(name)[1]
        assert sum(values[-10:]) / 10 < sum(values[:10]) / 10 - least, name


def test_a_compiled_model_learns_the_same(monkeypatch):
    """The switch, with the backend that generates no machine code, which would take minutes."""
    flow, used = DeFlowConfig(levels=2, steps=1, hidden=8, features=8, encoder_blocks=1), []

    def compiled(model):
        used.append(model)
        return torch_compile(model, backend="aot_eager")

    torch_compile = torch.compile
    plain, of_plain = run_deflow(replace(DEFLOW, steps=3), flow=flow)
    monkeypatch.setattr(torch, "compile", compiled)
    model, of_compiled = run_deflow(replace(DEFLOW, steps=3, compiled=True), flow=flow)
    assert used == [model]
    for one, other in zip(of_plain.curve("nll")[1], of_compiled.curve("nll")[1], strict=True):
        assert one == pytest.approx(other, abs=0.01)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-3)


def test_esrgan_learns_and_records_both_stages():
    # Without a window, so that the tone is to be learned as well.
    _, history = run_esrgan(replace(ESRGAN, pixel_steps=60, learning_rate=2e-3), consistency=0.0)
    values = history.curve("pixel")[1]
    assert sum(values[50:60]) < 0.7 * sum(values[:10])
    assert history.curve("discriminator")[0] == [60, 61, 62]


def relativistic(preferred, other):
    """Minus the logarithm of the chance that one is more real than the mean of the other, and the other less."""
    more, less = torch.sigmoid(preferred - other.mean()), torch.sigmoid(other - preferred.mean())
    return -(more.log().mean() + (1 - less).log().mean()) / 2


def test_a_step_of_the_second_stage_descends_the_weighted_sum_of_its_three_losses():
    weights = {"pixel_weight": 0.5, "perceptual_weight": 0.3, "adversarial_weight": 0.2}
    config = replace(ESRGAN, pixel_steps=0, gan_steps=1, gradient_clip=1e6, mixed_precision=False, **weights)
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    discriminator = Discriminator(DiscriminatorConfig(features=4))
    with torch.no_grad():
        # So that its gradients are of the size of the others', and a wrong one is seen.
        discriminator.last.weight *= 10
    truths = [F.interpolate(image[None], scale_factor=2.0)[0] for image in smooth(3, 0)]
    pairs = PairSampler([[image] for image in smooth(3, 0, 0.05)], truths, config.patch, 2, seed=0)
    one, other, (low, high) = *deepcopy((network, discriminator)), deepcopy(pairs).next(config.batch)
    history = train_esrgan(network, discriminator, pairs, config, log_every=1)

    restored = one.train()(low)
    real, fake = other.train()(high), other(restored)
    losses = {
        "pixel": (restored - high).abs().mean(),
        "perceptual": PerceptualLoss(imagenet_features("vgg16"))(restored, high),
        "adversarial": relativistic(fake, real),
    }
    gradients = {}
    for name, loss in losses.items():
        found = torch.autograd.grad(weights[f"{name}_weight"] * loss, list(one.parameters()), retain_graph=True)
        gradients[name] = torch.cat([part.flatten() for part in found])
    total = sum(gradients.values())
    descended = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    assert all(gradient.norm() > 0.02 * total.norm() for gradient in gradients.values())
    assert (descended - total).norm() < 1e-4 * total.norm()
    # The discriminator's own step comes next, with the images of before the generator's.
    real, fake = other(torch.cat([high, restored.detach()])).chunk(2)
    losses["discriminator"] = relativistic(real, fake)
    losses["discriminator"].backward(inputs=list(other.parameters()))
    for mine, expected in zip(discriminator.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-3, atol=1e-6)
    (record,) = history.records
    assert record == pytest.approx({"step": 0} | {name: loss.item() for name, loss in losses.items()}, rel=1e-4)


def rates_of_every_step(run):
    """For each step of an optimiser in ``run``, the learning rates and the parameters of its groups."""
    steps = []

    def note(optimiser, *_):
        steps.append([(group["lr"], group["params"]) for group in optimiser.param_groups])

    hook = register_optimizer_step_post_hook(note)
    try:
        return run(), steps
    finally:
        hook.remove()


def test_each_stage_of_the_restoring_network_has_its_own_learning_rate():
    config = replace(ESRGAN, learning_rate=2e-3, gan_learning_rate=3e-4)
    _, steps = rates_of_every_step(lambda: run_esrgan(config))
    stages = [learning_rate_at(step, steps=3, peak=1.0) for step in range(3)]
    assert stages[0] == 1 and stages[2] < 0.6
    # Three steps of the network alone, then three of it and the discriminator in turn.
    expected = [2e-3 * stage for stage in stages] + [3e-4 * stage for stage in stages for _ in range(2)]
    assert [[rate for rate, _ in groups] for groups in steps] == [[pytest.approx(rate)] for rate in expected]


@pytest.mark.parametrize("shift", ["gain", "constant"])
def test_the_shifts_learn_at_a_rate_of_their_own(shift):
    training = replace(DEFLOW, learning_rate=1e-3, shift_rate_factor=7.0)
    (model, _), steps = rates_of_every_step(lambda: run_deflow(training, flow=replace(FLOW, shift=shift)))
    assert len(steps) == training.steps
    of_shifts = {id(parameter) for parameter in model.shift_constants()}
    assert of_shifts
    for step, ((rate, others), (of_shift, shifts)) in enumerate(steps):
        assert rate == pytest.approx(learning_rate_at(step, steps=training.steps, peak=1e-3))
        assert of_shift == pytest.approx(7 * rate)
        assert {id(parameter) for parameter in shifts} == of_shifts
        assert len(others) + len(shifts) == len(list(model.parameters())) and of_shifts.isdisjoint(map(id, others))


@pytest.mark.parametrize("run", [run_deflow, run_esrgan])
def test_an_interrupted_run_ends_bit_equal(run, tmp_path):
    whole, history = run()
    state = tmp_path / "state.safetensors"
    run(state_path=state, stop_after=4)
    resumed, resumed_history = run(state_path=state)
    assert resumed_history.records == history.records
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_state_of_other_images_or_weights_is_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    clean, degraded = smooth(3, 0), smooth(3, 1, 0.02)

    def run(clean, degraded, seed=0):
        torch.manual_seed(seed)
        return train_deflow(DeFlow(FLOW), clean, degraded, DEFLOW, state_path=state, stop_after=2)

    run(clean, degraded)
    run(clean, degraded)
    brighter = [*degraded[:-1], degraded[-1].clone()]
    brighter[-1][0, 0, 0] += 0.01
    for others in ((clean, brighter), (degraded, clean), (clean[:2], degraded)):
        with pytest.raises(UserError, match=f"{OTHER}; delete state.safetensors and what is"):
            run(*others)
    with pytest.raises(UserError, match=OTHER):
        run(clean, degraded, seed=1)


def test_a_state_of_other_settings_is_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    run_deflow(state_path=state, stop_after=2)
    with pytest.raises(UserError, match="other settings"):
        run_deflow(replace(DEFLOW, batch=2), state_path=state)
    with pytest.raises(UserError, match=OTHER):
        run_deflow(flow=replace(FLOW, condition_noise=0.5), state_path=state)


def test_a_state_of_another_map_under_the_same_name_is_refused(tmp_path, monkeypatch):
    options = {"flow": replace(FLOW, domain_map="mean_filter"), "state_path": tmp_path / "state.safetensors"}
    run_deflow(stop_after=2, **options)
    run_deflow(stop_after=2, **options)
    own = DOMAIN_MAPS["mean_filter"]
    monkeypatch.setitem(DOMAIN_MAPS, "mean_filter", lambda *given, **named: 0.9 * own(*given, **named))
    with pytest.raises(UserError, match=OTHER):
        run_deflow(**options)


def test_a_loss_that_is_not_finite_stops_with_its_step_file_and_layer():
    broken = smooth(3, 0)
    broken[1][0, 0, :] = float("nan")
    torch.manual_seed(0)
    names = {"clean_names": ["a.png", "b.png", "c.png"]}
    model = DeFlow(FLOW)
    # One step on whole images first: a layer that sets itself by its first batch would be broken for all of them.
    train_deflow(model, smooth(3, 0), smooth(3, 1), replace(DEFLOW, steps=1))
    with pytest.raises(TrainingError, match=r"loss is nan at step 0: .* finite is flow\..*; .* cut from b\.png\. "):
        train_deflow(model, broken, smooth(3, 1), replace(DEFLOW, patch=48, batch=8), **names)


def test_a_weight_that_is_not_finite_is_found_by_its_layer():
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    with torch.no_grad():
        network.upsampled[1].weight[0, 0, 0, 0] = float("inf")
    low = smooth(2, 0)
    high = [torch.nn.functional.interpolate(image[None], scale_factor=2.0)[0] for image in low]
    pairs = PairSampler([[image] for image in low], high, ESRGAN.patch, 2, seed=0, names=["a.png", "b.png"])
    with pytest.raises(TrainingError, match=r"pixel loss is nan at step 0: .* finite is network\.upsampled\.1;.*\.png"):
        train_esrgan(network, Discriminator(DiscriminatorConfig(features=4)), pairs, ESRGAN)


def test_a_gradient_that_is_not_finite_stops_with_its_step_files_and_layer():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    network[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    optimiser = torch.optim.Adam(network.parameters())
    before = [value.clone() for value in network.parameters()]
    suspects = Suspects({"net": network}, lambda: None, ["a.png", "b.png", "a.png"])
    said = r"test gradient is \w+ at step 7: the gradient is not finite at net\.0\.weight; .* cut from a\.png, b\.png\."
    with pytest.raises(TrainingError, match=said):
        loss = network(torch.ones(3, 2)).mean()
        descend(loss, optimiser, 1.0, rate=1e-3, step=7, what="test", suspects=suspects)
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))


def test_images_smaller_than_the_patch_are_named():
    with pytest.raises(UserError, match="patch of 64x64 is larger than clean image 0, which is 48x48"):
        run_deflow(replace(DEFLOW, patch=64))


def test_a_size_that_the_flow_cannot_take_is_refused_before_the_first_step():
    with pytest.raises(UserError, match="patch=20 of DeFlowTraining must be a multiple of 8 for this flow"):
        run_deflow(replace(DEFLOW, patch=20))
    with pytest.raises(UserError, match="batch=1 of DeFlowTraining must be a whole number from 2 upwards"):
        replace(DEFLOW, batch=1)


@pytest.mark.parametrize("missing", ["clean", "degraded"])
def test_a_domain_without_images_is_named(missing):
    images = {"clean": smooth(2, 0), "degraded": smooth(2, 1)} | {missing: []}
    with pytest.raises(UserError, match=f"There are no {missing} images .*: give at least one"):
        train_deflow(DeFlow(FLOW), *images.values(), DEFLOW)


def test_a_size_that_the_discriminator_cannot_judge_is_refused_before_the_first_stage(tmp_path):
    odd, state = replace(ESRGAN, patch=18), tmp_path / "state.safetensors"
    with pytest.raises(UserError, match="patch=18 of ESRGANTraining makes crops of 36 pixels at scale 2: .* of 8, or"):
        run_esrgan(odd, state_path=state, save_every=1)
    assert not state.exists()
    _, history = run_esrgan(replace(odd, gan_steps=0))
    assert len(history.curve("pixel")[0]) == odd.pixel_steps


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_profile_has_sizes_that_fit(profile):
    assert profile.deflow_training.patch % profile.deflow.side_multiple == 0
    assert all(profile.esrgan_training.patch * scale % Discriminator.side_multiple == 0 for scale in (1, 2, 4))


def test_the_schedule_warms_up_peaks_and_falls():
    rates = [learning_rate_at(step, steps=1000, peak=1.0) for step in range(1000)]
    assert rates[0] == 1 / 50 and max(rates) == 1.0 and rates.index(1.0) in (49, 50)
    assert abs(rates[-1] - 0.05) < 1e-3
    assert all(a >= b for a, b in zip(rates[50:], rates[51:], strict=False))


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="Linux names the processor's abilities there")
def test_native_bfloat16_is_what_the_processor_says():
    flags = re.split(r"\s+", Path("/proc/cpuinfo").read_text())
    expected = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    assert bfloat16_is_native(torch.device("cpu")) == expected


def test_the_gpu_profile_has_the_published_sizes():
    profile = PROFILES["gpu"]
    assert (profile.deflow.steps, profile.deflow.levels, profile.deflow.encoder_blocks) == (16, 3, 23)
    assert (profile.deflow_training.steps, profile.deflow_training.patch) == (100_000, 160)
    assert (profile.esrgan.features, profile.esrgan.growth, profile.esrgan.blocks) == (64, 32, 23)
    assert profile.needs_cuda


def test_the_network_after_the_first_stage_is_kept(tmp_path):
    config = replace(ESRGAN, pixel_steps=3, gan_steps=2)
    path = tmp_path / "pixel.safetensors"
    network, _ = run_esrgan(config, pixel_path=path)
    alone, _ = run_esrgan(replace(config, gan_steps=0))
    kept = load_model(path, RRDBNet).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in alone.state_dict().items())
    assert not torch.equal(network.first.weight, kept["first.weight"])


def test_the_two_domains_are_cut_at_different_places(monkeypatch):
    seen, take = [], training.PatchSampler.next

    def remember(sampler, batch):
        seen.append(take(sampler, batch))
        return seen[-1]

    monkeypatch.setattr(training.PatchSampler, "next", remember)
    model = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1))
    images = [torch.rand(3, 64, 64) for _ in range(3)]
    train_deflow(model, images, images, DeFlowTraining(steps=1, patch=16, batch=4))
    assert not torch.equal(*seen)
