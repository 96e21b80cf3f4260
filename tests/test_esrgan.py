"""The restoring network at every scale, the discriminator and the three losses."""

import pytest
import torch

from sr_utils.degradations import gaussian_blur
from sr_utils.errors import UserError
from sr_utils.esrgan import (
    Discriminator,
    DiscriminatorConfig,
    PerceptualLoss,
    RRDBNet,
    RRDBNetConfig,
    adversarial_loss,
    agreeing,
    discriminator_loss,
    interpolated,
    with_consistency,
)
from sr_utils.features import imagenet_features
from sr_utils.images import imresize
from sr_utils.rrdb import RRDB, ResidualDenseBlock

TINY = dict(features=8, growth=4, blocks=1)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 12), (7, 13), (1, 1)])
def test_any_size_is_scaled_exactly(scale, size):
    network = RRDBNet(RRDBNetConfig(scale=scale, **TINY))
    assert network(torch.rand(2, 3, *size)).shape == (2, 3, scale * size[0], scale * size[1])


def test_scales_share_all_weights_but_the_first():
    shapes = [
        {name: value.shape for name, value in RRDBNet(RRDBNetConfig(scale=scale, **TINY)).state_dict().items()}
        for scale in (1, 2, 4)
    ]
    different = {name for name in shapes[0] if len({shape[name] for shape in shapes}) > 1}
    assert different == {"first.weight"}


