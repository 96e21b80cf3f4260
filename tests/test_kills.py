"""A kill at any moment loses nothing: the rerun ends bit-equal to a run that was never interrupted.

One kill of each kind of work runs here; `make soak` does fifty, ten of them of a whole report.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from sr_utils.images import load_image
from tests import kills

ROOT = Path(__file__).resolve().parent.parent
KILLS = {"training a DeFlow": 10, "training an ESRGAN": 10, "dataset creation": 10, "translation": 10}
REPORT_KILLS = 10


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    kills.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def forked():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kills"])
    return context


def contents(folder: Path) -> dict[str, str]:
    """Checksums of all visible results but training states, whose older ones depend on where a run began."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "state" not in path.name)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.startswith(".")
    }


def all_whole(folder: Path) -> None:
    """No half-written image, checkpoint or JSON has a name that anything reads."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            if path.suffix == ".png":
                load_image(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    list(file.keys())


def run(forked, work: str, start: Path, out: Path, *, seconds: float | None = None) -> float:
    """Do the work in a process of its own, killed after ``seconds``; returns how long it ran."""
    process, begun = forked.Process(target=kills.WORK[work], args=(start, out)), time.monotonic()
    process.start()
    process.join(seconds)
    process.kill()  # SIGKILL, if it is still there
    process.join()
    if seconds is None:
        assert process.exitcode == 0
    return time.monotonic() - begun


def interrupt(forked, work: str, start: Path, folder: Path, count: int, seed: int) -> None:
    """``count`` runs, each killed at a random moment and then finished, against one that was left alone."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    run(forked, work, start, whole)  # the first pays for what is imported late
    shutil.rmtree(whole)
    whole.mkdir()
    lasted, expected, moments = run(forked, work, start, whole), contents(whole), random.Random(seed)
    assert expected
    for number in range(count):
        out = folder / str(number)
        out.mkdir()
        run(forked, work, start, out, seconds=moments.uniform(0.02, 0.9) * lasted)
        all_whole(out)
        run(forked, work, start, out)
        assert contents(out) == expected, f"{work}, kill {number}"
        shutil.rmtree(out)


@pytest.mark.parametrize("work", ["training a DeFlow", "dataset creation"])
def test_a_kill_loses_nothing(forked, start, tmp_path, work):
    interrupt(forked, work, start, tmp_path, 1, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("work", list(KILLS))
def test_many_kills_lose_nothing(forked, start, tmp_path, work):
    interrupt(forked, work, start, tmp_path, KILLS[work], seed=2)


def course(run_root: Path) -> subprocess.Popen:
    """The whole course on the embedded images, in a process group of its own."""
    command = [sys.executable, "-m", "sr_utils.cli", "report", "--profile", "smoke", f"run_root={run_root}"]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def without_times(value):
    """A results file without what differs from run to run: seconds, and the provenance that holds them."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if "second" not in key and key != "provenance"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results(run_root: Path) -> dict[str, object]:
    found = {name: value for name, value in contents(run_root).items() if name.endswith((".png", ".safetensors"))}
    found = {name: value for name, value in found.items() if not name.startswith("figures")}
    for path in sorted((run_root / "metrics").glob("*.json")):
        found[path.name] = without_times(json.loads(path.read_text()))
    return found


@pytest.mark.soak
def test_a_report_that_is_killed_again_and_again_ends_the_same(tmp_path):
    """All processes of a report are killed after a random time, ten times over; then it is left to finish."""
    assert course(tmp_path / "whole").wait() == 0
    moments, killed = random.Random(3), 0
    while killed < REPORT_KILLS:
        process = course(tmp_path / "killed")
        try:
            process.wait(moments.uniform(2, 45))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
            process.wait()
            all_whole(tmp_path / "killed")
        else:
            assert process.returncode == 0
            shutil.rmtree(tmp_path / "killed")
    assert course(tmp_path / "killed").wait() == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
