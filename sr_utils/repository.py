"""Where the repository is, and what relative folders are meant from."""

import os
from pathlib import Path

from sr_utils.errors import UserError


def repository_root() -> Path:
    """The checkout that this package lies in, or the working directory when it was installed elsewhere."""
    parent = Path(__file__).resolve().parent.parent
    return parent if (parent / "pyproject.toml").is_file() else Path.cwd()


def resolve(folder: str | Path, *, name: str = "folder") -> Path:
    """An absolute path for a folder given relative to the repository root; `~` is the home folder.

    `name` is what an error calls the folder, such as its parameter.

    Raises
    ------
    UserError
        as `expand_home`.
    """
    return repository_root() / expand_home(folder, name=name)


def expand_home(folder: str | os.PathLike, *, name: str) -> Path:
    """The folder with its leading `~` or `~user` replaced by that home folder.

    Raises
    ------
    UserError
        there is no such user.
    """
    try:
        return Path(folder).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The {name} {folder} begins with an unknown home folder: write the path in full.") from error


def run_folder(run_root: str) -> Path:
    """`resolve` for the folder that a run writes to, which the repository itself, or an empty name, cannot be.

    Executed notebooks go to its `notebooks/`: those of the repository are their sources.

    Raises
    ------
    UserError
        it is the repository, or no folder can be called so.
    """
    folder = resolve(run_root, name="run_root")
    try:
        is_repository = os.path.realpath(folder) == os.path.realpath(repository_root())
    except ValueError as error:
        raise UserError(
            f"The run_root {run_root!r} holds a character that no file name can: give a folder such as runs/mine."
        ) from error
    if is_repository:
        raise UserError(
            f"The run_root '{run_root}' is the repository itself, whose notebooks a run would overwrite: "
            "give a folder such as runs/mine."
        )
    return folder
