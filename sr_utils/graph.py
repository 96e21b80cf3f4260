"""The course as a graph: its settings, and one run of it.

The graph itself is the Snakefile, and `dependencies` says what its results follow from. This module imports neither
torch nor papermill, so that a run with nothing to do ends within seconds.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sr_utils.dependencies import cell_trees
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
            cell_trees(notebook)
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
