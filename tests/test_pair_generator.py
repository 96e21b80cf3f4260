"""The classical generator: what was put into images is found in them, and in what the generator makes."""

import pytest
import torch

from sr_utils.compression import estimate_quality
from sr_utils.degradations import gaussian_blur, jpeg
from sr_utils.errors import UserError
from sr_utils.fidelity import neighbour_correlation
from sr_utils.images import quantize
from sr_utils.pair_generator import PairGenerator, fit_pair_generator, measure_noise


def ramps(count, seed=0, size=96):
    """Clean images: slow ramps of different brightness and colour."""
    chance = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-0.1, 0.1, size).expand(3, size, size)
    return [ramp + 0.25 + 0.5 * torch.rand(3, 1, 1, generator=chance) for _ in range(count)]


def grained(image, seed, *, deviation=0.04, falls=False, grain=0.7):
    """With noise that neighbours and channels share and that may fall with brightness."""
    chance = torch.Generator().manual_seed(seed)
    own, shared = torch.randn(1, *image.shape, generator=chance), torch.randn(1, 1, *image.shape[1:], generator=chance)
    noise = gaussian_blur(own + shared, grain)[0]
    return image + deviation * (1.5 - image if falls else 1) * noise / noise.std()


@pytest.fixture(scope="module")
def degraded():
    """Half of the images with weak noise, half with strong; all compressed."""
    return [
        jpeg(quantize(grained(image, index, deviation=0.02 + 0.03 * (index % 2), falls=True)), 80 + 8 * (index % 2))
        for index, image in enumerate(ramps(16))
    ]


def test_strength_colour_and_grain_are_measured():
    images = [grained(image, index, deviation=0.02 * (1 + index % 3)) for index, image in enumerate(ramps(24))]
    found = measure_noise(images)
    expected = torch.tensor([0.02 * (1 + index % 3) for index in range(24)])
    torch.testing.assert_close(found.strengths, expected, atol=0.004, rtol=0.1)
    assert found.gains.max() / found.gains.min() < 1.3
    assert found.colours[0].abs().std() < 0.1, "the strongest mixture is brightness"
    assert found.powers[0].sum() > 1.5 * found.powers[1:].sum()
    # Power 3 is of the deviation 1 in each of three colours.
    assert found.powers.mean() == pytest.approx(1, rel=1e-4)
    assert found.powers[0, 1, 1] > 10 * found.powers[0, 8, 8]


def test_drawn_noise_has_the_grain_of_what_was_seen_after_trials_and_not_before():
    images = [grained(image, index) for index, image in enumerate(ramps(24))]
    real = neighbour_correlation(torch.stack([grained(torch.zeros(3, 96, 96), index) for index in range(8)]))
    errors = []
    for trials in (0, 4):
        generator = fit_pair_generator(images, compressed=False, trials=trials)
        noise = generator.draw_noise(192, 200, torch.Generator().manual_seed(0))
        assert noise.shape == (3, 192, 200) and noise.std() == pytest.approx(1, rel=0.06)
        errors.append((neighbour_correlation(noise[None]) - real).abs().max())
    # The patches' planes and borders hide some of the coarse grain from the measurement, on both sides alike.
    assert errors[1] < 0.05 < errors[0]


@pytest.mark.parametrize("patches", [False, True])
def test_what_it_makes_is_as_noisy_as_what_it_saw(degraded, patches):
    generator = fit_pair_generator(degraded, patches=patches)
    made = [generator.degrade(image, seed=index) for index, image in enumerate(ramps(48, seed=5))]
    real, found = measure_noise(degraded), measure_noise(made)
    assert found.strengths.mean() == pytest.approx(real.strengths.mean().item(), rel=0.12)
    assert found.strengths.std() == pytest.approx(real.strengths.std().item(), rel=0.3)
    assert {estimate_quality(image) for image in made} >= {80, 88}


def test_noise_that_falls_with_brightness_does_so_in_what_it_makes():
    images = [grained(image, index, falls=True) for index, image in enumerate(ramps(24, size=192))]
    noise = fit_pair_generator(images, compressed=False, trials=2).noise
    dark, bright = (noise.gain_at(torch.full((3, 1, 1), level)).mean() for level in (0.35, 0.65))
    assert (dark / bright).item() == pytest.approx((1.5 - 0.35) / (1.5 - 0.65), rel=0.12)


def test_draws_repeat_and_stay_images(degraded):
    generator = fit_pair_generator(degraded, trials=1)
    clean = ramps(1, size=50)[0][:, :, :37]
    one = generator.degrade(clean, seed=1)
    assert one.shape == clean.shape and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, generator.degrade(clean, seed=1))
    assert not torch.equal(one, generator.degrade(clean, seed=2))
    assert torch.equal(one, quantize(one))


def test_parts_can_be_left_out(degraded):
    options = {"coloured": False, "signal_dependent": False, "compressed": False}
    plain = fit_pair_generator(degraded, trials=2, **options)
    assert plain.noise.powers.std() == 0 and plain.noise.gains.std() == 0 and set(plain.qualities) == {None}


def test_images_without_mid_tones_are_refused_but_one_among_others_is_not(degraded):
    with pytest.raises(UserError, match="black or white"):
        measure_noise([torch.zeros(3, 32, 32)])
    assert len(fit_pair_generator([*degraded, torch.ones(3, 96, 96)], trials=1).qualities) == len(degraded)


def test_an_even_border_and_an_even_image_show_no_noise(degraded):
    bordered = [image.clone() for image in degraded]
    bordered[0][:, :16] = 128 / 255
    plain, found = (measure_noise(images).strengths for images in (degraded, bordered))
    torch.testing.assert_close(found, plain, rtol=0.15, atol=0)
    assert measure_noise([*degraded, torch.full((3, 96, 96), 0.5)]).donors == list(range(len(degraded)))
    with pytest.raises(UserError, match="or has no noise"):
        measure_noise([torch.full((3, 32, 32), 0.5)])


def test_drawn_noise_has_the_correlations_of_the_colours_that_were_seen():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [0.0, 0.3, 0.4]])
    noise = 0.03 * torch.einsum("ij,njhw->nihw", mixing, torch.randn(6, 3, 96, 96, generator=generator))
    made = PairGenerator(measure_noise(list(0.5 + noise)), [None] * 6)
    drawn = made.draw_noise(128, 128, torch.Generator().manual_seed(1))
    one, other = (torch.corrcoef(each.flatten(1)) for each in (drawn, noise.transpose(0, 1)))
    torch.testing.assert_close(one, other, rtol=0, atol=0.05)
