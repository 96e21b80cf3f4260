import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr_utils.errors import UserError
from sr_utils.features import IMAGENET_MEAN, IMAGENET_STD, imagenet_features
from sr_utils.images import to_y
from sr_utils.metrics import lpips, psnr, ssim


@pytest.fixture(scope="module")
def batches():
    """Two photographs (2, 3, 96, 80) in [0, 1], one noisy and one darker."""
    crops = [data.astronaut()[50:146, 180:260], data.coffee()[100:196, 150:230]]
    reference = torch.from_numpy(np.stack(crops).astype(np.float64) / 255).permute(0, 3, 1, 2)
    noise = 0.05 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.stack((reference[0] + noise[0], 0.8 * reference[1] + noise[1])).clamp(0, 1), reference


def arrays(batch):
    return batch.permute(0, 2, 3, 1).numpy()


def wang(image, reference, data_range):
    return structural_similarity(
        image,
        reference,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
    )


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("y_channel", [False, True])
def test_psnr_and_ssim_equal_scikit_image(batches, data_range, crop, y_channel):
    image, reference = batches
    options = {"data_range": data_range, "crop_border": crop, "y_channel": y_channel}
    measured = {metric: metric(data_range * image, data_range * reference, **options) for metric in (psnr, ssim)}
    assert measured[psnr].shape == measured[ssim].shape == (2,)
    if y_channel:
        image, reference = to_y(image), to_y(reference)
    ends = slice(crop, -crop or None)
    pairs = list(zip(arrays(data_range * image), arrays(data_range * reference), strict=True))
    for index, (first, second) in enumerate(pairs):
        first, second = first[ends, ends], second[ends, ends]
        expected = peak_signal_noise_ratio(second, first, data_range=data_range)
        assert abs(float(measured[psnr][index]) - expected) < 1e-6
        assert abs(float(measured[ssim][index]) - wang(first, second, data_range)) < 1e-6


def test_equal_images(batches):
    _, reference = batches
    assert torch.isinf(psnr(reference, reference, data_range=1.0)).all()
    torch.testing.assert_close(ssim(reference, reference, data_range=1.0), torch.ones(2).double())
    assert lpips(reference, reference, data_range=1.0).abs().max() == 0


def test_psnr_by_hand():
    image = torch.full((1, 3, 8, 8), 0.1)
    assert abs(float(psnr(image, torch.zeros_like(image), data_range=1.0)) - 20) < 1e-5


@pytest.mark.parametrize("metric", [psnr, ssim, lpips])
def test_wrong_use(metric):
    image = torch.zeros(1, 3, 40, 40)
    with pytest.raises(TypeError, match="data_range"):
        metric(image, image)
    with pytest.raises(UserError, match=r"\(1, 3, 40, 40\).*\(1, 3, 40, 41\)"):
        metric(image, torch.zeros(1, 3, 40, 41), data_range=1.0)
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        metric(image[0], image[0], data_range=1.0)
    with pytest.raises(UserError, match="crop_border=20"):
        metric(image, image, data_range=1.0, crop_border=20)
    with pytest.raises(ValueError, match="data_range"):
        metric(image, image, data_range=0)


@pytest.mark.parametrize(("metric", "side"), [(ssim, 11), (lpips, 31)])
def test_smallest_image(metric, side):
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(metric(image, image.flip(-1), data_range=1.0)).all()
    with pytest.raises(UserError, match=f"at least {side}x{side}"):
        metric(image[..., 1:], image[..., 1:], data_range=1.0)


def lpips_by_hand(image, reference):
    """Zhang et al. 2018, equation 1, from the released linear weights and AlexNet's activations."""
    import importlib.resources

    released = importlib.resources.files("lpips") / "weights" / "v0.1" / "alex.pth"
    heads = torch.load(released, map_location="cpu", weights_only=True)
    network = imagenet_features("alexnet")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    x, y = ((batch.float() - mean) / std for batch in (image, reference))
    total = torch.zeros(len(image))
    head = 0
    for layer in network:
        x, y = layer(x), layer(y)
        if isinstance(layer, torch.nn.ReLU):
            difference = (F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)).square()
            weight = heads[f"lin{head}.model.1.weight"].view(1, -1, 1, 1)
            total += (weight * difference).sum(1).mean(dim=(1, 2))
            head += 1
    assert head == 5
    return total


def test_lpips_equals_its_definition(batches):
    """Checked by hand too: on the authors' own example images it gives their 0.722 and 0.138."""
    image, reference = batches
    measured = lpips(image, reference, data_range=1.0)
    assert measured.shape == (2,)
    assert measured.min() > 0.01
    torch.testing.assert_close(measured, lpips_by_hand(image, reference), rtol=1e-4, atol=1e-6)


def test_lpips_options(batches):
    image, reference = batches
    plain = lpips(image, reference, data_range=1.0)
    torch.testing.assert_close(lpips(255 * image, 255 * reference, data_range=255.0), plain, rtol=1e-4, atol=1e-6)
    cropped = lpips(image[..., 4:-4, 4:-4], reference[..., 4:-4, 4:-4], data_range=1.0)
    torch.testing.assert_close(lpips(image, reference, data_range=1.0, crop_border=4), cropped)
    luma = lpips(to_y(image).expand(-1, 3, -1, -1), to_y(reference).expand(-1, 3, -1, -1), data_range=1.0)
    torch.testing.assert_close(lpips(image, reference, data_range=1.0, y_channel=True), luma)


def test_lpips_leaves_the_random_numbers_alone(batches):
    from sr_utils.metrics import _lpips_network

    _lpips_network.cache_clear()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    lpips(*batches, data_range=1.0)
    torch.testing.assert_close(torch.rand(3), expected)
