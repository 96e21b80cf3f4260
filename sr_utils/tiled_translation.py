"""Translation of a photograph of any size in bounded memory: tile by tile, with the noise drawn as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.deflow import DeFlow
from sr_utils.errors import UserError
from sr_utils.images import finite_bytes
from sr_utils.latent_noise import LatentNoise
from sr_utils.parameters import check_range
from sr_utils.tiles import tiles

TRANSLATION_TILE, TRANSLATION_OVERLAP = 1280, 64
"""Sides of what is translated at once. Less overlap shows: 32 pixels differ by 2 grey levels, 64 by 0.2."""
BAND = 256
"""Rows of an image whose noise is drawn at once."""


def translated_bytes(
    model: DeFlow, clean: Tensor, *, temperature: float, seed: int, device: str, tile: int, overlap: int
) -> Tensor:
    """`sampling.translate_image` as bytes, a quarter of the memory.

    Raises
    ------
    UserError: ``tile`` or ``overlap`` is no multiple of what the flow needs or negative, or nothing is left of a tile.
    """
    factor = model.config.side_multiple
    if tile % factor or overlap % factor or overlap < 0 or tile <= 2 * overlap:
        raise UserError(
            f"tile={tile} and overlap={overlap} do not fit: give multiples of {factor}, tile above twice overlap."
        )
    check_range("a translation", least=0.0, largest=100.0, temperature=temperature)
    check_range("a translation", least=0, largest=2**63 - 1, seed=seed)
    condition = model.condition(_pad_to_multiple(clean, factor)[None])
    height, width = (side + -side % factor for side in clean.shape[1:])
    noise = _NoiseBands(model, height, width, seed)
    degraded = torch.empty(3, height, width, dtype=torch.uint8)
    for top, bottom, keep_top, keep_bottom in tiles(height, tile, overlap, multiple=factor):
        noise.move_to(top, bottom)
        for left, right, keep_left, keep_right in tiles(width, tile, overlap, multiple=factor):
            area = (top, bottom, left, right)
            part = model.translate(
                # Padded here, a tile at a time: a padded copy of a large photograph would outlive its use.
                _pad_to_multiple(_cut(clean[None], area, 1)[0], factor)[None].to(device),
                _cut(condition, area, model.config.condition_factor).to(device),
                temperature=temperature,
                noise=noise.inside(area),
            )
            kept = (keep_top - top, keep_bottom - top, keep_left - left, keep_right - left)
            degraded[:, keep_top:keep_bottom, keep_left:keep_right] = finite_bytes(
                _cut(part, kept, 1)[0], of="flow"
            ).cpu()
    return degraded[:, : clean.shape[1], : clean.shape[2]]


def _pad_to_multiple(image: Tensor, factor: int) -> Tensor:
    """Extend the bottom and right of (3, H, W) by replication to multiples of ``factor``."""
    height, width = image.shape[1:]
    right, bottom = -width % factor, -height % factor
    return F.pad(image[None], (0, right, 0, bottom), mode="replicate")[0] if right or bottom else image


def _cut(maps: Tensor, area: tuple[int, int, int, int], factor: int) -> Tensor:
    """What lies between top, bottom, left and right, given in pixels, of maps that are ``factor`` times smaller."""
    top, bottom, left, right = (side // factor for side in area)
    return maps[:, :, top:bottom, left:right]


class _NoiseBands:
    """The draw for one image, band after band from the top, of which only those in use are held.

    Bands do not depend on the tiles, so neither does the draw. An image has one strength of noise.
    """

    def __init__(self, model: DeFlow, height: int, width: int, seed: int):
        self.bands = self._draw(model, height, width, torch.Generator().manual_seed(seed))
        self.held: dict[int, list[LatentNoise]] = {}
        self.width, self.drawn_to = width, 0

    @staticmethod
    def _draw(
        model: DeFlow, height: int, width: int, generator: torch.Generator
    ) -> Iterator[tuple[int, int, list[LatentNoise]]]:
        """Each band's first row, its end, and its noise."""
        strength = None
        for start in range(0, height, BAND):
            stop = min(start + BAND, height)
            noise = model.draw_noise(1, stop - start, width, generator=generator)
            strength = noise[0].log_strength if strength is None else strength
            yield start, stop, [replace(each, log_strength=strength) for each in noise]

    def move_to(self, top: int, bottom: int) -> None:
        """Hold the bands of the rows from ``top`` to ``bottom``, which may only grow, and let those above go."""
        self.held = {start: noise for start, noise in self.held.items() if start + BAND > top}
        while self.drawn_to < bottom:
            start, self.drawn_to, noise = next(self.bands)
            if self.drawn_to > top:
                self.held[start] = noise

    def inside(self, area: tuple[int, int, int, int]) -> list[LatentNoise]:
        """The noise of every latent inside an area, given in pixels, of the rows that are held."""
        top, bottom, left, right = area
        parts = []
        for start, noise in self.held.items():
            rows = (max(0, top - start), max(0, bottom - start), left, right)
            parts.append([self._cut_noise(each, rows) for each in noise])
        return [self._joined(level) for level in zip(*parts, strict=True)]

    def _cut_noise(self, noise: LatentNoise, area: tuple[int, int, int, int]) -> LatentNoise:
        factor = self.width // noise.normal.shape[3]
        uniform = None if noise.uniform is None else _cut(noise.uniform, area, factor)
        return replace(noise, normal=_cut(noise.normal, area, factor), uniform=uniform)

    @staticmethod
    def _joined(bands: tuple[LatentNoise, ...]) -> LatentNoise:
        """The noise of bands below each other."""
        if len(bands) == 1:
            return bands[0]
        uniform = None if bands[0].uniform is None else torch.cat([band.uniform for band in bands], dim=2)
        return replace(bands[0], normal=torch.cat([band.normal for band in bands], dim=2), uniform=uniform)
