"""What every notebook of the course does first and last: check, seed, say where numbers come from."""

import os
import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import IPython
import numpy
import torch

from sr_utils.conditional_flow import keep_single_precision
from sr_utils.datasets import DataRoot, open_data_root
from sr_utils.errors import UserError
from sr_utils.parameters import Parameter, check_types, read_parameters, refuse_unknown
from sr_utils.profiles import PROFILES, Profile
from sr_utils.repository import repository_root, resolve, run_folder

__all__ = ["PROFILES", "Course", "Profile", "begin"]

_INJECTED = "# Parameters"
"""First line of the cell that papermill puts behind a notebook's own parameters cell."""


@dataclass(frozen=True)
class Course:
    """One notebook's run: its checked parameters, its device, and the clock that began with it."""

    notebook: str
    profile: Profile
    seed: int
    data: DataRoot
    run_root: Path
    device: torch.device
    commit: str
    """Of the code that began the run; the checkout may move on meanwhile."""
    started: float = field(default_factory=time.monotonic, repr=False)

    def provenance(self) -> dict[str, Any]:
        """Where numbers come from: profile, seed, commit, device, and seconds since `begin`."""
        return {
            "profile": self.profile.name,
            "seed": self.seed,
            "commit": self.commit,
            "device": _device_name(self.device),
            "seconds": round(time.monotonic() - self.started, 1),
        }

    def finish(self) -> None:
        """Print one line: the notebook, its measured seconds and its provenance."""
        stamp = self.provenance()
        print(
            f"{self.notebook} took {stamp['seconds']:.0f} s: profile {stamp['profile']}, "
            f"seed {stamp['seed']}, commit {stamp['commit']}, {stamp['device']}."
        )


def describe_machine() -> dict[str, str]:
    """The commit and the device, the CPU, that a command's numbers come from."""
    return {"commit": _commit(repository_root()), "device": _device_name(torch.device("cpu"))}


def begin(notebook: str, *, profile: str, seed: int, data_root: str, run_root: str, **others: Any) -> Course:
    """Check a notebook's parameters, seed every generator, and open its data.

    Relative folders are meant from the repository root, wherever the notebook was opened. `others` are the
    notebook's further parameters: their types are held to the annotations of its parameters cell. A parameter
    that papermill injected but that the notebook does not declare is refused.

    Raises
    ------
    UserError
        an unknown or mistyped parameter, a missing `data_root`, a `run_root` that is the repository itself, a
        profile that this machine cannot run.
    """
    values = {"profile": profile, "seed": seed, "data_root": data_root, "run_root": run_root, **others}
    declared, injected = _parameters_of_kernel()
    for name in injected:
        refuse_unknown(name, declared, what=f"parameter of {notebook}")
    check_types(values, declared | _CORE, where=notebook)
    refuse_unknown(profile, PROFILES, what="profile")
    if not 0 <= seed < 2**32:
        raise UserError(f"The parameter seed of {notebook} must lie from 0 to {2**32 - 1}, not {seed}.")

    chosen = PROFILES[profile]
    cuda = torch.cuda.is_available()
    if chosen.needs_cuda and not cuda:
        raise UserError(f"The profile {profile} needs a CUDA device and none is visible: use profile=full instead.")
    data, folder = open_data_root(resolve(data_root, name="data_root")), run_folder(run_root)

    keep_single_precision()
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    return Course(
        notebook=notebook,
        profile=chosen,
        seed=seed,
        data=data,
        run_root=folder,
        device=torch.device("cuda" if cuda else "cpu"),
        commit=_commit(repository_root()),
    )


_CORE = read_parameters("profile: str\nseed: int\ndata_root: str\nrun_root: str")
"""The parameters that every notebook has, whatever its own cell says of them."""


def _parameters_of_kernel() -> tuple[dict[str, Parameter], list[str]]:
    """What the cells run so far declare, and the names papermill injected; both empty outside IPython."""
    shell = IPython.get_ipython()
    cells = shell.user_ns.get("In", []) if shell else []
    declared: dict[str, Parameter] = {}
    injected: list[str] = []
    for source in cells:
        if source.startswith(_INJECTED):
            injected.extend(read_parameters(source))
        else:
            declared = read_parameters(source) | declared
    return declared, injected


_CODE = ("sr_utils", "benchmarks", "notebooks", "app")
"""Folders whose changes make numbers those of no commit."""


def _commit(root: Path) -> str:
    """Short hash of the checkout, with `+changes` where tracked code or notebooks differ from it.

    `unknown` without git, where it does not answer, or where the folder is not the top of its own checkout.
    """
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != root.resolve():
            return "unknown"
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return _git(root, "rev-parse", "--short", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    # Without optional locks: reading the state must not disturb a git command that runs beside us.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", *arguments], cwd=root, env=environment, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} x{torch.cuda.device_count()}"
    return f"cpu x{torch.get_num_threads()}"
