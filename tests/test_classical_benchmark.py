"""The comparison of classical methods: a spread order, scores kept, means over images, bursts of every kind."""

import pytest
import torch

from benchmarks import bursts, classical
from benchmarks.bursts import SETTINGS, make_burst, restorers
from benchmarks.classical import Classical, scattered, score_image, summarised
from sr_utils.files import read_json
from sr_utils.images import quantize, save_image
from sr_utils.metrics import psnr


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_every_image_comes_once_and_the_beginning_is_spread(count):
    order = scattered(count)
    assert sorted(order) == list(range(count))
    if count == 100:
        assert {place // 25 for place in order[:5]} == {0, 1, 2, 3}


def test_an_image_is_scored_once_by_every_method(root, tmp_path):
    generator = torch.Generator().manual_seed(0)
    save_image(torch.rand(3, 24, 24, generator=generator), root / "task1/Input/000.png")
    save_image(torch.rand(3, 48, 48, generator=generator), root / "task1/GroundTruth/000.png")
    options = Classical(data_root=root, states=tmp_path / "states", output=tmp_path / "classical.json")
    about = {"pairs": "these"}
    rows = score_image("pairs", 0, options, about)
    assert read_json(tmp_path / "states/pairs/000.json")["scores"] == rows == score_image("pairs", 0, options, about)
    assert {"bicubic", "sinc", "wiener", "total_variation"} <= {row["method"] for row in rows}
    assert all(row["psnr"] > 0 and row["milliseconds"] >= 0 and row["data"] == "pairs" for row in rows)
    clean = {row["method"]: row["psnr"] for row in score_image("clean", 0, options, about)}
    assert clean["bicubic"] > rows[2]["psnr"]


def test_means_are_over_images_and_the_time_is_a_median():
    images = [[{"method": "a", "psnr": value, "milliseconds": value**2}] for value in (1.0, 2.0, 9.0)]
    assert summarised(images) == [{"method": "a", "psnr": 4.0, "milliseconds": 4.0, "count": 3}]
    assert summarised([]) == []


@pytest.fixture(scope="module")
def truth():
    coarse = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic")[0].clamp(0, 1)


def test_bursts_of_every_kind_are_restored_and_scored(truth, monkeypatch):
    kept = [setting for setting in SETTINGS if setting.data in ("burst", "local_motion", "uneven_noise")]
    monkeypatch.setattr(classical, "SETTINGS", kept)
    rows = {(row["data"], row["method"]): row for row in classical.score_bursts(truth, seed=0)}
    assert rows["burst", "undo_aliasing"]["psnr"] > rows["burst", "bicubic"]["psnr"] + 3
    assert {"ssim", "lpips"} <= set(rows["burst", "bicubic"]) and "ssim" not in rows["local_motion", "bicubic"]
    moving = rows["local_motion", "undo_aliasing"]
    assert moving["inside"] < moving["outside"]
    assert all(row["multiplications_per_pixel"] > 0 for row in rows.values())


def test_settings_do_what_they_say(truth):
    uneven = next(setting for setting in SETTINGS if setting.uneven)
    _, deviation = make_burst(truth, uneven, seed=1)
    assert deviation[0, 0, 0, 0] == bursts.LOUD == deviation[1, 0, 0, -1]
    assert deviation[0, 0, 0, -1] == bursts.QUIET == deviation[1, 0, 0, 0]
    wrong = next(setting for setting in SETTINGS if setting.shift_error == 0.4)
    burst, deviation = make_burst(truth, wrong, seed=1)
    assert burst.frames.shape == (4, 3, 112, 112) and set(restorers(burst, deviation, wrong, seed=1)) == {
        "bicubic",
        "undo_aliasing",
        "back_projection",
    }


def test_the_methods_are_told_shifts_that_are_as_wrong_as_the_setting_says(truth):
    scores = {}
    for setting in SETTINGS:
        if setting.data == "shift_error" and setting.value in (0.0, 0.4):
            burst, deviation = make_burst(truth, setting, seed=1)
            for name, restore in restorers(burst, deviation, setting, seed=1).items():
                found = psnr(quantize(restore())[None], burst.truth[None], data_range=1.0).item()
                scores.setdefault(name, []).append(found)
    for name in ("undo_aliasing", "back_projection"):
        right, wrong = scores[name]
        assert right > wrong + 1, name
    # Of one frame there is no shift.
    assert scores["bicubic"][0] == scores["bicubic"][1]
