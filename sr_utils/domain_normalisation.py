"""A flow that may see degraded images at the clean images' statistics, as the released AIM configuration has it.

Each channel of a degraded image is scaled and moved so that mean and deviation are those of the clean set before the
flow sees it, and back behind the flow. The map is affine: it is inverted exactly, and its log-determinant is the sum of
the scales' logarithms over all pixels.

Reference: Wolf, Lugmayr, Danelljan, Van Gool and Timofte, "DeFlow", CVPR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sr_utils.conditional_flow import ConditionalFlow
from sr_utils.deflow_config import CLEAN, DEGRADED, DeFlowConfig
from sr_utils.errors import UserError

CLIPPED_SHARE = 0.05
"""Largest share of values that domain normalisation may take out of range."""


class NormalisedFlow(ConditionalFlow):
    """A conditional flow that knows both domains' channel statistics, and uses them if its configuration says so."""

    def __init__(self, config: DeFlowConfig):
        super().__init__(config)
        self.register_buffer("domain_mean", torch.zeros(2, 3))
        self.register_buffer("domain_deviation", torch.ones(2, 3))

    def set_domain_statistics(self, clean: list[Tensor], degraded: list[Tensor]) -> None:
        """Measure each domain's channel mean and deviation from images (3, H, W), for the normalisation switch.

        Raises
        ------
        UserError: a domain has no images; or the switch is on, and more than `CLIPPED_SHARE` of the values of one
            domain, taken to the other's statistics, would lie outside [0, 1]: a file could not hold them.
        """
        for name, images in (("clean", clean), ("degraded", degraded)):
            if not images:
                raise UserError(f"There are no {name} images for the flow to learn from: give at least one.")
        pixels = [torch.cat([image.flatten(1) for image in images], dim=1) for images in (clean, degraded)]
        for domain in (CLEAN, DEGRADED):
            self.domain_mean[domain] = pixels[domain].mean(1)
            self.domain_deviation[domain] = pixels[domain].std(1)
        if self.config.domain_normalisation:
            scale, offset = (part.flatten(1).cpu() for part in self._normalisation())
            there = pixels[DEGRADED] * scale + offset
            back = (pixels[CLEAN] - offset) / scale
            outside = max(((part < 0) | (part > 1) | part.isnan()).float().mean().item() for part in (there, back))
            if outside > CLIPPED_SHARE:
                raise UserError(
                    f"domain_normalisation would push {100 * outside:.0f} % of the values out of range, so different "
                    "are the two sets' colours: turn it off, or choose clean images that are more alike."
                )

    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Scale and offset, (3, 1, 1) each, that take a degraded image to the clean domain's statistics."""
        scale = self.domain_deviation[CLEAN] / self.domain_deviation[DEGRADED]
        offset = self.domain_mean[CLEAN] - scale * self.domain_mean[DEGRADED]
        return scale[:, None, None], offset[:, None, None]

    def normalised(self, degraded: Tensor) -> Tensor:
        """Degraded images, or their conditions, at the clean domain's statistics if the flow is to see them so."""
        if not self.config.domain_normalisation:
            return degraded
        scale, offset = self._normalisation()
        return degraded * scale + offset

    def denormalised(self, degraded: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        if not self.config.domain_normalisation:
            return degraded
        scale, offset = self._normalisation()
        return (degraded - offset) / scale

    def _normalised_where_degraded(
        self, image: Tensor, condition: Tensor, domain: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Images and conditions, the degraded ones `normalised`, and the log-determinant of that."""
        if not self.config.domain_normalisation:
            return image, condition, 0.0
        degraded = domain == DEGRADED
        image, condition = (
            torch.where(degraded[:, None, None, None], self.normalised(part), part) for part in (image, condition)
        )
        scale, _ = self._normalisation()
        return image, condition, degraded * (image.shape[2] * image.shape[3]) * scale.log().sum()
