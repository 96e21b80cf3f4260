"""Starting a benchmark from the command line: every one of them, with a mistake and with a question for help."""

import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.command import run_benchmark
from sr_utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    repeats: int = 5


def test_options_come_from_the_command_line(monkeypatch):
    given = []
    monkeypatch.setattr(sys, "argv", ["benchmark", "--repeats", "7"])
    run_benchmark(given.append, Options, "About it.")
    assert given == [Options(7)]


def test_a_users_mistake_is_one_sentence_and_a_defect_is_not(monkeypatch):
    def fail(error):
        def main(options):
            raise error

        return main

    monkeypatch.setattr(sys, "argv", ["benchmark"])
    with pytest.raises(SystemExit) as ended:
        run_benchmark(fail(UserError("There is no file x: make it.")), Options, None)
    assert ended.value.code == "error: There is no file x: make it."
    with pytest.raises(ValueError, match="defect"):
        run_benchmark(fail(ValueError("defect")), Options, None)


def test_a_benchmark_without_its_data_says_so():
    command = [sys.executable, "-m", "benchmarks.reproduced", "--fresh", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: None of task1.json") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_started_the_same_way(name):
    started = (ROOT / "benchmarks" / f"{name}.py").read_text().rsplit('if __name__ == "__main__":\n', 1)[1]
    assert started.startswith("    run_benchmark(main, ") and started.endswith(", __doc__)\n")


@pytest.mark.parametrize(
    "name, options, given, said",
    [
        ("ladder", "Ladder", {"profile": "ful"}, "did you mean 'full'"),
        ("shifts", "Shifts", {"kinds": ("nosuch",)}, "'nosuch' is not a kind of shift"),
        ("h_design", "Design", {"maps": ("mean_filtr",)}, "did you mean 'mean_filter'"),
        ("peers", "Peers", {"methods": ("lanczso",)}, "did you mean 'lanczos'"),
        ("hybrid", "Hybrid", {"methods": ("refinment_best",)}, "did you mean 'refinement_best'"),
        ("classical", "Classical", {"images": 0, "clean_images": 0, "burst_images": 0}, "has no images"),
        ("classical", "Classical", {"images": -1}, "images=-1 of Classical"),
    ],
)
def test_a_mistyped_choice_is_refused_before_anything_is_made(name, options, given, said):
    with pytest.raises(UserError, match=said):
        getattr(import_module(f"benchmarks.{name}"), options)(**given)
