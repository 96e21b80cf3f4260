"""How the learned wavelet transform starts; `test_flow_layers` has what holds for all layers."""

import torch

from sr_utils.flow_layers import squeeze
from sr_utils.lifting import LiftingStep, haar, swap


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


def test_a_first_lifting_step_starts_as_wavelets_of_brightness_and_colour_differences():
    """Grey squares have brightness only, and a flat colour has no detail."""
    step = LiftingStep(12, 2, 4, first=True).eval()
    features = torch.zeros(1, 2, 4, 4)
    grey, flat = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8), torch.rand(1, 3, 1, 1).expand(1, 3, 8, 8)
    of_grey, of_flat = (step(squeeze(image), features)[0].unflatten(1, (4, 3)) for image in (grey, flat))
    assert of_grey[:, :, 1:].abs().max() < 1e-5 < of_grey[:, :, 0].abs().amin((0, 2, 3)).min()
    assert of_flat[:, 1:].abs().max() < 1e-5
    assert (of_grey.square().sum() - grey.square().sum()).abs() < 1e-3
