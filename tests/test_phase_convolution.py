"""Convolutions in cells, dense blocks and the sums of their gradients, held to plain convolutions and autograd."""

import pytest
import torch
from torch.nn import functional as F

from sr_utils import phase_convolution
from sr_utils.convolution_schemes import enlarged_scheme, tile_scheme
from sr_utils.dense_blocks import rrdb
from sr_utils.level_features import pyramid_features, whole_features
from sr_utils.phase_convolution import GradientSum, PhaseConvolution, conv_of_upsampled
from sr_utils.rrdb import RRDB

SIZES = [(1, 1), (1, 3), (5, 2), (3, 7)]
DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_same(found, expected, tolerance=1e-12):
    """Equal relative to the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["f64", "f32"])
def test_a_convolution_of_an_enlarged_map_is_done_at_the_smaller_size(size, factor, dtype, tolerance):
    coarse = torch.randn(2, 5, *size, dtype=dtype, requires_grad=True)
    weight = torch.randn(6, 5, 3, 3, dtype=dtype, requires_grad=True)
    found = conv_of_upsampled(coarse, weight, factor)
    expected = F.conv2d(F.interpolate(coarse, scale_factor=float(factor)), weight, padding=1)
    assert_same(found, expected, tolerance)
    towards = torch.randn_like(expected)
    for mine, plain in zip(
        torch.autograd.grad(found, (coarse, weight), towards),
        torch.autograd.grad(expected, (coarse, weight), towards),
        strict=True,
    ):
        assert_same(mine, plain, tolerance)


def test_other_factors_are_refused():
    with pytest.raises(ValueError, match=r"must be one of \(2, 4\), not 3"):
        conv_of_upsampled(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3), 3)


@pytest.mark.parametrize("size", [*SIZES, (8, 4), (9, 13)], ids=str)
@pytest.mark.parametrize("side", [2, 4])
def test_a_convolution_in_tiles_may_overhang(size, side):
    maps, weight = torch.randn(2, 5, *size, **DOUBLE), torch.randn(6, 5, 3, 3, **DOUBLE)
    scheme = tile_scheme(side)
    found = PhaseConvolution(*size, (scheme,))([scheme.windows(maps)], weight)
    assert_same(found, F.conv2d(maps, weight, padding=1))


@pytest.mark.parametrize("side", [2, 4])
def test_tiles_round_about_as_little_as_a_plain_convolution(side):
    maps, weight = torch.randn(1, 64, 32, 32).relu(), 0.05 * torch.randn(64, 64, 3, 3)
    exact = F.conv2d(maps.double(), weight.double(), padding=1)
    scheme = tile_scheme(side)
    found = PhaseConvolution(32, 32, (scheme,))([scheme.windows(maps)], weight)
    deviation = (found - exact).std() / exact.std()
    assert deviation < 1e-6
    assert (found - exact).abs().max() < 1e-5 * exact.std()


@pytest.mark.parametrize("scheme", [tile_scheme(2), tile_scheme(4), enlarged_scheme(4)], ids=["2", "4", "enlarged"])
@pytest.mark.parametrize("size", [(3, 5), (8, 4)], ids=str)
def test_scattering_is_the_transpose_of_taking_windows(scheme, size):
    maps = torch.randn(2, 3, *size, **DOUBLE)
    windows = scheme.windows(maps)
    other = torch.randn_like(windows)
    assert_same((windows * other).sum()[None], (maps * scheme.scattered(other, maps.shape)).sum()[None])
    assert torch.autograd.gradcheck(scheme.windows, (maps[:1, :1].clone().requires_grad_(),))


@pytest.mark.parametrize(("factor", "tile"), [(2, 2), (2, 4), (4, 4)])
@pytest.mark.parametrize("at_a_time", [1, 2**21])
def test_parts_of_different_cells_are_summed(factor, tile, at_a_time, monkeypatch):
    monkeypatch.setattr(phase_convolution, "PRODUCTS", at_a_time)
    size = 3 * factor, 5 * factor
    coarse, weight = torch.randn(2, 4, 3, 5, **DOUBLE), torch.randn(6, 9, 3, 3, **DOUBLE)
    ahead, own = torch.randn(2, 2, *size, **DOUBLE), torch.randn(2, 3, *size, **DOUBLE)
    schemes = tile_scheme(tile), tile_scheme(tile), enlarged_scheme(factor)
    parts = [scheme.windows(maps) for scheme, maps in zip(schemes, (ahead, own, coarse), strict=True)]
    convolution = PhaseConvolution(*size, schemes)
    maps = torch.cat([ahead, own, F.interpolate(coarse, scale_factor=float(factor))], dim=1).requires_grad_()
    weight.requires_grad_()
    expected = F.conv2d(maps, weight, padding=1)
    found = convolution(parts, weight.detach())
    assert_same(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    towards = torch.randn_like(expected)
    to_maps, to_weight = torch.autograd.grad(expected, (maps, weight), towards)
    sums = [GradientSum(), None, GradientSum()]
    assert_same(convolution.gradients(parts, weight.detach(), towards, sums), to_weight)
    assert_same(schemes[0].scattered(sums[0].take(), ahead.shape), to_maps[:, :2])
    to_coarse = F.avg_pool2d(to_maps[:, 5:], factor, divisor_override=1)
    assert_same(schemes[2].scattered(sums[2].take(), coarse.shape), to_coarse)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_features_of_a_level_are_its_own_and_the_enlarged_ones(scale):
    own, stacked = torch.randn(2, 3, 5 * scale, 4 * scale), torch.randn(2, 6, 5, 4)
    features = pyramid_features([own], stacked, (5, 4))[0]
    expected = torch.cat([own, F.interpolate(stacked, own.shape[2:])], dim=1)
    assert torch.equal(features.maps(), expected)
    weight = torch.randn(4, 9, 3, 3)
    assert_same(features.convolution(features.parts, weight), F.conv2d(expected, weight, padding=1), 1e-5)
    assert (features.stacked is not None) == (scale in (2, 4))


class WeightedSum(torch.autograd.Function):
    """``weight`` times the sum of a part, whose gradient it adds to the features' sums as the networks do."""

    @staticmethod
    def forward(ctx, features, weight, part, bands):
        ctx.features, ctx.bands = features, bands
        ctx.save_for_backward(weight, part)
        return weight * part.sum()

    @staticmethod
    def backward(ctx, gradient):
        weight, part = ctx.saved_tensors
        for cells in ctx.bands:
            products, kernels = part.new_ones(len(part), cells.stop - cells.start, 1), part.new_ones(len(part), 1, 2)
            ctx.features.sums[0].add(cells, gradient * weight * products, kernels)
        return None, gradient * part.sum(), None, None


