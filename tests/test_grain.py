"""The filter over added noise: what it passes, what it leaves alone, and how it is found again on plain cards."""

import pytest
import torch

from sr_utils.checkpoints import load_model, save_model
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow, DeFlowConfig, condition_of
from sr_utils.errors import UserError
from sr_utils.grain import EDGES, LUMA, Grain, band_frequencies, band_indices, luma_of
from sr_utils.grain_calibration import ROUNDED, band_powers, calibrate_grain
from sr_utils.sampling import degrade_image, translate_image


@pytest.fixture
def model(quiet_camera):
    return quiet_camera


def test_the_untouched_filter_is_the_identity():
    noise = torch.randn(2, 3, 24, 17, generator=torch.Generator().manual_seed(0))
    assert not Grain().changes()
    torch.testing.assert_close(Grain()(noise), noise, rtol=0, atol=1e-5)


# The last band lies in the corners, where no upright wave is.
@pytest.mark.parametrize("band", [0, 2, len(EDGES) - 3])
def test_a_wave_of_luma_is_scaled_by_its_frequency(band):
    grain, side = Grain(), 640
    grain.log_gain.copy_(torch.linspace(-1, 1, len(grain.log_gain)))
    cycles = round(band_frequencies()[band].item() * side)
    wave = torch.sin(2 * torch.pi * cycles * torch.arange(side) / side).expand(1, 3, side, side)
    inside = (..., slice(64, -64), slice(64, -64))  # a mirrored wave has a kink
    torch.testing.assert_close(grain(wave)[inside], grain.log_gain[band].exp() * wave[inside], rtol=0, atol=0.02)


def test_a_border_does_not_see_the_opposite_one():
    grain = Grain()
    grain.log_gain.copy_(torch.linspace(-1, 1, len(grain.log_gain)))
    noise = torch.zeros(1, 3, 200, 200)
    noise[:, :, 0] = 1.0
    filtered = grain(noise)
    assert filtered[:, :, :8].abs().max() > 0.1 and filtered[:, :, -64:].abs().max() < 0.002


