"""Put a finished run where readers look: notebooks/, app/, figures/ and the table of README.md."""

import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat

from sr_utils.errors import UserError
from sr_utils.files import atomic_path
from sr_utils.headline import headline_source, headline_table
from sr_utils.runner import RUNNING_TIME

MAXIMUM_BYTES = 1_500_000
START, END = "<!-- headline:start -->", "<!-- headline:end -->"

_COURSE_ROW = re.compile(r"^(\| \[[^\]]*\]\((notebooks/[^)]+)\) \|.*\| )([^|]*)( \| [^|]* \|)$", re.MULTILINE)
_SYSTEM_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|var/tmp|opt|usr)/")


def publish(run_root: Path, root: Path) -> list[Path]:
    """Copy a run's executed notebooks, figures and metrics into `root`, and its table and times into README.md.

    Everything is checked before anything is written.

    Raises
    ------
    UserError
        a notebook is missing, has other code than its source, is too large, holds an error or
        shows a path of this machine; or README.md lacks the two marks.
    """
    sources = [path for folder in ("notebooks", "app") for path in sorted((root / folder).glob("*.ipynb"))]
    notebooks = {source: _ready(run_root / "notebooks" / source.name, source, root) for source in sources}
    readme = root / "README.md"
    text = _with_table(readme, f"{headline_table(run_root)}\n\n{headline_source(run_root)}")
    times = {source.relative_to(root).as_posix(): running_time(each) for source, each in notebooks.items()}
    text = with_times(text, times)

    written = []
    for source, content in notebooks.items():
        with atomic_path(source) as temporary:
            temporary.write_text(content, encoding="utf-8")
        written.append(source)
    for folder, pattern, target in (
        ("figures", "*.png", "figures"),
        ("metrics", "*.json", "figures/metrics"),
    ):
        for path in sorted((run_root / folder).glob(pattern)):
            with atomic_path(root / target / path.name) as temporary:
                shutil.copyfile(path, temporary)
            written.append(root / target / path.name)
    with atomic_path(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return [*written, readme]


def running_time(notebook: str) -> str:
    """The measured time that the text of a notebook states, such as "8 min 7 s"; empty if it was not run."""
    stated = re.search(r"\*Running time: ([^*,]*), ", notebook)
    return stated[1] if stated else ""


def with_times(readme: str, times: Mapping[str, str]) -> str:
    """README's course table with the time of each notebook, by its link; a row's last columns are time and GPU."""
    return _COURSE_ROW.sub(lambda row: f"{row[1]}{times.get(row[2], row[3])}{row[4]}", readme)


def with_outputs(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The source notebook, prose and metadata as they stand, with the outputs of an executed copy.

    So nothing of the run's machine gets in but the outputs themselves. Cells are numbered from one.

    Raises
    ------
    ValueError
        the two differ in their code.
    """
    notebook = nbformat.from_dict(source)
    ours, theirs = _code_cells(notebook), _code_cells(executed)
    if [cell.source for cell in ours] != [cell.source for cell in theirs]:
        raise ValueError("the notebooks differ in their code")
    for number, (cell, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        cell.execution_count = number
        cell.outputs = list(_joined(other.outputs))
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    if "widgets" in executed.metadata:
        notebook.metadata["widgets"] = executed.metadata["widgets"]
    _copy_running_time(executed, notebook)
    return notebook


def _joined(outputs: list[nbformat.NotebookNode]) -> Iterator[nbformat.NotebookNode]:
    """Outputs, of which printed texts that follow each other are one, as they are on a screen."""
    for (kind, name), group in itertools.groupby(outputs, key=lambda each: (each.output_type, each.get("name"))):
        parts = list(group)
        if kind == "stream":
            yield nbformat.v4.new_output(kind, name=name, text="".join(part.text for part in parts))
        else:
            yield from parts


def _code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Code cells but for the one that papermill injected."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def _copy_running_time(executed: nbformat.NotebookNode, notebook: nbformat.NotebookNode) -> None:
    stamps = [match.group() for cell in executed.cells for match in RUNNING_TIME.finditer(cell.source)]
    for cell in notebook.cells:
        if stamps and cell.cell_type == "markdown":
            # A function, since a replacement text would have its backslashes read.
            cell.source = RUNNING_TIME.sub(lambda _: stamps[0], cell.source)


def _ready(executed: Path, source: Path, root: Path) -> str:
    """The text to publish of an executed notebook, once it has passed every check."""
    if not os.path.isfile(executed):
        raise UserError(f"{executed} is missing: run make report with this profile first.")
    try:
        notebook = with_outputs(nbformat.read(source, as_version=4), nbformat.read(executed, as_version=4))
    except ValueError as error:
        raise UserError(f"{executed} is older than {source}: run make report with this profile again.") from error
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise UserError(f"Cell {number} of {executed} holds an error ({output.ename}): mend it, run again.")
            for text in _texts(output):
                found = _machine_path(text, root)
                if found:
                    raise UserError(
                        f"Cell {number} of {executed} shows {found}, a path of this machine: print another."
                    )
    found = _machine_path(json.dumps(notebook.metadata.get("widgets", {})), root)
    if found:
        raise UserError(f"A widget of {executed} shows {found}, a path of this machine: show another.")
    content = nbformat.writes(notebook) + "\n"
    size = len(content.encode())
    if size > MAXIMUM_BYTES:
        raise UserError(
            f"{executed} has {size / 1e6:.1f} MB, and readers wait above {MAXIMUM_BYTES / 1e6:.1f} MB: "
            "draw smaller figures."
        )
    return content


def _texts(output: nbformat.NotebookNode) -> Iterator[str]:
    if "text" in output:
        yield output.text
    for kind, value in output.get("data", {}).items():
        # Pictures are base64, where a path can only appear by accident, but for this one, which is text.
        if not kind.startswith("image/") or kind == "image/svg+xml":
            yield value if isinstance(value, str) else str(value)


def _machine_path(text: str, root: Path) -> str | None:
    for folder in (root, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir())):
        # A home of "/" would be found in every text.
        if len(folder.parts) > 1 and str(folder) in text:
            return str(folder)
    match = _SYSTEM_PATH.search(text)
    return match.group() if match else None


def _with_table(readme: Path, table: str) -> str:
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise UserError(f"{readme} lacks the marks {START} and {END}: put them where the table belongs.")
    return f"{before}{START}\n{table}\n{END}{after}"
