"""Noise patches: cut from flat places, laid over clean images."""

import pytest
import torch

from sr_utils.errors import UserError
from sr_utils.noise_patches import collect_noise, inject_noise


def noisy_scenes(count=6):
    """Images whose left half is a smooth ramp and whose right half is rough, all with noise of deviation 0.03."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.3, 0.6, 128).expand(3, 128, 128).clone()
    scenes = []
    for _ in range(count):
        scene = ramp.clone()
        blocks = torch.rand(3, 16, 8, generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
        scene[:, :, 64:] = 0.2 + 0.6 * blocks
        scenes.append(scene + 0.03 * torch.randn(scene.shape, generator=generator))
    return scenes


def test_only_flat_places_are_collected_and_without_their_plane():
    noise = collect_noise(noisy_scenes(), share=0.1)
    assert noise.shape[1:] == (3, 32, 32)
    assert noise.std() == pytest.approx(0.03, rel=0.05)
    assert noise.mean((2, 3)).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (16, 40)])
def test_injection_keeps_the_size_adds_the_noise_and_repeats(size):
    noise, clean = collect_noise(noisy_scenes()), torch.full((3, *size), 0.5)

    def draw(seed):
        return inject_noise(clean, noise, torch.Generator().manual_seed(seed))

    assert draw(0).shape == clean.shape
    assert (draw(0) - clean).std() == pytest.approx(0.03, rel=0.1)
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_images_smaller_than_a_patch_are_one_sentence():
    with pytest.raises(UserError, match="No image is as large as a patch of 32x32"):
        collect_noise([torch.rand(3, 20, 20)])
