"""The ladder of pair sources: only the oracle reaches the simulator, none a ground truth, and rows come out right."""

import json
import shutil
import sys

import pytest
import torch

from benchmarks import ladder
from benchmarks.ladder import Ladder
from benchmarks.shifts import model_path
from sr_utils.checkpoints import save_model
from sr_utils.datasets import open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.images import save_image

FLOW = {"steps": 1, "hidden": 8, "features": 8, "encoder_blocks": 1}
METHODS = [source for source in Ladder().sources if source != "esrgan_oracle"]


@pytest.fixture
def options(root, tmp_path):
    """Small models where the benchmark of shifts leaves its own, and one input that noise can be cut out of."""
    save_image(torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(5)), root / "task1/Input/003.png")
    save_image(torch.rand(3, 96, 96), root / "task1/GroundTruth/003.png")
    torch.manual_seed(0)
    for kind in ("constant", "gain"):
        path = model_path(tmp_path / "shifts", f"deflow_{kind}_shift", 1000, 0)
        save_model(path, DeFlow(DeFlowConfig(shift=kind, **FLOW)).eval(), {})
    paths = {"states": tmp_path / "ladder", "output": tmp_path / "ladder.json", "shifts": tmp_path / "shifts"}
    return Ladder(data_root=root, profile="smoke", seeds=(0,), **paths)


@pytest.mark.parametrize("source", METHODS)
def test_no_method_reaches_the_simulator_or_a_ground_truth(source, options, monkeypatch):
    shutil.rmtree(options.data_root / "task1" / "GroundTruth")
    for name in ("sr_utils.camera", "data.build"):
        monkeypatch.setitem(sys.modules, name, None)
    data = open_data_root(options.data_root)
    degrade = ladder.degradation(source, data, options)
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    one, other = degrade(image, 1), degrade(image, 2)
    assert one.shape == image.shape and one.isfinite().all()
    assert torch.equal(one, degrade(image, 1)) and torch.equal(one, other) == (source == "esrgan_bicubic")


def test_the_oracle_needs_the_simulator(options, monkeypatch):
    data, image = open_data_root(options.data_root), torch.rand(3, 40, 40)
    shot = ladder.degradation("esrgan_oracle", data, options)(image, 1)
    assert shot.shape == image.shape and not torch.equal(shot, image)
    monkeypatch.setitem(sys.modules, "sr_utils.camera", None)
    with pytest.raises(ImportError):
        ladder.degradation("esrgan_oracle", data, options)
    with pytest.raises(ValueError, match="no source 'esrgan_magic'"):
        ladder.degradation("esrgan_magic", data, options)


def test_rows_have_means_and_spreads_and_what_is_known_is_not_trained_again(options, tmp_path):
    options.states.mkdir()
    for source in options.sources:
        for seed in (0, 1):
            scores = {"psnr": 20.0 + 2 * seed, "ssim": 0.5, "lpips": 0.1, "parameters": 7}
            (options.states / f"{source}_smoke_{seed}.json").write_text(json.dumps(scores))
    ladder.main(Ladder(**(vars(options) | {"seeds": (0, 1)})))
    written = json.loads(options.output.read_text())
    assert [row["method"] for row in written["rows"]] == list(options.sources)
    for row in written["rows"]:
        assert row["psnr"] == 21 and row["psnr_std"] == pytest.approx(2**0.5) and row["lpips_std"] == 0
        assert row["parameters"] == 7 and row["seeds"] == 2 and "parameters_std" not in row
    assert {"profile", "seed", "commit", "device", "seconds", "pairs"} <= written["provenance"].keys()


def test_one_rung_is_trained_scored_and_kept(options, root):
    scores = ladder.train_and_score("esrgan_noise_model", 0, options)
    known = options.states / "esrgan_noise_model_smoke_0.json"
    network = ladder.network_path(options, "esrgan_noise_model", 0)
    assert json.loads(known.read_text()) == scores and set(options.states.iterdir()) == {
        known,
        network,
        network.with_suffix(".json"),
    }
    assert scores["count"] == 4 and scores["psnr"] > 0 and scores["parameters"] > 0
