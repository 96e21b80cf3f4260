"""The committed tables beside fresh ones: what counts as reproduced, and what is not compared at all."""

import pytest

from benchmarks.reproduced import DIGITS, Reproduced, main
from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json


def row(method, psnr=29.0, *, deviation=None, **about):
    """A row whose SSIM and LPIPS are always the same."""
    scores = {"psnr": psnr, "ssim": 0.8, "lpips": 0.3}
    spread = {} if deviation is None else {"seeds": 3} | {f"{name}_std": deviation for name in DIGITS}
    return {"method": method, **scores, **spread, **about}


@pytest.fixture
def compare(tmp_path):
    """Compare tables that are given as lists of rows, by name; returns each result's ``within``."""

    def run(fresh, committed):
        for folder, tables in (("fresh", fresh), ("committed", committed)):
            for name, rows in tables.items():
                (tmp_path / folder).mkdir(exist_ok=True)
                write_metrics(tmp_path / folder / name, {"seed": 0}, rows)
        output = tmp_path / "reproduced.json"
        main(Reproduced([tmp_path / "fresh", tmp_path / "nowhere"], tmp_path / "committed", output))
        return {(row["table"], row["method"]): row["within"] for row in read_json(output)["rows"]}

    return run


def test_a_row_is_measured_by_its_own_spread_and_a_single_training_by_the_ladders(compare, capsys):
    ladder = [row("esrgan_deflow", deviation=0.05), row("esrgan_oracle", deviation=0.01)]
    single = [row("bicubic"), row("esrgan_deflow")]
    shifted = [row("bicubic", 29.004), row("esrgan_deflow", 29.09)]
    moved = [row("esrgan_deflow", 29.11, deviation=0.9), row("esrgan_oracle", 29.015, deviation=0.9)]
    found = compare({"task1.json": shifted, "ladder.json": moved}, {"task1.json": single, "ladder.json": ladder})
    assert found == {
        ("task1", "bicubic"): True,
        ("task1", "esrgan_deflow"): True,
        ("ladder", "esrgan_deflow"): False,
        ("ladder", "esrgan_oracle"): True,
    }
    assert "ladder esrgan_deflow: OUTSIDE; psnr 0.1100 (0.0500)" in capsys.readouterr().out


def test_without_training_only_rounding_is_allowed(compare):
    ladder = [row("esrgan_deflow", deviation=0.05)]
    tables = {"task1.json": [row("bicubic")], "ladder.json": ladder}
    assert compare({"task1.json": [row("bicubic", 29.006)]}, tables) == {("task1", "bicubic"): False}


def test_rows_that_another_command_made_are_not_compared(compare):
    ladder = [row("esrgan_deflow", deviation=0.05)]
    copied = [row("bicubic"), row("esrgan_oracle", profile="quick"), row("unknown")]
    tables = {"task1.json": copied[:2], "ladder.json": ladder}
    assert compare({"task1.json": copied}, tables) == {("task1", "bicubic"): True}


def test_a_folder_without_tables_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="run make full"):
        main(Reproduced(fresh=[tmp_path]))
