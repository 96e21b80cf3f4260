"""The benchmark of growth: its fit, its rows beside others, and what the committed numbers must say."""

from pathlib import Path

import pytest

from benchmarks import growth
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json

ROOT = Path(__file__).resolve().parent.parent


def test_the_exponent_is_that_of_a_power_law():
    assert growth.exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert growth.exponent([1, 10, 100], [2, 200, 20000]) == pytest.approx(2)


def test_rows_are_added_and_others_kept(tmp_path, monkeypatch):
    path, asked = tmp_path / "speed.json", []

    def in_fresh_processes(task, shares, folder):
        asked.append((task, [len(share) for share in shares]))
        return [growth.Cost(0.5 * len(share), 100.0) for share in shares]

    monkeypatch.setattr(growth, "in_fresh_processes", in_fresh_processes)
    write_metrics(path, {"profile": "bench"}, [{"method": "train_step", "speedup": 2.0}, {"method": "growth_images"}])
    growth.main(growth.Growth(images=(1, 4), side=16, megapixels=(0.001, 0.002), shared=4, output=path))
    rows = {row["method"]: row for row in read_json(path)["rows"]}
    assert list(rows) == ["train_step", "growth_images", "growth_processes", "growth_pixels"]
    assert rows["growth_images"]["exponent"] == pytest.approx(1) and rows["growth_images"]["memory_ratio"] == 1
    assert rows["growth_processes"]["overhead"] == 1 and ("translate", [2, 2]) in asked


def test_one_process_counts_its_own_time_and_memory(tmp_path):
    paths = growth.photographs(tmp_path / "in", 2, 16, 16)
    cost = growth.work("restore", paths, tmp_path / "out")
    assert 0 < cost.seconds < 60 and cost.megabytes > 50
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_committed_growth_is_linear_in_time_and_flat_in_memory():
    rows = {row["method"]: row for row in read_json(ROOT / "figures" / "metrics" / "speed.json")["rows"]}
    assert rows["growth_images"]["exponent"] <= 1.05 and rows["growth_images"]["memory_ratio"] <= 1.1
    assert rows["growth_images"]["images"][0] == 10 and rows["growth_images"]["images"][-1] == 1000
    assert rows["growth_pixels"]["sizes_in_megapixels"] == [0.25, 1.0, 4.0, 24.0]
    assert rows["growth_pixels"]["restore_exponent"] <= 1.05 and rows["growth_pixels"]["translate_exponent"] <= 1.05
    assert max(rows["growth_pixels"]["translate_megabytes"] + rows["growth_pixels"]["restore_megabytes"]) < 2000
