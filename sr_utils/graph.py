"""The course as a graph: its settings, the files that a notebook's result depends on, and one run of it.

The graph itself is the Snakefile. This module imports neither torch nor papermill, so that a run with nothing
to do ends within seconds.
"""

import ast
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sr_utils.errors import UserError
from sr_utils.files import atomic_path
from sr_utils.parameters import check_types, parse_values, read_parameters, refuse_unknown
from sr_utils.repository import expand_home, repository_root, resolve, run_folder

PROFILE_NAMES = ("smoke", "quick", "full", "gpu")
"""The names of `sr_utils.profiles.PROFILES`, which to import takes longer than a run with nothing to do."""

_DECLARED = read_parameters("profile: str = 'quick'\nseed: int = 0\ndata_root: str = 'data'\nrun_root: str")


@dataclass(frozen=True)
class Settings:
    """The settings of one run of the whole course."""

    profile: str
    seed: int
    data_root: str
    run_root: str


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Check a run's settings and fill in the rest: `run_root` follows the profile.

    Raises
    ------
    UserError
        an unknown or mistyped setting, an unknown profile, a folder that cannot be used, or braces in its name.
    """
    for name in config:
        refuse_unknown(name, _DECLARED, what="setting of the course")
    # A folder named by digits alone reaches us as a number.
    config = {name: str(value) if name.endswith("_root") else value for name, value in config.items()}
    check_types(config, _DECLARED, where="the course")
    values = {name: parameter.default for name, parameter in _DECLARED.items()} | config
    refuse_unknown(values["profile"], PROFILE_NAMES, what="profile")
    if values["run_root"] is None:
        values["run_root"] = f"runs/{values['profile']}"
    if not values["data_root"]:
        raise UserError("data_root of the course is empty: give a folder, or leave it out for the embedded images.")
    for name in ("data_root", "run_root"):
        if set("{}") & set(values[name]):
            raise UserError(
                f"The folder {values[name]} has braces in its name, which the graph cannot take: rename it."
            )
    for name in ("data_root", "run_root"):
        # Neither a shell nor Snakemake would do it behind an equals sign.
        if values[name].startswith("~"):
            values[name] = str(expand_home(values[name], name=name))
    # For their errors: the graph's paths stay relative.
    resolve(values["data_root"], name="data_root")
    run_folder(values["run_root"])
    return Settings(**values)


def write_settings(settings: Settings, path: Path) -> Path:
    """Write a run's settings as the configuration file that Snakemake reads, and return its path.

    On its command line it would strip quotes and read what is left as YAML: of a folder `my #1` remains `my`.

    Raises
    ------
    UserError
        the file cannot be written.
    """
    with atomic_path(path) as temporary:
        # Not `write_json`: this is ASCII, whatever encoding Snakemake reads it in.
        temporary.write_text(json.dumps(vars(settings)), encoding="utf-8")
    return path


def run_course(profile: str, settings: Sequence[str]) -> tuple[str, bool]:
    """Run every notebook that is out of date; return the run's folder and whether there was work.

    Snakemake's own lock outlives a kill and then refuses every later run, so a lock that dies with its
    process stands in for it.

    Raises
    ------
    UserError
        a setting does not fit, a notebook or the run's folder cannot be used, another run is under way, or the run
        was interrupted or failed.
    """
    values = parse_values(settings, _DECLARED, where="the course")
    chosen = read_settings({"profile": profile} | values)
    root, chosen = _workplace(repository_root(), chosen)
    state = root / ".snakemake"
    state.mkdir(exist_ok=True)
    with (state / "course.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another run of the course is under way in {root}: wait for it to end.") from error
        # Here, because Snakemake, which is quiet, would not say what is wrong with them.
        for notebook in (*sorted((root / "notebooks").glob("[0-9]*.ipynb")), root / "app" / "widgets.ipynb"):
            _cell_trees(notebook)
        try:
            resolve(chosen.run_root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The folder {chosen.run_root} cannot be made ({error.strerror}): give run_root=... another one."
            ) from error
        begun = time.time()
        status = _snakemake(root, write_settings(chosen, state / "course.json"))
    if status:
        raise UserError(f"The course stopped before its end: see the message above, mend it and run again ({status}).")
    executed = (resolve(chosen.run_root) / "notebooks").glob("*.ipynb")
    return chosen.run_root, any(path.stat().st_mtime >= begun for path in executed)


def _workplace(root: Path, settings: Settings) -> tuple[Path, Settings]:
    """Where Snakemake works and keeps its notes: the repository, or a folder of links to it if that is read-only.

    Raises
    ------
    UserError
        the repository is read-only, and `run_root` cannot be written either.
    """
    if os.access(root, os.W_OK):
        return root, settings
    run_root, data_root = resolve(settings.run_root), resolve(settings.data_root)
    place = run_root / ".course"
    try:
        place.mkdir(parents=True, exist_ok=True)
        for path in root.iterdir():
            link = place / path.name
            if not path.name.startswith(".") and link.resolve() != path.resolve():
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    except OSError as error:
        raise UserError(
            f"The folder {root} is read-only and {run_root} cannot be written ({error.strerror}): "
            "give run_root=... a folder elsewhere."
        ) from error
    return place, replace(settings, data_root=str(data_root), run_root=str(run_root))


def modules_used(notebook: Path, package: Path) -> list[str]:
    """The modules of `package` that a notebook imports, and those that these import, as sorted paths.

    Found by reading, not by running: `from sr_utils.x import y`, `from sr_utils import x` and
    `import sr_utils.x`, at any depth. A notebook that does not exist uses none.

    Raises
    ------
    UserError
        the notebook is not one, or a code cell of it is not Python.
    """
    found: set[Path] = set()
    queue = set().union(*(_modules(tree, package) for tree in _cell_trees(notebook)))
    while queue:
        module = queue.pop()
        if module not in found:
            found.add(module)
            queue |= _modules(ast.parse(module.read_text(encoding="utf-8")), package)
    return sorted(map(str, found))


def code_checksum(notebook: Path) -> str:
    """SHA-256 (hexadecimal) of a notebook's code cells; prose and outputs do not count.

    Raises
    ------
    UserError
        the notebook is not one.
    """
    return hashlib.sha256("\n".join(_code_cells(notebook)).encode()).hexdigest()


def files_below(folder: Path, *parts: str) -> list[str]:
    """Every file below the named parts of a folder, sorted, hidden ones left out; a missing part has none.

    Names with braces are left out too, since the graph would read wildcards in them.
    """
    # Of a path that cannot be, which pathlib would raise for, `course.begin` speaks.
    paths = (path for part in parts if os.path.isdir(folder / part) for path in (folder / part).rglob("*"))
    visible = (path for path in paths if path.is_file() and not path.name.startswith("."))
    return sorted(str(path) for path in visible if not set("{}") & set(str(path)))


def stamp_of(paths: Iterable[str | os.PathLike]) -> str:
    """SHA-256 (hexadecimal) of the names, sizes and times of files; what is no file counts by its name.

    Snakemake asks only whether a file is newer than a result. One that was moved here with its own, older time is not.
    """
    lines = []
    for path in sorted(map(str, paths)):
        try:
            found = os.stat(path)
            lines.append(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n")
        except OSError:
            lines.append(f"{path}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _snakemake(root: Path, config: Path) -> int:
    """Run Snakemake quietly in `root` and return its exit status; an interrupt waits for its clean-up."""
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", "--cores", "all", "--nolock"),
        *("--rerun-incomplete", "--quiet", "all", "--configfile", str(config)),
    ]
    process = subprocess.Popen(command, cwd=root)
    try:
        return process.wait()
    except KeyboardInterrupt as error:
        # The terminal has interrupted Snakemake as well; a second signal would break its clean-up.
        process.wait()
        raise UserError(
            "The course was interrupted: what was whole is untouched, and the same command goes on from here."
        ) from error


def _code_cells(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells; none where there is no such file, which Snakemake reports."""
    if not notebook.is_file():
        return []
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{notebook} is not a notebook ({error}): restore it with git checkout.") from error


