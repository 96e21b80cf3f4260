import random
import subprocess
from types import SimpleNamespace

import IPython
import numpy
import pytest
import torch

from sr_utils import course
from sr_utils.errors import UserError


@pytest.fixture
def options(tmp_path):
    (tmp_path / "data").mkdir()
    return {
        "profile": "smoke",
        "seed": 3,
        "data_root": str(tmp_path / "data"),
        "run_root": str(tmp_path / "run"),
    }


@pytest.fixture
def cells(monkeypatch):
    """Stands in for a notebook: the sources of the cells that its kernel has run."""

    def run(*sources):
        shell = SimpleNamespace(user_ns={"In": ["", *sources]})
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)

    return run


DECLARING = "profile: str = 'quick'\nseed: int = 0\ndata_root: str = 'data'\nrun_root: str = 'runs'\nrate: float = 1"


def test_begin_gives_what_a_notebook_needs(options, tmp_path):
    begun = course.begin("03_training", **options)
    assert begun.profile is course.PROFILES["smoke"]
    assert begun.seed == 3
    assert begun.data.root == tmp_path / "data"
    assert begun.run_root == tmp_path / "run"
    assert begun.device.type in ("cpu", "cuda")


def test_begin_seeds_every_generator(options):
    def draw():
        course.begin("n", **options)
        return random.random(), numpy.random.random(), torch.rand(1).item()

    assert draw() == draw()


def test_begin_keeps_single_precision_on_a_gpu(options, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    course.begin("n", **options)
    assert not torch.backends.cudnn.allow_tf32


def test_relative_folders_are_meant_from_the_repository(options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    begun = course.begin("n", **options | {"run_root": "runs/x", "data_root": "."})
    root = course.repository_root()
    assert begun.run_root == root / "runs" / "x"
    assert begun.data.root.resolve() == root


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"profile": "quik"}, "'quik' is not a profile: did you mean 'quick'"),
        ({"profile": 1}, "profile of n must be text"),
        ({"seed": "1"}, "seed of n must be a whole number"),
        ({"seed": True}, "seed of n must be a whole number"),
        ({"seed": -1}, "seed of n must lie"),
        ({"data_root": "no such folder"}, "no such folder"),
        ({"data_root": "~nobody-at-all/x"}, "data_root ~nobody-at-all/x begins with an unknown home folder"),
        ({"run_root": "~nobody-at-all/x"}, "run_root ~nobody-at-all/x begins with an unknown home folder"),
        ({"run_root": "~nobody\0/x"}, "run_root .* begins with an unknown home folder"),
        ({"run_root": "a\0b"}, "run_root .* holds a character that no file name can"),
        ({"run_root": ""}, "run_root '' is the repository itself"),
        ({"run_root": "."}, r"run_root '\.' is the repository itself"),
    ],
)
def test_begin_refuses_what_does_not_fit(options, change, sentence):
    with pytest.raises(UserError, match=sentence):
        course.begin("n", **options | change)


def test_a_profile_for_cuda_is_refused_without_it(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA device"):
        course.begin("n", **options | {"profile": "gpu"})


def test_an_injected_parameter_must_be_declared(options, cells):
    cells(DECLARING, "# Parameters\nseed = 1\n")
    course.begin("n", **options)
    cells(DECLARING, "# Parameters\nsede = 1\n", "import torch")
    with pytest.raises(UserError, match="'sede' is not a parameter of n: did you mean 'seed'"):
        course.begin("n", **options)


def test_further_parameters_are_held_to_their_annotation(options, cells):
    cells(DECLARING)
    course.begin("n", **options, rate=0.5)
    with pytest.raises(UserError, match="rate of n must be a number, not '1e-3'"):
        course.begin("n", **options, rate="1e-3")


def test_provenance_and_the_last_line(options, capsys):
    begun = course.begin("03_training", **options)
    stamp = begun.provenance()
    assert list(stamp) == ["profile", "seed", "commit", "device", "seconds"]
    assert stamp["profile"] == "smoke" and stamp["seed"] == 3 and 0 <= stamp["seconds"] < 60
    begun.finish()
    line = capsys.readouterr().out
    assert line.startswith("03_training took ") and line.count("\n") == 1 and stamp["commit"] in line


def test_numbers_are_of_the_commit_that_the_run_began_with(options, monkeypatch):
    begun = course.begin("03_training", **options)
    commit = begun.provenance()["commit"]
    monkeypatch.setattr(course, "_commit", lambda root: "moved_on")
    assert begun.provenance()["commit"] == commit != "moved_on"


def test_commit_names_the_checkout_and_its_changes(tmp_path, monkeypatch):
    assert course._commit(tmp_path) == "unknown"

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    module = tmp_path / "sr_utils" / "x.py"
    module.parent.mkdir()
    (tmp_path / "notebooks").mkdir()
    module.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = course._commit(tmp_path)
    assert clean.isalnum()
    (tmp_path / "other.txt").write_text("untracked")
    assert course._commit(tmp_path) == clean
    module.write_text("2")
    assert course._commit(tmp_path) == f"{clean}+changes"
    module.write_text("1")
    bench = tmp_path / "benchmarks" / "x.py"
    bench.parent.mkdir()
    bench.write_text("1")
    git("add", "benchmarks")
    assert course._commit(tmp_path) == f"{clean}+changes"
    assert course._commit(module.parent) == "unknown"


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("git", 30), FileNotFoundError("git")])
def test_a_git_that_does_not_answer_costs_no_training(monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert course.describe_machine()["commit"] == "unknown"
