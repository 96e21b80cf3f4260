"""The ladder of pair sources: only the oracle reaches the simulator, none a ground truth, and rows come out right."""

import json
import shutil
import sys
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from benchmarks import comparison, ladder, shifts
from benchmarks.comparison import data_provenance, keep, summarise_with_unseen
from benchmarks.ladder import Ladder
from benchmarks.shifts import Shifts, learned_from, model_path
from sr_utils.checkpoints import save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.datasets import load_images, open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig, reconfigured
from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.images import load_image, save_image
from sr_utils.mosaic import demosaic, mosaic
from sr_utils.noise_model import fit_noise_model
from sr_utils.sampling import degrade_image, translate_image
from sr_utils.sensor import LEVELS, Sensor, linear_light
from sr_utils.training import train_esrgan

FLOW = {"steps": 1, "hidden": 8, "features": 8, "encoder_blocks": 1}
METHODS = [source for source in Ladder().sources if source != "esrgan_oracle"] + ["esrgan_deflow_sensor"]


@pytest.fixture
def options(root, tmp_path):
    """Small models where the benchmark of shifts leaves its own, and one input that noise can be cut out of."""
    save_image(torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(5)), root / "task1/Input/003.png")
    save_image(torch.rand(3, 96, 96), root / "task1/GroundTruth/003.png")
    for path in sorted((root / "task1/Input").glob("*.png")):  # a sensor took them
        save_image(demosaic(mosaic(load_image(path), (0, 0)), (0, 0), interpolation="bilinear"), path)
    torch.manual_seed(0)
    for kind in ("constant", "gain"):
        path = model_path(tmp_path / "shifts", f"deflow_{kind}_shift", 1000, 0)
        about = learned_from(open_data_root(root), Shifts().inputs)
        save_model(path, DeFlow(DeFlowConfig(shift=kind, **FLOW)).eval(), about)
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


@pytest.mark.parametrize(
    ("source", "shift", "qualities", "others"),
    [("esrgan_deflow_constant_shift", "constant", [], [30]), ("esrgan_deflow", "gain", [30], [])],
)
def test_the_published_flow_has_the_constant_shift_and_knows_of_no_compression(
    source, shift, qualities, others, options, monkeypatch
):
    monkeypatch.setattr(ladder, "estimate_qualities", lambda images: [30])
    torch.manual_seed(0)
    flows = {kind: DeFlow(DeFlowConfig(shift=kind, **FLOW)).eval() for kind in ("constant", "gain")}
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    degraded = ladder.degradation(source, open_data_root(options.data_root), options)(image, 4)
    assert torch.equal(degraded, degrade_image(flows[shift], image, qualities=qualities, seed=4))
    assert not torch.equal(degraded, degrade_image(flows[shift], image, qualities=others, seed=4))


def test_the_sensor_takes_what_is_certain_from_our_flow_without_its_blur(options, monkeypatch):
    data, image = open_data_root(options.data_root), torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    shot_noise = (0.004 * linear_light(LEVELS)).log()
    sensor = Sensor((0, 0), "bilinear", shot_noise, torch.ones(3), torch.zeros(2), [None, 80])
    monkeypatch.setattr(ladder, "sensor_of", lambda images, name: sensor)
    flow = DeFlow(DeFlowConfig(shift="gain", **FLOW)).eval()
    path = model_path(options.shifts, "deflow_gain_shift", 1000, 0)
    save_model(path, reconfigured(flow, blur=0.8), learned_from(data, Shifts().inputs))
    degraded = ladder.degradation("esrgan_deflow_sensor", data, options)(image, 4)
    assert torch.equal(degraded, degrade_image(flow, image, sensor=sensor, seed=4))
    assert torch.equal(degraded, sensor.photograph(translate_image(flow, image, temperature=0.0), seed=4))


@pytest.mark.parametrize("source", ["esrgan_white_noise", "esrgan_noise_model"])
def test_white_noise_does_not_grow_with_brightness_and_the_noise_model_does(source, options):
    generator = torch.Generator().manual_seed(0)
    data = open_data_root(options.data_root)
    for index, path in enumerate(data.inputs):
        # Flat, and the brighter the noisier.
        level = 0.2 + 0.2 * index
        save_image((level * (1 + 0.1 * torch.randn(3, 48, 48, generator=generator))).clamp(0, 1), path)
    grows = source == "esrgan_noise_model"
    noise = fit_noise_model(load_images(data.inputs), multiplicative=grows)
    assert (noise.multiplicative > 0.05) == grows
    image = torch.linspace(0.1, 0.6, 40).expand(3, 40, 40)
    expected = noise.add_to(image, torch.Generator().manual_seed(4))
    assert torch.equal(ladder.degradation(source, data, options)(image, 4), expected)


