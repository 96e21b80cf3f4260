"""Which layers a DeFlow of a given configuration is made of: its encoder, steps, splits and shifts."""

from __future__ import annotations

from torch import nn

from sr_utils.condition_encoder import ConditionEncoder
from sr_utils.deflow_config import DeFlowConfig
from sr_utils.flow_layers import AffineCoupling, FlowStep, Split
from sr_utils.gain_shift import GainShift
from sr_utils.latent_shift import ConstantShift, LocalShift
from sr_utils.lifting import LiftingStep, LinearCoupling
from sr_utils.published_encoder import PublishedEncoder
from sr_utils.published_layers import PublishedFlowStep, PublishedSplit


def feature_channels(config: DeFlowConfig) -> int:
    """Channels of each level's features; for the gain shift h's own three are behind them."""
    return config.features * (1 + len(config.stacked_blocks)) + (3 if config.shift == "gain" else 0)


def condition_encoder(config: DeFlowConfig) -> nn.Module:
    """The encoder of h."""
    if config.form == "compact":
        return ConditionEncoder(config)
    return PublishedEncoder(
        config.features,
        config.growth or config.features // 2,
        config.encoder_blocks,
        tuple(config.stacked_blocks),
        config.condition_factor,
        checkpointing=config.checkpointing,
    )


def flow_steps(config: DeFlowConfig, channels: int) -> nn.ModuleList:
    """The flow steps of one level."""
    if config.form == "compact":
        sizes = (channels, feature_channels(config), config.hidden, config.bound)
        if config.shift == "gain":
            return nn.ModuleList(LiftingStep(*sizes[:3], first=step == 0) for step in range(config.steps))
        return nn.ModuleList(FlowStep(*sizes) for _ in range(config.steps))
    sizes = (channels, feature_channels(config), config.hidden, config.epsilon)
    conditional = [False] * config.mixing_steps + [True] * config.steps
    return nn.ModuleList(PublishedFlowStep(*sizes, conditional=each) for each in conditional)


def split(config: DeFlowConfig, channels: int) -> nn.Module:
    """What ends a level: half of its channels are finished."""
    if config.form == "published":
        return PublishedSplit(channels)
    sizes = (channels, feature_channels(config), config.hidden)
    return Split(LinearCoupling(*sizes) if config.shift == "gain" else AffineCoupling(*sizes, config.bound))


def latent_shift(
    config: DeFlowConfig, channels: int, *, finest: bool, coarsest: bool
) -> ConstantShift | LocalShift | GainShift:
    """The shift of a latent of so many channels."""
    if config.shift == "gain":
        return GainShift(channels, coarsest=coarsest, coherence=config.coherence if finest else 1.0)
    if config.shift == "constant":
        return ConstantShift(channels, config.initial_shift)
    # The coarsest latent sees nothing: of h alone, it would learn what the two sets show, not how.
    context = 0 if coarsest else channels + feature_channels(config)
    return LocalShift(channels, config.initial_shift, context_channels=context, hidden=config.hidden)
