"""Write files so that a kill or a full disk never damages what was whole."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sr_utils.errors import UserError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it onto `path` when the block ends well, else remove it.

    Parent folders are made. The temporary name keeps the suffix of `path`, because image writers choose their
    format by it, and starts with a dot, so that no listing of images picks up a half-written file.

    Where `path` is a link to a file, that file is replaced and the link stays.

    Raises:
        UserError: the disk is full, the folder cannot be written, or `path` is a folder's name, a device, a pipe or
            too long.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise UserError(f"{path} is a folder, so no file can be written there: add a file's name to it.")
    path = Path(os.path.realpath(path)) if os.path.islink(path) else path
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path} is a device or a pipe, which a file would replace: give a file's name.")
    temporary = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}")
    try:
        _make_folder(path.parent)
        temporary.touch(exist_ok=False)
        yield temporary
        # To the disk before the rename: after a power cut the name must not stand on empty contents.
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise UserError(f"The disk is full, so {path} was not written: free some space, run again.") from error
        if error.errno in _NOT_WRITABLE:
            raise UserError(f"{path} cannot be written ({error.strerror}): choose a place you may write to.") from error
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"The path {path} is too long for this disk: choose shorter names.") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        # Parents are made as well, so only a file system that holds no files of ours, such as /proc, can say this.
        raise UserError(f"The folder {folder} cannot be made there: choose a place you may write to.") from error


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN and infinity are refused: they are not JSON.

    Raises:
        ValueError: `value` holds NaN or infinity.
        UserError: as `atomic_path`.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the step that writes it first.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run its step again.") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def checksum(paths: Iterable[str | os.PathLike]) -> str:
    """SHA-256 (hexadecimal) over the names, without folders, and the contents of files, in any order.

    The same data in another place has the same checksum.

    Raises:
        UserError: a file is missing or unreadable.
    """
    lines = []
    for path in map(Path, paths):
        try:
            with path.open("rb") as stream:
                lines.append(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n")
        except OSError as error:
            raise _unreadable(path, error) from error
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _unreadable(path: str | os.PathLike, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror}): check that it is a file you may read.")
