"""Read a sensor off its photographs: where they are flat, how strong is the noise at each colour's own pixels?

Compression leaves nearly nothing of the noise of colour, so photographs seem not to say how loud red and blue are. But
luma survives, and the mosaic keeps the colours apart: where red was measured, luma has red's own noise and averages of
the others', where green was, green's own. So luma behind a high-pass filter is compared at the three kinds of pixels,
and blue, which luma has little of, by what is left of B - Y.

All of it is done by trial, as compression cannot be inverted. Plain cards in the colours of every flat place are
photographed with the numbers found so far, at the image's own strength and quality, and each number is moved by what is
missing on the cards::

    log t   of an image,       by luma's power at all pixels, the mean over its places
    log v   at a brightness,   by what is missing in places of this brightness, more than elsewhere
    log w   of red,            by how much more is missing at red's pixels than at green's
    log w   of blue,           by what is missing of B - Y

The finest grain is compared, of which places that are flat hold hardly anything else: the level that is found does not
depend on how many of the places are looked at.

That is done under every way to interpolate. Each has the same numbers to move, and more is compared than there are
numbers: blue's pixels, and R - Y. The way under which these come out right, too, is the sensor's.

No truth is needed, nor any clean image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sr_utils.compression import estimate_quality
from sr_utils.errors import UserError
from sr_utils.fidelity import without_plane
from sr_utils.grain import PATCH, luma_of
from sr_utils.grain_calibration import SPLIT, flattest_places
from sr_utils.mosaic import INTERPOLATIONS, Phase, find_mosaic, high_passed, site_colours
from sr_utils.noise_calibration import check_places
from sr_utils.parameters import check_range
from sr_utils.sensor import LEVELS, Sensor, linear_light

CARD, MARGIN = 48, 16
"""Side of a card, and what is left out at its borders; both multiples of two blocks of JPEG."""
FLOOR = 0.02
"""Powers in grey levels squared below which rounding rules."""
INITIAL_SHOT, INITIAL_READ = 0.008, 1e-5
"""v at the start, as if light were counted: INITIAL_SHOT l + INITIAL_READ."""
STRENGTH_STEP, RED_STEP, BLUE_STEP = 0.7, 1.5, 0.45
"""How far a logarithm is moved for one that is missing. Luma's power at red's pixels is mostly not red's."""
BELIEF = 20
"""A brightness with as many places is moved by half of what they say."""
AVERAGED = 4
"""The result is the mean of so many last rounds, since chance moves each."""
BOUND = 2.5
"""Log-strengths lie at most this far from their mean."""
MIDDLE = 1024
"""Side of what is read of a photograph that is larger; a multiple of `GRID`."""
GRID = 16
"""The mosaic and the blocks of JPEG repeat after so many pixels, whatever the compression of colour."""
TOGETHER = 1000
"""Cards in one strip; JPEG allows of no strip that is longer than 65,500 pixels."""


@dataclass(frozen=True)
class SensorReading:
    """A sensor, and how well it explains what its photographs show."""

    sensor: Sensor
    missing: dict[str, float]
    """What is missing on the cards, as logarithms of powers, of all that is compared over all places."""

    def misfit(self) -> float:
        """Root mean square of what is missing."""
        values = torch.tensor(list(self.missing.values()))
        return values.square().mean().sqrt().item()


@dataclass(frozen=True)
class _Places:
    """Flat places of all photographs: their patches (P, 3, 16, 16), and the photograph that each is of, (P,)."""

    patches: Tensor
    owner: Tensor
    qualities: Sequence[int | None]

    @staticmethod
    def of(images: Sequence[Tensor], share: float) -> _Places:
        """The flattest ``share`` of each image; images that are black or white throughout have none."""
        found = [flattest_places([image], share) for image in images]
        seen = [index for index, patches in enumerate(found) if len(patches)]
        check_places(len(seen))
        owner = torch.arange(len(seen)).repeat_interleave(torch.tensor([len(found[index]) for index in seen]))
        return _Places(torch.cat([found[index] for index in seen]), owner, [estimate_quality(images[i]) for i in seen])

    def brightness(self) -> Tensor:
        """Mean luma of each place, (P,)."""
        return luma_of(self.patches).mean((1, 2))

    def of_images(self, values: Tensor) -> Tensor:
        """Means over the places of each photograph, (P,) to (N,)."""
        return values.new_zeros(len(self.qualities)).index_add(0, self.owner, values) / self.owner.bincount()


def read_sensor(
    images: Iterable[Tensor], *, share: float = 0.12, rounds: int = 14, seed: int = 0
) -> list[SensorReading]:
    """What photographs say of their sensor, under every way to interpolate, the best first; empty if they show none.

    Parameters
    ----------
    images: (3, H, W) in [0, 1], of one camera, each beginning at the same pixel of the mosaic. Of a large one only the
        middle is kept and read.
    share: of the places of each image, the flattest, are looked at.
    rounds: how often the numbers are moved; `AVERAGED` at least.

    Raises
    ------
    UserError: an image is smaller than a place, all are black or white throughout, or there are too few rounds.
    """
    check_range("read_sensor", least=AVERAGED, rounds=rounds)
    images = [_middle(image) for image in images]
    places = _Places.of(images, share)
    phase = find_mosaic(images)
    if phase is None:
        return []
    readings = [_fit(places, phase, way, rounds=rounds, seed=seed) for way in INTERPOLATIONS]
    return sorted(readings, key=SensorReading.misfit)