def _cell_trees(notebook: Path) -> list[ast.Module]:
    """The syntax trees of a notebook's code cells.

    Raises
    ------
    UserError
        the notebook is not one, or a code cell of it is not Python.
    """
    trees = []
    for number, cell in enumerate(_code_cells(notebook), 1):
        try:
            trees.append(_cell_tree(cell))
        except SyntaxError as error:
            # IPython drops the empty lines that a cell begins with.
            line = (error.lineno or 1) + cell[: len(cell) - len(cell.lstrip())].count("\n")
            raise UserError(
                f"{notebook} has a mistake in line {line} of its code cell {number}, "
                f"'{(error.text or '').strip()}' ({error.msg}): mend it there."
            ) from error
    return trees


def _cell_tree(cell: str) -> ast.Module:
    """The syntax tree of a code cell; what only IPython understands, `%magic` and `!command`, becomes calls.

    Raises
    ------
    SyntaxError
        the cell is neither Python nor IPython.
    """
    first, _, body = cell.lstrip().partition("\n")
    if first.startswith("%%"):
        # The body is Python under %%time and %%capture, and another language, which imports nothing, under %%bash.
        with contextlib.suppress(SyntaxError):
            return _cell_tree(body)
        return ast.Module([], [])
    with contextlib.suppress(SyntaxError):
        return ast.parse(cell)
    # Here, because it takes half a second, and few notebooks need it.
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(cell))


def _modules(tree: ast.Module, package: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return set(_existing(names, package))


def _existing(names: Iterable[str], package: Path) -> Iterable[Path]:
    for name in names:
        parts = name.split(".")
        if parts[0] == package.name:
            path = package / f"{parts[1]}.py" if len(parts) > 1 else package / "__init__.py"
            if path.is_file():
                yield path
