"""Where a report's time goes: shares, slowest cells, and one sentence where nothing was executed."""

import nbformat
import pytest

from benchmarks.stages import Stages, main, stages
from sr_utils.errors import UserError
from sr_utils.files import read_json


def executed(path, seconds):
    """An executed notebook whose cells took ``seconds``."""
    cells = [nbformat.v4.new_code_cell("", id=f"cell-{number}") for number in range(len(seconds))]
    for cell, duration in zip(cells, seconds, strict=True):
        cell.metadata["papermill"] = {"duration": duration}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"papermill": {"duration": sum(seconds)}})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def test_shares_are_of_the_whole_and_the_longest_comes_first(tmp_path):
    executed(tmp_path / "notebooks/01_short.ipynb", [1.0])
    executed(tmp_path / "notebooks/02_long.ipynb", [2.0, 6.0, 1.0])
    first, second = stages(tmp_path / "notebooks")
    assert (first["stage"], first["share"], first["slowest_cell"]) == ("02_long", 0.9, "cell-1")
    assert first["slowest_cell_share"] == pytest.approx(6 / 9) and second["share"] == pytest.approx(0.1)
    main(Stages(run_root=tmp_path, output=tmp_path / "speed.json"))
    (row,) = read_json(tmp_path / "speed.json")["rows"]
    assert row["method"] == "report_stages" and row["stages"] == [first, second]


def test_a_run_without_executed_notebooks_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="run make report first"):
        stages(tmp_path)
