"""Plain cards, degraded: what is seen on them is the noise, as a model draws it and compression leaves it.

The flow is asked once for the cards' noise; the filter behind it (`grain.Grain`) can then be tried again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_utils.deflow import DeFlow
from sr_utils.fidelity import to_patches
from sr_utils.grain import PATCH
from sr_utils.images import to_bytes
from sr_utils.latent_noise import LatentNoise
from sr_utils.sampling import compressed

CARD = 64
"""Side of a card in pixels; its outer ring of 8 pixels is left out."""
BATCH = 20
"""Cards that are translated at a time."""


@dataclass(frozen=True)
class PlainCards:
    """Translated cards (N, 3, 64, 64) in the two parts of `DeFlow.translate_apart`; the seed also draws qualities."""

    certain: Tensor
    noise: Tensor
    seed: int

    def patches(self, model: DeFlow, *, qualities: Sequence[int] = ()) -> Tensor:
        """Patches (P, 3, 16, 16), as many of every card, seen through the filter that ``model`` has now.

        They are rounded to 8 bits, and compressed if there are ``qualities``, as by `sampling.degrade_image`.
        """
        cards = to_bytes(model.put_together(self.certain, self.noise)).float() / 255
        if qualities:
            cards = [compressed(card, qualities, self.seed + index) for index, card in enumerate(cards)]
        return to_patches([card[:, 8:-8, 8:-8] for card in cards], PATCH)


@torch.no_grad()
def plain_cards(model: DeFlow, colours: Tensor, *, seed: int = 0) -> PlainCards:
    """Translate a card for each colour (N, 3) in [0, 1] with a DeFlow on the CPU; card i as with seed + i alone.

    The colours are those that the result is to have; with ``domain_normalisation`` the clean card has another.
    """
    colours = model.normalised(colours[:, :, None, None])[:, :, 0, 0].clamp(0, 1)
    side = CARD + -CARD % model.config.side_multiple
    parts = []
    for start in range(0, len(colours), BATCH):
        cards = colours[start : start + BATCH, :, None, None].expand(-1, 3, side, side).contiguous()
        generators = [torch.Generator().manual_seed(seed + start + index) for index in range(len(cards))]
        draws = [model.draw_noise(1, side, side, generator=generator) for generator in generators]
        noise = [LatentNoise.of_all(level) for level in zip(*draws, strict=True)]
        parts.append(model.translate_apart(cards, model.condition(cards), noise))
    certain, noise = (torch.cat(part)[:, :, :CARD, :CARD] for part in zip(*parts, strict=True))
    return PlainCards(certain, noise, seed)
