"""The blur that the grain of degraded images speaks of: found again, and applied to what is translated only."""

from dataclasses import replace

import pytest
import torch

from sr_utils.deflow import DeFlow, DeFlowConfig, condition_of, reconfigured
from sr_utils.degradations import gaussian_blur
from sr_utils.detail_calibration import FIRST, blur_response, calibrate_detail, passed_on
from sr_utils.errors import UserError
from sr_utils.grain import band_frequencies, of_luma_and_colour


@pytest.fixture
def model(quiet_camera):
    return quiet_camera


def textures(count=4, side=96):
    """Images with detail of all frequencies."""
    generator = torch.Generator().manual_seed(3)
    return [0.5 + 0.1 * torch.randn(3, side, side, generator=generator) for _ in range(count)]


def greys(count=6):
    return [torch.full((3, 64, 64), 0.3 + 0.05 * index) for index in range(count)]


def grained(model, gains):
    """The model with a filter of these gains, relative to its noise as it is, over its luma noise."""
    model.grain.mixing.copy_(of_luma_and_colour(gains.clamp(0.2, 5), torch.ones(len(gains))))
    return model


def test_a_blur_that_noise_has_gone_through_is_found_again(model):
    plain = calibrate_detail(model, textures(), greys())[1]
    # A flow at its start passes on everything; how its own noise falls with frequency is not of interest here.
    white = plain.before / plain.grain
    for sigma in (0.45, 0.55):
        softer, found = calibrate_detail(grained(model, white * blur_response(sigma)), textures(), greys())
        assert abs(found.blur - sigma) < 0.06
        assert softer.config == replace(model.config, blur=found.blur) and model.config.blur == 0
        error = (found.after / found.grain).log()[FIRST:]
        assert error.abs().max() < 0.1 < (found.before / found.grain).log()[FIRST:].abs().max()
        torch.testing.assert_close(passed_on(softer, textures())[:-1], found.after[:-1], rtol=0, atol=0.05)


def test_grain_that_is_finer_than_the_flow_asks_for_no_blur(model):
    plain = calibrate_detail(model, textures(), greys())[1]
    rising = plain.before / plain.grain * torch.exp(band_frequencies().square())
    assert calibrate_detail(grained(model, rising), textures(), greys())[1].blur == 0.0


def test_translation_blurs_the_image_and_not_its_noise(model):
    blurred = reconfigured(model, blur=0.7)
    image = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    condition, noise = condition_of(image, 8), model.draw_noise(1, 48, 32)
    expected = model.translate(gaussian_blur(image, 0.7), condition, noise=noise)
    assert torch.equal(blurred.translate(image, condition, noise=noise), expected)
    torch.testing.assert_close(blurred.encode(image, condition), model.encode(image, condition))


def test_what_cannot_be_read_is_refused(model):
    with pytest.raises(UserError, match="'constant' has no grain to read: train with shift='gain'"):
        calibrate_detail(DeFlow(DeFlowConfig(steps=1, shift="constant")), textures(1), greys(1))
    with pytest.raises(UserError, match="black or white"):
        calibrate_detail(model, textures(1), [torch.zeros(3, 64, 64)])
    with pytest.raises(UserError, match="blur=9.0 of DeFlowConfig must be a number from 0 to 8"):
        replace(model.config, blur=9.0)


def test_a_blur_that_is_there_is_not_counted_twice_and_odd_sides_are_cut(model):
    plain = calibrate_detail(model, textures(1), greys(2))[1]
    assert calibrate_detail(reconfigured(model, blur=1.0), textures(1), greys(2))[1].blur == plain.blur
    assert passed_on(model, [image[:, :93, :90] for image in textures(1)]).isfinite().all()
