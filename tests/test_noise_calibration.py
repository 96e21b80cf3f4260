"""Noise read from flat places: it is found again, whatever the model believed before, and nothing else is touched."""

import math
from dataclasses import replace

import pytest
import torch

from sr_utils import noise_calibration
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.noise_calibration import calibrate_noise
from sr_utils.sampling import translate_image

CONFIG = DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1, levels=2, shift="gain", coherence=1.0)


def scenes(count, seed):
    """Images of which the left half is flat and the right half rough, in four shades from top to bottom."""
    generator = torch.Generator().manual_seed(seed)
    light = torch.tensor([0.3, 0.4, 0.5, 0.6]).repeat_interleave(16)[:, None].expand(3, 64, 64)
    rough = 0.1 * torch.randn(count, 3, 64, 64, generator=generator)
    rough[..., :32] *= 0.02
    return [(light + part).clamp(0, 1) for part in rough]


@pytest.fixture
def model(noisy_camera):
    return noisy_camera(CONFIG)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_noise_is_found_again_and_nothing_else_moves(noisy_camera, normalised):
    model = noisy_camera(replace(CONFIG, domain_normalisation=normalised))
    # If it sees the difference, the degraded domain has half the contrast and is darker.
    model.set_domain_statistics(scenes(8, 3), [0.5 * image for image in scenes(8, 4)])
    true = [shift.log_noise.detach().clone() for shift in model.shifts]
    model.population.weights.data = torch.tensor([-20.0, -20.0, 0.0, -20.0, -20.0])
    degraded = [translate_image(model, image, seed=index) for index, image in enumerate(scenes(24, 1))]
    for shift in model.shifts:
        shift.log_noise.data += 3
    model.population.weights.data.zero_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curve = calibrate_noise(model, scenes(8, 2), degraded, share=0.25)
    assert curve[-1] < curve[0] - 0.1
    strength = (model.population.log_weights().exp() * model.population.log_strengths.exp()).sum().log()
    flat = torch.full((1, 3, 1, 1), 0.5)
    for shift, expected in zip(model.shifts, true, strict=True):
        found = shift.noise_log_variance(flat).flatten() + strength
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=0.25)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(".tone." in name or name.endswith((".log_noise", "population.weights")) for name in moved)


def test_what_cannot_be_calibrated_is_one_sentence(model):
    images = scenes(2, 0)
    with pytest.raises(UserError, match="'constant' has no noise to calibrate: train with shift='gain'"):
        calibrate_noise(DeFlow(replace(CONFIG, shift="constant")), images, images)
    with pytest.raises(UserError, match="black or white: give images with some mid-tones"):
        calibrate_noise(model, images, [torch.zeros(3, 64, 64)])
    with pytest.raises(UserError, match="levels=5 makes latents coarser than a place of 16 pixels: give 4"):
        calibrate_noise(DeFlow(replace(CONFIG, levels=5)), images, images)
    with pytest.raises(UserError, match="64x8, smaller than 16 pixels"):
        calibrate_noise(model, images, [torch.zeros(3, 8, 64)])


def test_the_mean_is_taken_off_and_the_scenes_contrast_counts(noisy_camera, monkeypatch):
    model, seen = noisy_camera(CONFIG), []
    monkeypatch.setattr(noise_calibration, "fit_noise", lambda _, images, kept, **options: seen.append((images, kept)))
    image = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))]
    noise_calibration.calibrate_noise(model, image, image)
    for shift in model.shifts:
        shift.mean.data += 0.5
    model.population.log_contrast.data += 0.5
    noise_calibration.calibrate_noise(model, image, image)
    (before, kept), (after, more) = seen
    for one, two in zip(kept, more, strict=True):
        torch.testing.assert_close(two, math.e * one)
    assert all((two.power != one.power).any() for one, two in zip(before[0], after[0], strict=True))


def test_four_levels_can_be_calibrated():
    noise_calibration.check_gain_shift(DeFlow(replace(CONFIG, levels=4)))
