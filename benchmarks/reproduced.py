"""Are the committed tables of task 1 what the commands give? Row by row, beside the spread over seeds.

`python -m benchmarks.reproduced` compares the tables in ``fresh``, where `make full` leaves them, with the committed
ones of the same names and writes figures/metrics/reproduced.json. It runs nothing itself, and takes what is there: a
table or a row that was not made again has no row here.

A row is reproduced if PSNR, SSIM and LPIPS are each within `WITHIN` deviations over seeds of what is committed. A row
of a single training has no deviation of its own: that of the ladder's DeFlow row, the same network with the same kind
of pairs, stands for it. A row without training must agree in every digit that a table shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import run_benchmark
from sr_utils.course import describe_machine
from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.overview import rows_of
from sr_utils.repository import resolve

TABLES = ("task1.json", "ladder.json", "peers.json", "distillation.json")
DIGITS = {"psnr": 0.005, "ssim": 0.00005, "lpips": 0.00005}
"""Half of the last digit that a table shows of each score."""
WITHIN = 2.0
"""Deviations."""
SINGLE = {
    "task1.json": ("esrgan_deflow",),
    "distillation.json": tuple(f"esrgan_distilled{kind}" for kind in ("", "_fine", "_grain", "_fine_grain")),
}
"""Rows of one training."""
STANDS_FOR_SINGLE = "esrgan_deflow"
"""Whose deviations in the ladder stand for those of a single training."""


@dataclass(frozen=True)
class Reproduced:
    """What is compared."""

    fresh: Sequence[Path] = (Path("runs/full/metrics"), Path("runs/full/again"))
    """Folders with tables: those of the notebooks, and those of the other benchmarks."""
    committed: Path = Path("figures/metrics")
    output: Path = Path("figures/metrics/reproduced.json")


def rows_made_here(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a table by name, without those that another table's command made."""
    return {method: row for method, row in rows_of(read_json(path)).items() if "profile" not in row}


def compared(path: Path, committed: Path, stand_in: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for every row that both forms of a table have: differences, deviations, and whether it is ``within``.

    ``stand_in`` is the row whose deviations stand for those of a single training.
    """
    known = rows_made_here(committed / path.name)
    for method, row in rows_made_here(path).items():
        if method not in known:
            continue
        spread = stand_in if method in SINGLE.get(path.name, ()) else known[method]
        result, within = {"method": method, "table": path.stem, "seeds": row.get("seeds", 1)}, True
        for score, digit in DIGITS.items():
            difference, deviation = abs(row[score] - known[method][score]), spread.get(f"{score}_std", 0.0)
            within &= difference <= max(digit, WITHIN * deviation)
            result |= {f"{score}_difference": difference, f"{score}_std": deviation}
        yield result | {"within": within}


def main(options: Reproduced) -> None:
    """Compare, print and write.

    Raises
    ------
    UserError: nothing has been made anew.
    """
    begun, committed = time.monotonic(), resolve(options.committed)
    found = [path for folder in options.fresh for name in TABLES if (path := resolve(folder) / name).is_file()]
    if not found:
        folders = " and ".join(map(str, options.fresh))
        raise UserError(f"None of {', '.join(TABLES)} is in {folders}: run make full, or give another --fresh.")
    stand_in = rows_made_here(committed / "ladder.json")[STANDS_FOR_SINGLE]
    rows = [row for path in found for row in compared(path, committed, stand_in)]
    for row in rows:
        scores = ", ".join(f"{score} {row[f'{score}_difference']:.4f} ({row[f'{score}_std']:.4f})" for score in DIGITS)
        print(f"{row['table']} {row['method']}: {'within' if row['within'] else 'OUTSIDE'}; {scores}")
    provenance = {"profile": "full", "seed": 0, **describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
    write_metrics(resolve(options.output), provenance, rows)


if __name__ == "__main__":
    run_benchmark(main, Reproduced, __doc__)
