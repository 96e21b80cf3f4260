"""Every layer of the flow: exact inverse, log-determinant against autograd, gradients, bounded scales."""

import pytest
import torch

from sr_utils.flow_layers import (
    ActNorm,
    AffineCoupling,
    AffineInjector,
    FlowStep,
    InvertibleConv1x1,
    LiftingStep,
    LinearCoupling,
    Split,
    bounded,
    haar,
    squeeze,
    swap,
    unsqueeze,
)

CHANNELS, FEATURES, SIDE = 4, 3, 3

CONDITIONAL = [
    lambda: AffineInjector(CHANNELS, FEATURES, 5, 1.0),
    lambda: AffineCoupling(CHANNELS, FEATURES, 5, 1.0),
    lambda: FlowStep(CHANNELS, FEATURES, 5, 1.0),
    lambda: LinearCoupling(CHANNELS, FEATURES, 5),
    lambda: LiftingStep(CHANNELS, FEATURES, 5, first=True),
    lambda: LiftingStep(CHANNELS, FEATURES, 5, first=False),
]
PLAIN = [
    lambda: ActNorm(CHANNELS),
    lambda: InvertibleConv1x1(CHANNELS),
    lambda: InvertibleConv1x1(CHANNELS, haar(CHANNELS)),
]


@pytest.fixture
def features():
    torch.manual_seed(1)
    return torch.randn(2, FEATURES, SIDE, SIDE, dtype=torch.float64)


@pytest.fixture
def z():
    torch.manual_seed(2)
    return torch.randn(2, CHANNELS, SIDE, SIDE, dtype=torch.float64)


def prepared(make):
    """The layer in double precision, away from its identity start."""
    torch.manual_seed(0)
    layer = make().double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layer.eval()


def calls(make, features):
    """forward and inverse of a layer as functions of z alone."""
    layer = prepared(make)
    given = (features,) if make in CONDITIONAL else ()
    return layer, lambda z: layer(z, *(f[: len(z)] for f in given)), lambda z: layer.inverse(z, *given)


@pytest.mark.parametrize("make", CONDITIONAL + PLAIN)
def test_inverse_is_exact(make, z, features):
    _, forward, inverse = calls(make, features)
    assert (inverse(forward(z)[0]) - z).abs().max() < 1e-9


@pytest.mark.parametrize("make", CONDITIONAL + PLAIN)
def test_log_det_equals_autograd(make, z, features):
    _, forward, _ = calls(make, features)
    jacobian = torch.autograd.functional.jacobian(lambda one: forward(one)[0], z[:1])
    size = z[0].numel()
    expected = torch.linalg.slogdet(jacobian.reshape(size, size)).logabsdet
    torch.testing.assert_close(forward(z)[1][0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", CONDITIONAL + PLAIN)
def test_gradients_reach_every_parameter(make, z, features):
    layer, forward, _ = calls(make, features)
    out, log_det = forward(z)
    (out.square().mean() + log_det.mean()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_split_inverts_and_counts_its_scale(z, features):
    split = prepared(lambda: Split(CHANNELS, FEATURES, 5, 1.0))
    continued, finished, log_det = split(z, features)
    assert continued.shape == finished.shape == (2, CHANNELS // 2, SIDE, SIDE)
    assert (split.inverse(continued, finished, features) - z).abs().max() < 1e-9
    assert log_det.abs().min() > 0


def test_squeeze_keeps_every_value():
    image = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert squeeze(image).shape == (2, 12, 2, 3)
    assert torch.equal(unsqueeze(squeeze(image)), image)


def test_actnorm_standardises_its_first_batch_only():
    torch.manual_seed(0)
    layer, first = ActNorm(3).train(), 5 + 2 * torch.randn(8, 3, 16, 16)
    out, _ = layer(first)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)
    before = layer.bias.clone()
    layer(first + 100)
    assert torch.equal(layer.bias, before)


def test_scales_are_bounded_and_start_linear():
    raw = torch.tensor([-1e6, -1e-3, 0.0, 1e-3, 1e6])
    assert bounded(raw, 1.5).abs().max() <= 1.5
    torch.testing.assert_close(bounded(raw, 1.5)[1:4], raw[1:4])


def test_the_haar_transform_is_orthonormal_and_puts_the_coarse_bands_first():
    for channels in (4, 12, 24):
        matrix = haar(channels)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(channels, dtype=torch.float64))
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    transformed = torch.einsum("ij,njhw->nihw", haar(12), squeeze(image))
    torch.testing.assert_close(transformed[:, :3], 2 * torch.nn.functional.avg_pool2d(image, 2))
    flat = torch.einsum("ij,njhw->nihw", haar(12), squeeze(torch.full((1, 3, 4, 4), 0.3, dtype=torch.float64)))
    assert flat[:, 3:].abs().max() < 1e-12


def test_swapping_twice_changes_nothing():
    assert torch.equal(swap(6) @ swap(6), torch.eye(6, dtype=torch.float64))
    assert torch.equal(swap(4) @ torch.arange(4.0).double(), torch.tensor([2.0, 3.0, 0.0, 1.0]).double())


def test_a_linear_coupling_adds_what_is_added(z, features):
    layer = prepared(CONDITIONAL[3])
    noise = torch.randn_like(z)
    effects = [layer(base + noise, features)[0] - layer(base, features)[0] for base in (z, torch.zeros_like(z))]
    torch.testing.assert_close(*effects)


def test_a_first_lifting_step_starts_as_wavelets_of_brightness_and_colour_differences():
    """Grey squares have brightness only, and a flat colour has no detail."""
    step = LiftingStep(12, 2, 4, first=True).eval()
    features = torch.zeros(1, 2, 4, 4)
    grey, flat = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8), torch.rand(1, 3, 1, 1).expand(1, 3, 8, 8)
    of_grey, of_flat = (step(squeeze(image), features)[0].unflatten(1, (4, 3)) for image in (grey, flat))
    assert of_grey[:, :, 1:].abs().max() < 1e-5 < of_grey[:, :, 0].abs().amin((0, 2, 3)).min()
    assert of_flat[:, 1:].abs().max() < 1e-5
    assert (of_grey.square().sum() - grey.square().sum()).abs() < 1e-3
