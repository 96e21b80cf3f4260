import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sr_utils import runner
from sr_utils.errors import UserError

PARAMETERS = 'profile: str = "smoke"\nseed: int = 0\nrun_root: str = "runs/none"\nrate: float = 1.0'


@pytest.fixture
def write(tmp_path):
    def write(*sources, tags=("parameters",)):
        cells = [
            new_markdown_cell("# Title\n\n*Running time: not yet measured.*"),
            new_code_cell(PARAMETERS, metadata={"tags": list(tags)}),
            *map(new_code_cell, sources),
        ]
        path = tmp_path / "01_x.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


def test_a_notebook_runs_whole(write, tmp_path, capsys, monkeypatch):
    # The user's own choices must not get in: another kernel named python3, and a backend without pictures.
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["no-such-python", "{connection_file}"], "display_name": "P", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    source = write(
        "import os, sys\nfrom sr_utils.progress import progress\nfor _ in progress(range(2), label='counting'): pass",
        "print(sys.executable)\nprint(os.getcwd())\nprint(rate)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
    )
    run = tmp_path / "a run"
    result = runner.run_notebook(source, ["rate=1e-3", f"run_root={run}"])

    assert result == run / "notebooks" / "01_x.ipynb"
    notebook = nbformat.read(result, as_version=4)
    stamp = runner.RUNNING_TIME.search(notebook.cells[0].source).group()
    assert stamp.startswith("*Running time: ") and "profile smoke" in stamp
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[3].outputs[0].text.splitlines() == [
        runner.sys.executable,
        str(runner.repository_root()),
        "0.001",
    ]
    assert "image/png" in code[4].outputs[-1].data
    assert not list((run / "failed").glob("*.ipynb"))
    said = capsys.readouterr().out
    assert "01_x: started" in said and "01_x: counting: 0/2" in said and "01_x: done in" in said


def test_a_failure_leaves_the_last_whole_result_and_the_failing_notebook(write, tmp_path, capsys):
    result = tmp_path / "run" / "notebooks" / "01_x.ipynb"
    result.parent.mkdir(parents=True)
    result.write_text("whole")
    sentence = "The folder x is empty: put images there."
    source = write(f"from sr_utils.errors import UserError\nraise UserError({sentence!r})")
    with pytest.raises(UserError, match=sentence):
        runner.run_notebook(source, [f"run_root={tmp_path / 'run'}"])
    assert result.read_text() == "whole"
    failing = nbformat.read(tmp_path / "run" / "failed" / "01_x.ipynb", as_version=4)
    errors = [output for cell in failing.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert [error.traceback for error in errors] == [[f"UserError: {sentence}"]]
    assert "Traceback" not in capsys.readouterr().err


def test_a_defect_shows_its_traceback(write, tmp_path, capsys):
    with pytest.raises(UserError, match="stopped with ZeroDivisionError .*kept at .*failed"):
        runner.run_notebook(write("1 / 0"), [f"run_root={tmp_path / 'run'}"])
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_dead_kernel_is_explained(write, tmp_path):
    with pytest.raises(UserError, match="kernel of 01_x.ipynb died"):
        runner.run_notebook(write("import os\nos._exit(1)"), [f"run_root={tmp_path / 'run'}"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["sede=1"], "'sede' is not a parameter of 01_x.ipynb: did you mean 'seed'"),
        (["seed=x"], "seed of 01_x.ipynb must be a whole number"),
        (["profile=quik"], "did you mean 'quick'"),
    ],
)
def test_settings_are_checked_before_anything_runs(write, tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        runner.run_notebook(write("pass"), [f"run_root={tmp_path / 'run'}", *settings])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("run_root", ["", ".", "runs/..", str(runner.repository_root())])
def test_a_run_into_the_repository_is_refused(write, run_root):
    # Even for a notebook that lies elsewhere, since one of the same name may lie here.
    with pytest.raises(UserError, match="^The run_root '.*' is the repository itself.*give a folder"):
        runner.run_notebook(write("pass"), [f"run_root={run_root}"])


@pytest.mark.parametrize("folder", ["notebooks", "failed"])
def test_a_run_never_overwrites_its_source(write, tmp_path, folder):
    source = tmp_path / "run" / folder / "01_x.ipynb"
    source.parent.mkdir(parents=True)
    write("1 + 1").rename(source)
    whole = source.read_bytes()
    (tmp_path / "same").symlink_to(tmp_path / "run")
    with pytest.raises(UserError, match=r"01_x\.ipynb would be overwritten by its own run: give run_root"):
        runner.run_notebook(source, [f"run_root={tmp_path / 'same'}"])
    assert source.read_bytes() == whole


@pytest.mark.parametrize("run_root", ["/dev/null/x", "/dev/null", "/" + "x" * 300])
def test_a_run_root_that_cannot_be_made_is_one_sentence(write, run_root):
    with pytest.raises(UserError, match=f"{run_root} cannot be written .*: give run_root=... a folder elsewhere"):
        runner.run_notebook(write("pass"), [f"run_root={run_root}"])


def test_what_is_not_a_notebook_of_the_course_is_refused(write, tmp_path):
    with pytest.raises(UserError, match="nothing.ipynb does not exist"):
        runner.run_notebook(tmp_path / "nothing.ipynb", [])
    with pytest.raises(UserError, match="no cell tagged 'parameters'"):
        runner.run_notebook(write("pass", tags=()), [])
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    with pytest.raises(UserError, match="broken.ipynb is not a readable notebook"):
        runner.run_notebook(broken, [])
