"""Sizes and choices of a DeFlow, its condition, and the configurations of the released models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.errors import UserError
from sr_utils.parameters import check_range, check_switches

CLEAN, DEGRADED = 0, 1


@dataclass(frozen=True)
class DeFlowConfig:
    """Sizes of a compact DeFlow; the defaults train on two CPU cores in about an hour."""

    levels: int = 3
    """Squeezes of the flow; all but the last are followed by a split."""
    steps: int = 5
    """Flow steps of each level (K in the paper)."""
    hidden: int = 48
    """Channels inside each coupling network."""
    features: int = 32
    """Channels of the encoded condition."""
    encoder_blocks: int = 2
    """RRDBs of the condition encoder."""
    condition_factor: int = 8
    """h(x) is smaller than x by this factor; image sides must be multiples of it and of 2 ** levels. Published form:
    a power of two, since its encoder reaches the levels' sizes by doublings."""
    condition_noise: float = 0.02
    """Deviation of the Gaussian noise added to h in training, in image units of [0, 1]. With 0, training leaves
    chance to h itself, as its map in `domain_maps` has it."""
    domain_map: str = "bicubic_noise"
    """Which h: a name in `domain_maps.DOMAIN_MAPS`; the published one is antialiased bicubic downsampling."""
    map_strength: float = 1.0
    """Scales what h does to hide the domain, its noise or its smoothing."""
    quantisation: int = 256
    """Levels of an image channel; training adds uniform noise of one level (dequantisation)."""
    bound: float = 1.0
    """Largest absolute log-scale of one affine layer."""
    shift: Literal["constant", "local", "gain"] = "gain"
    """The published shift, the same everywhere; one that follows the image's coarser part; or a camera's gain and
    noise, with a flow that is linear given h."""
    initial_shift: float = 0.5
    """Deviation of a constant or local shift at the start of training; a constant one that starts at 0 stays there."""
    coherence: float = 1.0
    """Gain shift: how much of the finest latent's surviving detail is the scene's own, from 0 to 1; unpaired images
    cannot tell. The rest is drawn afresh."""
    blur: float = 0.0
    """Deviation, in pixels, of a Gaussian that takes detail from a clean image before it is translated; read off the
    degraded images' grain by `detail_calibration`. Likelihoods do not know of it."""
    form: Literal["compact", "published"] = "compact"
    """This package's layers, or the released ones, which are there to load released weights."""
    growth: int = 0
    """Growth of the encoder's RRDBs; 0 is half of ``features``."""
    splits: int | None = None
    """How many levels, from the first, end with a split; all but the last when None."""
    mixing_steps: int = 0
    """Published form: steps without a coupling at the start of each level."""
    stacked_blocks: tuple[int, ...] = ()
    """Published form: the encoder's RRDBs whose outputs join every level's features."""
    epsilon: float = 0.001
    """Published form: smallest scale of a coupling."""
    domain_normalisation: bool = False
    """Match the degraded domain's channel mean and deviation to the clean domain's, as the AIM setting does."""
    checkpointing: bool = False
    """Compute flow steps and RRDBs again in the backward pass instead of keeping what is inside: less memory, a third
    more time, the same numbers."""

    mixed_precision: bool = False
    """Compact form: the condition's networks compute in bfloat16, latents and log-determinants in full precision."""

    def __post_init__(self):
        owner = "DeFlowConfig"
        check_range(owner, least=1, largest=6, levels=self.levels)
        check_range(owner, least=1, largest=128, steps=self.steps, condition_factor=self.condition_factor)
        check_range(owner, least=1, largest=1024, hidden=self.hidden, features=self.features)
        check_range(owner, least=0, largest=1024, growth=self.growth)
        check_range(owner, least=0, largest=128, encoder_blocks=self.encoder_blocks, mixing_steps=self.mixing_steps)
        check_range(owner, least=2, largest=65536, quantisation=self.quantisation)
        check_range(owner, least=0.0, map_strength=self.map_strength, initial_shift=self.initial_shift)
        check_range(owner, least=0.0, condition_noise=self.condition_noise)
        check_range(owner, least=1e-6, largest=10.0, bound=self.bound)
        check_range(owner, least=0.0, largest=10.0, epsilon=self.epsilon)
        check_range(owner, least=0.0, largest=1.0, coherence=self.coherence)
        check_range(owner, least=0.0, largest=8.0, blur=self.blur)
        check_range(owner, least=0, largest=self.levels - 1, splits=0 if self.splits is None else self.splits)
        switches = {"domain_normalisation": self.domain_normalisation, "checkpointing": self.checkpointing}
        check_switches(owner, **switches, mixed_precision=self.mixed_precision)
        if self.shift not in ("constant", "local", "gain"):
            raise UserError(f"shift {self.shift!r} is not known; choose constant, local or gain.")
        if not isinstance(self.domain_map, str) or self.domain_map not in DOMAIN_MAPS:
            raise UserError(f"domain_map {self.domain_map!r} is not known; choose one of {', '.join(DOMAIN_MAPS)}.")
        if not isinstance(self.stacked_blocks, list | tuple):
            raise UserError(f"stacked_blocks={self.stacked_blocks!r} must be a list of whole numbers.")
        for index in self.stacked_blocks:
            check_range(owner, least=0, largest=127, stacked_blocks=index)
        object.__setattr__(self, "stacked_blocks", tuple(self.stacked_blocks))  # a list, when read from a file
        if self.form not in ("compact", "published"):
            raise UserError(f"form {self.form!r} is not known; choose compact or published.")
        if self.form == "published" and self.mixed_precision:
            raise UserError("The published form is held to released numbers, so mixed_precision must be off for it.")
        if self.form == "published" and self.condition_factor.bit_count() != 1:
            raise UserError(
                f"condition_factor={self.condition_factor} of {owner} must be a power of two in the published form."
            )
        if self.form == "published" and self.shift == "gain":
            raise UserError("The published form has affine couplings, so shift='gain' does not suit it: choose local.")

    @classmethod
    def published(
        cls,
        *,
        scale: int = 8,
        steps: int = 16,
        blocks: int = 23,
        stacked_blocks: tuple[int, ...] = (1, 8, 15, 22),
        hidden: int = 128,
        **others: float | int | str | bool,
    ) -> DeFlowConfig:
        """The released architecture; the defaults are those of the released AIM-RWSR model (its configuration file).

        ``scale`` is the published name of the condition's factor, 4 or 8. The shift is the constant one and starts
        at zero, where it stays constant: train with another ``initial_shift``, or with ``shift="local"``.
        """
        settings = {"features": 64, "growth": 32, "splits": 1, "mixing_steps": 2, "condition_noise": 0.03}
        settings |= {"quantisation": 32, "shift": "constant", "initial_shift": 0.0}
        return cls(
            form="published",
            condition_factor=scale,
            steps=steps,
            encoder_blocks=blocks,
            stacked_blocks=tuple(stacked_blocks),
            hidden=hidden,
            **{**settings, **others},
        )

    @property
    def side_multiple(self) -> int:
        """What both sides of an image must be multiples of, for the squeezes and for h."""
        return math.lcm(self.condition_factor, 2**self.levels)


