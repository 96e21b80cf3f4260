"""Run one notebook headlessly: its parameters checked, its progress shown, its result whole or absent."""

import contextlib
import fcntl
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from sr_utils.errors import UserError
from sr_utils.files import atomic_path
from sr_utils.parameters import parse_values, read_parameters, refuse_unknown
from sr_utils.profiles import PROFILES
from sr_utils.progress import LOG_VARIABLE
from sr_utils.repository import repository_root, run_folder

RUNNING_TIME = re.compile(r"\*Running time: [^*]*\*")
"""The line of a notebook's first cell that holds its measured running time."""

_START_TIMEOUT = 180
_SECONDS_BETWEEN_LINES = 15.0
_POLL_SECONDS = 0.5
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run_notebook(source: Path, settings: Sequence[str]) -> Path:
    """Run a notebook with `name=value` settings and return the executed copy, `run_root/notebooks/<name>`.

    The kernel is this interpreter, working in the repository root. Until every cell has run, the notebook
    lies in `run_root/failed/`, and there it stays for diagnosis when one fails; only a whole one is moved
    into place, stamped with its measured running time.

    Raises
    ------
    UserError
        the notebook cannot be read, a setting does not fit, the run would overwrite the notebook or cannot be
        written, or a cell failed.
    """
    notebook = _read(source)
    cell = _parameters_cell(notebook, source)
    declared = read_parameters(cell.source)
    values = parse_values(settings, declared, where=source.name)
    effective = {name: parameter.default for name, parameter in declared.items()} | values
    for name in ("profile", "run_root"):
        if not isinstance(effective.get(name), str):
            raise UserError(f"{source} declares no {name} in its parameters cell: add {name} there.")
    refuse_unknown(effective["profile"], PROFILES, what="profile")
    profile = PROFILES[effective["profile"]]
    run_root = run_folder(effective["run_root"])
    unfinished = run_root / "failed" / source.name
    finished = run_root / "notebooks" / source.name
    if os.path.realpath(source) in map(os.path.realpath, (unfinished, finished)):
        raise UserError(f"{source} would be overwritten by its own run: give run_root=... another folder.")

    begun = time.monotonic()
    with _alone(unfinished), _progress_lines(source.stem, cells=len(notebook.cells)) as (log, on_cell_start):
        _execute(
            notebook,
            unfinished,
            parameters=values,
            cell_timeout=profile.cell_timeout,
            kernel_manager_class=_kernel_manager(log),
            on_cell_start=on_cell_start,
        )
    executed = _read(unfinished)
    _stamp(executed, f"{_duration(time.monotonic() - begun)}, profile {profile.name}")
    with atomic_path(finished) as temporary:
        nbformat.write(executed, temporary)
    unfinished.unlink()
    print(f"{source.stem}: done in {_duration(time.monotonic() - begun)}", flush=True)
    return finished


@contextlib.contextmanager
def _alone(unfinished: Path) -> Iterator[None]:
    """Hold a lock that dies with its process: after a kill, what it had started may still be at work for a moment."""
    run_root = unfinished.parent.parent
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        lock = unfinished.with_name(f".{unfinished.stem}.lock").open("w")
    except OSError as error:
        raise UserError(
            f"The folder {run_root} cannot be written ({error.strerror}): give run_root=... a folder elsewhere."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{unfinished.name} is being run into {run_root} already: wait for its end.") from error
        yield


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: name a notebook such as notebooks/02_dataset_creation.ipynb."
        ) from error
    except (ValueError, OSError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise UserError(f"{path} is not a readable notebook: restore it with git checkout.") from error


def _parameters_cell(notebook: nbformat.NotebookNode, source: Path) -> nbformat.NotebookNode:
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            return cell
    raise UserError(f"{source} has no cell tagged 'parameters': tag the cell that sets profile and seed.")


def _execute(
    notebook: nbformat.NotebookNode,
    output: Path,
    *,
    parameters: dict[str, Any],
    cell_timeout: int,
    **options: Any,
) -> None:
    """Run papermill, and turn what can go wrong inside the notebook into one sentence."""
    kept = f"the notebook is kept at {output}"
    try:
        papermill.execute_notebook(
            notebook,
            output,
            parameters=parameters,
            kernel_name="python3",
            language="python",
            cwd=repository_root(),
            progress_bar=False,
            start_timeout=_START_TIMEOUT,
            execution_timeout=cell_timeout,
            # The default of four seconds is too short for a machine that is busy training.
            iopub_timeout=60,
            **options,
        )
    except PapermillExecutionError as error:
        if error.ename == UserError.__name__:
            raise UserError(error.evalue) from error
        print(_ANSI.sub("", "\n".join(error.traceback)), file=sys.stderr)
        raise UserError(f"{output.name} stopped with {error.ename} ({error.evalue}): {kept}.") from error
    except CellTimeoutError as error:
        raise UserError(
            f"A cell of {output.name} ran longer than the {cell_timeout} s of its profile: {kept}."
        ) from error
    except DeadKernelError as error:
        raise UserError(
            f"The kernel of {output.name} died, most often for want of memory: close other programs or "
            f"choose a smaller profile; {kept}."
        ) from error


def _kernel_manager(log: Path) -> type[AsyncKernelManager]:
    """A kernel manager that starts this very interpreter, whatever kernels the user has registered."""
    environment = {
        LOG_VARIABLE: str(log),
        # A backend of the user's, or Agg for want of a display, would keep the figures out of the notebook.
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
        display_name="Python 3 (ipykernel)",
        language="python",
        env=environment,
    )

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return ThisInterpreter


@contextlib.contextmanager
def _progress_lines(name: str, *, cells: int) -> Iterator[tuple[Path, Any]]:
    """Print what the notebook appends to a progress log, and now and then which cell it is in.

    Gives the log's path and the hook that papermill's client calls at the start of each cell.
    """
    folder = Path(tempfile.mkdtemp(prefix="sr_utils_"))
    log = folder / "progress.log"
    log.touch()
    stop = threading.Event()
    last = [time.monotonic()]

    def say(text: str) -> None:
        print(f"{name}: {text}", flush=True)
        last[0] = time.monotonic()

    def on_cell_start(cell: nbformat.NotebookNode, cell_index: int) -> None:
        if time.monotonic() - last[0] > _SECONDS_BETWEEN_LINES:
            say(f"cell {cell_index + 1} of {cells}")

    def follow() -> None:
        with log.open(encoding="utf-8", errors="replace") as stream:
            while True:
                ended = stop.wait(_POLL_SECONDS)
                for line in stream.read().replace("\r", "\n").splitlines():
                    if line.strip():
                        say(line.strip())
                if ended:
                    return

    say("started")
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield log, on_cell_start
    finally:
        stop.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def _stamp(notebook: nbformat.NotebookNode, text: str) -> None:
    first = next((cell for cell in notebook.cells if cell.cell_type == "markdown"), None)
    if first is not None:
        first.source = RUNNING_TIME.sub(f"*Running time: {text}, {os.cpu_count()} CPU cores.*", first.source, count=1)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
