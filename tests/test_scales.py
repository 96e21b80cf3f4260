"""The scales step: sizes, what is kept and what is made anew, and bad images."""

import os
import time

import pytest
import torch

from sr_utils.datasets import open_data_root
from sr_utils.errors import UserError
from sr_utils.images import imresize, load_image, quantize, save_image
from sr_utils.scales import prepare_scales


def test_prepare_scales(root, tmp_path):
    data = open_data_root(root)
    report = prepare_scales(data, tmp_path / "run", workers=2)
    assert sorted(report.folders) == ["clean_16x", "clean_1x", "clean_2x", "input_1x", "input_8x"]
    assert (report.made, report.skipped) == (3 * 2 + 10 * 3, 0)
    clean = load_image(root / "clean/04.png")[:, :32, :32]
    torch.testing.assert_close(load_image(report.folders["clean_1x"] / "04.png"), clean)
    for factor in (2, 16):
        expected = quantize(imresize(clean, 1 / factor))
        torch.testing.assert_close(load_image(report.folders[f"clean_{factor}x"] / "04.png"), expected)
    assert load_image(report.folders["input_8x"] / "001.png").shape == (3, 3, 2)


def test_prepare_scales_makes_only_what_is_missing_or_of_another_file(root, tmp_path):
    first = prepare_scales(open_data_root(root), tmp_path / "run", workers=2)
    again = prepare_scales(open_data_root(root), tmp_path / "run", workers=2)
    assert (again.made, again.skipped) == (0, first.made)
    (again.folders["clean_2x"] / "03.png").unlink()
    later = time.time() + 60
    os.utime(root / "task1/Input/000.png", (later, later))  # the time of a file says nothing
    (root / "clean/00.png").unlink()
    mended = prepare_scales(open_data_root(root), tmp_path / "run", workers=2)
    assert mended.made == 1
    assert not (again.folders["clean_2x"] / "00.png").exists()
    # Another image under a known name may well be the older file.
    save_image(torch.zeros_like(load_image(root / "clean/03.png")), root / "clean/03.png")
    os.utime(root / "clean/03.png", (1e9, 1e9))
    assert prepare_scales(open_data_root(root), tmp_path / "run", workers=2).made == 3
    assert load_image(mended.folders["clean_2x"] / "03.png").max() == 0


def test_prepare_scales_sees_that_two_photographs_have_changed_names(root, tmp_path):
    clean, moment = root / "clean", time.time()
    for path in clean.iterdir():
        os.utime(path, (moment, moment))
    before = prepare_scales(open_data_root(root), tmp_path / "run", workers=2).folders["clean_1x"]
    was = load_image(before / "03.png")
    (clean / "03.png").rename(clean / "other")
    (clean / "04.png").rename(clean / "03.png")
    (clean / "other").rename(clean / "04.png")
    assert prepare_scales(open_data_root(root), tmp_path / "run", workers=2).made == 6
    assert torch.equal(load_image(before / "04.png"), was)


def test_prepare_scales_of_another_root_begins_anew(root, tmp_path):
    first = prepare_scales(open_data_root(root), tmp_path / "run", workers=2)
    root.rename(tmp_path / "other")
    other = prepare_scales(open_data_root(tmp_path / "other"), tmp_path / "run", workers=2)
    assert other.made == first.made


def test_prepare_scales_without_truths(root, tmp_path):
    for path in (root / "task1/GroundTruth").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="GroundTruth"):
        prepare_scales(open_data_root(root), tmp_path / "run", workers=1)
    report = prepare_scales(open_data_root(root), tmp_path / "run", workers=1, scale=4)
    assert load_image(report.folders["clean_32x"] / "00.png").shape == (3, 1, 1)


def test_prepare_scales_answers_bad_images_and_keeps_the_threads(root, tmp_path):
    threads = torch.get_num_threads()
    save_image(torch.rand(3, 15, 40), root / "clean/05.png")
    with pytest.raises(UserError, match=r"05\.png is 40x15, smaller than 16"):
        prepare_scales(open_data_root(root), tmp_path / "run", workers=2)
    (root / "clean/05.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"05\.png is empty"):
        prepare_scales(open_data_root(root), tmp_path / "run", workers=2)
    assert torch.get_num_threads() == threads