def test_white_noise_by_image_has_the_strengths_of_the_inputs(options):
    generator = torch.Generator().manual_seed(0)
    data, levels = open_data_root(options.data_root), (0.02, 0.03, 0.05, 0.08)
    for level, path in zip(levels, data.inputs, strict=True):
        save_image((0.5 + level * torch.randn(3, 96, 96, generator=generator)).clamp(0, 1), path)
    flat = torch.full((3, 96, 96), 0.5)
    degrade = ladder.degradation("esrgan_white_noise_by_image", data, options)
    found = sorted(degrade(flat, seed).std().item() for seed in range(40))
    assert found[0] == pytest.approx(levels[0], rel=0.15)
    assert found[-1] == pytest.approx(levels[-1], rel=0.15)
    one = degrade(flat, 0) - 0.5
    assert abs(torch.corrcoef(one.flatten(1))[0, 1]) < 0.05  # in colours of their own
    assert abs((one[:, 1:] * one[:, :-1]).mean() / one.square().mean()) < 0.05  # and without a grain


def test_rows_of_other_sources_stay_with_a_stamp_of_their_own(options, monkeypatch):
    asked = replace(options, sources=("esrgan_bicubic",), seeds=(0, 1), processes=1)
    data, scores = open_data_root(options.data_root), {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1}
    old = {"profile": asked.profile, "commit": "x", "seconds": 3.0, **pairs_provenance(data)}
    rows = [{"method": name, "psnr": 1.0} for name in ("esrgan_bicubic", "esrgan_oracle")]
    monkeypatch.setattr(comparison, "ProcessPoolExecutor", InThisProcess)
    others = (old | {"pairs": "others"}, old | {"profile": "full"})
    for provenance, kept in ((old, ["esrgan_oracle"]), *((other, []) for other in others)):
        write_metrics(asked.output, provenance, rows)
        comparison.compare(
            lambda source, seed, _: scores | {"psnr": 30.0 + seed},
            asked.sources,
            asked,
            profile=asked.profile,
            about={},
            spread_of=("psnr",),
            order=("esrgan_bicubic",),
        )
        written = json.loads(asked.output.read_text())["rows"]
        assert [row["method"] for row in written] == ["esrgan_bicubic", *kept]
        assert written[0]["psnr"] == 30.5 and written[0]["psnr_seeds"] == [30.0, 31.0]
        assert all(row["measured"] == {"commit": "x", "seconds": 3.0} for row in written[1:])


