"""The blind ladder: a camera of another form, the same ladder over it, and another oracle."""

import json

import pytest
import torch

from benchmarks import blind_ladder, ladder, shifts
from benchmarks.blind_ladder import BlindLadder
from benchmarks.ladder import Ladder
from benchmarks.second_camera import MIXING, take_picture
from sr_utils.compression import estimate_quality
from sr_utils.datasets import open_data_root
from sr_utils.images import imresize, load_image, quantize
from sr_utils.mosaic import find_mosaic


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scene():
    return imresize(torch.rand(3, 8, 8, generator=seeded()), 12).clamp(0.1, 0.9)


def test_a_picture_repeats_is_on_8_bit_levels_and_shows_the_scene(scene):
    picture = take_picture(scene, seeded(1))
    assert picture.shape == scene.shape and torch.equal(picture, take_picture(scene, seeded(1)))
    assert not torch.equal(picture, take_picture(scene, seeded(2)))
    assert torch.equal(quantize(picture), picture)
    assert 1 / 255 < (picture - scene).std() < 0.08 and (picture - scene).mean((1, 2)).abs().max() < 0.03


def test_grey_stays_grey_and_rows_have_something_in_common():
    assert torch.allclose(MIXING.sum(1), torch.ones(3))
    card = torch.full((3, 96, 96), 0.3)
    found = []
    for seed in range(12):
        residual = take_picture(card, seeded(seed)) - card
        of_rows, of_columns = (residual.mean((0, axis)).var().item() for axis in (2, 1))
        found.append(of_rows / of_columns)
    assert sorted(found)[len(found) // 2] > 1.5


def test_it_has_neither_mosaic_nor_jpeg(scene):
    pictures = [take_picture(scene, seeded(seed)) for seed in range(6)]
    assert find_mosaic(pictures) is None
    assert [estimate_quality(picture) for picture in pictures] == [None] * 6


@pytest.fixture
def options(root, tmp_path):
    sources = ("esrgan_bicubic", "esrgan_white_noise_by_image", "esrgan_deflow", "esrgan_oracle")
    paths = {"data_root": root, "states": tmp_path / "blind", "output": tmp_path / "blind.json"}
    return BlindLadder(sources=sources, profile="smoke", steps=2, processes=1, **paths)


def test_the_pictures_replace_the_inputs_and_nothing_else(options):
    data = open_data_root(options.data_root)
    folder = blind_ladder.photographed(data, options.states / "data")
    second = open_data_root(folder)
    assert second.scale == data.scale and len(second.pairs) == len(data.pairs)
    for (low, truth), (other_low, other_truth) in zip(data.pairs, second.pairs, strict=True):
        assert truth.read_bytes() == other_truth.read_bytes()
        clean = quantize(imresize(load_image(truth), 1 / data.scale))
        assert load_image(low).shape == load_image(other_low).shape == clean.shape
        assert not torch.equal(load_image(low), load_image(other_low))
    assert [path.name for path in second.train] == [path.name for path in data.train]


def test_its_oracle_is_the_second_camera_with_draws_of_its_own(options, scene):
    data = open_data_root(options.data_root)
    shoot = blind_ladder.degradation("esrgan_oracle", data, Ladder(data_root=options.data_root))
    assert torch.equal(shoot(scene, 3), take_picture(scene, seeded(10**6 + 3)))
    bicubic = blind_ladder.degradation("esrgan_bicubic", data, Ladder(data_root=options.data_root))
    assert torch.equal(bicubic(scene, 3), scene)


def test_the_rows_are_those_of_the_ladder_and_of_the_flow(options, monkeypatch):
    scores, asked = {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1}, []

    def instead(source, seed, rungs, *, degradation):
        asked.append((source, seed, rungs.deflow_steps, rungs.data_root, degradation))
        return scores

    monkeypatch.setattr(shifts, "train_and_score", lambda kind, seed, about: {"akld": 0.2, "steps": about.steps})
    monkeypatch.setattr(ladder, "train_and_score", instead)
    monkeypatch.setattr(blind_ladder, "train_and_score", in_this_process)
    monkeypatch.setattr(blind_ladder, "compare", compared_here)
    for _ in range(2):
        blind_ladder.main(options)
    written = json.loads(options.output.read_text())
    rows = {row["method"]: row for row in written["rows"]}
    assert list(rows) == [*options.sources, "deflow_gain_shift"]
    assert rows["deflow_gain_shift"] == {"method": "deflow_gain_shift", "akld": 0.2, "steps": 2}
    root = options.states / "data"
    assert asked[: len(options.sources)] == [
        (source, 0, 2, root, blind_ladder.degradation) for source in options.sources
    ]


def in_this_process(source, seed, rungs):
    return ladder.train_and_score(source, seed, rungs, degradation=blind_ladder.degradation)


def compared_here(train_and_score, methods, options, *, profile, about, spread_of):
    rows = [{"method": method, **train_and_score(method, 0, options)} for method in methods]
    options.output.write_text(json.dumps({"provenance": {"profile": profile}, "rows": rows}))


def test_one_source_of_it_is_trained_for_real(options):
    data = open_data_root(options.data_root)
    root = blind_ladder.photographed(data, options.states / "data")
    rungs = Ladder(profile="smoke", data_root=root, states=options.states / "ladder")
    found = blind_ladder.train_and_score("esrgan_oracle", 0, rungs)
    assert found["count"] == len(data.pairs) and found["psnr"] > 5
