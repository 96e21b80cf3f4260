"""Rows of benchmarks beside a run's own: only for the same pairs, under names that say what they are."""

import json
from pathlib import Path

import pytest

from sr_utils.comparisons import known_row, known_rows, pairs_provenance, share_of_gap, with_ladder
from sr_utils.datasets import open_data_root

DATA = Path(__file__).parent.parent / "data"
LADDER = [
    {"method": "esrgan_white_noise", "lpips": 0.5, "lpips_std": 0.01, "profile": "quick", "seconds_per_image": 9.0},
    {"method": "esrgan_deflow", "lpips": 0.35, "lpips_std": 0.02, "profile": "quick"},
    {"method": "esrgan_oracle", "lpips": 0.3, "lpips_std": 0.03, "profile": "quick"},
]
OWN = [{"method": "bicubic", "lpips": 0.6}, {"method": "esrgan_deflow", "lpips": 0.34, "seconds_per_image": 0.1}]


def test_rows_count_only_for_the_pairs_they_were_measured_on(tmp_path):
    data, path = open_data_root(DATA), tmp_path / "floor.json"
    assert known_rows(path, data) == [] and known_row(path, "real_vs_real", data) is None
    row, about = {"method": "real_vs_real", "akld": 0.1}, {"profile": "bench", **pairs_provenance(data)}
    path.write_text(json.dumps({"provenance": about, "rows": [{"method": "other"}, row]}))
    assert known_row(path, "real_vs_real", data) == {**row, "profile": "bench"}
    assert [each["method"] for each in known_rows(path, data)] == ["other", "real_vs_real"]
    assert known_row(path, "third", data) is None
    path.write_text(json.dumps({"provenance": {"pairs": "other"}, "rows": [row]}))
    assert known_rows(path, data) == [] and known_row(path, "real_vs_real", data) is None


@pytest.mark.parametrize(("profile", "spread"), [("quick", 0.02), ("full", None)])
def test_a_runs_own_row_keeps_its_name_and_gets_a_spread_from_a_ladder_of_its_budget(profile, spread):
    rows = {row["method"]: row for row in with_ladder(OWN, LADDER, profile=profile)}
    assert list(rows) == ["bicubic", "esrgan_deflow", "esrgan_white_noise", "esrgan_deflow_ladder", "esrgan_oracle"]
    assert rows["esrgan_deflow"]["lpips"] == 0.34 and rows["esrgan_deflow_ladder"]["lpips"] == 0.35
    assert rows["esrgan_deflow"].get("lpips_std") == spread
    assert {row["seconds_per_image"] for name, row in rows.items() if name != "bicubic"} == {0.1}
    assert "lpips_std" not in OWN[1] and LADDER[0]["seconds_per_image"] == 9.0


def test_the_share_of_the_gap_is_one_for_the_oracle_and_none_for_white_noise():
    assert share_of_gap(LADDER, "lpips") == pytest.approx(0.75)
    assert share_of_gap(LADDER, "lpips", method="esrgan_oracle") == 1
    assert share_of_gap(LADDER, "lpips", method="esrgan_white_noise") == 0
    with pytest.raises(KeyError):
        share_of_gap(LADDER[:2], "lpips")
