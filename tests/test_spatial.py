"""The spatial domain: back-projection explains its image, denoising denoises, total variation and projections too."""

import pytest
import torch

from sr_utils import spatial
from sr_utils.images import imresize


@pytest.fixture(scope="module")
def scene():
    """A truth of flat areas with edges, (3, 64, 64), and a noisy small image of it with its noise."""
    truth = torch.full((3, 64, 64), 0.3)
    truth[:, 16:40, 10:50] = torch.tensor([0.8, 0.5, 0.6])[:, None, None]
    truth[:, 30:60, 36:] = 0.1
    noise = 0.05
    low = imresize(truth, 0.5) + noise * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    return truth, low.clamp(0, 1), noise


def error(image, truth):
    return (image - truth).square().mean().item()


def test_back_projection_explains_the_small_image(scene):
    truth, low, _ = scene
    before = error(imresize(imresize(low, 2), 0.5), low)
    assert error(imresize(spatial.back_project(low, 2), 0.5), low) < 0.01 * before
    clean = imresize(truth, 0.5)
    assert error(spatial.back_project(clean, 2), truth) < error(imresize(clean, 2), truth)


def test_denoising_first_is_nearer_to_the_truth(scene):
    truth, low, noise = scene
    clean = imresize(truth, 0.5)
    for denoise in (spatial.non_local_means, spatial.bilateral):
        assert error(denoise(low, noise=noise), clean) < 0.8 * error(low, clean)
    smooth = spatial.bilateral(low, noise=noise)
    assert error(imresize(smooth, 2), truth) < 0.8 * error(imresize(low, 2), truth)


def test_the_divergence_is_minus_the_transpose_of_the_gradient():
    image = torch.rand(3, 7, 9, dtype=torch.float64)
    slopes = spatial._gradient(torch.rand(3, 7, 9, dtype=torch.float64))
    product = (spatial._gradient(image) * slopes).sum()
    assert product.item() == pytest.approx(-(image * spatial._divergence(slopes)).sum().item())


def objective(estimate, low, weight):
    variation = spatial._gradient(estimate).square().sum((0, 1)).sqrt().sum()
    return ((imresize(estimate, 0.5) - low).square().sum() / 2 + weight * variation).item()


def test_total_variation_minimises_what_it_says(scene):
    truth, low, noise = scene
    few, more, many = (spatial.total_variation(low, 2, noise=noise, iterations=n) for n in (5, 40, 400))
    values = [objective(each, low, 0.6 * noise) for each in (imresize(low, 2), few, more, many)]
    assert values[0] > values[1] > values[2] >= values[3] and values[2] < 1.1 * values[3]
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        near = many + 0.01 * torch.randn(many.shape, generator=generator)
        assert objective(near, low, 0.6 * noise) > values[3]
    assert error(more, truth) < 0.5 * error(imresize(low, 2), truth)


def test_projections_end_inside_the_sets(scene):
    truth, low, noise = scene
    start = torch.full_like(truth, 0.4)
    found = spatial.project_onto_sets(low, 2, start=start, tolerance=2 * noise, iterations=40)
    assert found.min() >= 0 and found.max() <= 1
    assert (imresize(found, 0.5) - low).abs().max() < 2.2 * noise
    inside = imresize(low, 2).clamp(0, 1)
    loose = spatial.project_onto_sets(low, 2, start=inside, tolerance=1.0)
    assert torch.equal(loose, inside)


def test_back_projection_costs_a_shrinking_and_an_enlarging_an_iteration():
    once, twice = (spatial.back_projection_multiplications(2, count) for count in (1, 2))
    # Enlarging: 3 channels, 4 taps, 1 + 1/2 passes. Shrinking: 8 taps on a half, then on a quarter of the pixels.
    assert twice - once == 3 * 4 * 1.5 + 3 * 8 * (1 / 2 + 1 / 4)
