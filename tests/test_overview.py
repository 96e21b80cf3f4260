"""The course from above: what is read off notebooks and metrics files."""

import nbformat
import pytest

from sr_utils.files import write_json
from sr_utils.overview import course_map, latest, measured_minutes, named, rows_of, section_of, symbols
from sr_utils.repository import repository_root

FIRST = """# 4. Sampling: a title

*Running time: 3 min 38 s, profile full, 2 CPU cores.*

**What you need before it**: notebook 3. The rest does not matter.

| symbol | meaning |
| --- | --- |
| $x$ | a clean image |
| $a$, $b$ | two numbers |
"""
SECOND = FIRST.replace("# 4", "# 5").replace("two numbers", "two words").replace("3 min 38 s", "22 s")


@pytest.fixture
def folder(tmp_path):
    for name, source in (("04_sampling", FIRST), ("05_more", SECOND), ("notes", "# Not of the course")):
        cells = [nbformat.v4.new_markdown_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return tmp_path


def test_the_map_has_a_row_a_notebook_in_reading_order(folder):
    assert course_map(folder)[0] == {
        "notebook": "[04](04_sampling.ipynb)",
        "title": "Sampling: a title",
        "needs": "notebook 3",
        "time": "3 min 38 s",
        "profile": "full",
    }
    assert [row["time"] for row in course_map(folder)] == ["3 min 38 s", "22 s"]
    assert measured_minutes(folder) == pytest.approx(4.0)


def test_a_notebook_without_a_measured_time_says_so(tmp_path):
    cell = nbformat.v4.new_markdown_cell("# 1. Title\n\n*Running time: not measured yet.*")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "01_a.ipynb")
    assert course_map(tmp_path)[0]["time"] == "not measured" and measured_minutes(tmp_path) == 0


def test_symbols_of_one_meaning_share_a_row(folder):
    assert symbols(folder) == [
        {"symbol": "$x$", "meaning": "a clean image", "notebooks": "04, 05"},
        {"symbol": "$a$, $b$", "meaning": "two numbers", "notebooks": "04"},
        {"symbol": "$a$, $b$", "meaning": "two words", "notebooks": "05"},
    ]


def test_a_cell_is_named_by_the_heading_above_it(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("1", id="first"),
        nbformat.v4.new_markdown_cell("# A\n\ntext\n\n## B #1\n\nmore"),
    ]
    cells += [nbformat.v4.new_code_cell("2", id="second"), nbformat.v4.new_markdown_cell("no heading")]
    cells += [nbformat.v4.new_code_cell("3", id="third")]
    path = tmp_path / "01_a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    found = [section_of(path, cell) for cell in ("first", "second", "third", "fourth")]
    assert found == ["", "B #1", "B #1", ""]
    assert section_of(tmp_path / "02_gone.ipynb", "first") == ""


def test_the_own_file_comes_before_the_published_one_and_none_is_none(tmp_path):
    published, run = tmp_path / "published", tmp_path / "run"
    content = {"provenance": {}, "rows": [{"method": "a", "psnr": 1.0}, {"method": "b", "psnr": 2.0}]}
    assert latest("task1.json", run, published) is None and rows_of(None) == {}
    write_json(published / "task1.json", content)
    assert list(rows_of(latest("task1.json", run, published))) == ["a", "b"]
    parts = [{"method": "a", "data": "pairs", "psnr": 1.0}, {"method": "a", "data": "clean", "psnr": 9.0}]
    assert rows_of({"rows": parts}) == {"a": parts[0]}
    write_json(run / "metrics" / "task1.json", {**content, "rows": []})
    assert rows_of(latest("task1.json", run, published)) == {}


def test_every_notebook_of_the_course_explains_symbols_and_needs():
    folder = repository_root() / "notebooks"
    rows = course_map(folder)
    assert all(row["title"] and row["needs"] for row in rows), rows
    assert {"$x$, $y$"} <= {row["symbol"] for row in symbols(folder)}


def test_the_networks_of_the_ladder_and_of_quick_have_names_of_their_own():
    row, other = {"method": "esrgan_deflow", "psnr": 1.0}, {"method": "bicubic", "psnr": 0.0}
    assert [named(row, file)["method"] for file in ("task1", "ladder", "hybrid", "quick")] == [
        "esrgan_deflow",
        "esrgan_deflow_ladder",
        "esrgan_deflow_ladder",
        "esrgan_deflow, quick",
    ]
    assert named(other, "ladder") == other and named(row, "ladder")["psnr"] == 1.0
