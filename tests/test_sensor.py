"""A sensor's photographs: noise of the right strength where it was measured, from donors that are spread evenly."""

from dataclasses import replace

import pytest
import torch

from sr_utils import sensor as sensor_module
from sr_utils.compression import estimate_quality
from sr_utils.errors import UserError
from sr_utils.files import read_json, write_json
from sr_utils.mosaic import INTERPOLATIONS, mosaic
from sr_utils.sensor import LEVELS, Sensor, display_value, evenly_spread, linear_light

LOUDNESS = (1.5, 1.0, 1.2)
NOT_COMPRESSED = next(seed for seed in range(9) if evenly_spread(seed, 3) == 1)
"""A seed whose donor is the one of middle strength."""


@pytest.fixture
def sensor():
    """Light that is counted, three donors, of which one was compressed."""
    curve = (0.004 * linear_light(LEVELS)).log()
    strengths = torch.tensor([0.8, -0.8, 0.0])
    return Sensor((0, 1), "bilinear", curve, torch.tensor(LOUDNESS), strengths, [None, 85, None])


def grey(value, side=128):
    return torch.full((3, side, side), value)


def test_a_sensor_is_the_same_after_a_file(sensor, tmp_path):
    write_json(tmp_path / "sensor.json", sensor.numbers())
    again, card = Sensor.from_numbers(read_json(tmp_path / "sensor.json")), grey(0.3, 32)
    assert again.numbers() == sensor.numbers() and again.phase == sensor.phase
    assert all(torch.equal(again.photograph(card, seed=seed), sensor.photograph(card, seed=seed)) for seed in range(4))


def test_light_and_display_values_are_inverses_of_each_other():
    display = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(display_value(linear_light(display)), display, atol=1e-5, rtol=0)
    torch.testing.assert_close(linear_light(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.0, 0.214041, 1.0]))


@pytest.mark.parametrize("log_strength", [-1.0, 0.5])
def test_noise_has_its_deviation_at_every_colour(sensor, log_strength):
    generator = torch.Generator().manual_seed(0)
    photograph = sensor.expose(grey(0.54, 256), log_strength=log_strength, generator=generator)
    light = linear_light(torch.tensor(0.54))
    expected = (0.004 * light * torch.tensor(log_strength).exp()).sqrt()
    measured = mosaic(linear_light(photograph), sensor.phase) - light
    for site, loudness in (((0, 1), LOUDNESS[0]), ((0, 0), LOUDNESS[1]), ((1, 0), LOUDNESS[2])):
        noise = measured[site[0] :: 2, site[1] :: 2]
        assert noise.std() == pytest.approx(loudness * expected.item(), rel=0.03)
        assert abs(noise.mean()) < 4 * noise.std() / noise.numel() ** 0.5 + 1e-3


def test_the_curve_is_interpolated_and_stays_outside(sensor):
    at = sensor.deviation(torch.tensor([0.0, 0.06, 0.12, 0.95])[None, None].expand(3, 1, 4))[1, 0]
    assert at[0] == at[1]
    assert at[2] == pytest.approx((at[1] * sensor.deviation(grey(0.18, 1))[1, 0, 0]).sqrt().item(), rel=1e-4)
    assert at[3] == pytest.approx(sensor.deviation(grey(0.9, 1))[1, 0, 0].item(), rel=1e-4)


def test_without_noise_a_plain_card_stays_what_it_is(sensor):
    card = torch.tensor([51, 128, 204])[:, None, None].expand(3, 16, 18) / 255
    assert torch.equal(sensor.expose(card, log_strength=0.0, generator=torch.Generator(), temperature=0.0), card)
    assert torch.equal(sensor.photograph(card, seed=NOT_COMPRESSED, temperature=0.0), card)


def test_a_photograph_repeats_and_is_compressed_as_its_donor(sensor):
    ramp = torch.linspace(0.2, 0.8, 128).expand(3, 128, 128)
    photographs = [sensor.photograph(ramp, seed=seed) for seed in range(6)]
    assert torch.equal(photographs[2], sensor.photograph(ramp, seed=2))
    assert not torch.equal(photographs[0], photographs[3])
    order = sensor.log_strengths.argsort().tolist()
    donors = [order[evenly_spread(seed, 3)] for seed in range(6)]
    assert [estimate_quality(each) for each in photographs] == [sensor.qualities[donor] for donor in donors]
    deviations = torch.tensor([(each - ramp).std() for each in photographs])
    strengths = sensor.log_strengths[donors]
    assert deviations[strengths > 0.5].min() > 1.3 * deviations[strengths < 0.5].max()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_large_photograph_is_exposed_in_bands_that_do_not_show(sensor, monkeypatch, interpolation):
    sensor, ramp = replace(sensor, interpolation=interpolation), torch.linspace(0.1, 0.9, 101 * 54).view(1, 101, 54)
    ramp = torch.cat([ramp, ramp.flip(1), ramp.flip(2)])

    def expose():
        return sensor.expose(ramp, log_strength=0.5, generator=torch.Generator().manual_seed(3))

    whole, heights, interpolated = expose(), [], sensor_module.demosaic

    def counted(raw, *about, **way):
        heights.append(len(raw))
        return interpolated(raw, *about, **way)

    monkeypatch.setattr(sensor_module, "BAND", 32)
    monkeypatch.setattr(sensor_module, "demosaic", counted)
    torch.testing.assert_close(expose(), whole, atol=1.01 / 255, rtol=0)
    assert (expose() != whole).float().mean() < 1e-3
    assert len(heights) > 4 and max(heights) <= 34


def test_temperature_scales_the_noise(sensor):
    cold, warm = (sensor.photograph(grey(0.54), seed=NOT_COMPRESSED, temperature=value) - 0.54 for value in (0.5, 1.0))
    assert warm.std() == pytest.approx(2 * cold.std().item(), rel=0.05)


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), 101.0])
def test_a_temperature_out_of_range_is_refused(sensor, temperature):
    with pytest.raises(UserError, match="temperature"):
        sensor.photograph(grey(0.5, 16), seed=0, temperature=temperature)


def test_donors_are_spread_evenly():
    for start in (0, 17, 10**6, 2**62):
        counts = torch.tensor([evenly_spread(start + seed, 80) for seed in range(800)]).bincount(minlength=80)
        assert len(counts) == 80 and counts.min() >= 8 and counts.max() <= 12
    assert evenly_spread(2**63 - 1, 1) == 0
