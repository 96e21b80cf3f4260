import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from sr_utils import graph
from sr_utils.errors import UserError
from sr_utils.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent


def write(path, *cells, prose="# Title"):
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose), *code]), path)
    return path


def test_names_of_the_profiles():
    assert tuple(PROFILES) == graph.PROFILE_NAMES


def test_settings_are_filled_in():
    assert graph.read_settings({}) == graph.Settings("quick", 0, "data", "runs/quick")
    settings = graph.read_settings({"profile": "smoke", "data_root": 2024})
    assert settings == graph.Settings("smoke", 0, "2024", "runs/smoke")


def test_the_home_folder_is_written_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = graph.read_settings({"run_root": "~/my run", "data_root": "~/data"})
    assert (settings.run_root, settings.data_root) == (f"{tmp_path}/my run", f"{tmp_path}/data")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"sed": 1}, "did you mean 'seed'"),
        ({"profile": "quik"}, "did you mean 'quick'"),
        ({"seed": "one"}, "seed of the course must be a whole number"),
        ({"data_root": "a{b}"}, "braces"),
        ({"data_root": "~nobody-at-all/x"}, "data_root ~nobody-at-all/x begins with an unknown home folder"),
        ({"run_root": ""}, "run_root '' is the repository itself"),
        ({"run_root": "."}, r"run_root '\.' is the repository itself"),
    ],
)
def test_settings_are_checked(config, sentence):
    with pytest.raises(UserError, match=sentence):
        graph.read_settings(config)


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
    notebook = write(tmp_path / "n.ipynb", "%matplotlib inline\nimport sr_utils.late", "from sr_utils.data import y")
    names = [Path(path).stem for path in graph.modules_used(notebook, package)]
    assert names == ["__init__", "data", "images", "late"]
    assert graph.modules_used(tmp_path / "none.ipynb", package) == []


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
    notebook = write(tmp_path / "n.ipynb", f"{first}\nfrom sr_utils import errors")
    names = [Path(path).stem for path in graph.modules_used(notebook, ROOT / "sr_utils")]
    assert names == ["__init__", "errors"]


def test_another_language_imports_nothing(tmp_path):
    notebook = write(tmp_path / "n.ipynb", "%%bash\nfor i in 1 2; do echo; done\n", "%%html\n<b>")
    assert graph.modules_used(notebook, ROOT / "sr_utils") == []


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
    notebook = write(tmp_path / "n.ipynb", "x = 1", cell)
    sentence = rf"n\.ipynb has a mistake in line {line} of its code cell 2, '{text}' \(.*: mend"
    with pytest.raises(UserError, match=sentence):
        graph.modules_used(notebook, ROOT / "sr_utils")


def test_only_code_counts_in_the_checksum(tmp_path):
    one = write(tmp_path / "a.ipynb", "x = 1", prose="One")
    other = write(tmp_path / "b.ipynb", "x = 1", prose="Other")
    changed = write(tmp_path / "c.ipynb", "x = 2", prose="One")
    assert graph.code_checksum(one) == graph.code_checksum(other) != graph.code_checksum(changed)
    one.write_text("{")
    with pytest.raises(UserError, match="is not a notebook"):
        graph.code_checksum(one)