def _middle(image: Tensor) -> Tensor:
    """The middle of an image (3, H, W), if it is larger than `MIDDLE`, on the same place of the mosaic; a copy."""
    starts = [max(0, side - MIDDLE) // 2 // GRID * GRID for side in image.shape[1:]]
    part = image[:, starts[0] : starts[0] + MIDDLE, starts[1] : starts[1] + MIDDLE]
    return part.clone() if part.shape != image.shape else image


def sensor_of(images: Iterable[Tensor], *, name: str) -> Sensor:
    """The sensor that explains images (3, H, W) best; see `read_sensor`. ``name`` stands for them in errors.

    Raises
    ------
    UserError: they show no sensor's mosaic; or as `read_sensor`.
    """
    readings = read_sensor(images)
    if not readings:
        raise UserError(f"The images of {name} show no sensor's mosaic: they were resized, so leave the sensor out.")
    return readings[0].sensor


def _fit(places: _Places, phase: Phase, interpolation: str, *, rounds: int, seed: int = 0) -> SensorReading:
    """Move all numbers of a sensor by what is missing on its cards; see the module's text."""
    curve = (INITIAL_SHOT * linear_light(LEVELS) + INITIAL_READ).log()
    strengths = torch.zeros(len(places.qualities))
    sensor = Sensor(phase, interpolation, curve, torch.ones(3), strengths, places.qualities)
    real, near = _Powers.of(places.patches, phase), _nearness(places.brightness())  # (P, L)
    last, missing = [], []
    for turn in range(rounds):
        gap = real.less(_Powers.of(_cards(sensor, places, seed + turn), phase))
        step = 1.0 if turn < rounds // 2 else 0.5
        of_images = places.of_images(gap.sites.mean(1))
        left = gap.sites.mean(1) - of_images[places.owner]
        left = (left @ near) / (near.sum(0) + BELIEF)
        strengths = (sensor.log_strengths + STRENGTH_STEP * of_images).clamp(-BOUND, BOUND)
        mean = strengths.mean()
        louder = step * torch.stack([RED_STEP * gap.red(), torch.zeros(()), BLUE_STEP * gap.colour[1]])
        sensor = replace(
            sensor,
            log_variance=sensor.log_variance + step * left + mean,
            loudness=sensor.loudness * louder.exp(),
            log_strengths=strengths - mean,
        )
        last, missing = [*last, sensor][-AVERAGED:], [*missing, gap.summary()][-AVERAGED:]
    averaged = replace(
        sensor,
        log_variance=torch.stack([each.log_variance for each in last]).mean(0),
        loudness=torch.stack([each.loudness.log() for each in last]).mean(0).exp(),
        log_strengths=torch.stack([each.log_strengths for each in last]).mean(0),
    )
    return SensorReading(averaged, {name: sum(each[name] for each in missing) / len(missing) for name in missing[0]})


@dataclass(frozen=True)
class _Powers:
    """Logarithms of noise power, or what is missing of them."""

    sites: Tensor
    """Of luma behind the high-pass filter, at red's, green's and blue's pixels, of every place, (P, 3)."""
    colour: Tensor
    """Of R - Y and B - Y, the median over places, (2,)."""

    @staticmethod
    def of(patches: Tensor, phase: Phase) -> _Powers:
        squared = high_passed(255 * luma_of(patches)).square()
        # An even place has the mosaic's own phase; its outermost pixels are gone.
        colours = site_colours(PATCH, PATCH, phase)[1:-1, 1:-1]
        sites = torch.stack([squared[:, colours == colour].mean(1) for colour in range(3)], dim=1)
        difference = torch.einsum("ij,pjhw->pihw", SPLIT[1:].to(patches), 255 * without_plane(patches))
        colour = difference.square().mean((2, 3)).quantile(0.5, dim=0)
        return _Powers(sites.clamp(min=FLOOR).log(), colour.clamp(min=FLOOR).log())

    def less(self, other: _Powers) -> _Powers:
        """What ``other`` lacks."""
        return _Powers(self.sites - other.sites, self.colour - other.colour)

    def red(self) -> Tensor:
        """How much more is missing at red's pixels than at green's."""
        return (self.sites[:, 0] - self.sites[:, 1]).mean()

    def summary(self) -> dict[str, float]:
        """Of all places: luma at red's and at blue's pixels, beside green's; R - Y and B - Y."""
        red, green, blue = self.sites.mean(0).tolist()
        return {
            "luma_at_red": red - green,
            "luma_at_blue": blue - green,
            "red_less_luma": self.colour[0].item(),
            "blue_less_luma": self.colour[1].item(),
        }


def _nearness(brightness: Tensor) -> Tensor:
    """How much each place counts at each of `LEVELS`, from 0 to 1, (P, L): the hat functions of interpolation."""
    distance = (brightness.clamp(LEVELS[0], LEVELS[-1])[:, None] - LEVELS).abs() / (LEVELS[1] - LEVELS[0])
    return (1 - distance).clamp(min=0)


def _cards(sensor: Sensor, places: _Places, seed: int) -> Tensor:
    """What is seen on a plain card in the colour of each place, (P, 3, 16, 16)."""
    colours, seen = places.patches.mean((2, 3)), []
    for index, quality in enumerate(places.qualities):
        strength, generator = sensor.log_strengths[index].item(), torch.Generator().manual_seed(1000 * seed + index)
        for own in colours[places.owner == index].split(TOGETHER):
            strip = own.T[:, None, :, None].expand(3, CARD, -1, CARD).reshape(3, CARD, -1)
            exposed = sensor.expose(strip, log_strength=strength, quality=quality, generator=generator)
            middle = exposed[:, MARGIN:-MARGIN].unflatten(2, (-1, CARD))[:, :, :, MARGIN:-MARGIN]
            seen.append(middle.permute(2, 0, 1, 3))
    return torch.cat(seen)
