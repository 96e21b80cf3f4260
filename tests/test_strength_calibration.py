"""The population of strengths, found again behind compression, which exaggerates it for a likelihood."""

import pytest
import torch

from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.sampling import degrade_image
from sr_utils.strength_calibration import SMALLEST_SHARE, calibrate_strengths, mixture_shares, of_one_strength

SHARES = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05])


@pytest.fixture
def model(quiet_camera):
    return quiet_camera


def spread(shares, strengths):
    """Deviation of the log-strength."""
    mean = (shares * strengths).sum()
    return (shares * (strengths - mean).square()).sum().sqrt().item()


def test_a_population_is_found_again_behind_compression(model):
    strengths = model.population.log_strengths
    kinds = [of_one_strength(model, index) for index in range(len(strengths))]
    counts = (40 * SHARES).round().int()
    degraded, true = [], []
    for kind, strength, count in zip(kinds, strengths, counts, strict=True):
        for _ in range(count):
            card = torch.full((3, 64, 64), 0.3 + 0.01 * len(degraded))
            degraded.append(degrade_image(kind, card, qualities=[90], seed=len(degraded)))
            true.append(strength.item())
    others = {name: value.clone() for name, value in model.state_dict().items() if name != "population.weights"}
    found = calibrate_strengths(model, degraded, qualities=[90], share=0.3, seed=100)
    assert (found.images - torch.tensor(true)).abs().max() < 0.35
    # Before, all shares were equal.
    before, after = spread(found.before, strengths), spread(found.after, strengths)
    assert abs(after - spread(SHARES, strengths)) < 0.12 and before > spread(SHARES, strengths) + 0.25
    torch.testing.assert_close(model.population.log_weights().exp(), found.after, rtol=0, atol=1e-3)
    for name, value in others.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_shares_see_through_what_is_uncertain():
    places = torch.linspace(-1.2, 1.2, 5)
    seen = torch.randn(20000, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.6
    shares = mixture_shares(-0.5 * ((seen[:, None] - places) / 0.4).square())
    assert shares[3] > 0.95


def test_one_strength_is_drawn_alone(model):
    assert (of_one_strength(model, 3).population.draw(50, None) == model.population.log_strengths[3]).all()


def test_what_has_no_strengths_is_refused(model):
    with pytest.raises(UserError, match="'constant' has no strengths to calibrate: train with shift='gain'"):
        calibrate_strengths(DeFlow(DeFlowConfig(steps=1, shift="constant")), [torch.rand(3, 32, 32)])
    with pytest.raises(UserError, match="black or white: give images with some mid-tones"):
        calibrate_strengths(model, [torch.zeros(3, 32, 32)])


def test_noise_that_is_louder_in_all_images_alike_changes_no_share(quiet_camera):
    model, strengths = quiet_camera, quiet_camera.population.log_strengths
    louder = of_one_strength(model, len(strengths) // 2)
    for shift in louder.shifts:
        shift.log_noise.data += 0.6
    degraded = [
        degrade_image(louder, torch.full((3, 64, 64), 0.3 + 0.01 * index), qualities=[90], seed=index)
        for index in range(20)
    ]
    found = calibrate_strengths(model, degraded, qualities=[90], share=0.3, seed=100)
    assert found.after.argmax() == len(strengths) // 2


def test_every_strength_keeps_a_share(quiet_camera):
    generator = torch.Generator().manual_seed(0)
    images = [(0.5 + 0.02 * torch.randn(3, 32, 32, generator=generator)).clamp(0, 1)] * 3
    calibrate_strengths(quiet_camera, images, share=1.0)
    assert quiet_camera.population.log_weights().exp().min() > 0.5 * SMALLEST_SHARE
