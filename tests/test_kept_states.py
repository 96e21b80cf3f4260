"""Finished work of the benchmarks is taken for what it is of, and for nothing else."""

import pytest

from benchmarks.comparison import keep, kept
from sr_utils.errors import UserError
from sr_utils.files import write_json

ABOUT = {"pairs": "ab12", "steps": 100, "learning_rate": 5e-4}


def test_what_was_kept_is_found_again(tmp_path):
    path = tmp_path / "states" / "row.json"
    assert kept(path, ABOUT) is None
    keep(path, ABOUT, {"psnr": 29.123456789012345})
    assert kept(path, dict(reversed(ABOUT.items()))) == {"psnr": 29.123456789012345}


@pytest.mark.parametrize("changed", [{"pairs": "cd34"}, {"steps": 101}, {"learning_rate": 1e-3, "pairs": "cd34"}])
def test_work_of_something_else_is_one_sentence_that_names_file_and_difference(tmp_path, changed):
    keep(tmp_path / "row.json", ABOUT, {"psnr": 29.0})
    with pytest.raises(UserError, match="row.json is of other data.*: remove it and.*or give another place") as told:
        kept(tmp_path / "row.json", ABOUT | changed)
    assert all((name in str(told.value)) == (name in changed) for name in ABOUT)


@pytest.mark.parametrize("content", [{"psnr": 29.0}, [{"psnr": 29.0}], {"about": None, "scores": {}}])
def test_work_that_says_nothing_is_not_taken(tmp_path, content):
    write_json(tmp_path / "row.json", content)
    with pytest.raises(UserError, match="row.json does not say which data"):
        kept(tmp_path / "row.json", ABOUT)
