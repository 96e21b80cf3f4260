"""The temperature at which generated noise is as strong as real noise."""

import torch

from sr_utils import temperature_calibration
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.sampling import translate_image
from sr_utils.temperature_calibration import calibrate_temperature


def test_the_calibrated_temperature_gives_real_and_generated_images_the_same_noise():
    torch.manual_seed(0)
    config = DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1, shift="local", initial_shift=0.05)
    flow = DeFlow(config).eval()

    def with_noise(level, generator):
        return [(0.5 + level * torch.randn(3, 64, 64, generator=generator)).clamp(0, 1) for _ in range(3)]

    generator = torch.Generator().manual_seed(0)
    flat = [torch.full((3, 64, 64), 0.5) for _ in range(3)]
    hot = [translate_image(flow, image, temperature=1.6, seed=index) for index, image in enumerate(flat)]
    found = calibrate_temperature(flow, flat, hot, seed=10)
    assert abs(found.temperature - 1.6) < 0.1
    assert found.deviations == sorted(found.deviations) and found.deviations[0] < found.target < found.deviations[-1]
    assert calibrate_temperature(flow, flat, with_noise(0.0, generator)).temperature == 1.0
    assert calibrate_temperature(flow, flat, with_noise(0.3, generator)).temperature == 2.5


def test_no_two_images_of_a_calibration_share_their_noise(flow, monkeypatch):
    seeds = []

    def remember(model, image, *, seed, **options):
        seeds.append(seed)
        return image

    monkeypatch.setattr(temperature_calibration, "degrade_image", remember)
    images = [torch.rand(3, 32, 32) for _ in range(3)]
    calibrate_temperature(flow, images, images, temperatures=(1.0, 2.0), seed=7)
    assert seeds == [7, 8, 9] * 2


def test_what_is_compared_is_compressed(monkeypatch):
    seen = []

    def remember(model, image, *, qualities, **options):
        seen.append(tuple(qualities))
        return image

    monkeypatch.setattr(temperature_calibration, "degrade_image", remember)
    images = [torch.rand(3, 32, 32)]
    calibrate_temperature(None, images, images, temperatures=(1.0,), qualities=[70, 80])
    assert seen == [(70, 80)]
