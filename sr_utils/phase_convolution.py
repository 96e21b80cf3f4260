"""3x3 convolutions of maps that were cut into cells and transformed beforehand; see `convolution_schemes`.

A convolution is linear in its input channels, so channels of different kinds (a level's own, those enlarged from a
smaller map) are convolved each by the scheme that suits them, and summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.convolution_schemes import Scheme, enlarged_scheme

FACTORS = (2, 4)
"""Factors of enlargement for which a convolution at the smaller size pays."""

PRODUCTS = 2**21
"""Numbers that the products of a convolution may be at a time."""


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

    def outputs_of(self, parts: Sequence[Tensor], kernels: dict[int, Tensor]) -> Tensor:
        """Each member's (products, cells, C) times its kernels (products, C, out), to (cell², cells * out)."""
        any_member = next(iter(kernels))
        count, cells, out = self.outputs.shape[1], parts[any_member].shape[1], kernels[any_member].shape[2]
        outputs = self.outputs.new_empty(len(self.outputs), cells * out)
        # A few cells at a time: the products are many times larger than what is made of them.
        span = min(cells, max(1, PRODUCTS // (count * out)))
        memory = self.outputs.new_empty(count * span * out)
        for start in range(0, cells, span):
            stop, begun = min(start + span, cells), set()
            products = memory[: count * (stop - start) * out].view(count, stop - start, out)
            for index, place in self.places.items():
                if place.start in begun:
                    products[place].baddbmm_(parts[index][:, start:stop], kernels[index])
                else:
                    torch.bmm(parts[index][:, start:stop], kernels[index], out=products[place])
                begun.add(place.start)
            torch.mm(self.outputs, products.flatten(1), out=outputs[:, start * out : stop * out])
        return outputs


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
        slices, groups = _split(parts, weight), _groups(self.schemes, weight.dtype, weight.device)
        images = parts[0].shape[1] // math.prod(self._grid(self.schemes[0].cell))
        # What is kept is allocated ahead of what is not, or the memory of the latter could not be used again.
        pixels = weight.new_empty(images, self.height, self.width, len(weight))
        for group in groups:
            kernels = {index: self.schemes[index].kernels(slices[index]).transpose(1, 2) for index in group.places}
            put = Tensor.copy_ if group is groups[0] else Tensor.add_
            self._put(put, group.outputs_of(parts, kernels), pixels, group.cell)
        return pixels.permute(0, 3, 1, 2)

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

    def _grid(self, cell: int) -> tuple[int, int]:
        """Rows and columns of cells; the last may overhang."""
        return math.ceil(self.height / cell), math.ceil(self.width / cell)

    def _put(self, put: Callable[[Tensor, Tensor], Tensor], cells: Tensor, pixels: Tensor, cell: int) -> None:
        """Copy or add (cell², cells * C) to (N, H, W, C)."""
        rows, columns = self._grid(cell)
        grid = cells.view(cell, cell, -1, rows, columns, pixels.shape[3]).permute(2, 3, 0, 4, 1, 5)
        if self.height == rows * cell and self.width == columns * cell:
            put(pixels.view(grid.shape), grid)
        else:
            put(pixels, grid.flatten(3, 4).flatten(1, 2)[:, : self.height, : self.width])

    def _to_cells(self, maps: Tensor, cell: int) -> Tensor:
        """(N, C, H, W) as (cell², cells * C), zero where cells overhang."""
        rows, columns = self._grid(cell)
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
    return _OfUpsampled.apply(coarse, weight, factor)


class _OfUpsampled(torch.autograd.Function):
    """`conv_of_upsampled`."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, coarse: Tensor, weight: Tensor, factor: int) -> Tensor:
        scheme, size = enlarged_scheme(factor), [factor * side for side in coarse.shape[2:]]
        ctx.convolution = PhaseConvolution(*size, (scheme,))
        ctx.save_for_backward(coarse, weight)
        return ctx.convolution([scheme.windows(coarse)], weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        coarse, weight = ctx.saved_tensors
        scheme, to_windows = ctx.convolution.schemes[0], GradientSum()
        to_weight = ctx.convolution.gradients([scheme.windows(coarse)], weight, gradient, [to_windows])
        return scheme.scattered(to_windows.take(), coarse.shape), to_weight, None
