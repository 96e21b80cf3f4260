import numpy as np
import pytest
import torch

from sr_utils.datasets import load_images, open_data_root
from sr_utils.degradations import gaussian_blur
from sr_utils.errors import UserError
from sr_utils.images import imresize, quantize, to_y
from sr_utils.naturalness import (
    SHIFTS,
    NaturalnessModel,
    asymmetric_gaussian,
    fit_naturalness,
    niqe,
    normalised_luminance,
    patch_statistics,
)
from sr_utils.repository import resolve


@pytest.fixture(scope="module")
def data():
    return open_data_root(resolve("data"))


@pytest.fixture(scope="module")
def model(data):
    return fit_naturalness(load_images(data.train[:12]))


def test_shape_and_scales_of_known_distributions():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(1, 200_000, generator=generator, dtype=torch.float64)
    laplace = normal.abs() * torch.randn(1, 200_000, generator=generator, dtype=torch.float64)
    alpha, left, right = asymmetric_gaussian(normal)[0].tolist()
    # A Gaussian has shape 2, and its scale is the deviation times the square root of 2.
    assert alpha == pytest.approx(2, abs=0.03) and left == pytest.approx(2**0.5, abs=0.02)
    assert right == pytest.approx(left, abs=0.02)
    uniform = torch.rand(1, 100_000, generator=generator) - 0.5
    assert asymmetric_gaussian(uniform)[0, 0] > 8 > asymmetric_gaussian(normal)[0, 0] > 1
    assert asymmetric_gaussian(laplace)[0, 0] < 1.1
    lopsided = torch.where(normal < 0, 3 * normal, normal)
    _, left, right = asymmetric_gaussian(lopsided)[0].tolist()
    assert left / right == pytest.approx(3, rel=0.03)


def test_the_mean_of_the_products_is_that_of_the_density_with_their_shape_and_scales():
    generator = torch.Generator().manual_seed(0)
    image = gaussian_blur(torch.rand(1, 3, 96, 192, generator=generator, dtype=torch.float64), 0.8)[0]
    features, _ = patch_statistics(image)
    for patch in features:
        # Behind shape and scale of the luminance, four neighbours of four numbers; the same at half size.
        for alpha, mean, left, right in torch.cat([patch[2:18], patch[20:36]]).reshape(8, 4).tolist():
            x = torch.linspace(-60, 60, 400_001, dtype=torch.float64)
            density = torch.exp(-((x.abs() / torch.where(x < 0, left, right)) ** alpha))
            assert mean == pytest.approx((x * density).sum().item() / density.sum().item(), abs=1e-3)
    # The lot is worth comparing: neighbours alike have a positive mean.
    assert features[:, 3].min() > 0.1


def test_the_second_half_are_the_statistics_of_the_image_shrunk_with_antialiasing():
    generator = torch.Generator().manual_seed(0)
    image = gaussian_blur(torch.rand(1, 3, 192, 96, generator=generator, dtype=torch.float64), 0.5)[0]
    features, _ = patch_statistics(image)
    of_half, _ = patch_statistics(imresize(image, 0.5), patch=48)
    torch.testing.assert_close(features[:, 18:], of_half[:, :18], rtol=0, atol=2e-3)


def test_only_the_sharp_patches_of_a_photograph_are_fitted_to():
    generator = torch.Generator().manual_seed(0)
    photographs, sharp = [], []
    for flat_first in (True, False):
        halves = [
            0.5 + strength * (torch.rand(3, 96, 96, generator=generator, dtype=torch.float64) - 0.5)
            for strength in (0.02, 0.8)
        ]
        photographs.append(torch.cat(halves if flat_first else halves[::-1], dim=2))
        features, contrast = patch_statistics(photographs[-1])
        assert contrast.argmax() == (1 if flat_first else 0)
        sharp.append(features[contrast.argmax()])
    model = fit_naturalness(photographs)
    assert model.patches == 2
    torch.testing.assert_close(model.mean, torch.stack(sharp).mean(0))
    torch.testing.assert_close(model.covariance, torch.cov(torch.stack(sharp).T))


def test_luminance_is_normalised():
    noise = 128 + 20 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normalised, deviation = normalised_luminance(noise)
    assert abs(normalised.mean()) < 0.05 and 0.7 < normalised.std() < 1.2 and 15 < deviation.mean() < 21
    again, _ = normalised_luminance(noise + 50)
    assert torch.allclose(normalised, again)


def test_noise_and_blur_are_less_natural_than_photographs(data, model):
    for photograph in load_images(data.validation):
        clean = niqe(photograph, model)
        noise = torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
        assert niqe(quantize(photograph + 0.08 * noise), model) > clean + 0.5
        assert niqe(quantize(gaussian_blur(photograph[None], 2.5)[0]), model) > clean + 0.5


def test_36_finite_statistics_even_of_a_flat_image(model):
    features, contrast = patch_statistics(torch.full((3, 200, 100), 0.5))
    assert features.shape == (2, 36) and contrast.shape == (2,) and features.isfinite().all()
    assert niqe(torch.zeros(3, 96, 96), model) > 0


def test_what_cannot_be_measured_is_refused(model):
    with pytest.raises(UserError, match="at least 96x96, not 90x120"):
        niqe(torch.rand(3, 120, 90), model)
    with pytest.raises(UserError, match="two sharp patches"):
        fit_naturalness([])


def test_niqe_is_the_published_distance():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 192, 192, generator=generator)
    root = torch.randn(36, 36, generator=generator, dtype=torch.float64)
    mean = torch.randn(36, generator=generator, dtype=torch.float64)
    model = NaturalnessModel(mean, root @ root.T, 99)
    features = patch_statistics(image)[0].numpy()
    off = features.mean(0) - mean.numpy()
    both = (model.covariance.numpy() + np.cov(features.T)) / 2
    assert niqe(image, model) == pytest.approx((off @ np.linalg.pinv(both) @ off) ** 0.5, rel=1e-4)


def test_the_features_are_those_of_luma_in_grey_levels_and_of_both_diagonals():
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normalised = normalised_luminance(255 * to_y(image[None]))[0][0, 0]
    alpha, left, right = asymmetric_gaussian(normalised.reshape(1, -1))[0].tolist()
    features = patch_statistics(image)[0][0]
    assert features[:2].tolist() == pytest.approx([alpha, (left + right) / 2])
    other_diagonal = (normalised[1:, :-1] * normalised[:-1, 1:]).reshape(1, -1)
    assert SHIFTS[3] == (1, -1)
    assert features[14].item() == pytest.approx(asymmetric_gaussian(other_diagonal)[0, 0].item(), rel=0.03)


def test_one_patch_is_too_few_to_fit():
    with pytest.raises(UserError, match="two sharp patches"):
        fit_naturalness([torch.rand(3, 96, 96)])
