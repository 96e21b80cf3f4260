"""3x3 convolutions of maps that were cut into cells and transformed beforehand; see `convolution_schemes`.

A convolution is linear in its input channels, so channels of different kinds (a level's own, those enlarged from a
smaller map) are convolved each by the scheme that suits them, and summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.convolution_schemes import Scheme, enlarged_scheme

FACTORS = (2, 4)
"""Factors of enlargement for which a convolution at the smaller size pays."""


class GradientSum:
    """The gradient of one tensor that many functions read, summed in place; autograd would add up their copies."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._pass: int | None = None

    def add(self, products: Tensor, kernels: Tensor) -> None:
        """Add ``products`` @ ``kernels``, matrix by matrix."""
        # A backward pass that ended without asking for this gradient has left its sum behind.
        if self._pass != torch._C._current_graph_task_id():
            self._sum, self._pass = None, torch._C._current_graph_task_id()
        if self._sum is None:
            self._sum = products @ kernels
        else:
            self._sum.baddbmm_(products, kernels)

    def take(self) -> Tensor | None:
        """The sum of this backward pass, if anything was added."""
        total, self._sum = self._sum, None
        return total


@dataclass(frozen=True, eq=False)
class _Group:
    """The parts whose schemes have the same cell; one matrix puts their products together."""

    cell: int
    outputs: Tensor
    """A x A of each scheme side by side, (cell², products)."""
    places: dict[int, slice]
    """Where among the products each part's lie; parts of the same scheme share them."""


@cache
def _groups(schemes: tuple[Scheme, ...], dtype: torch.dtype, device: torch.device) -> list[_Group]:
    groups = []
    for cell in sorted({scheme.cell for scheme in schemes}):
        places, outputs, start = {}, [], 0
        for scheme in dict.fromkeys(scheme for scheme in schemes if scheme.cell == cell):
            stop = start + len(scheme.weights)
            places |= {index: slice(start, stop) for index, other in enumerate(schemes) if other is scheme}
            outputs.append(scheme.outputs)
            start = stop
        groups.append(_Group(cell, torch.cat(outputs, dim=1).to(device, dtype), places))
    return groups


@dataclass(frozen=True)
class PhaseConvolution:
    """A 3x3 convolution with zero padding of ``parts``, one behind the other, to (N, out, height, width).

    A part is the windows that its scheme made of some channels, (products, cells, C).
    """

    height: int
    width: int
    schemes: tuple[Scheme, ...]
    """Of each part."""

    def __call__(self, parts: Sequence[Tensor], weight: Tensor) -> Tensor:
        """Convolve with ``weight`` (out, sum of C, 3, 3); in channels-last memory, and unknown to autograd."""
        slices, maps = _split(parts, weight), None
        for group in _groups(self.schemes, weight.dtype, weight.device):
            products, begun = weight.new_empty(group.outputs.shape[1], self._cells(parts, group), len(weight)), set()
            for index, place in group.places.items():
                kernels = self.schemes[index].kernels(slices[index]).transpose(1, 2)
                if place.start in begun:
                    products[place].baddbmm_(parts[index], kernels)
                else:
                    torch.bmm(parts[index], kernels, out=products[place])
                begun.add(place.start)
            summand = self._to_maps(group.outputs @ products.flatten(1), group.cell, len(weight))
            maps = summand if maps is None else maps.add_(summand)
        return maps

    def gradients(
        self, parts: Sequence[Tensor], weight: Tensor, gradient: Tensor, sums: Sequence[GradientSum | None]
    ) -> Tensor:
        """The weight's gradient, given the output's; those of the parts are added to their ``sums`` if they have."""
        to_weight = torch.empty_like(weight)
        slices, to_slices = _split(parts, weight), _split(parts, to_weight)
        for group in _groups(self.schemes, weight.dtype, weight.device):
            products = group.outputs.T @ self._to_cells(gradient, group.cell)
            products = products.view(len(products), -1, len(weight))
            for index, place in group.places.items():
                scheme = self.schemes[index]
                if sums[index] is not None:
                    sums[index].add(products[place], scheme.kernels(slices[index]))
                to_slices[index].copy_(scheme.taps(products[place].transpose(1, 2) @ parts[index]))
        return to_weight

    @staticmethod
    def _cells(parts: Sequence[Tensor], group: _Group) -> int:
        return parts[next(iter(group.places))].shape[1]

    def _to_maps(self, cells: Tensor, cell: int, channels: int) -> Tensor:
        """(cell², cells * C) as (N, C, H, W) in channels-last memory."""
        rows, columns = math.ceil(self.height / cell), math.ceil(self.width / cell)
        grid = cells.view(cell, cell, -1, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
        pixels = grid.reshape(-1, rows * cell, columns * cell, channels)
        return pixels[:, : self.height, : self.width].contiguous().permute(0, 3, 1, 2)

    def _to_cells(self, maps: Tensor, cell: int) -> Tensor:
        """(N, C, H, W) as (cell², cells * C), zero where cells overhang; undoes `_to_maps`."""
        rows, columns = math.ceil(self.height / cell), math.ceil(self.width / cell)
        pixels = maps.permute(0, 2, 3, 1)
        below, right = rows * cell - self.height, columns * cell - self.width
        if below or right:
            pixels = F.pad(pixels, (0, 0, 0, right, 0, below))
        grid = pixels.unflatten(2, (columns, cell)).unflatten(1, (rows, cell))
        return grid.permute(2, 4, 0, 1, 3, 5).reshape(cell**2, -1)


def _split(parts: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """A weight's input channels for each part."""
    return weight.split([part.shape[2] for part in parts], dim=1)


def conv_gradients(maps: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a 3x3 convolution's input (N, C, H, W) and weight (out, C, 3, 3)."""
    one, zero = [1, 1], [0, 0]
    # Not torch.nn.grad: that one loses the input's memory format, and everything is then converted.
    return torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, one, one, one, False, zero, 1, [True, True, False]
    )[:2]


def conv_of_upsampled(coarse: Tensor, weight: Tensor, factor: int) -> Tensor:
    """Convolve (N, C, h, w), enlarged ``factor`` times by nearest neighbour, with ``weight`` (out, C, 3, 3).

    Equal to ``conv2d(interpolate(coarse, scale_factor=factor), weight, padding=1)``, (N, out, factor h, factor w).

    Raises
    ------
    ValueError: the factor is neither 2 nor 4.
    """
    if factor not in FACTORS:
        raise ValueError(f"The factor must be one of {FACTORS}, not {factor}.")
    height, width = (factor * side for side in coarse.shape[2:])
    scheme = enlarged_scheme(factor)
    return _OfOnePart.apply(PhaseConvolution(height, width, (scheme,)), scheme.windows(coarse), weight)


class _OfOnePart(torch.autograd.Function):
    """A `PhaseConvolution` of one part."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, convolution: PhaseConvolution, part: Tensor, weight: Tensor
    ) -> Tensor:
        ctx.convolution = convolution
        ctx.save_for_backward(part, weight)
        return convolution([part], weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        part, weight = ctx.saved_tensors
        to_part = GradientSum()
        to_weight = ctx.convolution.gradients([part], weight, gradient, [to_part])
        return None, to_part.take(), to_weight
