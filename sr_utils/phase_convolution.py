"""3x3 convolutions with fewer multiplications, exact up to rounding: of enlarged maps, and of any map in tiles.

Both work on cells of ``s x s`` output pixels, and both are, along each axis, of the one form ::

    y = A [ (G w) * (B x) ]

where ``x`` are the input pixels that a cell looks at, ``w`` the kernel's three taps, ``*`` the product of each pair
of entries (a matrix product once there are channels), and ``A``, ``B``, ``G`` small constant matrices. Over two
axes the constants are Kronecker products. The cost is the number of entries of ``B x``, squared, for ``s²`` pixels.

**Enlarged maps.** Let u be x repeated s times (nearest neighbour). A cell is then one pixel of x, and its outputs
look at x_- , x_0 and x_+ only: the first at x_- and x_0, the last at x_0 and x_+, all others at x_0 alone. With
S = w_- + w_0 + w_+ ::

    y_first = S x_0 + w_- (x_- - x_0)      y_middle = S x_0      y_last = S x_0 + w_+ (x_+ - x_0)

Three products an axis, nine a cell, instead of 9 s². Zero padding stays exact, a coarse pixel outside being zero.

**Tiles** (Winograd). An output tile of s values of a three-tap filter needs s + 2 products instead of 3 s: evaluate
the kernel and the data as polynomials at s + 1 points and infinity, multiply, interpolate. The points decide how
much rounding is amplified. For s = 4 those below give deviations of 6e-7 of the output's, 1.6e-7 being that of the
plain sum in single precision; the points 0, +-1, +-2 of the textbooks give twice that and worse outliers.

References
----------
Winograd, "Arithmetic Complexity of Computations", SIAM 1980, chapter V.
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

FACTORS = (2, 4)
"""Sides of a cell that this module knows, hence factors of enlargement."""

_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
"""Where the polynomials of a tile are evaluated, besides infinity."""


@dataclass(frozen=True, eq=False)
class Scheme:
    """The constants of one fast convolution over both axes, and how its windows lie on the input."""

    inputs: Tensor
    """B x B, (products, window²)."""
    weights: Tensor
    """G x G, (products, 9)."""
    outputs: Tensor
    """A x A, (cell², products)."""
    window: int
    """Side, in input pixels, of what one cell looks at."""
    step: int
    """Input pixels from one cell's window to the next."""

    def like(self, values: Tensor) -> Scheme:
        """The same constants in the precision of ``values``, on their device."""
        return _moved(self, values.dtype, values.device)

    def windows(self, maps: Tensor) -> Tensor:
        """B x for every cell of (N, C, H, W): (products, cells, C)."""
        constants = self.like(maps)
        # Zeros on the far sides complete the last windows.
        maps = F.pad(maps, (1, 1 + -maps.shape[3] % self.step, 1, 1 + -maps.shape[2] % self.step))
        columns = F.unfold(maps, self.window, stride=self.step)
        columns = columns.unflatten(1, (maps.shape[1], -1)).permute(2, 0, 3, 1)
        return (constants.inputs @ columns.flatten(1)).view(len(constants.inputs), -1, maps.shape[1])

    def kernels(self, weight: Tensor) -> Tensor:
        """G w for a weight (out, in, 3, 3): (products, out, in)."""
        constants = self.like(weight)
        return (constants.weights @ weight.reshape(-1, 9).T).view(-1, *weight.shape[:2])


@cache
def _moved(scheme: Scheme, dtype: torch.dtype, device: torch.device) -> Scheme:
    matrices = (matrix.to(device, dtype) for matrix in (scheme.inputs, scheme.weights, scheme.outputs))
    return Scheme(*matrices, scheme.window, scheme.step)


@cache
def enlarged_scheme(factor: int) -> Scheme:
    """For a map that is enlarged ``factor`` times by nearest neighbour, read at its own size."""
    inputs = torch.tensor([[0, 1, 0], [1, -1, 0], [0, -1, 1]])
    weights = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1]])
    outputs = torch.zeros(factor, 3)
    outputs[:, 0] = outputs[0, 1] = outputs[-1, 2] = 1
    return _both_axes(inputs, weights, outputs, step=1)


@cache
def tile_scheme(side: int) -> Scheme:
    """For any map, in output tiles of ``side`` x ``side``; those on the far sides may overhang it."""
    points = _POINTS[side]

    def evaluation(coefficients: int) -> Tensor:
        """Values at every point, and at infinity, of a polynomial with this many coefficients."""
        rows = [[point**power for power in range(coefficients)] for point in points]
        return torch.tensor([*rows, [0.0] * (coefficients - 1) + [1.0]], dtype=torch.float64)

    # The product of polynomials transposed: a filter instead of a full convolution.
    interpolation = torch.linalg.inv(evaluation(side + 2))
    return _both_axes(interpolation.T, evaluation(3), evaluation(side).T, step=side)


