"""3x3 convolutions with fewer multiplications, exact up to rounding: of enlarged maps, and of any map in tiles.

Both work on cells of ``s x s`` output pixels, and both are, along each axis, of the one form ::

    y = A [ (G w) * (B x) ]

where ``x`` are the input pixels that a cell looks at, ``w`` the kernel's three taps, ``*`` the product of each pair
of entries (a matrix product once there are channels), and ``A``, ``B``, ``G`` small constant matrices. Over two
axes the constants are Kronecker products. The cost is the number of entries of ``B x``, squared, for ``s²`` pixels.

**Enlarged maps.** Let u be x repeated s times (nearest neighbour). A cell is then one pixel of x, and its outputs
look at x_-, x_0 and x_+ only: the first at x_- and x_0, the last at x_0 and x_+, all others at x_0 alone. With
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
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

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
    cell: int
    """Side of a cell in output pixels."""

    def like(self, values: Tensor) -> Scheme:
        """The same constants in the precision of ``values``, on their device."""
        return _moved(self, values.dtype, values.device)

    def windows(self, maps: Tensor) -> Tensor:
        """B x for every cell of (N, C, H, W): (products, cells, C)."""
        return _Windows.apply(self.like(maps), maps)

    def scattered(self, windows: Tensor, size: torch.Size) -> Tensor:
        """The transpose of `windows`, to maps of ``size``; unknown to autograd."""
        constants, (images, channels, height, width) = self.like(windows), size
        rows, columns = math.ceil(height / self.step), math.ceil(width / self.step)
        over = self.window - self.step
        padded = windows.new_zeros(images, rows * self.step + over, columns * self.step + over, channels)
        patches = (constants.inputs.T @ windows.flatten(1)).view(self.window, self.window, images, rows, columns, -1)
        for row in range(self.window):
            for column in range(self.window):
                below, right = row + self.step * (rows - 1) + 1, column + self.step * (columns - 1) + 1
                padded[:, row : below : self.step, column : right : self.step] += patches[row, column]
        return padded[:, 1 : 1 + height, 1 : 1 + width].permute(0, 3, 1, 2)

    def kernels(self, weight: Tensor) -> Tensor:
        """G w for a weight (out, in, 3, 3): (products, out, in)."""
        constants = self.like(weight)
        return (constants.weights @ weight.reshape(-1, 9).T).view(-1, *weight.shape[:2])

    def taps(self, kernels: Tensor) -> Tensor:
        """The transpose of `kernels`: (products, out, in) to (out, in, 3, 3)."""
        constants = self.like(kernels)
        return (constants.weights.T @ kernels.flatten(1)).view(3, 3, *kernels.shape[1:]).permute(2, 3, 0, 1)


@cache
def _moved(scheme: Scheme, dtype: torch.dtype, device: torch.device) -> Scheme:
    matrices = (matrix.to(device, dtype) for matrix in (scheme.inputs, scheme.weights, scheme.outputs))
    return Scheme(*matrices, scheme.window, scheme.step, scheme.cell)


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
    """For any map, in output tiles of ``side`` x ``side``, 2 or 4; those on the far sides may overhang it."""
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
    return Scheme(*twice, window=inputs.shape[1], step=step, cell=len(outputs))


class _Windows(torch.autograd.Function):
    """`Scheme.windows`, which autograd would undo several times slower."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, constants: Scheme, maps: Tensor) -> Tensor:
        window, step = constants.window, constants.step
        # Besides the padding, zeros on the far sides complete the last windows.
        below, right = (1 + -side % step for side in maps.shape[2:])
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        patches = padded.unfold(1, window, step).unfold(2, window, step)
        ctx.constants, ctx.size = constants, maps.shape
        columns = patches.permute(4, 5, 0, 1, 2, 3).reshape(window**2, -1)
        return (constants.inputs @ columns).view(len(constants.inputs), -1, maps.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.constants.scattered(gradient, ctx.size)