def test_colour_has_a_filter_of_its_own_that_leaves_luma_alone():
    grain = Grain()
    grain.log_gain_colour.fill_(torch.log(torch.tensor(2.0)).item())
    assert grain.changes()
    noise = torch.randn(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    luma = luma_of(noise).unsqueeze(1)
    torch.testing.assert_close(grain(noise), luma + 2 * (noise - luma), rtol=0, atol=1e-5)


def test_weights_from_before_colour_had_a_filter_are_taken_and_an_idle_one_is_not_stored():
    grain, other = Grain(), Grain()
    assert list(grain.state_dict()) == ["log_gain"]
    other.log_gain_colour.fill_(1.0)
    other.load_state_dict(grain.state_dict())
    assert not other.log_gain_colour.any()
    grain.log_gain_colour.copy_(torch.linspace(-1, 1, len(EDGES) - 1))
    other.load_state_dict(grain.state_dict())
    assert torch.equal(other.log_gain_colour, grain.log_gain_colour)


def test_colour_differences_pass():
    grain = Grain()
    grain.log_gain.copy_(torch.linspace(-1, 1, len(grain.log_gain)))
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    filtered = grain(noise)
    torch.testing.assert_close(filtered[:, 0] - filtered[:, 1], noise[:, 0] - noise[:, 1], rtol=0, atol=1e-5)
    grey = noise - torch.einsum("j,njhw->nhw", torch.tensor(LUMA), noise).unsqueeze(1)
    torch.testing.assert_close(grain(grey), grey, rtol=0, atol=1e-5)


def test_bands_cover_all_coefficients_but_the_mean():
    bands = band_indices()
    assert bands[0, 0] == -1 and (bands.flatten()[1:] >= 0).all() and bands.max() == len(EDGES) - 2
    assert (band_frequencies().diff() > 0).all()


def test_white_noise_has_the_same_power_in_every_band():
    patches = torch.randn(4000, 1, 16, 16, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    luma = band_powers(patches).mean(0)
    torch.testing.assert_close(luma[1:], torch.ones(len(luma) - 1), rtol=0, atol=0.05)
    # The plane takes nearly all of two of the lowest band's three coefficients, and of nothing else.
    assert abs(luma[0] - 1 / 3) < 0.05


def test_only_the_noise_is_filtered(model):
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    condition = condition_of(image, 8)
    plain = model.translate(image, condition, generator=torch.Generator().manual_seed(2))
    certain = model.translate(image, condition, generator=torch.Generator().manual_seed(2), temperature=0.0)
    model.grain.log_gain.fill_(torch.log(torch.tensor(0.5)).item())
    halved = model.translate(image, condition, generator=torch.Generator().manual_seed(2))
    noise = plain - certain
    expected = noise - 0.5 * torch.einsum("j,njhw->nhw", torch.tensor(LUMA), noise).unsqueeze(1)
    torch.testing.assert_close(halved - certain, expected, rtol=0, atol=1e-5)


def test_without_chance_there_is_nothing_to_filter_and_nothing_is_decoded_twice(model, monkeypatch):
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    options = {"generator": torch.Generator().manual_seed(2), "temperature": 0.0}
    plain = model.translate(image, condition_of(image, 8), **options)
    model.grain.log_gain.fill_(1.0)
    monkeypatch.setattr(Grain, "forward", None)
    assert torch.equal(model.translate(image, condition_of(image, 8), **options), plain)


def test_sampled_degraded_images_have_the_filtered_noise_and_clean_ones_stay(model):
    condition = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    def drawn(domain, log_gain):
        model.grain.log_gain.fill_(log_gain)
        return model.sample(condition, domain, generator=torch.Generator().manual_seed(2))

    assert torch.equal(drawn(CLEAN, 0.0), drawn(CLEAN, 1.0))
    # Two filters give two images that differ by the noise's luma alone, in proportion to their gains' difference.
    plain, halved, doubled = (drawn(DEGRADED, torch.tensor(gain).log().item()) for gain in (1.0, 0.5, 2.0))
    torch.testing.assert_close(doubled - plain, -2 * (halved - plain), rtol=0, atol=1e-5)
    change = (doubled - plain)[0]
    assert change.std() > 1e-3 and (change - change[:1]).abs().max() < 1e-5


def test_a_grain_is_found_again_from_its_images(model, tmp_path):
    true = torch.tensor([0.3, 0.2, 0.1, 0.0, -0.1, -0.3, -0.6])
    model.grain.log_gain.copy_(true)
    shades = torch.linspace(0.3, 0.7, 12)
    degraded = [translate_image(model, shade.expand(3, 64, 64).clone(), seed=i) for i, shade in enumerate(shades)]
    model.grain.log_gain.zero_()
    others = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("grain.")}
    found = calibrate_grain(model, degraded, share=1.0, cards=12, seed=100)
    # A dozen images and a dozen cards are not equally noisy: the shape is found, and the power that was seen.
    error = (model.grain.log_gain - true)[1:]
    assert (error - error.mean()).abs().max() < 0.15
    assert found.colour_after[ROUNDED:].abs().max() < 0.5
    real, before, after = found.strengths
    assert abs(after / real - 1) < 0.02 < abs(before / real - 1)
    assert (found.after - found.real)[1:].abs().max() < 1 < (found.before - found.real).abs().max()
    for name, value in others.items():
        assert torch.equal(model.state_dict()[name], value), name
    save_model(tmp_path / "model.safetensors", model, {})
    assert torch.equal(load_model(tmp_path / "model.safetensors", DeFlow).grain.log_gain, model.grain.log_gain)


def test_colour_noise_that_compression_has_rounded_away_is_brought_back(model):
    true = model.grain.log_gain_colour.clone()
    true[ROUNDED:] = 0.9
    model.grain.log_gain_colour.copy_(true)
    shades = torch.linspace(0.3, 0.7, 24)
    cards = [shade.expand(3, 64, 64).clone() for shade in shades]
    degraded = [degrade_image(model, card, qualities=[92], seed=i) for i, card in enumerate(cards)]
    model.grain.log_gain_colour.zero_()
    found = calibrate_grain(model, degraded, qualities=[92], share=1.0, cards=24, rounds=6, seed=100)
    assert found.colour_before[ROUNDED] < -3 and found.colour_after[ROUNDED : ROUNDED + 3].abs().max() < 1
    assert (model.grain.log_gain_colour - true)[ROUNDED : ROUNDED + 2].abs().max() < 0.25
    assert not model.grain.log_gain_colour[:ROUNDED].any()


def test_what_has_no_grain_is_refused(model):
    with pytest.raises(UserError, match="'constant' has no grain to calibrate: train with shift='gain'"):
        calibrate_grain(DeFlow(DeFlowConfig(steps=1, shift="constant")), [torch.rand(3, 32, 32)])
    with pytest.raises(UserError, match="black or white: give images with some mid-tones"):
        calibrate_grain(model, [torch.zeros(3, 32, 32)])
