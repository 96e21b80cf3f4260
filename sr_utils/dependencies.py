"""What a notebook's result depends on: its own code, the modules that this imports, and the files that it reads.

This module imports neither torch nor papermill, so that a run with nothing to do ends within seconds.
"""

import ast
import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from sr_utils.errors import UserError


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
    queue = set().union(*(_modules(tree, package) for tree in cell_trees(notebook)))
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


def _code_cells(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells; none where there is no such file, which Snakemake reports."""
    if not notebook.is_file():
        return []
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{notebook} is not a notebook ({error}): restore it with git checkout.") from error


def cell_trees(notebook: Path) -> list[ast.Module]:
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
