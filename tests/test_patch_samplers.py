import pytest
import torch

from sr_utils.errors import UserError
from sr_utils.patch_samplers import PairSampler, PatchSampler


def positions(height, width, offset=0):
    """An image whose pixels name their image and place."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((torch.full_like(rows, offset), rows, columns)).float()


def test_patches_are_crops_in_all_eight_positions():
    sampler = PatchSampler([positions(20, 30)], 8, seed=0)
    seen = set()
    for patch in sampler.next(200):
        (top, left), (bottom, right) = (
            patch[1:].amin((1, 2)).int().tolist(),
            patch[1:].amax((1, 2)).int().tolist(),
        )
        crop = positions(20, 30)[:, top : bottom + 1, left : right + 1]
        assert crop.shape == (3, 8, 8)
        versions = [version.rot90(turn, (1, 2)) for version in (crop, crop.flip(2)) for turn in range(4)]
        seen.add(next(index for index, version in enumerate(versions) if torch.equal(version, patch)))
    assert seen == set(range(8))


def test_images_are_drawn_by_area():
    sampler = PatchSampler([positions(10, 10, 0), positions(30, 30, 1)], 4, seed=0)
    share = sampler.next(2000)[:, 0, 0, 0].mean()
    assert abs(share - 0.9) < 0.03


def test_every_place_is_reached():
    patches = PatchSampler([positions(9, 7)], 7, seed=1).next(200)
    assert set(patches[:, 1].amin((1, 2)).int().tolist()) == {0, 1, 2}
    assert set(patches[:, 2].amin((1, 2)).int().tolist()) == {0}


def test_sequence_follows_the_seed_and_continues_from_a_state():
    images = [positions(20, 30), positions(40, 12, 1)]
    first, second = PatchSampler(images, 8, seed=5), PatchSampler(images, 8, seed=5)
    torch.testing.assert_close(first.next(9), second.next(9))
    state = first.state()
    assert state.dtype == torch.uint8
    expected = first.next(9)
    other = PatchSampler(images, 8, seed=6)
    assert not torch.equal(other.next(9), expected)
    other.load_state(state)
    torch.testing.assert_close(other.next(9), expected)


def test_pairs_stay_aligned_and_all_draws_are_used():
    truths = [positions(2 * height, 2 * width) for height, width in ((12, 20), (16, 9))]
    inputs = [[torch.nn.functional.avg_pool2d(truth, 2) + shift for shift in (0, 1000)] for truth in truths]
    sampler = PairSampler(inputs, truths, 8, 2, seed=0)
    low, high = sampler.next(100)
    assert low.shape == (100, 3, 8, 8) and high.shape == (100, 3, 16, 16)
    shift = 1000 * (low > 500)
    assert 20 < shift[:, 0, 0, 0].count_nonzero() < 80
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(high, 2), low - shift)


def test_pair_sampler_continues_from_a_state():
    inputs, truths = [[positions(12, 12)]], [positions(48, 48)]
    sampler = PairSampler(inputs, truths, 4, 4, seed=0)
    state = sampler.state()
    low, high = sampler.next(5)
    sampler.load_state(state)
    again_low, again_high = sampler.next(5)
    assert torch.equal(low, again_low) and torch.equal(high, again_high)


def test_samplers_refuse():
    with pytest.raises(UserError, match=r"patch of 8x8 is larger than image 1, which is 30x7: choose"):
        PatchSampler([positions(20, 30), positions(7, 30)], 8, seed=0)
    with pytest.raises(UserError, match="no images"):
        PatchSampler([], 8, seed=0)
    with pytest.raises(UserError, match="1 inputs and 2 truths"):
        PairSampler([[positions(8, 8)]], [positions(16, 16)] * 2, 8, 2, seed=0)
    with pytest.raises(UserError, match="give each truth an input"):
        PairSampler([[]], [positions(16, 16)], 8, 2, seed=0)
    with pytest.raises(UserError, match=r"An input of image 0 is 8x8 and the truth 15x16.*2 times"):
        PairSampler([[positions(8, 8)]], [positions(16, 15)], 8, 2, seed=0)


def test_samplers_name_the_file_that_they_refuse():
    inputs, truths, names = [[positions(8, 8)], [positions(9, 8)]], [positions(16, 16), positions(18, 16)], ["a", "b"]
    with pytest.raises(UserError, match=r"patch of 9x9 is larger than wall\.jpg, which is 30x7: choose"):
        PatchSampler([positions(20, 30), positions(7, 30)], 9, seed=0, names=["a.png", "wall.jpg"])
    with pytest.raises(UserError, match=r"patch of 9x9 is larger than a, which is 8x8: choose"):
        PairSampler(inputs, truths, 9, 2, seed=0, names=names)
    with pytest.raises(UserError, match=r"An input of b is 8x9 and the truth 16x16.*2 times"):
        PairSampler(inputs, truths[:1] * 2, 8, 2, seed=0, names=names)


def test_patches_on_a_grid_keep_its_phase_and_their_orientation():
    image = torch.arange(3 * 40 * 56, dtype=torch.float32).view(3, 40, 56)
    for patch in PatchSampler([image], 16, seed=0, grid=8).next(50):
        top, left = divmod(int(patch[0, 0, 0]), 56)
        assert top % 8 == 0 and left % 8 == 0
        assert torch.equal(patch, image[:, top : top + 16, left : left + 16])
