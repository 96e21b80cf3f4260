"""The course seen from above: its notebooks, its symbols, and the latest numbers, all read from files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

from sr_utils.files import read_json
from sr_utils.runner import RUNNING_TIME

Row = dict[str, Any]

_MEASURED = re.compile(r"\*Running time: (?P<time>[^,*]*), profile (?P<profile>\w+)")
_NEEDS = re.compile(r"^\*\*What you need before it\*\*: (?P<needs>.*?)(?:[.;]|$)", re.MULTILINE)
_ROW = re.compile(r"^\|(?P<symbol>.+?)\|(?P<meaning>.+)\|$")


def latest(name: str, run_root: Path, published: Path) -> dict[str, Any] | None:
    """The metrics file ``name``: the run's own if it has one, else the published one, else None."""
    for folder in (run_root / "metrics", published):
        if (folder / name).is_file():
            return read_json(folder / name)
    return None


def rows_of(content: dict[str, Any] | None) -> dict[str, Row]:
    """The rows of a metrics file by method, in its order; none where there is no file.

    A file with several parts, which its rows name by ``data``, is read for task 1's pairs only.
    """
    rows = content["rows"] if content else []
    return {row["method"]: row for row in rows if row.get("data", "pairs") == "pairs"}


def named(row: Row, file: str) -> Row:
    """A row of a metrics file under its network's own name.

    The network of the ladder, and of what is compared with it, is not that of a whole run; nor is the one of `quick`.
    """
    others = {"ladder": "esrgan_deflow_ladder", "hybrid": "esrgan_deflow_ladder", "quick": "esrgan_deflow, quick"}
    return row | {"method": others[file]} if row["method"] == "esrgan_deflow" and file in others else row


def course_map(folder: Path) -> list[Row]:
    """One row a notebook of ``folder``: its number, title, what it needs, and how long its published run took."""
    rows = []
    for path, first in _first_cells(folder):
        title = first.splitlines()[0].lstrip("# ")
        measured, needs = _MEASURED.search(first), _NEEDS.search(first)
        rows.append(
            {
                "notebook": f"[{path.stem[:2]}]({path.name})",
                "title": re.sub(r"^\d+\. ", "", title),
                "needs": needs["needs"] if needs else "",
                "time": measured["time"] if measured else "not measured",
                "profile": measured["profile"] if measured else "",
            }
        )
    return rows


def symbols(folder: Path) -> list[Row]:
    """Every symbol that a notebook's table explains, with its meaning and the notebooks that give it this meaning.

    Sorted by notebook. A symbol with two meanings has two rows.
    """
    meanings: dict[tuple[str, str], list[str]] = {}
    for path, first in _first_cells(folder):
        for line in first.splitlines():
            found = _ROW.match(line)
            if found and "$" in found["symbol"]:
                key = (found["symbol"].strip(), found["meaning"].strip())
                meanings.setdefault(key, []).append(path.stem[:2])
    return [
        {"symbol": symbol, "meaning": meaning, "notebooks": ", ".join(numbers)}
        for (symbol, meaning), numbers in meanings.items()
    ]


def measured_minutes(folder: Path) -> float:
    """Minutes that all notebooks of ``folder`` with a measured time took together."""
    seconds = 0
    for _, first in _first_cells(folder):
        measured = RUNNING_TIME.search(first)
        for number, unit in re.findall(r"(\d+) (min|s)\b", measured.group() if measured else ""):
            seconds += int(number) * (60 if unit == "min" else 1)
    return seconds / 60


def section_of(notebook: Path, cell: str) -> str:
    """The heading under which the cell with this id stands; empty if it has none or is not there."""
    heading, cells = "", nbformat.read(notebook, as_version=4).cells if notebook.is_file() else []
    for each in cells:
        if each.cell_type == "markdown":
            heading = [heading, *re.findall(r"^#+ (.*)", each.source, re.MULTILINE)][-1]
        if each.get("id") == cell:
            return heading
    return ""


def _first_cells(folder: Path) -> list[tuple[Path, str]]:
    """Each notebook's path and the source of its first cell, in reading order."""
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found.append((path, cells[0].source if cells else ""))
    return found
