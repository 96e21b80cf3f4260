"""The noise of two numbers: found again in flat images, whichever of the two is there."""

import pytest
import torch

from sr_utils.errors import UserError
from sr_utils.noise_model import NoiseModel, fit_noise_model


def flat_images(model, seed=0):
    """Images of one level each, from dark to bright, with the model's noise."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.linspace(0.2, 0.8, 24)
    return [model.add_to(level.expand(3, 64, 64), generator) for level in levels]


@pytest.mark.parametrize("true", [NoiseModel(0.02, 0.04), NoiseModel(0.03, 0.0), NoiseModel(0.0, 0.06)], ids=str)
def test_both_numbers_are_found_again(true):
    found = fit_noise_model(flat_images(true), share=1.0)
    assert found.additive == pytest.approx(true.additive, abs=0.002)
    assert found.multiplicative == pytest.approx(true.multiplicative, abs=0.006)


def test_one_number_alone_is_the_deviation_over_all_levels():
    found = fit_noise_model(flat_images(NoiseModel(0.02, 0.04)), share=1.0, multiplicative=False)
    levels = torch.linspace(0.2, 0.8, 24)
    assert found.multiplicative == 0
    assert found.additive == pytest.approx((0.02**2 + (0.04 * levels).square()).mean().sqrt().item(), rel=0.02)


def test_noise_that_falls_with_brightness_is_taken_to_be_the_same_everywhere():
    images = flat_images(NoiseModel(0.0, 0.06))
    found = fit_noise_model([1 - image for image in images], share=1.0)
    assert found.multiplicative == 0 and found.additive > 0.02


def test_images_without_mid_tones_are_refused():
    with pytest.raises(UserError, match="black or white"):
        fit_noise_model([torch.zeros(3, 32, 32)])
