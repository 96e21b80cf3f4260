"""What the interactive pages show, as pure functions: h of a clean and a degraded image, and a walk in latent space.

Nothing here draws; `map_figures` does, and `widgets` puts sliders beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.deflow import DeFlow
from sr_utils.degradations import gaussian_blur
from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.errors import UserError

LEVELS = ("all", "finest", "middle", "coarsest")
"""Which latents a walk moves."""


@dataclass(frozen=True)
class MapView:
    """One crop of a clean image and of the degraded one, seen through h."""

    domain_map: str
    strength: float
    clean: Tensor
    """x, (3, S, S) in [0, 1]."""
    degraded: Tensor
    """y, of the same place."""
    clean_map: Tensor
    """h(x), (3, S / factor, S / factor)."""
    degraded_map: Tensor
    """h(y)."""

    @property
    def difference(self) -> Tensor:
        """h(y) - h(x), in image units."""
        return self.degraded_map - self.clean_map

    @property
    def hidden(self) -> float:
        """Share of the degradation's mean square that h took away: 1 minus that of h(y) - h(x) over that of y - x."""
        before = (self.degraded - self.clean).square().mean().item()
        return 1 - self.difference.square().mean().item() / max(before, 1e-12)

    def effect(self) -> str:
        """`hidden` in words. Noise that h adds differs between the two, so some maps make the difference larger."""
        if self.hidden >= 0:
            return f"hides {100 * self.hidden:.1f} % of the degradation"
        return f"makes the two differ {1 - self.hidden:.3g} times as much, in mean square"

    def pictures(self) -> dict[str, Tensor]:
        """What there is to see, all at the crop's size: x, y, the difference amplified four times, h(x) and h(y)."""
        pictures = {"x, clean": self.clean, "y, degraded": self.degraded}
        pictures |= {"4 (h(y) - h(x)) + grey": 0.5 + 4 * self.difference}
        pictures |= {"h(x)": self.clean_map, "h(y)": self.degraded_map}
        size = self.clean.shape[1:]
        return {name: F.interpolate(each[None], size=size)[0].clamp(0, 1) for name, each in pictures.items()}

    def histograms(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Edges and shares of values of y - x and of h(y) - h(x), one bin a grey level, 30 to either side."""
        edges = (torch.arange(-30, 32) - 0.5) / 255
        found = {"y - x": self.degraded - self.clean, "h(y) - h(x)": self.difference}
        return {
            name: (edges, torch.histogram(values.flatten().float(), edges).hist / values.numel())
            for name, values in found.items()
        }


def view_map(
    clean: Tensor,
    degraded: Tensor,
    domain_map: str,
    *,
    strength: float = 1.0,
    top: int = 0,
    left: int = 0,
    size: int = 256,
    factor: int = 8,
    seed: int = 0,
) -> MapView:
    """The view of a square of side ``size`` of two images (3, H, W) of the same scene; it is moved inside if need be.

    Raises
    ------
    UserError: there is no such map, or the two images have different sizes.
    """
    if domain_map not in DOMAIN_MAPS:
        raise UserError(f"There is no map {domain_map!r}; choose one of {', '.join(DOMAIN_MAPS)}.")
    if clean.shape != degraded.shape:
        raise UserError(f"The clean image {tuple(clean.shape)} and the degraded one {tuple(degraded.shape)} differ.")
    size = min(size, *clean.shape[1:]) // factor * factor
    top, left = (min(max(0, place), side - size) for place, side in zip((top, left), clean.shape[1:], strict=True))
    crops = [image[:, top : top + size, left : left + size] for image in (clean, degraded)]
    # Both with one generator, one after the other, as in training: noise that h adds differs between the two.
    generator = torch.Generator().manual_seed(seed)
    maps = [DOMAIN_MAPS[domain_map](crop[None], generator, factor=factor, strength=strength)[0] for crop in crops]
    return MapView(domain_map, strength, *crops, *maps)


class LatentWalk:
    """From a clean image towards a degraded version of it, in latent space; what does not change is computed once.

    Parameters
    ----------
    image: (3, H, W) in [0, 1], sides multiples of ``model.config.side_multiple``.
    """

    def __init__(self, model: DeFlow, image: Tensor):
        self.model, self.image = model, image[None]
        with torch.no_grad():
            self.condition = model.condition(self.image)
            self.latents, self.contexts = zip(*model.encode_in_context(self.image, self.condition), strict=True)
            # Where the move begins: a translation blurs its image first.
            blur = model.config.blur
            self.soft = model.encode(gaussian_blur(self.image, blur), self.condition) if blur else self.latents

    @torch.no_grad()
    def step(self, *, seed: int = 0, temperature: float = 1.0, share: float = 1.0, levels: str = "all") -> Tensor:
        """The image (3, H, W), clamped, whose latents have gone ``share`` of the way to those of a degraded draw.

        ``seed`` chooses the draw, ``temperature`` scales its chance; of ``levels`` only those latents move. Share 0 is
        the clean image itself, and 1 with all levels is `DeFlow.translate` before its noise is filtered by ``grain``.
        The colours of the degraded domain, if the model normalises them away, come back with all levels only.

        Raises
        ------
        UserError: there are no such levels.
        """
        if levels not in LEVELS:
            raise UserError(f"levels={levels!r} is not known; choose one of {', '.join(LEVELS)}.")
        there = self._degraded_latents(temperature, torch.Generator().manual_seed(seed))
        last = len(there) - 1
        moved = {"all": range(last + 1), "finest": (0,), "middle": range(1, last), "coarsest": (last,)}[levels]
        mixed = [
            torch.lerp(here, target, share) if number in moved else here
            for number, (here, target) in enumerate(zip(self.latents, there, strict=True))
        ]
        image = self.model.decode(mixed, self.condition)
        if levels == "all" and self.model.config.shift != "local":
            image = torch.lerp(image, self.model.denormalised(image), share)
        return image[0].clamp(0, 1)

    def _degraded_latents(self, temperature: float, generator: torch.Generator) -> list[Tensor]:
        """The latents of a degraded draw."""
        model = self.model
        if model.config.shift == "local":
            # What such a shift looks at has itself been moved, so only the whole way down is right.
            options = {"temperature": temperature, "generator": generator}
            return model.encode(model.translate(self.image, self.condition, **options), self.condition)
        noise = model.draw_noise(1, *self.image.shape[2:], generator=generator)
        parts = zip(model.shifts, self.soft, noise, self.contexts, strict=True)
        return [shift.transport(z, each, context, temperature=temperature) for shift, z, each, context in parts]