def _both_axes(inputs: Tensor, weights: Tensor, outputs: Tensor, *, step: int) -> Scheme:
    twice = (torch.kron(matrix, matrix).double() for matrix in (inputs, weights, outputs))
    return Scheme(*twice, window=inputs.shape[1], step=step)


def conv_gradients(maps: Tensor, weight: Tensor, gradient: Tensor, *, needed: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients of a 3x3 convolution's weight (out, C, 3, 3) and, if ``needed``, of its input (N, C, H, W)."""
    one, zero = [1, 1], [0, 0]
    # Not torch.nn.grad: that one loses the input's memory format, and everything is then converted.
    to_maps, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, one, one, one, False, zero, 1, [needed, True, False]
    )
    return to_weight, to_maps


@dataclass(frozen=True)
class PhaseConvolution:
    """A 3x3 convolution, with zero padding, of maps of which most were cut into cells and transformed beforehand.

    The input's channels come in parts, each with the scheme that made its windows, and may have maps ``ahead`` that
    are taken as they are, (N, C, H, W). A convolution is linear in its input channels, so the parts' convolutions
    are summed; that happens before the cells are put together.
    """

    height: int
    width: int
    """Size of the output in pixels."""
    cell: int
    """Side of a cell in output pixels; the last cells may overhang."""
    schemes: tuple[Scheme, ...]

    def __call__(self, ahead: Tensor | None, parts: Sequence[Tensor], weight: Tensor) -> Tensor:
        """Maps ahead, every part's (products, cells, C) and a weight (out, sum of C, 3, 3) to (N, out, H, W)."""
        before, *slices = self._split(ahead, parts, weight)
        cells = None
        for scheme, part, slice_ in zip(self.schemes, parts, slices, strict=True):
            outputs = scheme.like(part).outputs
            products = (part @ scheme.kernels(slice_).transpose(1, 2)).flatten(1)
            cells = outputs @ products if cells is None else cells.addmm_(outputs, products)
        maps = self._maps(cells, len(weight))
        return maps if ahead is None else maps.add_(F.conv2d(ahead, before, padding=1))

    def gradients(
        self, ahead: Tensor | None, parts: Sequence[Tensor], weight: Tensor, gradient: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
        """Gradients of the weight and, where needed, of the maps ahead and of every part, given the output's."""
        to_weight = torch.empty_like(weight)
        before, *slices = self._split(ahead, parts, weight)
        to_before, *to_slices = self._split(ahead, parts, to_weight)
        cells, to_ahead, to_parts = self._cells(gradient), None, []
        for scheme, part, slice_, to_slice, need in zip(
            self.schemes, parts, slices, to_slices, needed[1:], strict=True
        ):
            constants = scheme.like(part)
            products = (constants.outputs.T @ cells).view(*part.shape[:2], -1)
            to_parts.append(products @ scheme.kernels(slice_) if need else None)
            to_kernels = (products.transpose(1, 2) @ part).flatten(1)
            to_slice.copy_((constants.weights.T @ to_kernels).view(3, 3, *slice_.shape[:2]).permute(2, 3, 0, 1))
        if ahead is not None:
            gradient_before, to_ahead = conv_gradients(ahead, before, gradient, needed=needed[0])
            to_before.copy_(gradient_before)
        return to_weight, to_ahead, to_parts

    def _split(self, ahead: Tensor | None, parts: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
        """A weight's channels for the maps ahead, which may be none, and for each part."""
        return weight.split([0 if ahead is None else ahead.shape[1], *(part.shape[2] for part in parts)], dim=1)

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return math.ceil(self.height / self.cell), math.ceil(self.width / self.cell)

    def _maps(self, cells: Tensor, channels: int) -> Tensor:
        """(cell², cells * C) as (N, C, H, W) in channels-last memory."""
        rows, columns = self._grid
        grid = cells.view(self.cell, self.cell, -1, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
        pixels = grid.reshape(-1, rows * self.cell, columns * self.cell, channels)
        return pixels[:, : self.height, : self.width].contiguous().permute(0, 3, 1, 2)

    def _cells(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) as (cell², cells * C), zero where cells overhang; undoes `_maps`."""
        rows, columns = self._grid
        pixels = maps.permute(0, 2, 3, 1)
        missing = columns * self.cell - self.width, rows * self.cell - self.height
        if any(missing):
            pixels = F.pad(pixels, (0, 0, 0, missing[0], 0, missing[1]))
        grid = pixels.unflatten(2, (columns, self.cell)).unflatten(1, (rows, self.cell))
        return grid.permute(2, 4, 0, 1, 3, 5).reshape(self.cell**2, -1)


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
    return PhaseConvolution(height, width, factor, (scheme,))(None, [scheme.windows(coarse)], weight)