def test_files_below_a_folder(tmp_path):
    for name in ("clean/a b.png", "clean/.hidden", "clean/{x}.png", "task1/Input/1.png", "other/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = graph.files_below(tmp_path, "clean", "task1/Input", "missing")
    assert found == [str(tmp_path / "clean/a b.png"), str(tmp_path / "task1/Input/1.png")]


def plan(*config):
    """What a dry run says, and whether it found a plan."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--nolock", "--config", *config]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode == 0


NOTEBOOKS = (*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "app" / "widgets.ipynb")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the graph lists as inputs of each notebook, by its name, for a run that has not begun."""
    run_root = tmp_path_factory.mktemp("plan") / "a run"
    said, planned = plan(f"run_root={run_root}")
    assert planned, said
    assert not run_root.exists()
    lines = re.findall(r"^    input: ((?:notebooks|app)/(\w+)\.ipynb, .*)$", said, re.MULTILINE)
    return {name: line.replace(f"{run_root}/", "RUN/").split(", ") for line, name in lines}


def test_the_graph_runs_every_notebook(inputs):
    assert set(inputs) == {path.stem for path in NOTEBOOKS}


TRAIN = ("03_deflow_training", "04_degradation_sampling", "05_esrgan_training")
"""A table that only stands beside a training does not have it repeated."""


def tables_of_benchmarks():
    """Names of the files in figures/metrics that benchmarks write; `publish` puts those of notebooks beside them."""
    sources = [path.read_text() for path in (ROOT / "benchmarks").glob("*.py")]
    outputs = r'(?:output: Path = Path\("|--output )figures/metrics/(\w+)\.json'
    return set(re.findall(outputs, "\n".join(sources)))


def tables_shown(notebook):
    """Those that a notebook names, in a path or, in a cell that puts paths together, as a word."""
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    names = re.findall(r"figures/metrics/(\w+)\.json", "\n".join(cells))
    for cell in cells:
        names += re.findall(r'"(\w+)"', cell) if re.search(r"\{\w+\}\.json", cell) else []
    return tables_of_benchmarks() & set(names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_depends_on_the_tables_of_benchmarks_that_it_shows_and_on_no_published_result(inputs, notebook):
    listed = {Path(path).stem for path in inputs[notebook.stem] if path.startswith("figures/")}
    shown = {name for name in tables_shown(notebook) if (ROOT / f"figures/metrics/{name}.json").is_file()}
    assert listed == (set() if notebook.stem in TRAIN else shown)


def test_a_notebook_depends_on_the_earlier_results_and_photographs_that_it_reads(inputs):
    assert {f"RUN/metrics/{name}.json" for name in ("task1", "task2", "flow_theory")} <= set(inputs["00_overview"])
    assert "RUN/metrics/task1.json" in inputs["10_solutions"]
    assert any(path.startswith("data/validation/") for path in inputs["09_hybrid_methods"])


def test_the_graph_refuses_an_unknown_setting():
    said, planned = plan("sed=1")
    assert not planned
    assert "did you mean 'seed'" in said


READ_ONLY = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
cd "$ROOT"
exec "$0" -c "
import subprocess, sys
from sr_utils import graph
start = subprocess.Popen
graph.subprocess.Popen = lambda command, **options: start([*command, '--dry-run'], **options)
graph.run_course('smoke', sys.argv[1:])
" "$@"
"""


def in_read_only_repository(*settings):
    """What the course plans where the repository is mounted read-only."""
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, sys.executable, *settings]
    return subprocess.run(command, cwd="/", env=os.environ | {"ROOT": str(ROOT)}, capture_output=True, text=True)


def may_mount():
    try:
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_mount(), reason="only root may mount a folder read-only")
def test_a_read_only_repository_needs_a_run_root_elsewhere(tmp_path):
    done = in_read_only_repository()
    assert "is read-only and" in done.stderr and "give run_root=... a folder elsewhere" in done.stderr
    done = in_read_only_repository(f"run_root={tmp_path / 'my run'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my run" / ".course" / "notebooks").resolve() == ROOT / "notebooks"
    assert (tmp_path / "my run" / ".course" / ".snakemake").is_dir()


@pytest.mark.parametrize(
    ("name", "cell", "run_root", "said"),
    [
        ("notebooks/01_a.ipynb", "def f(:", "run", r"01_a\.ipynb has a mistake in line 1"),
        ("app/widgets.ipynb", "def f(:", "run", r"widgets\.ipynb has a mistake in line 1"),
        ("notebooks/01_a.ipynb", "x = 1", "/dev/null/x", "cannot be made"),
    ],
)
def test_what_snakemake_would_not_say_is_said_before_it_starts(tmp_path, monkeypatch, name, cell, run_root, said):
    (tmp_path / name).parent.mkdir()
    write(tmp_path / name, cell)
    monkeypatch.setattr(graph, "repository_root", lambda: tmp_path)
    monkeypatch.setattr(graph, "_snakemake", lambda *arguments: pytest.fail("Snakemake was started"))
    with pytest.raises(UserError, match=said):
        graph.run_course("smoke", [f"run_root={tmp_path / run_root}"])


def test_a_stamp_changes_with_an_older_file_of_the_same_name(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = graph.stamp_of([path, tmp_path / "missing"])
    assert before == graph.stamp_of([tmp_path / "missing", path])
    path.write_bytes(b"two")
    os.utime(path, (1e9, 1e9))
    assert graph.stamp_of([path, tmp_path / "missing"]) != before
