"""Every notebook runs at `smoke`, in order, into a temporary folder; and what a reader's hand can get wrong."""

import ast
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest

from sr_utils.errors import UserError
from sr_utils.files import read_json
from sr_utils.runner import run_notebook

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
APP = ROOT / "app" / "widgets.ipynb"
RESULTS = ROOT / "notebooks" / "06_task1_results.ipynb"


@pytest.fixture(scope="module")
def run_root(tmp_path_factory):
    """A run folder in which every notebook has been executed at `smoke`, by the command, two at a time."""
    folder = tmp_path_factory.mktemp("a run")
    paths = {path.stem[:2]: path for path in [*NOTEBOOKS, APP]}

    def execute(numbers):
        for number in numbers:
            words = ["notebook", str(paths.pop(number)), "profile=smoke", f"run_root={folder}"]
            done = subprocess.run(
                [sys.executable, "-m", "sr_utils.cli", *words],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    # In a row come those that need each other's results; the overview shows all of them.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(execute, [("02", "03", "04", "05", "wi", "06", "10"), ("01", "07", "08", "09")]))
    execute(["00"])
    assert not paths
    return folder


@pytest.mark.parametrize("path", [*NOTEBOOKS, APP], ids=lambda path: path.stem)
def test_a_notebook_as_committed_is_fit_to_read(path):
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 1_500_000
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    names = [target.target.id for target in ast.parse(tagged[0].source).body]
    assert names[:4] == ["profile", "seed", "data_root", "run_root"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.source.count("\n") < 30
            for output in cell.outputs:
                kinds = set(output.get("data", {}))
                seen = kinds & {"image/png", "image/jpeg"}
                assert seen or "application/vnd.jupyter.widget-view+json" not in kinds, "a widget without its still"
                assert output.output_type != "error" and output.get("name") != "stderr"
                assert not re.search(r"(?<![\w.])/(?:work|root|home|tmp)/", str(output.get("text", "")))


@pytest.mark.parametrize(
    ("name", "built"),
    [("03_deflow_training", "DeFlow(course.profile.deflow)"), ("05_esrgan_training", "RRDBNet(course.profile.")],
)
def test_random_weights_follow_from_the_seed_alone_as_in_the_command_line(name, built):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if cell.cell_type == "code" and built in cell.source)
    # Otherwise a state of `train-deflow` or `train-esrgan` would be refused by the notebook of the same run.
    assert re.search(rf"torch\.manual_seed\(seed\)[^\n]*\n\s*\w+ = {re.escape(built)}", source)


# Its fixture runs the whole course.
@pytest.mark.timeout(1800)
def test_every_notebook_runs_and_its_results_are_numbers(run_root):
    for path in [*NOTEBOOKS, APP]:
        executed = nbformat.read(run_root / "notebooks" / path.name, as_version=4)
        assert re.search(r"\*Running time: \d", executed.cells[0].source)
        assert all(cell.outputs for cell in executed.cells[-1:])
    for name, methods in {
        "flow_theory": {"two_pixels_without_h", "two_pixels_with_h"},
        "task1": {"bicubic", "esrgan_base", "esrgan_deflow"},
        "deflow": {"deflow"},
        "sampling": set(),
        "esrgan": {"bicubic", "fine_tuned"},
        "task2": {"bicubic", "esrgan_base", "esrgan_deflow"},
    }.items():
        content = read_json(run_root / "metrics" / f"{name}.json")
        assert {"profile", "seed", "commit", "device", "seconds"} <= set(content["provenance"])
        assert content["provenance"]["profile"] == "smoke"
        assert methods <= {row["method"] for row in content["rows"]}
        numbers = [value for row in content["rows"] for value in row.values() if isinstance(value, float)]
        assert numbers and all(math.isfinite(value) for value in numbers)
    assert (run_root / "deflow.safetensors").is_file() and (run_root / "esrgan.safetensors").is_file()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_results_work_alone_on_a_folder_never_seen(tmp_path, scale):
    data, generator = tmp_path / "some data", np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 56), (64, 48), (37, 51)]):
        truth = cv2.resize(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width * scale, height * scale))
        low = cv2.resize(truth, (width, height), interpolation=cv2.INTER_AREA)
        name = ("grey.jpg", "alpha.png", "deep.png")[index]
        if index == 0:
            low = cv2.cvtColor(low, cv2.COLOR_BGR2GRAY)
        elif index == 1:
            low = cv2.cvtColor(low, cv2.COLOR_BGR2BGRA)
        else:
            low = low.astype(np.uint16) * 257
        for folder, image, file in (("Input", low, name), ("GroundTruth", truth, f"{Path(name).stem}.png")):
            (data / "task1" / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(data / "task1" / folder / file), image)
    run = tmp_path / "run"
    run_notebook(RESULTS, ["profile=quick", f"data_root={data}", f"run_root={run}"])
    rows = {row["method"]: row for row in read_json(run / "metrics" / "task1.json")["rows"]}
    assert set(rows) >= {"bicubic", "esrgan_base"} and rows["esrgan_base"]["count"] == 3
    assert sorted(path.name for path in (run / "restored").rglob("*.png"))[:1] == ["alpha.png"]


@pytest.mark.parametrize(
    "setting,word",
    [("profle=smoke", "profile"), ("seed=many", "seed"), ("profile=fast", "profile"), ("data_root=nowhere", "nowhere")],
)
def test_a_wrong_parameter_is_one_sentence(tmp_path, setting, word):
    settings = [setting, f"run_root={tmp_path / 'run'}"]
    with pytest.raises(UserError) as caught:
        run_notebook(RESULTS, settings if "profile=" in setting else ["profile=smoke", *settings])
    assert word in str(caught.value) and "\n" not in str(caught.value)
