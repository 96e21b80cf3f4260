"""The filter over added noise: what it passes, what it leaves alone, and how it is found again on plain cards."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sr_utils.checkpoints import load_model, save_model
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow, DeFlowConfig, condition_of
from sr_utils.errors import UserError
from sr_utils.grain import BOUND, EDGES, LUMA, Grain, band_frequencies, band_indices, luma_of, of_luma_and_colour
from sr_utils.grain_calibration import band_powers, calibrate_grain, spectra
from sr_utils.plain_cards import plain_cards
from sr_utils.sampling import degrade_image, translate_image


@pytest.fixture
def model(quiet_camera):
    return quiet_camera


BANDS = len(EDGES) - 1


def rising():
    """Gains from a third to three."""
    return torch.linspace(-1, 1, BANDS).exp()


def luma_only(gains):
    return of_luma_and_colour(gains, torch.ones(BANDS))


def test_the_untouched_filter_is_the_identity():
    grain, noise = Grain(), torch.randn(2, 3, 24, 17, generator=torch.Generator().manual_seed(0))
    assert not grain.changes()
    torch.testing.assert_close(grain(noise), noise, rtol=0, atol=1e-5)
    grain.mixing[3, 0, 1] = 0.1
    assert grain.changes()
    grain.reset()
    assert not grain.changes()


# The last band lies in the corners, where no upright wave is.
@pytest.mark.parametrize("band", [0, 2, BANDS - 2])
def test_a_wave_is_mixed_by_the_matrix_of_its_frequency(band):
    grain, side = Grain(), 640
    change = torch.tensor([[1, -0.5, 0], [0.3, 0, 1], [0, 0.7, -1]])
    grain.mixing.add_(torch.linspace(-1, 1, BANDS)[:, None, None] * change)
    cycles = round(band_frequencies()[band].item() * side)
    wave = torch.sin(2 * torch.pi * cycles * torch.arange(side) / side).expand(3, side, side)
    colours = torch.tensor([1.0, -0.5, 0.3])[:, None, None]
    inside = (..., slice(64, -64), slice(64, -64))  # a mirrored wave has a kink
    expected = torch.einsum("ij,jhw->ihw", grain.mixing[band], colours * wave)
    torch.testing.assert_close(grain((colours * wave)[None])[0][inside], expected[inside], rtol=0, atol=0.02)


def test_a_border_does_not_see_the_opposite_one():
    grain = Grain()
    grain.mixing.copy_(luma_only(rising()))
    noise = torch.zeros(1, 3, 200, 200)
    noise[:, :, 0] = 1.0
    filtered = grain(noise)
    assert filtered[:, :, :8].abs().max() > 0.1 and filtered[:, :, -64:].abs().max() < 0.002


def test_luma_and_colour_have_gains_of_their_own():
    grain = Grain()
    noise = torch.randn(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    luma = luma_of(noise).unsqueeze(1)
    for of_luma, of_colour in ((1.0, 2.0), (0.5, 1.0)):
        grain.mixing.copy_(of_luma_and_colour(torch.full((BANDS,), of_luma), torch.full((BANDS,), of_colour)))
        torch.testing.assert_close(grain(noise), of_luma * luma + of_colour * (noise - luma), rtol=0, atol=1e-5)


def test_weights_from_before_the_filter_mixed_colours_are_taken_and_an_idle_filter_is_stored_as_then():
    grain, other = Grain(), Grain()
    assert [*grain.state_dict()] == ["log_gain"] and not grain.state_dict()["log_gain"].any()
    other.mixing.mul_(2)
    assert [*other.state_dict()] == ["mixing"]
    grain.load_state_dict(other.state_dict())
    assert torch.equal(grain.mixing, other.mixing)
    other.load_state_dict(Grain().state_dict())
    assert not other.changes()
    other.load_state_dict({"log_gain": rising().log()})
    torch.testing.assert_close(other.mixing, luma_only(rising()))
    other.load_state_dict({"log_gain": torch.zeros(BANDS), "log_gain_colour": rising().log()})
    torch.testing.assert_close(other.mixing, of_luma_and_colour(torch.ones(BANDS), rising()))


def test_gains_become_matrices_where_they_are_and_of_their_type():
    assert of_luma_and_colour(rising().double(), torch.ones(BANDS).double()).dtype == torch.float64
    with FakeTensorMode():
        assert of_luma_and_colour(*torch.ones(2, BANDS, device="cuda")).device.type == "cuda"
        # What every training ends with: the averaged weights, of a filter that is still idle.
        Grain().to("cuda").load_state_dict({"log_gain": torch.zeros(BANDS, device="cuda")})


def test_colour_differences_pass_a_filter_of_luma():
    grain = Grain()
    grain.mixing.copy_(luma_only(rising()))
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
    model.grain.mixing.copy_(luma_only(torch.full((BANDS,), 0.5)))
    halved = model.translate(image, condition, generator=torch.Generator().manual_seed(2))
    noise = plain - certain
    expected = noise - 0.5 * torch.einsum("j,njhw->nhw", torch.tensor(LUMA), noise).unsqueeze(1)
    torch.testing.assert_close(halved - certain, expected, rtol=0, atol=1e-5)


def test_without_chance_there_is_nothing_to_filter_and_nothing_is_decoded_twice(model, monkeypatch):
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    options = {"generator": torch.Generator().manual_seed(2), "temperature": 0.0}
    plain = model.translate(image, condition_of(image, 8), **options)
    model.grain.mixing.mul_(2.0)
    monkeypatch.setattr(Grain, "forward", None)
    assert torch.equal(model.translate(image, condition_of(image, 8), **options), plain)


def test_sampled_degraded_images_have_the_filtered_noise_and_clean_ones_stay(model):
    condition = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    def drawn(domain, gain):
        model.grain.mixing.copy_(luma_only(torch.full((BANDS,), gain)))
        return model.sample(condition, domain, generator=torch.Generator().manual_seed(2))

    assert torch.equal(drawn(CLEAN, 1.0), drawn(CLEAN, 2.0))
    # Two filters give two images that differ by the noise's luma alone, in proportion to their gains' difference.
    plain, halved, doubled = (drawn(DEGRADED, gain) for gain in (1.0, 0.5, 2.0))
    torch.testing.assert_close(doubled - plain, -2 * (halved - plain), rtol=0, atol=1e-5)
    change = (doubled - plain)[0]
    assert change.std() > 1e-3 and (change - change[:1]).abs().max() < 1e-5


def test_spectra_of_white_noise_know_each_colour():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, -0.5, 1.5]])
    patches = torch.einsum("ij,pjhw->pihw", mixing, torch.randn(4000, 3, 16, 16, generator=generator))
    seen = spectra(patches)
    split = torch.tensor([[0.299, 0.587, 0.114], [0.701, -0.587, -0.114], [-0.299, -0.587, 0.886]])
    true = split @ mixing @ mixing.T @ split.T
    torch.testing.assert_close(seen.covariance[2:], true.expand(BANDS - 2, 3, 3), rtol=0, atol=0.06)
    torch.testing.assert_close(seen.colour()[2:], (true[1, 1] + true[2, 2]).expand(BANDS - 2), rtol=0, atol=0.1)
    # The lower quartile of means of some dozen squares lies below their mean.
    assert ((0.75 < seen.luma()[2:] / true[0, 0]) & (seen.luma()[2:] < true[0, 0])).all()


def test_a_grain_is_found_again_from_its_images(model, tmp_path):
    true = of_luma_and_colour(torch.tensor([1.3, 1.2, 1.1, 1.0, 0.9, 0.7, 0.55]), torch.ones(BANDS))
    true = true + torch.tensor([[0.3, 0.0, 0.0], [0.0, -0.2, 0.0], [0.0, 0.2, 0.2]])
    model.grain.mixing.copy_(true)
    shades = torch.linspace(0.3, 0.7, 24)
    degraded = [translate_image(model, shade.expand(3, 64, 64).clone(), seed=i) for i, shade in enumerate(shades)]
    model.grain.reset()
    others = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("grain.")}
    found = calibrate_grain(model, degraded, share=1.0, cards=24, seed=0)

    def misfit(other):
        """Largest difference in decibels of a band's luma, or of the power of its colours."""
        pairs = ((other.luma(), found.real.luma()), (other.colour(), found.real.colour()))
        return max((10 * (one / two).log10())[1:].abs().max().item() for one, two in pairs)

    assert misfit(found.after) < 0.5 < 1 < misfit(found.before)
    # The same noise twice: what differs by a turn of colours is not told apart, what comes of it is.
    covariance, wanted = (each[1:] @ each[1:].mT for each in (model.grain.mixing, true))
    assert (covariance - wanted).norm() / wanted.norm() < 0.25
    for name, value in others.items():
        assert torch.equal(model.state_dict()[name], value), name
    save_model(tmp_path / "model.safetensors", model, {})
    assert torch.equal(load_model(tmp_path / "model.safetensors", DeFlow).grain.mixing, model.grain.mixing)


