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
from tests.shared_notebooks import write_notebook

ROOT = Path(__file__).resolve().parent.parent


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
    write_notebook(tmp_path / name, cell)
    monkeypatch.setattr(graph, "repository_root", lambda: tmp_path)
    monkeypatch.setattr(graph, "_snakemake", lambda *arguments: pytest.fail("Snakemake was started"))
    with pytest.raises(UserError, match=said):
        graph.run_course("smoke", [f"run_root={tmp_path / run_root}"])
