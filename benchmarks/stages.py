"""Where the time of a report goes: the notebooks' shares of it, and in each the cell that took longest.

`python -m benchmarks.stages` reads the numbered notebooks that a finished `make report` has executed (papermill notes
how long each cell took) and adds the row ``report_stages`` to figures/metrics/speed.json. It runs nothing. Only shares
are a result: seconds are those of one machine and whatever else it did.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from benchmarks.command import run_benchmark
from benchmarks.growth import add_row
from sr_utils.errors import UserError
from sr_utils.repository import resolve


@dataclass(frozen=True)
class Stages:
    """What is read and written."""

    run_root: Path = Path("runs/quick")
    output: Path = Path("figures/metrics/speed.json")


def stages(folder: Path) -> list[dict[str, Any]]:
    """Each executed notebook's seconds and share, longest first, with its slowest cell and that cell's share of it.

    Raises
    ------
    UserError: the folder has no notebook that papermill has executed.
    """
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        whole = notebook.metadata.get("papermill", {}).get("duration")
        cells = {cell["id"]: cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in notebook.cells}
        if whole:
            slowest = max(cells, key=cells.__getitem__)
            share = cells[slowest] / whole
            found.append({"stage": path.stem, "seconds": whole, "slowest_cell": slowest, "slowest_cell_share": share})
    if not found:
        raise UserError(f"{folder} has no executed notebook: run make report first, or give another --run-root.")
    total = sum(stage["seconds"] for stage in found)
    found.sort(key=lambda stage: -stage["seconds"])
    return [stage | {"share": stage["seconds"] / total} for stage in found]


def main(options: Stages) -> None:
    """Read, print and write."""
    begun, found = time.monotonic(), stages(resolve(options.run_root) / "notebooks")
    for stage in found:
        print("{stage}: {share:.0%}, of which its cell {slowest_cell} {slowest_cell_share:.0%}".format(**stage))
    row = {"method": "report_stages", "run": options.run_root.name, "stages": found}
    add_row(resolve(options.output), row, begun=begun)


if __name__ == "__main__":
    run_benchmark(main, Stages, __doc__)
