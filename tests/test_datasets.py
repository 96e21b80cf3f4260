import pytest
import torch

from sr_utils.datasets import PairSampler, PatchSampler, load_images, open_data_root
from sr_utils.errors import UserError
from sr_utils.images import save_image


def write(path, width, height, seed=0):
    save_image(torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)), path)


# The data root


def test_parts(root):
    data = open_data_root(str(root))
    assert data.scale == 2
    assert [(a.name, b.parent.name) for a, b in data.pairs] == [(f"00{i}.png", "GroundTruth") for i in range(3)]
    assert len(data.inputs) == len(data.truths) == len(data.task2) == 3
    assert [path.name for path in data.validation] == ["10.png"]
    assert [path.name for path in data.train] == [f"{index:02}.png" for index in range(10)]
    assert [tuple(image.shape) for image in load_images(data.inputs)] == [
        (3, 20, 24),
        (3, 30, 17),
        (3, 16, 16),
    ]


def test_validation_folder_leaves_all_clean_images_for_training(root):
    write(root / "validation/a.png", 8, 8)
    data = open_data_root(root)
    assert [path.name for path in data.validation] == ["a.png"]
    assert data.train == data.clean


def test_one_clean_image_is_too_few(root):
    for path in list((root / "clean").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="clean holds one image"):
        _ = open_data_root(root).train


def test_missing_root_and_parts(root, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder.*task1/GroundTruth"):
        open_data_root(tmp_path / "nowhere")
    with pytest.raises(UserError, match="xxx is not a folder"):
        open_data_root(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="data_root ~nobody-at-all/x begins with an unknown home folder"):
        open_data_root("~nobody-at-all/x")
    (tmp_path / "empty" / "clean").mkdir(parents=True)
    data = open_data_root(tmp_path / "empty")
    with pytest.raises(UserError, match=r"task1/Input does not exist.*task1/Input/\*\.png"):
        _ = data.inputs
    with pytest.raises(UserError, match="clean holds no images"):
        _ = data.clean


@pytest.mark.parametrize(("scale", "ending"), [(1, ""), (2, "x2"), (4, "x4")])
def test_scales_and_div2k_names(tmp_path, scale, ending):
    write(tmp_path / "task1/Input" / f"0801{ending}.png", 9, 7)
    write(tmp_path / "task1/GroundTruth/0801.png", 9 * scale, 7 * scale)
    data = open_data_root(tmp_path)
    assert data.scale == scale
    assert data.pairs[0][1].name == "0801.png"


def test_pairs_without_a_partner(root):
    (root / "task1/GroundTruth/001.png").rename(root / "task1/GroundTruth/7.png")
    with pytest.raises(UserError, match=r"Input/001\.png has no image.*GroundTruth"):
        _ = open_data_root(root).pairs
    (root / "task1/Input/001.png").unlink()
    with pytest.raises(UserError, match=r"GroundTruth/7\.png has no image.*Input"):
        _ = open_data_root(root).pairs
    # The inputs alone serve to learn from.
    assert len(open_data_root(root).inputs) == 2


def test_two_images_of_one_name(root):
    write(root / "task1/Input/spare.png", 8, 8)
    (root / "task1/Input/spare.png").rename(root / "task1/Input/001.webp")
    with pytest.raises(UserError, match=r"001\.png and .*001\.webp"):
        _ = open_data_root(root).pairs


@pytest.mark.parametrize("size", [(33, 60), (34, 61), (51, 90), (17, 15), (34, 30)])
def test_truth_that_is_no_multiple(root, size):
    write(root / "task1/GroundTruth/001.png", *size)
    with pytest.raises(UserError, match=rf"001\.png is {size[0]}x{size[1]} and .*001\.png is 17x30"):
        _ = open_data_root(root).scale


def test_mixed_scales(root):
    write(root / "task1/GroundTruth/002.png", 16, 16)
    with pytest.raises(UserError, match=r"002\.png is 1 times.*scale 2"):
        _ = open_data_root(root).scale


# Patches


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
