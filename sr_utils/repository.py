"""Where the repository is, and what relative folders are meant from."""

from pathlib import Path


def repository_root() -> Path:
    """The checkout that this package lies in, or the working directory when it was installed elsewhere."""
    parent = Path(__file__).resolve().parent.parent
    return parent if (parent / "pyproject.toml").is_file() else Path.cwd()


def resolve(folder: str | Path) -> Path:
    """An absolute path for a folder given relative to the repository root; `~` is the home folder."""
    return repository_root() / Path(folder).expanduser()