class InThisProcess:
    """Stands for a pool of processes."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_the_unseen_are_those_behind_the_ones_learned_from():
    images = [{"psnr": value, "ssim": value / 10, "lpips": value / 100} for value in (1.0, 2.0, 6.0)]
    scores = summarise_with_unseen(images, 1)
    assert scores["count"] == 3 and scores["psnr"] == 3 and scores["ssim"] == pytest.approx(0.3)
    unseen = {name: value for name, value in scores.items() if name.endswith("_unseen")}
    assert unseen == pytest.approx({"psnr_unseen": 4.0, "ssim_unseen": 0.4, "lpips_unseen": 0.04})
    assert not any(name.endswith("_unseen") for name in summarise_with_unseen(images, 3))


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
    given = data_provenance(open_data_root(options.data_root))
    for source in options.sources:
        for seed in (0, 1):
            scores = {"psnr": 20.0 + 2 * seed, "ssim": 0.5, "lpips": 0.1, "parameters": 7}
            about = {"source": source, "seed": seed, "profile": "smoke", **given}
            about |= {"deflow_steps": 1000} if "deflow" in source else {}
            keep(options.states / f"{source}_smoke_{seed}.json", about, scores)
    ladder.main(Ladder(**(vars(options) | {"seeds": (0, 1)})))
    written = json.loads(options.output.read_text())
    assert [row["method"] for row in written["rows"]] == list(options.sources)
    for row in written["rows"]:
        assert row["psnr"] == 21 and row["psnr_std"] == pytest.approx(2**0.5) and row["lpips_std"] == 0
        assert row["parameters"] == 7 and row["seeds"] == 2 and "parameters_std" not in row
    assert {"profile", "seed", "commit", "device", "seconds", "pairs"} <= written["provenance"].keys()


def test_one_rung_is_trained_scored_and_kept(options, root, monkeypatch):
    # Long trainings leave several states, short ones do if they write one at every step.
    monkeypatch.setattr(ladder, "train_esrgan", lambda *args, **how: train_esrgan(*args, **how | {"save_every": 1}))
    scores = ladder.train_and_score("esrgan_noise_model", 0, options)
    known = options.states / "esrgan_noise_model_smoke_0.json"
    network = ladder.network_path(options, "esrgan_noise_model", 0)
    assert read_json(known)["scores"] == scores and set(options.states.iterdir()) == {
        known,
        network,
        network.with_suffix(".json"),
    }
    assert scores["count"] == 4 and scores["psnr"] > 0 and scores["parameters"] > 0
    # Where files go and how many work at a time does not matter; the photographs and pairs do.
    assert ladder.train_and_score("esrgan_noise_model", 0, replace(options, processes=7, output=known)) == scores
    save_image(torch.rand(3, 40, 40), root / "clean/00.png")
    with pytest.raises(UserError, match="not the same: photographs"):
        ladder.train_and_score("esrgan_noise_model", 0, options)


def test_a_row_of_another_flow_is_not_taken(options):
    given = data_provenance(open_data_root(options.data_root))
    about = {"source": "esrgan_deflow", "seed": 0, "profile": "smoke", **given, "deflow_steps": 1000}
    keep(options.states / "esrgan_deflow_smoke_0.json", about, {"psnr": 20.0})
    assert ladder.train_and_score("esrgan_deflow", 0, options) == {"psnr": 20.0}
    with pytest.raises(UserError, match="not the same: deflow_steps"):
        ladder.train_and_score("esrgan_deflow", 0, replace(options, deflow_steps=7))


@pytest.mark.parametrize("source", ladder.FLOWS)
def test_a_flow_of_another_data_root_is_refused_with_the_command_to_run(source, options, root):
    data = open_data_root(root)
    ladder.degradation(source, data, options)
    with pytest.raises(UserError, match="missing.*benchmarks.shifts.*--steps 5 "):
        ladder.degradation(source, data, replace(options, deflow_steps=5))
    save_image(torch.rand(3, 20, 24), root / "task1/Input/000.png")
    with pytest.raises(UserError, match=rf"--data-root {root} --steps 1000 --states FOLDER, and give --shifts FOLDER"):
        ladder.degradation(source, data, options)


def test_scores_of_a_flow_are_of_its_data_and_budget(root, tmp_path, monkeypatch):
    budget = Shifts(steps=1, inputs=2, data_root=root, states=tmp_path / "shifts")
    monkeypatch.setitem(shifts.KINDS, "small", DeFlowConfig(shift="constant", **FLOW))
    monkeypatch.setattr(shifts, "score_model", lambda model, data, seed: {"auc": 0.9})
    for index in range(3):
        save_image(torch.rand(3, 64, 64), root / f"task1/Input/{index:03}.png")
        save_image(torch.rand(3, 128, 128), root / f"task1/GroundTruth/{index:03}.png")
    for index in range(11):
        save_image(torch.rand(3, 128, 128), root / f"clean/{index:02}.png")
    scores = shifts.train_and_score("small", 0, budget)
    assert scores["auc"] == 0.9
    names = {path.name for path in budget.states.iterdir()}
    assert names == {"small_1_0.json", "small_1_0_model.json", "small_1_0_model.safetensors"}
    monkeypatch.setattr(shifts, "train_deflow", None)
    assert shifts.train_and_score("small", 0, replace(budget, processes=3)) == scores
    for changed in ({"learning_rate": 1e-3}, {"inputs": 3}):
        with pytest.raises(UserError, match=f"not the same: {next(iter(changed))}"):
            shifts.train_and_score("small", 0, replace(budget, **changed))
    # The ladder wants a flow that learned from as many inputs as it counts as seen: here, all three.
    with pytest.raises(UserError, match="has not learned from"):
        shifts.trained_flow(budget.states, "small", 1, open_data_root(root))
