import subprocess
import sys
from pathlib import Path

import pytest

from sr_utils import cli, graph, headline, publish
from sr_utils.errors import UserError
from tests.shared_commands import call

ROOT = Path(__file__).resolve().parent.parent


def test_a_mistake_ends_with_one_sentence_and_no_traceback():
    command = [sys.executable, "-m", "sr_utils.cli", "notebook", "none.ipynb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: none.ipynb does not exist") and done.stderr.count("\n") == 1


def test_a_command_with_nothing_to_do_imports_nothing_heavy():
    script = "import sys, sr_utils.cli, sr_utils.graph, sr_utils.headline; print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"'torch'", "'papermill'", "'matplotlib'"} & set(done.stdout.strip("[]\n").split(", "))


@pytest.mark.parametrize("worked", [True, False])
def test_report_ends_with_the_table_and_the_place_of_the_notebooks(monkeypatch, capsys, tmp_path, worked):
    calls = []

    def run_course(*arguments):
        calls.append(arguments)
        return str(tmp_path), worked

    monkeypatch.setattr(graph, "run_course", run_course)
    monkeypatch.setattr(headline, "headline_table", lambda run_root: f"table of {run_root}")
    call(monkeypatch, "report", "seed=1", "data_root=a b", "--profile", "smoke")
    assert calls == [("smoke", ("seed=1", "data_root=a b"))]
    said = capsys.readouterr().out
    assert ("Nothing to do: " in said) is not worked
    assert said.endswith(f"table of {tmp_path}\n\nExecuted notebooks: {tmp_path / 'notebooks'}\n")


def test_publish_takes_the_run_of_the_profile(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(publish, "publish", lambda *arguments: calls.append(arguments) or [1, 2])
    call(monkeypatch, "publish", "--profile", "quick")
    assert calls == [(ROOT / "runs" / "quick", ROOT)]
    assert capsys.readouterr().out == "Published 2 files.\n"


def test_errors_of_the_user_become_the_exit_message(monkeypatch):
    def refuse(*_):
        raise UserError("What is wrong: how to mend it.")

    monkeypatch.setattr(graph, "run_course", refuse)
    with pytest.raises(SystemExit, match="error: What is wrong: how to mend it."):
        call(monkeypatch, "report")


@pytest.mark.parametrize("scale", [1, 4])
def test_a_refinement_network_of_another_scale_would_replace_that_of_scale_2(monkeypatch, tmp_path, scale):
    place = ("--folder", tmp_path / "weights", "--states", tmp_path / "states")
    with pytest.raises(SystemExit, match=f"error: scale={scale} of base_refinement_best must be 2"):
        call(monkeypatch, "base", "refinement_best", "--scale", scale, *place)
    assert not list(tmp_path.iterdir())


def test_an_empty_argument_is_refused_and_not_taken_for_this_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sr_utils", "restore", "weights.safetensors", "", "out"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert "An argument is empty" in str(ended.value.code) and not list(tmp_path.iterdir())


def test_a_deflow_of_another_scale_is_refused():
    with pytest.raises(UserError, match="scale=4 of base_deflow must be left out"):
        cli.base("deflow", scale=4)