def test_a_mean_is_led_by_detail_in_a_few_places_and_the_grain_is_not(model):
    shades = torch.linspace(0.3, 0.7, 24)
    cards = [shade.expand(3, 64, 64).clone() for shade in shades]
    degraded = [translate_image(model, card, seed=i) for i, card in enumerate(cards)]
    wave = 0.1 * torch.sin(torch.arange(64) / 3.0)
    found = calibrate_grain(model, [image + wave for image in degraded[:3]] + degraded[3:], share=1.0, cards=24)
    luma = torch.einsum("j,bjk->bk", torch.tensor(LUMA), model.grain.mixing).sum(1)
    by_the_mean = (found.real.covariance[:, 0, 0] / found.before.covariance[:, 0, 0]).sqrt()
    assert (luma - 1)[1:].abs().max() < 0.4 < 1 < (by_the_mean - 1).max()


def test_colour_noise_that_compression_has_rounded_away_is_brought_back(model):
    model.grain.mixing.copy_(of_luma_and_colour(torch.ones(BANDS), torch.full((BANDS,), 2.5)))
    shades = torch.linspace(0.3, 0.7, 24)
    cards = [shade.expand(3, 64, 64).clone() for shade in shades]
    degraded = [degrade_image(model, card, qualities=[92], seed=i) for i, card in enumerate(cards)]
    colours = torch.stack([card[:, 0, 0] for card in cards])
    rounded = spectra(plain_cards(model, colours).patches(model, qualities=[92])).colour()
    model.grain.reset()
    found = calibrate_grain(model, degraded, qualities=[92], share=1.0, cards=24, rounds=6)
    before, after = (10 * (each.colour() / rounded).log10() for each in (found.before, found.after))
    assert before[2] < -3 and after[2:5].abs().max() < 1


def test_what_has_no_grain_is_refused(model):
    with pytest.raises(UserError, match="'constant' has no grain to calibrate: train with shift='gain'"):
        calibrate_grain(DeFlow(DeFlowConfig(steps=1, shift="constant")), [torch.rand(3, 32, 32)])
    with pytest.raises(UserError, match="black or white: give images with some mid-tones"):
        calibrate_grain(model, [torch.zeros(3, 32, 32)])


def test_the_filter_is_bounded_however_loud_the_inputs_are(quiet_camera):
    generator = torch.Generator().manual_seed(0)
    loud = [(0.5 + 0.25 * torch.randn(3, 32, 32, generator=generator)).clamp(0, 1) for _ in range(3)]
    calibrate_grain(quiet_camera, loud, share=1.0, cards=6, rounds=4)
    assert torch.linalg.svdvals(quiet_camera.grain.mixing).max() <= BOUND * 1.0001
