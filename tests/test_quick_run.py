"""A quick run beside the committed full one: shares of the improvement, and tables that cannot be compared."""

import pytest

from benchmarks.quick_run import METHODS, QuickRun, main
from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json

FULL = {"bicubic": (27.0, 0.65, 0.6), "esrgan_base": (29.0, 0.78, 0.37), "esrgan_deflow": (29.5, 0.8, 0.3)}
QUICK = FULL | {"esrgan_deflow": (29.25, 0.785, 0.33)}


@pytest.fixture
def compare(tmp_path):
    """Compare two tables that are given as scores by method; returns what is written."""

    def run(quick, full=FULL, *, profiles=("quick", "full"), count=100):
        options = QuickRun(tmp_path / "run", tmp_path / "task1.json", tmp_path / "quick.json")
        tables = (options.run_root / "metrics" / "task1.json", quick), (options.committed, full)
        for (path, scores), profile, images in zip(tables, profiles, (count, 100), strict=True):
            about = {"profile": profile, "seed": 0, "commit": f"of {profile}", "device": "cpu x2", "seconds": 1.0}
            rows = [
                {"method": method, "psnr": psnr, "ssim": ssim, "lpips": lpips, "count": images}
                for method, (psnr, ssim, lpips) in scores.items()
            ]
            write_metrics(path, about, [*rows, {"method": "esrgan_oracle", "psnr": 30.0, "profile": "quick"}])
        main(options)
        return read_json(options.output)

    return run


def test_the_improvement_is_a_share_of_the_full_runs(compare):
    written = compare(QUICK)
    rows = {row.pop("method"): row for row in written["rows"]}
    assert tuple(rows) == METHODS and rows["bicubic"].pop("count") == 100
    ours = rows.pop("esrgan_deflow")
    assert ours.pop("share_psnr") == pytest.approx(0.9)
    assert ours.pop("share_ssim") == pytest.approx(0.9)
    assert ours.pop("share_lpips") == pytest.approx(0.9)
    assert ours == {"psnr": 29.25, "ssim": 0.785, "lpips": 0.33}
    assert rows["esrgan_base"] == {"psnr": 29.0, "ssim": 0.78, "lpips": 0.37}
    about = written["provenance"]
    assert (about["profile"], about["commit"], about["full_commit"]) == ("quick", "of quick", "of full")


def test_bicubic_tells_whether_the_pairs_are_the_same(compare):
    assert compare(QUICK | {"bicubic": (27.0001, 0.65, 0.6)})["rows"]
    with pytest.raises(UserError, match=r"run/metrics/task1\.json and .*task1\.json are of different pairs"):
        compare(QUICK | {"bicubic": (27.01, 0.65, 0.6)})
    with pytest.raises(UserError, match="are of different pairs"):
        compare(QUICK, count=3)


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        (("smoke", "full"), r"run/metrics/task1\.json is of the profile smoke and not of quick: run make report"),
        (("quick", "quick"), r"task1\.json is of the profile quick and not of full: run make report PROFILE=full"),
    ],
)
def test_a_table_of_another_profile_is_refused(compare, profiles, said):
    with pytest.raises(UserError, match=said):
        compare(QUICK, profiles=profiles)


def test_a_run_that_taught_no_network_is_refused(compare):
    with pytest.raises(UserError, match=r"task1\.json has no row esrgan_deflow: run make report PROFILE=quick"):
        compare({name: scores for name, scores in QUICK.items() if name != "esrgan_deflow"})


def test_without_a_run_the_shares_of_the_last_one_are_made_anew(compare, tmp_path):
    before = compare(QUICK)
    (tmp_path / "run" / "metrics" / "task1.json").unlink()
    full = read_json(tmp_path / "task1.json")
    for row in full["rows"]:
        row["psnr"] += 0.5 if row["method"] == "esrgan_deflow" else 0.0
    write_metrics(tmp_path / "task1.json", full["provenance"], full["rows"])
    main(QuickRun(tmp_path / "run", tmp_path / "task1.json", tmp_path / "quick.json"))
    written = read_json(tmp_path / "quick.json")
    assert written["provenance"] == before["provenance"]
    assert written["rows"][-1] == before["rows"][-1] | {"share_psnr": pytest.approx(0.75)}
