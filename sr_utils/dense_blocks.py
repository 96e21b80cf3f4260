"""RRDBs with a backward pass of their own, which keeps every dense block's maps once.

Autograd would keep five growing concatenations of the same maps and their rectifiers' inputs, four times as much.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.rrdb import RESIDUAL_SCALE, RRDB

SLOPE = 0.2
"""Of the leaky rectifiers."""


def rrdb(block: RRDB, x: Tensor) -> Tensor:
    """``block(x)``, (N, F, H, W) to the same shape."""
    inner = x
    for dense in block.blocks:
        inner = _DenseBlock.apply(inner, *(value for conv in dense.convs for value in (conv.weight, conv.bias)))
    return torch.add(x, inner, alpha=RESIDUAL_SCALE)


class _DenseBlock(torch.autograd.Function):
    """`rrdb.ResidualDenseBlock`."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[0::2], parameters[1::2]
        images, _, height, width = x.shape
        known = x.new_empty(images, weights[-1].shape[1], height, width)
        known[:, : x.shape[1]] = x
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            end = weight.shape[1]
            grown = F.conv2d(known[:, :end], weight, bias, padding=1)
            known[:, end : end + len(weight)] = F.leaky_relu_(grown, SLOPE)
        ctx.save_for_backward(known, *weights)
        return torch.add(x, F.conv2d(known, weights[-1], biases[-1], padding=1), alpha=RESIDUAL_SCALE)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, ...]:
        known, *weights = ctx.saved_tensors
        to_grown = RESIDUAL_SCALE * gradient
        to_known, to_weight = _conv_gradients(known, weights[-1], to_grown)
        to_parameters = [to_weight, to_grown.sum((0, 2, 3))]
        for weight in reversed(weights[:-1]):
            end = weight.shape[1]
            grown = slice(end, end + len(weight))
            to_grown = torch.ops.aten.leaky_relu_backward(to_known[:, grown], known[:, grown], SLOPE, True)
            further, to_weight = _conv_gradients(known[:, :end], weight, to_grown)
            to_known[:, :end] += further
            to_parameters = [to_weight, to_grown.sum((0, 2, 3)), *to_parameters]
        return gradient + to_known[:, : gradient.shape[1]], *to_parameters


def _conv_gradients(maps: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a 3x3 convolution's input (N, C, H, W) and weight (out, C, 3, 3)."""
    one, zero = [1, 1], [0, 0]
    # Not torch.nn.grad: that one loses the input's memory format, and everything is then converted.
    return torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, one, one, one, False, zero, 1, [True, True, False]
    )[:2]
