"""3x3 convolutions of maps that were cut into cells and transformed beforehand; see `convolution_schemes`.

A convolution is linear in its input channels, so channels of different kinds (a level's own, those enlarged from a
smaller map) are convolved each by the scheme that suits them, and summed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.convolution_schemes import Scheme, enlarged_scheme

FACTORS = (2, 4)
"""Factors of enlargement for which a convolution at the smaller size pays."""

PRODUCTS = 2**20
"""Numbers that the products of a convolution may be at a time: few enough for a processor's cache."""


class GradientSum:
    """The gradient of one tensor (products, cells, C) that many functions read, summed in place, some cells at a time.

    Autograd would add up their copies.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._pass: int | None = None

    def add(self, cells: slice, products: Tensor, kernels: Tensor) -> None:
        """Add the products (products, n, out) of some cells times kernels (products, out, C)."""
        # A backward pass that ended without asking for this gradient has left its sums behind.
        if self._pass != torch._C._current_graph_task_id():
            self._sums, self._pass = {}, torch._C._current_graph_task_id()
        place = (cells.start, cells.stop)
        # In memory of its own: batched products into a slice of another tensor are slow.
        self._sums[place] = _added(self._sums.get(place), products, kernels)

    def take(self) -> Tensor | None:
        """The sum of this backward pass, if anything was added."""
        sums, self._sums = self._sums, {}
        if len(sums) < 2:
            return next(iter(sums.values()), None)
        any_sum = next(iter(sums.values()))
        total = any_sum.new_zeros(len(any_sum), max(stop for _, stop in sums), any_sum.shape[2])
        for (start, stop), part in sums.items():
            total[:, start:stop] += part
        return total


@dataclass(frozen=True)
class _Cells:
    """How square cells of pixels lie on maps (N, H, W, C) with all channels of a pixel side by side.

    A row of cells is a row of one image; the rows of all images follow each other.
    """

    images: int
    height: int
    width: int
    cell: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows of cells in one image and columns; the last of either may overhang."""
        return math.ceil(self.height / self.cell), math.ceil(self.width / self.cell)

    @property
    def overhangs(self) -> bool:
        """Whether the last cells lie partly outside."""
        return self.height % self.cell > 0 or self.width % self.cell > 0

    def bands(self, numbers: int) -> Iterator[tuple[slice, slice]]:
        """Rows of cells, and the cells themselves, a few at a time, where each cell takes ``numbers`` numbers."""
        rows, columns = self.images * self.grid[0], self.grid[1]
        step = max(1, PRODUCTS // (numbers * columns))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            yield slice(start, stop), slice(start * columns, stop * columns)

    def whole(self, pixels: Tensor) -> Tensor:
        """Maps that end with a whole cell: ``pixels`` (N, H, W, C), with zeros behind them where cells overhang."""
        if not self.overhangs:
            return pixels
        (rows, columns), (height, width) = self.grid, pixels.shape[1:3]
        return F.pad(pixels, (0, 0, 0, columns * self.cell - width, 0, rows * self.cell - height))

    def empty(self, pixels: Tensor) -> Tensor:
        """Maps of the size of `whole` with nothing in them yet."""
        rows, columns = self.grid
        return pixels.new_empty(self.images, rows * self.cell, columns * self.cell, pixels.shape[3])

    def of(self, whole: Tensor) -> Tensor:
        """A view, (rows of cells of all images, columns, cell, cell, C), of maps that end with a whole cell."""
        return whole.view(-1, self.cell, self.grid[1], self.cell, whole.shape[3]).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class _Group:
    """The parts whose schemes have the same cell; one matrix puts their products together."""

    cell: int
    outputs: Tensor
    """A x A of each scheme side by side, (cell², products)."""
    places: dict[int, slice]
    """Where among the products each part's lie; parts of the same scheme share them."""

    def multiply(self, parts: Sequence[Tensor], kernels: dict[int, Tensor], cells: slice) -> Tensor:
        """For some cells, each member's (products, cells, C) times its kernels (products, C, out), side by side."""
        out = next(iter(kernels.values()))
        products, begun = out.new_empty(self.outputs.shape[1], cells.stop - cells.start, out.shape[2]), set()
        for index, place in self.places.items():
            if place.start in begun:
                products[place].baddbmm_(parts[index][:, cells], kernels[index])
            else:
                torch.bmm(parts[index][:, cells], kernels[index], out=products[place])
            begun.add(place.start)
        return products


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

    def __call__(self, parts: Sequence[Tensor], weight: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Convolve with ``weight`` (out, sum of C, 3, 3); in channels-last memory, and unknown to autograd.

        ``out`` (N, height, width, out) is where the result is to be, if anywhere in particular.
        """
        slices, groups = _split(parts, weight), _groups(self.schemes, weight.dtype, weight.device)
        # What is kept is allocated ahead of what is not, or the memory of the latter could not be used again.
        if out is None:
            out = weight.new_empty(self._cells(parts, 1).images, self.height, self.width, len(weight))
        for group in groups:
            cells = self._cells(parts, group.cell)
            kernels = {index: self.schemes[index].kernels(slices[index]).transpose(1, 2) for index in group.places}
            whole = cells.empty(out) if cells.overhangs else out
            adding = group is not groups[0] and whole is out
            for rows, some in cells.bands(group.outputs.shape[1] * len(weight)):
                products = group.multiply(parts, kernels, some)
                target = cells.of(whole)[rows]
                outputs = _every_cell(group.outputs, products.transpose(0, 1)).view(target.shape)
                target.add_(outputs) if adding else target.copy_(outputs)
            if whole is not out:
                inside = whole[:, : self.height, : self.width]
                out.copy_(inside) if group is groups[0] else out.add_(inside)
        return out.permute(0, 3, 1, 2)

    def gradients(
        self, parts: Sequence[Tensor], weight: Tensor, gradient: Tensor, sums: Sequence[GradientSum | None]
    ) -> Tensor:
        """The weight's gradient, given the output's; those of the parts are added to their ``sums`` if they have."""
        to_weight, pixels = torch.empty_like(weight), gradient.permute(0, 2, 3, 1).contiguous()
        slices, to_slices = _split(parts, weight), _split(parts, to_weight)
        for group in _groups(self.schemes, weight.dtype, weight.device):
            cells = self._cells(parts, group.cell)
            kernels = {index: self.schemes[index].kernels(slices[index]) for index in group.places}
            to_kernels: dict[int, Tensor] = {}
            whole = cells.whole(pixels)
            for rows, some in cells.bands(group.outputs.shape[1] * len(weight)):
                products = _every_cell(group.outputs.T, cells.of(whole)[rows].reshape(-1, group.cell**2, len(weight)))
                products = products.transpose(0, 1)
                for index, place in group.places.items():
                    if sums[index] is not None:
                        sums[index].add(some, products[place], kernels[index])
                    turned = products[place].transpose(1, 2)
                    to_kernels[index] = _added(to_kernels.get(index), turned, parts[index][:, some])
            for index, kernel in to_kernels.items():
                to_slices[index].copy_(self.schemes[index].taps(kernel))
        return to_weight

    def _cells(self, parts: Sequence[Tensor], cell: int) -> _Cells:
        """Cells of a side on the output; how many images it has shows in the parts."""
        rows, columns = (math.ceil(side / self.schemes[0].cell) for side in (self.height, self.width))
        return _Cells(parts[0].shape[1] // (rows * columns), self.height, self.width, cell)


def _added(total: Tensor | None, one: Tensor, other: Tensor) -> Tensor:
    """Batched products, added to a total, if there is one yet, in its place."""
    return torch.bmm(one, other) if total is None else total.baddbmm_(one, other)


def _every_cell(matrix: Tensor, cells: Tensor) -> Tensor:
    """``matrix`` times each of (cells, n, C). One product, with few rows and all the columns, would be slower."""
    return torch.bmm(matrix.expand(len(cells), -1, -1), cells)


def _split(parts: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """A weight's input channels for each part."""
    return weight.split([part.shape[2] for part in parts], dim=1)


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
