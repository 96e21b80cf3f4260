"""What the benchmarks of the published form run: one training step and one translation, in either form.

The sizes are those of the released AIM-RWSR model, batch 2. This module imports no more than the forms need, so that
a process that measures its own memory holds little else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain_deflow import PlainDeFlow
from sr_utils.deflow import DeFlow, DeFlowConfig, condition_of

FORMS = {"plain": PlainDeFlow, "ours": DeFlow}


@dataclass(frozen=True)
class PublishedSizes:
    """Sizes of the work; the defaults are the published configuration."""

    steps: int = 16
    """Conditional flow steps of each of three levels (K)."""
    blocks: int = 23
    """RRDBs of the condition encoder."""
    patch: int = 160
    batch: int = 2
    side: int = 512
    """Of the image that is translated."""

    def config(self) -> DeFlowConfig:
        """The model: released sizes, its shift away from zero so that the covariance is at work."""
        stacked = tuple(block for block in (1, 8, 15, 22) if block < self.blocks)
        return DeFlowConfig.published(steps=self.steps, blocks=self.blocks, stacked_blocks=stacked, initial_shift=0.1)


def models(sizes: PublishedSizes) -> dict[str, torch.nn.Module]:
    """Both forms with the same weights, their actnorms set by a first batch."""
    torch.manual_seed(0)
    ours = DeFlow(sizes.config()).train()
    images, condition, domain = training_batch(sizes)
    with torch.no_grad():
        ours(images, condition, domain)
    plain = PlainDeFlow(sizes.config()).train()
    plain.load_state_dict(ours.state_dict())
    return {"plain": plain, "ours": ours}


def training_batch(sizes: PublishedSizes) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth random images, their condition, and the domains, by turns."""
    images = smooth_images(sizes.batch, sizes.patch)
    return images, condition_of(images, 8), torch.arange(sizes.batch) % 2


def smooth_images(count: int, side: int) -> Tensor:
    """Images (N, 3, side, side) in [0, 1] with something to see at every scale."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, side, side, generator=generator)
    for factor in (4, 16, 64):
        coarse = torch.rand(count, 3, side // factor + 1, side // factor + 1, generator=generator)
        image = image + factor * torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return image / image.amax()


def training_step(model: torch.nn.Module, sizes: PublishedSizes) -> Callable[[], Any]:
    """One whole step: likelihood with its noise, gradients, and Adam as each form would use it."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5, fused=isinstance(model, DeFlow) or None)
    images, condition, domain = training_batch(sizes)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        model(images, condition, domain).mean().backward()
        optimiser.step()

    return step


def translation(model: torch.nn.Module, sizes: PublishedSizes) -> Callable[[], Any]:
    """Degrade one image of ``side`` x ``side`` pixels."""
    model.eval()
    image = smooth_images(1, sizes.side)
    condition = condition_of(image, 8)
    return lambda: model.translate(image, condition, generator=torch.Generator().manual_seed(2))


WORK = {"train_step": training_step, "translate_512": translation}