def test_gradients_are_summed_over_all_readers_and_forgotten_after_each_pass():
    maps = torch.randn(1, 2, 4, 4, **DOUBLE, requires_grad=True)
    weight = torch.tensor(3.0, **DOUBLE, requires_grad=True)
    features = whole_features(maps)
    # One reader adds its gradient to all four cells at once, the other to a few at a time.
    whole, halves = [slice(0, 4)], [slice(0, 1), slice(1, 4)]
    total = sum(
        WeightedSum.apply(features, factor * weight, features.parts[0], bands)
        for factor, bands in ((1, whole), (2, halves))
    )
    expected = torch.autograd.grad(9 * tile_scheme(2).windows(maps).sum(), maps)[0]
    # A pass that asks for the weight only leaves sums behind, which the next one must not count.
    torch.autograd.grad(total, weight, retain_graph=True)
    for _ in range(2):
        assert_same(torch.autograd.grad(total, maps, retain_graph=True)[0], expected)


@pytest.mark.parametrize("size", [(1, 1), (5, 6)], ids=str)
def test_lean_blocks_are_the_plain_ones(size):
    block = RRDB(6, 4).double()
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(2, 6, *size, **DOUBLE, requires_grad=True)
    found, expected = rrdb(block, x), block(x)
    assert_same(found, expected)
    towards, inputs = torch.randn_like(expected), (x, *block.parameters())
    for mine, plain in zip(
        torch.autograd.grad(found, inputs, towards), torch.autograd.grad(expected, inputs, towards), strict=True
    ):
        assert_same(mine, plain)
