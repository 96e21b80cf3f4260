"""Noise read off repeated frames: it is found again in rough places too, and what stays is the scene's own."""

from dataclasses import replace

import pytest
import torch

from sr_utils import repeat_calibration
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.repeat_calibration import calibrate_noise_from_repeats
from sr_utils.sampling import translate_image

CONFIG = DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1, levels=2, shift="gain", coherence=0.5)


def scene(seed):
    """An image that is rough everywhere, of coarse blocks and fine texture."""
    generator = torch.Generator().manual_seed(seed)
    blocks = 0.3 + 0.4 * torch.rand(3, 8, 12, generator=generator)
    texture = 0.05 * torch.randn(3, 64, 96, generator=generator)
    return (blocks.repeat_interleave(8, 1).repeat_interleave(8, 2) + texture).clamp(0.05, 0.95)


@pytest.fixture
def model(noisy_camera):
    model = noisy_camera(CONFIG)
    model.population.weights.data = torch.tensor([-20.0, -20.0, 0.0, -20.0, -20.0])
    return model


def coherent(model):
    """The same camera, if all that it shows is the scene's own."""
    other = DeFlow(replace(CONFIG, coherence=1.0)).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_the_noise_of_repeated_frames_is_found_again(model):
    camera = coherent(model)
    frames = [translate_image(camera, scene(place), seed=10 * place + i) for place in range(4) for i in range(6)]
    for shift in model.shifts:
        shift.log_noise.data += 3
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = calibrate_noise_from_repeats(model, frames)
    assert found.config == replace(CONFIG, coherence=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    strength = (found.population.log_weights().exp() * found.population.log_strengths.exp()).sum().log()
    for place in range(4):
        image = scene(place)[None]
        contexts = [context for _, context in found.encode_in_context(image, found.condition(image))]
        for shift, expected, context in zip(found.shifts, camera.shifts, contexts, strict=True):
            noise = shift.noise_log_variance(context).mean((0, 2, 3)) + strength
            torch.testing.assert_close(noise.detach(), expected.log_noise.detach(), rtol=0, atol=0.25)


def test_frames_without_noise_give_none(model):
    still = [scene(1)] * 4
    found = calibrate_noise_from_repeats(model, still, steps=300)
    for before, after in zip(model.shifts, found.shifts, strict=True):
        assert (after.log_noise < before.log_noise - 2).all()


def test_what_cannot_be_calibrated_is_one_sentence(model):
    with pytest.raises(UserError, match="'constant' has no noise to calibrate: train with shift='gain'"):
        calibrate_noise_from_repeats(DeFlow(replace(CONFIG, shift="constant")), [scene(1)] * 3)
    with pytest.raises(UserError, match="no median over time"):
        calibrate_noise_from_repeats(model, [scene(1), scene(2)])
    with pytest.raises(UserError, match="No two successive frames show the same place"):
        calibrate_noise_from_repeats(model, [0.001 * scene(1)] * 3)


def test_places_are_still_in_both_frames_and_none_of_their_pixels_is_clipped(monkeypatch):
    both = [torch.full((3, 80, 96), 0.5) for _ in range(2)]
    still = torch.ones(1, 80, 96, dtype=torch.bool)
    assert len(repeat_calibration._still_places(both, still)) == 15
    still[:, 20, 40] = False
    both[1][1, 3, 3] = 1.0
    monkeypatch.setattr(repeat_calibration, "PLACES", 99)
    assert set(repeat_calibration._still_places(both, still).tolist()) == set(range(30)) - {0, 6 + 2}


def test_what_moves_is_not_taken_for_noise(noisy_camera):
    model = noisy_camera(replace(CONFIG, coherence=1.0))
    frames = [translate_image(model, scene(0), seed=index) for index in range(6)]
    plain = calibrate_noise_from_repeats(model, frames, steps=100)
    for index, frame in enumerate(frames):
        frame[:, 16:40, 8 + 12 * index : 24 + 12 * index] = 0.2 + 0.6 * (index % 2)
    found = calibrate_noise_from_repeats(model, frames, steps=100)
    for one, other in zip(plain.shifts, found.shifts, strict=True):
        torch.testing.assert_close(other.log_noise, one.log_noise, rtol=0, atol=0.4)
