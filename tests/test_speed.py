"""The speed benchmark, at sizes that take seconds: it measures both forms and writes the shape that checks read."""

import json
import sys

import pytest
import torch

from benchmarks import published_work, speed
from benchmarks.peak_memory import PeakMemory, peak_megabytes
from benchmarks.published_work import PublishedSizes
from benchmarks.speed import Speed
from sr_utils.evaluate import write_metrics

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
SMALL = PublishedSizes(steps=1, blocks=2, patch=32, side=64)


def test_both_forms_are_the_same_model_and_do_the_same_work():
    models = published_work.models(SMALL)
    images, condition, domain = published_work.training_batch(SMALL)
    plain, ours = (models[name].eval()(images, condition, domain) for name in ("plain", "ours"))
    torch.testing.assert_close(plain, ours, rtol=1e-5, atol=1e-5)


def test_seconds_are_taken_by_turns_and_the_first_run_is_left_out():
    order = []
    seconds = speed.seconds_by_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3 and [len(runs) for runs in seconds.values()] == [2, 2]


def test_multiplications_of_a_product_are_counted():
    one, other = torch.rand(4, 5), torch.rand(5, 6)
    assert speed.multiplications(lambda: one @ other) == 4 * 5 * 6
    assert speed.multiplications(lambda: torch.zeros(4, 6).addmm_(one, other)) == 4 * 5 * 6
    batch = torch.rand(3, 4, 5), torch.rand(3, 5, 6)
    assert speed.multiplications(lambda: torch.zeros(3, 4, 6).baddbmm_(*batch)) == 3 * 4 * 5 * 6


@LINUX
def test_memory_is_that_of_a_process_with_the_model_and_little_else():
    small, large = (
        peak_megabytes(PeakMemory("ours", "train_step", 1, PublishedSizes(steps=1, blocks=2, patch=patch)))
        for patch in (32, 160)
    )
    assert small["before"] < small["peak"] < large["peak"]
    assert abs(large["before"] - small["before"]) < 20


@LINUX
def test_the_benchmark_writes_its_rows(tmp_path):
    path = tmp_path / "speed.json"
    stale, other = {"method": "train_step", "speedup": 99.0}, {"method": "growth_images", "measured": {"commit": "x"}}
    write_metrics(path, {"profile": "bench"}, [stale, other])
    speed.main(Speed(SMALL, repeats=1, memory_repeats=1, output=path))
    written = json.loads(path.read_text())
    methods = [row["method"] for row in written["rows"]]
    assert methods == ["train_step", "translate_512", "growth_images"]
    for row in written["rows"][:2]:
        assert row["speedup"] > 0 and 0 < row["peak_memory_ratio"] < 2 and 0 < row["multiplications_ratio"] < 1
        assert 0 < row["ours_share_of_peak"] < 1.5
        assert 100 < row["ours_start_megabytes"] < row["ours_peak_megabytes"]
    assert {"profile", "seed", "commit", "device", "seconds"} <= written["provenance"].keys()


def test_another_machine_has_rows_of_its_own(tmp_path, monkeypatch):
    path, first = tmp_path / "speed.json", {"method": "train_step", "speedup": 2.0}
    write_metrics(path, {"profile": "bench", "commit": "x"}, [first])
    rows = [{"method": work, "speedup": 3.0} for work in ("train_step", "translate_512")]
    monkeypatch.setattr(speed, "measured_rows", lambda options, peak: rows)
    for _ in range(2):
        speed.main(Speed(SMALL, machine="other", output=path))
    written = json.loads(path.read_text())
    assert [row["method"] for row in written["rows"]] == ["train_step", "train_step_other", "translate_512_other"]
    assert written["provenance"] == {"profile": "bench", "commit": "x"} and written["rows"][0] == first
    assert written["rows"][1]["speedup"] == 3.0 and written["rows"][1]["peak_multiplications_per_second"] > 0
    assert {"commit", "device", "seconds"} <= written["rows"][1]["measured"].keys()
