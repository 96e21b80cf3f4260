import subprocess
import sys
from pathlib import Path

import pytest

from sr_utils import cli, graph, headline, publish
from sr_utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cli", *map(str, arguments)])
    cli.main()


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
