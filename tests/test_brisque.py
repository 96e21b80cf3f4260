import math

import pytest
import torch

from sr_utils import brisque as module
from sr_utils.brisque import brisque, image_statistics, read_regression, regression
from sr_utils.datasets import load_images, open_data_root
from sr_utils.degradations import gaussian_blur
from sr_utils.errors import UserError
from sr_utils.images import imresize, quantize
from sr_utils.repository import resolve

TEXT = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.5\nrho -3\nSV\n2 1:1 36:-1\n-1 2:0.5\n"


@pytest.fixture(scope="module")
def photograph():
    return load_images(open_data_root(resolve("data")).validation)[0]


def test_the_published_regression_is_there():
    model = regression()
    assert model["vectors"].shape == (770, 36) and model["weights"].shape == (770,)
    assert model["width"] == 0.05 and model["offset"] == pytest.approx(-155.845)
    assert (model["ranges"][1] > model["ranges"][0]).all()


def test_a_score_is_the_sum_over_the_support_vectors(monkeypatch, photograph):
    model = read_regression(TEXT)
    statistics = image_statistics(photograph)
    # With these ranges every scaled statistic is -1.
    model["ranges"] = torch.stack([statistics, statistics + 1])
    monkeypatch.setattr(module, "regression", lambda: model)
    first, second = (2**2 + 34 * 1 + 0), (1.5**2 + 35 * 1)
    expected = 2 * math.exp(-0.5 * first) - math.exp(-0.5 * second) + 3
    assert brisque(photograph) == pytest.approx(expected, abs=1e-9)


def test_other_kinds_of_models_are_refused():
    with pytest.raises(ValueError, match="Not a regression"):
        read_regression(TEXT.replace("epsilon_svr", "c_svc"))


def test_noise_and_blur_have_worse_scores(photograph):
    noise = torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
    noisy = [brisque(quantize(photograph + level * noise)) for level in (0.03, 0.1)]
    blurred = [brisque(quantize(gaussian_blur(photograph[None], level)[0])) for level in (1.0, 2.5)]
    assert brisque(photograph) < noisy[0] < noisy[1] < 100
    assert brisque(photograph) + 20 < blurred[0] < blurred[1] < 100


def test_statistics_of_normalised_noise():
    noise = 0.5 + 0.1 * torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1)
    shape, variance, *products = image_statistics(noise)[:18].tolist()
    assert shape > 2 and 0.7 < variance < 1.1
    for alpha, mean, left, right in zip(*[iter(products)] * 4, strict=True):
        # What is less than its neighbourhood's mean by definition has neighbours above it.
        assert 0.5 < alpha < 1.5 and -0.2 < mean < 0 < right < left < 1


def test_flat_images_have_a_score_and_small_ones_a_sentence():
    assert math.isfinite(brisque(torch.full((3, 40, 40), 0.5)))
    with pytest.raises(UserError, match="at least 16x16, not 20x15"):
        brisque(torch.rand(3, 15, 20))


def test_the_second_half_of_the_features_is_of_half_the_size():
    image = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0))
    half = imresize(image.double(), 0.5)
    torch.testing.assert_close(image_statistics(image)[18:], image_statistics(half)[:18], rtol=1e-4, atol=1e-5)
    red = image * torch.tensor([1.0, 0, 0])[:, None, None]
    grey = (0.2989 * image[:1]).expand(3, -1, -1) / 0.9999
    torch.testing.assert_close(image_statistics(red), image_statistics(grey), rtol=1e-3, atol=1e-4)
    assert image_statistics(torch.rand(3, 16, 16)).shape == (36,)


def test_another_kernel_is_refused():
    with pytest.raises(ValueError, match="Not a regression"):
        read_regression(TEXT.replace("kernel_type rbf", "kernel_type linear"))
