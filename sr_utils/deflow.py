"""DeFlow: a conditional flow that learns a degradation from images that are not paired.

Clean images x and degraded images y share one flow f, given the domain-invariant condition h of each. In its
latent space clean images are standard normal and degraded ones are shifted (DeFlow, section 3.2, eq. 7-9)::

    f(x; h(x)) = z_x ~ N(0, I)
    f(y; h(y)) = z_y ~ N(m, S)

so the exact likelihood of either domain follows from the change of variables, and a clean image is degraded by
moving its latents from the first Gaussian to the second and decoding (eq. 11). `conditional_flow` is f itself.
`latent_shift` has two kinds of shift: the published one, and one whose mean and variances follow the image's coarser
part. `gain_shift` has a third, with a flow of its own: a camera's gain and noise.

Reference: Wolf, Lugmayr, Danelljan, Van Gool and Timofte, "DeFlow: Learning Complex Image Degradations from
Unpaired Data with Conditional Flows", CVPR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sr_utils.conditional_flow import unmoved
from sr_utils.deflow_config import CLEAN, DEGRADED, DeFlowConfig, condition_of, official_config, released_config
from sr_utils.degradations import gaussian_blur
from sr_utils.domain_normalisation import NormalisedFlow
from sr_utils.errors import UserError
from sr_utils.grain import Grain
from sr_utils.latent_noise import STRENGTHS, LatentNoise, Population, drawn
from sr_utils.published_keys import deflow_tensors

__all__ = ["CLEAN", "DEGRADED", "DeFlow", "DeFlowConfig", "condition_of", "load_official", "official_config"]


class DeFlow(NormalisedFlow):
    """Conditional multi-scale flow shared by both domains, with a learned shift for every latent."""

    config_class = DeFlowConfig

    def __init__(self, config: DeFlowConfig):
        super().__init__(config)
        self.population = Population(STRENGTHS if config.shift == "gain" else 1)
        self.grain = Grain() if config.shift == "gain" else None

    def shift_constants(self) -> list[nn.Parameter]:
        """The parameters of the shifts that hold for all images; see `training.DeFlowTraining.shift_rate_factor`."""
        names = {"mean", "factor", "turn", "log_variance", "log_gain", "log_noise"}
        constants = [value for name, value in self.shifts.named_parameters() if name.split(".")[-1] in names]
        return [value for value in (*constants, *self.population.parameters()) if value.requires_grad]

    def condition(self, image: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """h of images (N, 3, H, W) in [0, 1], as this model's configuration has it; see `condition_of`."""
        config = self.config
        options = {"domain_map": config.domain_map, "strength": config.map_strength, "generator": generator}
        return condition_of(image, config.condition_factor, **options)

    def draw_training_noise(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` draws in training: uniform numbers of the image's shape, normal ones of the condition's."""
        return torch.rand_like(image), torch.randn_like(condition)

    def forward(
        self,
        image: Tensor,
        condition: Tensor,
        domain: Tensor,
        *,
        noise: bool | tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Negative log-likelihood in bits per dimension, one per image; per pixel in the published form.

        Parameters
        ----------
        image: (N, 3, H, W) in [0, 1], sides multiples of ``condition_factor`` and of 2 ** levels.
        condition: h of each image, (N, 3, H / condition_factor, W / condition_factor).
        domain: (N,) integers, 0 clean and 1 degraded.
        noise: add dequantisation and condition noise, and count ln(quantisation) per dimension, so that the
            result bounds the code length of the 8-bit image; the default does so in training mode only. What
            `draw_training_noise` gave is taken as it is.
        """
        noise = self.training if noise is None else noise
        likelihood = torch.zeros(len(image), dtype=image.dtype, device=image.device)
        dimensions = image[0].numel()
        if noise:
            uniform, normal = self.draw_training_noise(image, condition) if noise is True else noise
            middle = 0.5 if self.config.form == "published" else 0.0
            image = image + (uniform - middle) / self.config.quantisation
            condition = condition + self.config.condition_noise * normal
            likelihood = likelihood - dimensions * math.log(self.config.quantisation)
        image, condition, log_det_normalisation = self._normalised_where_degraded(image, condition, domain)
        latents, contexts, log_det = self._flow(image, self._features(condition, *image.shape[2:]))
        likelihood = likelihood + log_det_normalisation + log_det
        for each in (CLEAN, DEGRADED):
            chosen = (domain == each).nonzero().flatten()
            if len(chosen):
                its = ([part if part is None else part[chosen] for part in parts] for parts in (latents, contexts))
                likelihood = likelihood.index_add(0, chosen, self._log_prob(each, *its))
        # The released code calls bits per pixel, of three values each, bits per dimension.
        units = dimensions // 3 if self.config.form == "published" else dimensions
        return -likelihood / (math.log(2) * units)

    def _log_prob(self, domain: int, latents: list[Tensor], contexts: list[Tensor | None]) -> Tensor:
        """Log-density of all latents of images of one domain; (N,)."""
        if domain == DEGRADED:
            return self.population.over_strengths(self._log_prob_at_strengths(latents, contexts))
        parts = zip(self.shifts, latents, contexts, strict=True)
        return sum(self._kept_small(shift.clean_log_prob, latent, context) for shift, latent, context in parts)

    def _log_prob_at_strengths(self, latents: list[Tensor], contexts: list[Tensor | None]) -> Tensor:
        """Log-density of all latents of degraded images at each strength of their noise; (N, S)."""
        parts = zip(self.shifts, latents, contexts, strict=True)
        return sum(
            self._kept_small(shift.degraded_log_prob, latent, context, self.population)
            for shift, latent, context in parts
        )

    def draw_noise(
        self,
        images: int,
        height: int,
        width: int,
        *,
        generator: torch.Generator | None = None,
        uniform: bool | None = None,
    ) -> list[LatentNoise]:
        """What chance decides about each latent of ``images`` of this size, finest level first.

        First the strengths are drawn, then the rest as `latent_noise.drawn` does. By default ``uniform`` numbers are
        drawn if `translate` needs them, in the gain shift.
        """
        strength = self.population.draw(images, generator).to(next(self.parameters()).dtype)
        uniform = self.config.shift == "gain" if uniform is None else uniform
        return drawn(self.latent_shapes(images, height, width), strength, generator=generator, uniform=uniform)

    @torch.no_grad()
    def translate(
        self,
        image: Tensor,
        condition: Tensor,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        noise: list[LatentNoise] | None = None,
    ) -> Tensor:
        """Degrade clean images: encode, move every latent to the degraded domain, decode (DeFlow, eq. 11).

        ``image`` is (N, 3, H, W) in [0, 1] and the result has its shape, not clamped. ``temperature`` scales the
        deviation of the drawn noise, which in the gain shift is filtered by ``grain``. With a ``generator`` (on the
        CPU) the draw repeats exactly; ``noise`` of `draw_noise` gives the draw itself. Dequantisation noise is never
        added, so none is left over.
        """
        noise = self.draw_noise(len(image), *image.shape[2:], generator=generator) if noise is None else noise
        return self.denormalised(self._grained(self._drawing(image, condition, noise), temperature))

    @torch.no_grad()
    def translate_apart(self, image: Tensor, condition: Tensor, noise: list[LatentNoise]) -> tuple[Tensor, Tensor]:
        """What `put_together` makes a translation of: its part without noise, and the noise before its filter.

        The filter ``grain`` can then be tried again and again without the flow.
        """
        drawn_at = self._drawing(image, condition, noise)
        certain = drawn_at(0.0)
        return certain, drawn_at(1.0) - certain

    @torch.no_grad()
    def put_together(self, certain: Tensor, noise: Tensor) -> Tensor:
        """`translate`'s result from the parts of `translate_apart`."""
        return self.denormalised(certain + (noise if self.grain is None else self.grain(noise)))

    def _drawing(self, image: Tensor, condition: Tensor, noise: list[LatentNoise]) -> Callable[[float], Tensor]:
        """Encode clean images; what is returned moves their latents at a temperature of the noise and decodes them."""
        image = gaussian_blur(image, self.config.blur) if self.config.blur else image
        features = self._features(condition, *image.shape[2:], twice=True)
        latents = self._flow(image, features)[0]

        def drawn_at(temperature):
            def moved(level, latent, context):
                return self.shifts[level].transport(latent, noise[level].to(latent), context, temperature=temperature)

            return self._inverse(latents, features, moved)

        return drawn_at

    def _grained(self, drawn_at: Callable[[float], Tensor], temperature: float) -> Tensor:
        """What ``drawn_at`` makes at a temperature of the noise, with that noise filtered by ``grain``."""
        drawn = drawn_at(temperature)
        if temperature == 0 or self.grain is None or not self.grain.changes():
            return drawn
        certain = drawn_at(0.0)
        return certain + self.grain(drawn - certain)

    @torch.no_grad()
    def translate_back(
        self,
        image: Tensor,
        condition: Tensor,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Clean images that could have become these degraded ones: a draw of the posterior of x given y.

        ``image`` and ``condition`` are of the degraded domain; the rest is as in `translate`. Temperature 0 gives
        the posterior's mean in latent space. What the degradation took away is drawn, not known. The posterior is
        that of each latent by itself: the filter ``grain``, which ties their noise together, is left out of it, and so
        is the configured ``blur``.
        """
        image, condition = self.normalised(image), self.normalised(condition)
        features = self._features(condition, *image.shape[2:], twice=True)
        latents, contexts, _ = self._flow(image, features)
        strength = self.population.most_likely(self._log_prob_at_strengths(latents, contexts))
        noise = self.draw_noise(len(image), *image.shape[2:], generator=generator, uniform=True)
        clean = [
            shift.transport_back(
                latent,
                replace(each, log_strength=strength).to(latent),
                context,
                self.population,
                temperature=temperature,
            )
            for shift, latent, each, context in zip(self.shifts, latents, noise, contexts, strict=True)
        ]
        return self._inverse(clean, features, unmoved)

    @torch.no_grad()
    def sample(
        self, condition: Tensor, domain: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images of one domain drawn from scratch, given only their condition (DeFlow, eq. 7 and 9); not clamped.

        ``condition`` is (N, 3, h, w) and the result (N, 3, h * condition_factor, w * condition_factor), its sides
        multiples of 2 ** levels. Temperature scales the deviation of all latents. The noise of degraded images is
        filtered by ``grain``, as in `translate`.
        """
        condition = self.normalised(condition) if domain == DEGRADED else condition
        height, width = (side * self.config.condition_factor for side in condition.shape[2:])
        of_clean = self.draw_noise(len(condition), height, width, generator=generator, uniform=True)
        of_shift = self.draw_noise(len(condition), height, width, generator=generator)
        features = self._features(condition, height, width)

        def drawn_at(noise_temperature):
            def moved(level, noise, context):
                shift, noise = self.shifts[level], noise.to(condition)
                latent = temperature * shift.sample_clean(noise, context)
                if domain != DEGRADED:
                    return latent
                latent = latent * self.population.log_contrast.exp()
                noise = of_shift[level].to(latent)
                return shift.transport(latent, noise, context, self.population, temperature=noise_temperature)

            return self._inverse(of_clean, features, moved)

        if domain != DEGRADED:
            return drawn_at(temperature)
        return self.denormalised(self._grained(drawn_at, temperature))


def reconfigured(model: DeFlow, **changes: Any) -> DeFlow:
    """A copy in evaluation mode with the same weights and ``changes`` of its configuration that leave their sizes.

    It is on the model's device and of its type.
    """
    copy = DeFlow(replace(model.config, **changes)).to(next(model.parameters()))
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def load_official(state_dict: Mapping[str, Tensor], config: DeFlowConfig | Mapping[str, object]) -> DeFlow:
    """A DeFlow with released weights, in evaluation mode.

    Parameters
    ----------
    state_dict: tensors under the released names, as `checkpoints.load_pickled_tensors` reads them from a ``.pth``.
    config: from `DeFlowConfig.published`, or a released configuration as `deflow_config.released_config` takes it.

    Raises
    ------
    UserError: the tensors are not of this architecture and size.
    """
    config = config if isinstance(config, DeFlowConfig) else released_config(config)
    model = DeFlow(replace(config, form="published"))
    steps = [config.mixing_steps + config.steps] * config.levels
    tensors = deflow_tensors(state_dict, steps=steps, splits=len(model.splits))
    own = model.state_dict()
    tensors |= {name: torch.ones_like(value) for name, value in own.items() if name.endswith(".initialised")}
    tensors |= {name: own[name] for name in ("domain_mean", "domain_deviation")}
    for unused in [name for name in tensors if name.startswith("encoder.upsampled.") and name not in own]:
        del tensors[unused]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"These weights are not of a released DeFlow of these sizes ({str(error).splitlines()[1].strip()}); "
            "check the configuration."
        ) from error
    return model.eval()
