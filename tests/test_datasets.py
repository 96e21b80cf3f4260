import pytest
import torch

from sr_utils.datasets import load_images, open_data_root
from sr_utils.errors import UserError
from sr_utils.images import save_image


def write(path, width, height, seed=0):
    save_image(torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)), path)


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
