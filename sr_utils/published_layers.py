"""The layers of the published DeFlow that differ from `flow_layers`, kept to load and reproduce released weights.

They have the same interface, except that a step's features are `level_features.LevelFeatures`, so `deflow.DeFlow` is
built from either. What differs:

- a scale is sigmoid(raw + 2) + epsilon and the encoding *divides* by it, so a scale near zero makes latents large
  when encoding and cannot blow up when decoding; our own models bound the log-scale on both sides instead;
- couplings come before the injector, and their networks have actnorms instead of biases;
- before the conditional steps of each level stand a few that only normalise and mix channels;
- a split sees only the half that goes on, not the condition;
- the encoder is a whole super-resolution RRDBNet whose inner features are stacked onto each level's.

References
----------
Wolf et al., "DeFlow", CVPR 2021, section 3.4 and the released configurations.
Lugmayr et al., "SRFlow", ECCV 2020, section 3.3, from which this architecture comes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sr_utils.conditional_network import ConditionalNetwork, GainedZeroConv
from sr_utils.flow_layers import ActNorm, InvertibleConv1x1, sum_image
from sr_utils.level_features import LevelFeatures

SPLIT_EPSILON = 1e-6
"""Keeps the deviation that a split predicts away from zero."""


def _interleaved(values: Tensor) -> tuple[Tensor, Tensor]:
    """Even and odd channels, as the released networks order their two outputs."""
    return values[:, 0::2], values[:, 1::2]


class _Division(torch.autograd.Function):
    """z / scale - shift for the last channels of z, as a network's output says, and its log-determinant.

    One function with its own backward pass, which needs the scale and the quotient only: autograd would keep and pass
    over three times as much.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, z: Tensor, raw: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        shift, scale = _interleaved(raw)
        scale = torch.sigmoid(scale + 2).add_(epsilon)
        out = z.clone(memory_format=torch.channels_last)
        changed = out[:, -scale.shape[1] :].div_(scale)
        ctx.epsilon = epsilon
        ctx.save_for_backward(scale, changed.clone())
        changed -= shift
        return out, -sum_image(scale.log())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, to_out: Tensor, to_log_det: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        scale, quotient = ctx.saved_tensors
        channels = scale.shape[1]
        to_z = to_out.clone(memory_format=torch.channels_last)
        to_changed = to_z[:, -channels:].div_(scale)
        images, _, height, width = scale.shape
        to_raw = scale.new_empty(images, height, width, 2 * channels).permute(0, 3, 1, 2)
        to_shift, to_scale = _interleaved(to_raw)
        torch.neg(to_out[:, -channels:], out=to_shift)
        # d scale / d raw is s (1 - s) for the sigmoid s.
        sigmoid = scale - ctx.epsilon
        from_log_det = to_log_det[:, None, None, None] / scale
        torch.mul(quotient.mul(to_changed).add_(from_log_det).neg_(), sigmoid * (1 - sigmoid), out=to_scale)
        return to_z, to_raw, None


class DividingCoupling(nn.Module):
    """Conditional coupling, then injector, both of the form z / scale - shift."""

    def __init__(self, channels: int, features: int, hidden: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        changed = channels - channels // 2
        self.coupling = ConditionalNetwork(channels // 2 + features, 2 * changed, hidden)
        self.injector = ConditionalNetwork(features, 2 * channels, hidden)

    def _injection(self, features: LevelFeatures) -> Tensor:
        """The injector's answer, which depends on nothing but the features."""
        known = features.injections
        if known is None:
            return self.injector(None, features)
        if self.injector not in known:
            known[self.injector] = self.injector(None, features)
        return known[self.injector]

    def _multiplied(self, z: Tensor, raw: Tensor) -> Tensor:
        """The inverse of `_Division`."""
        shift, scale = _interleaved(raw)
        kept, changed = z.tensor_split([-scale.shape[1]], dim=1)
        changed = (changed + shift) * torch.sigmoid(scale + 2).add(self.epsilon)
        return torch.cat([kept, changed], dim=1)

    def forward(self, z: Tensor, features: LevelFeatures) -> tuple[Tensor, Tensor]:
        raw = self.coupling(z[:, : z.shape[1] // 2], features)
        z, log_det = _Division.apply(z, raw, self.epsilon)
        z, log_det_injector = _Division.apply(z, self._injection(features), self.epsilon)
        return z, log_det + log_det_injector

    def inverse(self, z: Tensor, features: LevelFeatures) -> Tensor:
        z = self._multiplied(z, self._injection(features))
        return self._multiplied(z, self.coupling(z[:, : z.shape[1] // 2], features))


class PublishedFlowStep(nn.Module):
    """Actnorm, 1x1 convolution and, unless ``conditional`` is off, coupling and injector."""

    def __init__(self, channels: int, features: int, hidden: int, epsilon: float, *, conditional: bool = True):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = InvertibleConv1x1(channels)
        self.coupling = DividingCoupling(channels, features, hidden, epsilon) if conditional else None

    def forward(self, z: Tensor, features: LevelFeatures) -> tuple[Tensor, Tensor]:
        if self.training and not self.actnorm.initialised:
            self.actnorm.initialise(z)
        # W ((z + b) s) is one affine map of z.
        weight, scale = self.mixing.weight(), self.actnorm.log_scale.exp()
        z = _affine(z, weight * scale, weight @ (scale * self.actnorm.bias))
        log_det = (self.actnorm.log_scale.sum() + self.mixing.log_diagonal.sum()) * (z.shape[2] * z.shape[3])
        if self.coupling is None:
            return z, log_det.expand(len(z))
        z, log_det_coupling = self.coupling(z, features)
        return z, log_det + log_det_coupling

    def inverse(self, z: Tensor, features: LevelFeatures) -> Tensor:
        if self.coupling is not None:
            z = self.coupling.inverse(z, features)
        weight = self.mixing.inverse_weight() * (-self.actnorm.log_scale).exp()[:, None]
        return _affine(z, weight, -self.actnorm.bias)


def _affine(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``weight`` times every pixel of (N, C, H, W), plus ``bias``; in channels-last memory."""
    rows = torch.addmm(bias, z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]), weight.T)
    return rows.view(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)


class PublishedSplit(nn.Module):
    """Factor out half of the channels, standardised by what the other half predicts."""

    def __init__(self, channels: int):
        super().__init__()
        self.prior = GainedZeroConv(channels - channels // 2, 2 * (channels // 2))

    def _mean_and_deviation(self, continued: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_deviation = _interleaved(self.prior(continued))
        return mean, log_deviation.exp() + SPLIT_EPSILON

    def forward(self, z: Tensor, features: LevelFeatures) -> tuple[Tensor, Tensor, Tensor]:
        consumed = z.shape[1] // 2
        continued, finished = z[:, :-consumed], z[:, -consumed:]
        mean, deviation = self._mean_and_deviation(continued)
        return continued, (finished - mean) / deviation, -sum_image(deviation.log())

    def inverse(self, continued: Tensor, finished: Tensor, features: LevelFeatures) -> Tensor:
        mean, deviation = self._mean_and_deviation(continued)
        return torch.cat([continued, mean + deviation * finished], dim=1)
