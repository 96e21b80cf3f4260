"""Tests of the embedded data: counts, sizes, licences, splits, and the clip behind task 2."""

import csv
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_utils.images import imresize, load_image, quantize

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
REDISTRIBUTABLE = {
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "GPL-2.0-or-later",
    "LGPL-3.0-only",
    "Public domain",
    "Apache-2.0 AND BSD-3-Clause",
}

with open(DATA / "sources.csv", newline="", encoding="utf-8") as stream:
    ROWS = list(csv.DictReader(stream))
PHOTOGRAPHS = [row for row in ROWS if row["split"] != "video"]


@pytest.fixture(scope="module")
def build():
    """The module data/build.py."""
    spec = importlib.util.spec_from_file_location("data_build", DATA / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pngs(folder: str) -> list[Path]:
    return sorted((DATA / folder).glob("*.png"))


def sizes(folder: str) -> set[tuple[int, int]]:
    found = set()
    for path in pngs(folder):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            found.add(image.size)
    return found


def test_task1_has_100_pairs():
    names = [path.name for path in pngs("task1/GroundTruth")]
    assert len(names) == 100
    assert names == [path.name for path in pngs("task1/Input")]
    assert sizes("task1/GroundTruth") == {(512, 512)}
    assert sizes("task1/Input") == {(256, 256)}


def test_task2_has_120_frames():
    assert len(pngs("task2")) == 120
    assert sizes("task2") == {(256, 256)}


def test_clean_sides_are_multiples_of_32():
    assert len(pngs("clean")) >= 24 and len(pngs("validation")) >= 3
    found = sizes("clean") | sizes("validation")
    assert all(side % 32 == 0 for size in found for side in size)


def test_at_least_40_photographs_of_different_scenes_with_licences():
    assert len(PHOTOGRAPHS) >= 40
    for key in ("name", "scene", "path"):
        assert len({row[key] for row in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    for row in ROWS:
        assert all(value.strip() for value in row.values()), row["name"]
        assert row["licence"] in REDISTRIBUTABLE


def test_photographs_are_at_least_twice_as_large_as_what_is_kept():
    for row in PHOTOGRAPHS:
        factor = float(row["factor"])
        width, height = (int(side) for side in row["crop"].split("x"))
        assert factor >= 2
        assert int(row["width"]) >= factor * width and int(row["height"]) >= factor * height


def test_every_image_is_listed_once_and_splits_are_disjoint():
    listed = [name for row in ROWS for name in row["images"].split(";")]
    assert len(listed) == len(set(listed))
    folders = ("clean", "validation", "task1/GroundTruth", "task2")
    assert set(listed) == {path.relative_to(DATA).as_posix() for folder in folders for path in pngs(folder)}
    place = {"train": "clean/", "validation": "validation/", "test": "task1/GroundTruth/", "video": "task2/"}
    for row in ROWS:
        assert all(name.startswith(place[row["split"]]) for name in row["images"].split(";"))


def test_readme_names_every_source():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    for row in ROWS:
        assert f"| {row['name']} | {row['split']} | {row['scene']} | {row['author']} |" in text


def test_folder_is_under_60_megabytes():
    files = [path for path in DATA.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 60e6


def test_task2_frames_are_the_shipped_clip(build):
    frames = build.read_clip(DATA / "task2_clip" / "vtest.avi")
    assert len(frames) == build.CLIP_FRAMES and frames[0].shape == (576, 768, 3)
    crops = build.task2_crops(frames)
    assert list(crops) == [path.name for path in pngs("task2")]
    for name in ("001.png", "050.png", "120.png"):
        with Image.open(DATA / "task2" / name) as image:
            # Decoders may differ in the last bit of the colour conversion.
            assert np.abs(np.asarray(image).astype(int) - crops[name]).max() <= 2


def test_trimming_the_clip_again_keeps_its_bits(build):
    clip = (DATA / "task2_clip" / "vtest.avi").read_bytes()
    assert build.trim_avi(clip, build.CLIP_FRAMES) == clip


def test_inputs_are_noisy_views_of_their_truths():
    spread, shift = [], []
    for path in pngs("task1/GroundTruth")[::5]:
        clean = quantize(imresize(load_image(path), 0.5))
        residual = (load_image(DATA / "task1" / "Input" / path.name) - clean) * 255
        spread.append(residual.std().item())
        shift.append(residual.mean(dim=(1, 2)))
    assert 9 <= np.median(spread) <= 12 and 4 <= min(spread) and max(spread) <= 23
    assert torch.stack(shift).mean(0).abs().max() < 1.5
    # The level varies from image to image.
    assert max(spread) > 1.8 * min(spread)


def test_crops_of_one_photograph_are_distinct(build):
    image = torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(0))
    corners = build.choose_crops(image, 128, 128, 4, quantile=0.7)
    assert len(set(corners)) == 4
    for a, b in itertools.combinations(corners, 2):
        shared = max(0, 128 - abs(a[0] - b[0])) * max(0, 128 - abs(a[1] - b[1]))
        assert shared <= 0.2 * 128**2
