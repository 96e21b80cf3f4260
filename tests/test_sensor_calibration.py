"""Reading a sensor: what was put into photographs is found in them, behind compression and without any truth."""

from dataclasses import replace

import pytest
import torch

from sr_utils import degradations, sensor_calibration
from sr_utils.errors import UserError
from sr_utils.sensor import LEVELS, Sensor, linear_light
from sr_utils.sensor_calibration import read_sensor, sensor_of

COUNT = 14


def scenes(seed=0, size=128):
    """Slow ramps of different brightness and colour, with a texture in their lower half."""
    chance = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-0.1, 0.1, size).expand(3, size, size)
    texture = torch.zeros(3, size, size)
    texture[:, size // 2 :] = 0.1
    made = []
    for _ in range(COUNT):
        colour = 0.2 + 0.6 * torch.rand(1, generator=chance) + 0.1 * torch.randn(3, generator=chance)
        image = ramp + colour.clamp(0.15, 0.85)[:, None, None]
        made.append((image + texture * torch.randn(1, size, size, generator=chance)).clamp(0, 1))
    return made


def camera(interpolation, loudness=(1.6, 1.0, 1.3)):
    """One that counts light; its photographs are of very different strengths."""
    curve = (0.006 * linear_light(LEVELS) + 2e-5).log()
    strengths = torch.linspace(-0.7, 0.7, COUNT)
    return Sensor((1, 0), interpolation, curve, torch.tensor(loudness), strengths, [90 - i for i in range(COUNT)])


def shoot(sensor):
    return [sensor.photograph(image, seed=index) for index, image in enumerate(scenes())]


@pytest.mark.parametrize("interpolation", ["bilinear", "edge_aware"])
def test_a_sensor_is_read_off_its_photographs(interpolation):
    true = camera(interpolation)
    first, second = read_sensor(shoot(true), share=0.3, rounds=12)
    found = first.sensor
    assert (found.phase, found.interpolation) == (true.phase, interpolation)
    assert first.misfit() < 0.1 and second.misfit() > 2 * first.misfit()
    torch.testing.assert_close(found.loudness, true.loudness, rtol=0.12, atol=0)
    assert found.log_strengths.mean() == pytest.approx(0, abs=1e-5)
    assert found.log_strengths.std() == pytest.approx(true.log_strengths.std().item(), rel=0.15)
    # Between the darkest and the brightest places, which few photographs have.
    torch.testing.assert_close(found.log_variance[2:-1], true.log_variance[2:-1], rtol=0, atol=0.35)
    assert (found.log_variance - true.log_variance)[1:-1].mean() == pytest.approx(0, abs=0.12)


def test_each_photograph_keeps_its_strength_and_quality():
    true = camera("bilinear")
    taken = [replace(true, log_strengths=true.log_strengths[i : i + 1], qualities=[90 - i]) for i in range(COUNT)]
    images = [each.photograph(image, seed=i) for i, (each, image) in enumerate(zip(taken, scenes(), strict=True))]
    found = read_sensor(images, share=0.3, rounds=8)[0].sensor
    assert torch.corrcoef(torch.stack([found.log_strengths, true.log_strengths]))[0, 1] > 0.95
    assert list(found.qualities) == list(true.qualities)


def test_of_large_photographs_the_middle_is_read_in_strips_that_jpeg_can_hold(monkeypatch):
    images = [each.repeat(1, 4, 3) for each in shoot(camera("bilinear"))[:4]]
    expected = read_sensor([image[:, 112:400, 48:336] for image in images], share=0.3, rounds=4)[0].sensor.numbers()
    monkeypatch.setattr(sensor_calibration, "MIDDLE", 288)
    assert read_sensor(iter(images), share=0.3, rounds=4)[0].sensor.numbers() == expected
    monkeypatch.setattr(sensor_calibration, "TOGETHER", 10)
    monkeypatch.setattr(degradations, "LONGEST_SIDE", 10 * sensor_calibration.CARD)
    found = read_sensor(images, share=0.3, rounds=4)[0].sensor
    assert found.phase == (1, 0) and found.numbers() != expected  # the noise of other strips is another
    torch.testing.assert_close(found.loudness, torch.tensor(expected["loudness"]), rtol=0.2, atol=0)


def test_it_repeats():
    images = shoot(camera("bilinear"))
    one, other = (read_sensor(images, share=0.2, rounds=4)[0].sensor for _ in range(2))
    assert torch.equal(one.log_variance, other.log_variance) and torch.equal(one.loudness, other.loudness)


def test_images_without_a_mosaic_are_of_no_sensor():
    generator = torch.Generator().manual_seed(0)
    images = [image + 0.03 * torch.randn(image.shape, generator=generator) for image in scenes()]
    assert read_sensor(images) == []
    with pytest.raises(UserError, match="The images of my_folder show no sensor's mosaic: they were resized"):
        sensor_of(images, name="my_folder")


def test_images_smaller_than_a_place_are_refused():
    with pytest.raises(UserError, match="as large as a patch of 16x16 pixels"):
        read_sensor([image[:, 40:52, 40:52] for image in shoot(camera("bilinear"))])


def test_the_middle_of_a_large_image_begins_where_the_mosaic_and_the_blocks_do(monkeypatch):
    monkeypatch.setattr(sensor_calibration, "MIDDLE", 288)
    image = torch.rand(3, 500, 370)
    assert torch.equal(sensor_calibration._middle(image), image[:, 96:384, 32:320])


def test_what_shows_nothing_is_said_to_and_not_taken_for_a_resized_image():
    with pytest.raises(UserError, match="black or white"):
        read_sensor([torch.zeros(3, 64, 64)] * 3)
    with pytest.raises(UserError, match="rounds of read_sensor|rounds=0"):
        read_sensor([torch.rand(3, 64, 64)], rounds=0)