@pytest.mark.parametrize("scale,upsampling", [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("last_features", [None, 5])
def test_a_finer_trunk_and_a_narrow_end_give_the_same_sizes(scale, upsampling, last_features):
    network = RRDBNet(RRDBNetConfig(scale, **TINY, upsampling=upsampling, last_features=last_features))
    assert network(torch.rand(2, 3, 7, 13)).shape == (2, 3, 7 * scale, 13 * scale)
    assert network.unshuffle == upsampling // scale and len(network.upsampled) == upsampling // 2
    assert network.last.in_channels == (last_features or TINY["features"])
    network(torch.rand(1, 3, 8, 8)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("wrong", [{"upsampling": 1}, {"upsampling": 3}, {"upsampling": 8}, {"last_features": 0}])
def test_a_trunk_or_an_end_without_sense_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        RRDBNetConfig(scale=2, **wrong)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_wide_window_keeps_the_inputs_tone_and_nothing_finer(scale):
    torch.manual_seed(0)
    free = RRDBNet(RRDBNetConfig(scale, **TINY, consistency=0.0))
    network = with_consistency(free, 3.0)
    low = torch.rand(2, 3, 48, 40)

    def coarse(image, sigma=6.0):
        return gaussian_blur(imresize(image, low.shape[2] / image.shape[2]) - low, sigma).abs().mean()

    with torch.no_grad():
        first, second = free(low), network(low)
    assert coarse(second) < 0.1 * coarse(first)
    assert torch.equal(free(low), first)
    torch.testing.assert_close(agreeing(first, low, 3.0), second)
    fine = gaussian_blur(second - first, 0.5 * scale) - (second - first)
    assert fine.abs().max() < 0.01, "only what is coarse may change"


def test_a_narrow_window_makes_the_result_agree_with_the_input():
    torch.manual_seed(0)
    low, gaps = torch.rand(1, 3, 32, 32), []
    for consistency in (0.0, 6.0, 1.0, 0.3):
        torch.manual_seed(1)
        network = RRDBNet(RRDBNetConfig(2, **TINY, consistency=consistency))
        gaps.append((imresize(network(low), 0.5) - low).square().mean().item())
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize(
    "dtype,expected",
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
    ids=str,
)
def test_the_agreement_is_computed_in_single_precision_at_least(dtype, expected):
    restored, low = torch.rand(1, 3, 32, 40), torch.rand(1, 3, 16, 20)
    found = agreeing(restored.to(dtype), low.to(dtype), 2.0)
    assert found.dtype == expected
    # Double precision is kept within, too: what single precision gives is further away than its own rounding.
    exact = agreeing(restored.to(dtype).double(), low.to(dtype).double(), 2.0)
    assert (found.double() - exact).abs().max() <= (0.0 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_copies_have_the_weights_type_and_every_bit_of_them(dtype):
    network = RRDBNet(RRDBNetConfig(**TINY)).to(dtype)
    with torch.no_grad():
        network.first.weight.add_(torch.finfo(dtype).eps)
    for copy in (with_consistency(network, 3.0), interpolated(network, network, 0.5)):
        assert not copy.training
        for name, value in copy.state_dict().items():
            assert value.dtype == dtype and torch.equal(value, network.state_dict()[name])


def test_copies_are_where_the_weights_are():
    network = RRDBNet(RRDBNetConfig(**TINY)).to("meta")
    for copy in (with_consistency(network, 3.0), interpolated(network, network, 0.5)):
        assert all(value.is_meta for value in copy.state_dict().values())


def test_a_window_without_sense_is_refused():
    with pytest.raises(UserError, match="consistency"):
        with_consistency(RRDBNet(RRDBNetConfig(**TINY)), -1.0)


def test_an_unknown_scale_is_refused():
    with pytest.raises(UserError, match="scale 3"):
        RRDBNetConfig(scale=3)


@pytest.mark.parametrize(
    "module,channels",
    [
        (ResidualDenseBlock(8, 4), 8),
        (RRDB(8, 4), 8),
        (RRDBNet(RRDBNetConfig(**TINY)), 3),
        (Discriminator(DiscriminatorConfig(features=4)), 3),
    ],
)
def test_gradients_reach_every_parameter(module, channels):
    torch.manual_seed(0)
    module(torch.rand(1, channels, 16, 16)).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_published_size_has_the_published_number_of_parameters():
    network = RRDBNet(RRDBNetConfig(scale=4, features=64, growth=32, blocks=23))
    assert sum(parameter.numel() for parameter in network.parameters()) == 16_697_987


def test_relativistic_losses_against_their_definition():
    torch.manual_seed(0)
    real, fake = torch.randn(5), torch.randn(5)
    real_first = torch.sigmoid(real - fake.mean())
    fake_first = torch.sigmoid(fake - real.mean())
    by_hand = -(torch.log(real_first).mean() + torch.log(1 - fake_first).mean()) / 2
    torch.testing.assert_close(discriminator_loss(real, fake), by_hand)
    swapped = -(torch.log(1 - real_first).mean() + torch.log(fake_first).mean()) / 2
    torch.testing.assert_close(adversarial_loss(real, fake), swapped)


def test_perceptual_loss_is_zero_on_equal_images_and_grows_with_blur():
    loss = PerceptualLoss(imagenet_features("vgg16"))
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    more = torch.nn.functional.avg_pool2d(blurred, 3, 1, 1)
    assert loss(image, image) == 0
    assert 0 < loss(blurred, image) < loss(more, image)


def test_perceptual_loss_teaches_the_restored_image_only():
    loss = PerceptualLoss(imagenet_features("vgg16"))
    restored = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss(restored, torch.rand(1, 3, 32, 32)).backward()
    assert restored.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_networks_are_mixed_weight_by_weight():
    torch.manual_seed(0)
    first, second = RRDBNet(RRDBNetConfig(**TINY)).eval(), RRDBNet(RRDBNetConfig(**TINY)).eval()
    image = torch.rand(1, 3, 9, 10)
    assert torch.equal(interpolated(first, second, 0.0)(image), first(image))
    assert torch.allclose(interpolated(first, second, 1.0)(image), second(image), atol=1e-6)
    middle = interpolated(first, second, 0.25)
    for name, value in middle.state_dict().items():
        assert torch.allclose(value, 0.75 * first.state_dict()[name] + 0.25 * second.state_dict()[name])
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match="from 0 to 1"):
            interpolated(first, second, share)
    with pytest.raises(ValueError, match="different sizes"):
        interpolated(first, RRDBNet(RRDBNetConfig(**TINY | {"features": 12})), 0.5)
