import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sr_utils.errors import UserError
from sr_utils.files import write_json
from sr_utils.publish import END, MAXIMUM_BYTES, START, publish, running_time, with_outputs, with_times

CODE = "print(1)"


def source():
    cells = [
        new_markdown_cell("# Title, mended later\n\n*Running time: not yet measured.*"),
        new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}),
        new_code_cell(CODE),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "P"}})


def executed(*outputs, code=CODE):
    metadata = {"papermill": {"start_time": "now"}, "execution": {}}
    cells = [
        new_markdown_cell("# Title\n\n*Running time: 7 s, profile full, 2 CPU cores.*", metadata=metadata),
        new_code_cell("seed: int = 0", execution_count=1, metadata={"tags": ["parameters"]}),
        new_code_cell("# Parameters\nseed = 0", execution_count=2, metadata={"tags": ["injected-parameters"]}),
        new_code_cell(code, execution_count=3, metadata=metadata, outputs=list(outputs)),
    ]
    return new_notebook(cells=cells, metadata={"papermill": {"output_path": "somewhere"}})


@pytest.fixture
def project(tmp_path):
    """A checkout with one notebook, and a finished run of it; gives `write(notebook)` and `run()`."""
    root, run = tmp_path / "project", tmp_path / "run"
    for folder in (root / "notebooks", root / "app", run / "notebooks", run / "figures"):
        folder.mkdir(parents=True)
    nbformat.write(source(), root / "notebooks" / "01_x.ipynb")
    nbformat.write(source(), root / "app" / "widgets.ipynb")
    still = new_output("display_data", data={"image/png": "iVBORw0="})
    nbformat.write(executed(still), run / "notebooks" / "widgets.ipynb")
    (run / "figures" / "task1_strip.png").write_bytes(b"picture")
    rows = [{"method": "bicubic", "psnr": 20.0, "ssim": 0.5, "lpips": 0.4}]
    write_json(run / "metrics" / "task1.json", {"provenance": {}, "rows": rows})
    (root / "README.md").write_text(f"before\n{START}\nold\n{END}\nafter\n")

    def write(notebook):
        nbformat.write(notebook, run / "notebooks" / "01_x.ipynb")

    write(executed(new_output("stream", text="1\n"), new_output("execute_result", execution_count=3)))
    return root, run, write


def test_everything_lands_where_readers_look(project):
    root, run, _ = project
    publish(run, root)
    notebook = nbformat.read(root / "notebooks" / "01_x.ipynb", as_version=4)
    assert [cell.source for cell in notebook.cells] == [
        "# Title, mended later\n\n*Running time: 7 s, profile full, 2 CPU cores.*",
        "seed: int = 0",
        CODE,
    ]
    assert "papermill" not in str(notebook)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert notebook.cells[2].outputs[0].text == "1\n"
    assert notebook.cells[2].outputs[1].execution_count == 2
    app = nbformat.read(root / "app" / "widgets.ipynb", as_version=4)
    assert app.cells[2].outputs[0].data == {"image/png": "iVBORw0="}
    assert (root / "figures" / "task1_strip.png").read_bytes() == b"picture"
    assert (root / "figures" / "metrics" / "task1.json").is_file()
    text = (root / "README.md").read_text()
    assert text.startswith(f"before\n{START}\n| method |") and text.endswith(f"\n{END}\nafter\n")
    assert "| bicubic | 20.00 |" in text and "old" not in text


def test_publishing_again_changes_nothing(project):
    root, run, _ = project
    first = {path: path.read_bytes() for path in publish(run, root)}
    assert {path: path.read_bytes() for path in publish(run, root)} == first


def big():
    return new_output("display_data", data={"image/png": "A" * MAXIMUM_BYTES})


@pytest.mark.parametrize(
    ("notebook", "sentence"),
    [
        (executed(new_output("error", ename="ValueError", evalue="x", traceback=[])), "Cell 3 .* holds an error"),
        (executed(new_output("stream", text="see /" + "home/somebody/x")), "a path of this machine"),
        (executed(new_output("display_data", data={"text/html": "/" + "tmp/x"})), "a path of this machine"),
        (executed(big()), "has 1.5 MB"),
        (executed(code="print(2)"), "is older than"),
    ],
)
def test_what_is_not_fit_to_be_read_is_refused_before_anything_is_written(project, notebook, sentence):
    root, run, write = project
    before = (root / "notebooks" / "01_x.ipynb").read_bytes(), (root / "README.md").read_bytes()
    write(notebook)
    with pytest.raises(UserError, match=sentence):
        publish(run, root)
    assert before == ((root / "notebooks" / "01_x.ipynb").read_bytes(), (root / "README.md").read_bytes())
    assert not (root / "figures").exists()


def test_missing_parts_are_named(project):
    root, run, _ = project
    (root / "README.md").write_text("no marks")
    with pytest.raises(UserError, match="README.md lacks the marks"):
        publish(run, root)
    (run / "notebooks" / "01_x.ipynb").unlink()
    with pytest.raises(UserError, match="01_x.ipynb is missing"):
        publish(run, root)


def test_times_go_into_the_rows_of_their_notebooks():
    text = "| [02 Data](notebooks/02.ipynb) | What? | 1 s | no |\n| [03 Flow](notebooks/03.ipynb) | How? | 2 s | no |\n"
    said = running_time('"*Running time: 8 min 7 s, profile full, 2 CPU cores.*\\n",')
    assert said == "8 min 7 s" and running_time("*Running time: not run yet.*") == ""
    assert with_times(text, {"notebooks/02.ipynb": said}) == text.replace("1 s", said)


def test_texts_that_were_printed_one_after_the_other_are_one():
    def printed(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    picture = new_output("display_data", {"image/png": ""})
    outputs = [printed("five"), printed(" times\n"), printed("no", "stderr"), picture, printed("after")]
    source = new_notebook(cells=[new_code_cell("x")])
    executed = new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    joined = with_outputs(source, executed).cells[0].outputs
    assert [each.get("text") for each in joined] == ["five times\n", "no", None, "after"]