def condition_of(
    image: Tensor,
    factor: int,
    *,
    domain_map: str = "bicubic_noise",
    strength: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """h(x) of (N, 3, H, W) in [0, 1], smaller by ``factor``; by default bicubic, rounded to 8 bits.

    ``domain_map`` is a name in `domain_maps.DOMAIN_MAPS`; what it leaves to chance needs a ``generator``.
    """
    return DOMAIN_MAPS[domain_map](image, generator, factor=factor, strength=strength)


def released_config(settings: Mapping[str, Any]) -> DeFlowConfig:
    """The configuration that a released one describes in its own names.

    These are ``scale``, ``K``, ``L``, ``nf``, ``gc``, ``nb``, ``stacked_blocks``, ``hidden_channels``,
    ``additional_flow_steps``, ``affine_eps`` and ``quant``; others do not concern the architecture.
    """
    known = {"K": "steps", "L": "levels", "nf": "features", "gc": "growth", "nb": "blocks", "quant": "quantisation"}
    known |= {"hidden_channels": "hidden", "additional_flow_steps": "mixing_steps", "affine_eps": "epsilon"}
    known |= {"scale": "scale", "stacked_blocks": "stacked_blocks"}
    return DeFlowConfig.published(**{known[name]: value for name, value in settings.items() if name in known})


def official_config(state_dict: Mapping[str, Tensor], *, stacked_blocks: tuple[int, ...] | None = None) -> DeFlowConfig:
    """The configuration of released weights, read off their names and shapes.

    Which of the encoder's blocks are stacked cannot be seen, only how many; the released choices are known.

    Raises
    ------
    UserError: these are no DeFlow weights, their shapes are none that fit together, or the stacked blocks must be
        given.
    """
    try:
        features = state_dict["RRDB.conv_first.weight"].shape[0]
        growth = state_dict["RRDB.RRDB_trunk.0.RDB1.conv1.weight"].shape[0]
        blocks = len({name.split(".")[2] for name in state_dict if name.startswith("RRDB.RRDB_trunk.")})
        layers = [name.split(".")[2] for name in state_dict if name.endswith(".invconv.log_s")]
        conditional = {name.split(".")[2] for name in state_dict if ".affine.fFeatures.0.weight" in name}
        widths = [value.shape for name, value in state_dict.items() if name.endswith(".affine.fFeatures.0.weight")]
        channels = state_dict["mean_shift"].numel()
        splits = sum(name.endswith(".mean_shift") for name in state_dict)
        hidden, stacked = widths[0][0], widths[0][1] // features - 1
        # Every squeeze multiplies the channels by four, every split halves them.
        levels = round(math.log(channels * 2**splits / 3, 4))
        steps, mixing_steps = len(conditional) // levels, (len(layers) - len(conditional)) // levels
    except KeyError as error:
        raise UserError(f"These are not the weights of a released DeFlow ({error} is missing).") from error
    except (IndexError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"These are not the weights of a released DeFlow: their shapes do not fit together ({error})."
        ) from error
    if stacked_blocks is None:
        released = {(23, 4): (1, 8, 15, 22), (blocks, blocks): tuple(range(blocks)), (blocks, 0): ()}
        stacked_blocks = released.get((blocks, stacked))
    if stacked_blocks is None or len(stacked_blocks) != stacked:
        raise UserError(f"These weights stack {stacked} of {blocks} blocks; give their indices as stacked_blocks.")
    return DeFlowConfig.published(
        scale=8 if "RRDB.upconv3.weight" in state_dict else 4,
        steps=steps,
        blocks=blocks,
        stacked_blocks=stacked_blocks,
        hidden=hidden,
        levels=levels,
        features=features,
        growth=growth,
        splits=splits,
        mixing_steps=mixing_steps,
    )
