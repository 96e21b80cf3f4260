import subprocess
import sys
from pathlib import Path

import pytest

from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.sweep import Grid, read_grid, write_sweep

ROOT = Path(__file__).resolve().parent.parent


def test_settings_become_a_grid():
    grid = read_grid({"maps": "mean_filter, median_filter", "strengths": "0.5,1", "seeds": 3})
    assert grid.points() == [
        f"{name}_{strength}_3" for name in ("mean_filter", "median_filter") for strength in ("0.5", "1")
    ]
    assert read_grid({}) == Grid()


def test_the_home_folder_is_written_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    grid = read_grid({"root": "~/sweep", "data_root": "~/data"})
    assert (grid.root, grid.data_root) == (f"{tmp_path}/sweep", f"{tmp_path}/data")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"map": "mean_filter"}, "did you mean 'maps'"),
        ({"maps": "mean_filte"}, "did you mean 'mean_filter'"),
        ({"strengths": "1,strong"}, "'strong' of the sweep is no number"),
        ({"seeds": "-1"}, "'-1' of the sweep is no whole number"),
        ({"seeds": ""}, "seeds of the sweep is empty"),
        ({"profile": "quik"}, "did you mean 'quick'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        read_grid(settings)


def finish(folder, name, value):
    stamp = {"profile": "smoke", "seed": 0, "commit": "x", "device": "cpu", "seconds": 1.0}
    measured = {"niqe": value, "agreement_psnr": 30.0, "flicker": 1.0}
    rows = [{"method": "bicubic", **measured}, {"method": "esrgan_deflow", **measured}]
    write_metrics(folder / "metrics" / "task2.json", stamp, rows)
    row = {"method": name, "leakage_auc": 0.7, "content_psnr": 19.0}
    write_metrics(folder / "metrics" / "map.json", stamp, [row])


def test_runs_are_collected_into_one_table_and_one_figure(tmp_path):
    grid = Grid(maps=("mean_filter",), strengths=("0.5", "2"), seeds=("0", "1"), root=str(tmp_path))
    for value, point in enumerate(grid.points()):
        finish(tmp_path / point, "mean_filter", float(value))
    write_sweep(grid)
    rows = read_json(tmp_path / "sweep.json")["rows"]
    assert [(row["strength"], row["seed"], row["niqe"]) for row in rows] == [
        (0.5, 0, 0.0),
        (0.5, 1, 1.0),
        (2.0, 0, 2.0),
        (2.0, 1, 3.0),
    ]
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_the_graph_runs_what_is_missing_and_nothing_else(tmp_path):
    done = tmp_path / "mean_filter_1_0"
    finish(done, "mean_filter", 1.0)
    command = [sys.executable, "-m", "snakemake", "--snakefile", "Snakefile.sweep", "--cores", "2", "--dry-run"]
    command += ["--nolock", "--rerun-triggers", "mtime", "--config", "maps=mean_filter", "strengths=1"]
    said = subprocess.run([*command, "seeds=0,1", f"root={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "seed=1" in said.stdout and "seed=0" not in said.stdout and "sweep.png" in said.stdout
    folders = (f"data/{part}/" for part in ("clean", "validation", "task1", "task2"))
    for begins in (*folders, "checkpoints/base_", "checkpoints/map_"):
        assert f", {begins}" in said.stdout
