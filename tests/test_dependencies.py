import os
from pathlib import Path

import pytest

from sr_utils import dependencies
from sr_utils.errors import UserError
from tests.shared_notebooks import write_notebook

ROOT = Path(__file__).resolve().parent.parent


def test_modules_are_followed_through_the_package(tmp_path):
    package = tmp_path / "sr_utils"
    package.mkdir()
    sources = {
        "__init__": "",
        "images": "import numpy",
        "data": "from sr_utils.images import x",
        "late": "def f():\n    from sr_utils import images",
        "unused": "",
    }
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    cells = ["%matplotlib inline\nimport sr_utils.late", "from sr_utils.data import y"]
    notebook = write_notebook(tmp_path / "n.ipynb", *cells)
    names = [Path(path).stem for path in dependencies.modules_used(notebook, package)]
    assert names == ["__init__", "data", "images", "late"]
    assert dependencies.modules_used(tmp_path / "none.ipynb", package) == []


IPYTHON = [
    "%timeit 1",
    "%%time\n",
    "%%capture out\n%matplotlib inline\n",
    "files = !ls\n",
    "!ls -l \\\n  /\n",
    "len?\n",
]


@pytest.mark.parametrize("first", [*IPYTHON, "", "await run()\n", "value = (7\n  % 3)\n"])
def test_what_only_ipython_understands_is_accepted(tmp_path, first):
    notebook = write_notebook(tmp_path / "n.ipynb", f"{first}\nfrom sr_utils import errors")
    names = [Path(path).stem for path in dependencies.modules_used(notebook, ROOT / "sr_utils")]
    assert names == ["__init__", "errors"]


def test_another_language_imports_nothing(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "%%bash\nfor i in 1 2; do echo; done\n", "%%html\n<b>")
    assert dependencies.modules_used(notebook, ROOT / "sr_utils") == []


@pytest.mark.parametrize(
    ("cell", "line", "text"),
    [
        ("x = 1\nfor i in x\n    pass", 2, "for i in x"),
        ("\n\nx = = 1", 3, "x = = 1"),
        ("%matplotlib inline\nx = (1", 2, r"x = \(1"),
        ("if x:\npass", 2, "pass"),
    ],
)
def test_a_mistake_in_a_cell_is_told_with_its_line(tmp_path, cell, line, text):
    notebook = write_notebook(tmp_path / "n.ipynb", "x = 1", cell)
    sentence = rf"n\.ipynb has a mistake in line {line} of its code cell 2, '{text}' \(.*: mend"
    with pytest.raises(UserError, match=sentence):
        dependencies.modules_used(notebook, ROOT / "sr_utils")


def test_only_code_counts_in_the_checksum(tmp_path):
    one = write_notebook(tmp_path / "a.ipynb", "x = 1", prose="One")
    other = write_notebook(tmp_path / "b.ipynb", "x = 1", prose="Other")
    changed = write_notebook(tmp_path / "c.ipynb", "x = 2", prose="One")
    assert dependencies.code_checksum(one) == dependencies.code_checksum(other) != dependencies.code_checksum(changed)
    one.write_text("{")
    with pytest.raises(UserError, match="is not a notebook"):
        dependencies.code_checksum(one)


def test_files_below_a_folder(tmp_path):
    for name in ("clean/a b.png", "clean/.hidden", "clean/{x}.png", "task1/Input/1.png", "other/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = dependencies.files_below(tmp_path, "clean", "task1/Input", "missing")
    assert found == [str(tmp_path / "clean/a b.png"), str(tmp_path / "task1/Input/1.png")]


def test_a_stamp_changes_with_an_older_file_of_the_same_name(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = dependencies.stamp_of([path, tmp_path / "missing"])
    assert before == dependencies.stamp_of([tmp_path / "missing", path])
    path.write_bytes(b"two")
    os.utime(path, (1e9, 1e9))
    assert dependencies.stamp_of([path, tmp_path / "missing"]) != before
