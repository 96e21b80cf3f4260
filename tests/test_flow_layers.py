"""Every layer of the flow: exact inverse, log-determinant against autograd, gradients, bounded scales."""

import pytest
import torch

from sr_utils.flow_layers import (
    ActNorm,
    AffineCoupling,
    AffineInjector,
    FlowStep,
    InvertibleConv1x1,
    Split,
    bounded,
    squeeze,
    unsqueeze,
)
from sr_utils.lifting import LiftingStep, LinearCoupling, haar

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
    split = prepared(lambda: Split(AffineCoupling(CHANNELS, FEATURES, 5, 1.0)))
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


def test_a_linear_coupling_adds_what_is_added(z, features):
    layer = prepared(CONDITIONAL[3])
    noise = torch.randn_like(z)
    effects = [layer(base + noise, features)[0] - layer(base, features)[0] for base in (z, torch.zeros_like(z))]
    torch.testing.assert_close(*effects)
