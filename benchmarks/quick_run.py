"""How much of what a full run wins over bicubic does a quick one win?

`python -m benchmarks.quick_run` reads task 1's table of a finished run of the profile quick and the committed one,
which is of the profile full, and writes figures/metrics/quick.json. It runs nothing itself. Without a quick run at hand
it takes the scores of the last one from that file, so that after a new full run the shares are of it. Rows are the
quick run's; that of the network taught by DeFlow also has ``share_psnr``, ``share_ssim`` and ``share_lpips``: its
improvement over bicubic, as a share of the same network's in the full run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import run_benchmark
from benchmarks.reproduced import DIGITS
from sr_utils.comparisons import OURS, Row
from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.overview import rows_of
from sr_utils.repository import resolve

METHODS = ("bicubic", "esrgan_base", OURS)
"""What every run measures itself."""


@dataclass(frozen=True)
class QuickRun:
    """What is compared."""

    run_root: Path = Path("runs/quick")
    committed: Path = Path("figures/metrics/task1.json")
    output: Path = Path("figures/metrics/quick.json")


def table_of(path: Path, profile: str) -> tuple[dict[str, Any], dict[str, Row]]:
    """The provenance of task 1's table at ``path``, and its rows by method.

    Raises
    ------
    UserError: the table is of another profile than ``profile``, or lacks one of `METHODS`.
    """
    content = read_json(path)
    about, rows = content["provenance"], rows_of(content)
    mend = f"run make report PROFILE={profile}, or give another place"
    if about["profile"] != profile:
        raise UserError(f"{path} is of the profile {about['profile']} and not of {profile}: {mend}.")
    for method in METHODS:
        if method not in rows:
            raise UserError(f"{path} has no row {method}: {mend}.")
    return about, rows


def of_the_same_pairs(one: Row, other: Row) -> bool:
    """Whether two rows of bicubic, which learns nothing, agree in their count and in every digit that a table shows."""
    return one["count"] == other["count"] and all(
        abs(one[score] - other[score]) <= digit for score, digit in DIGITS.items()
    )


def shares(quick: Mapping[str, Row], full: Mapping[str, Row]) -> dict[str, float]:
    """The quick run's improvement over bicubic as a share of the full run's, of each score; 1 is all of it."""
    start = quick["bicubic"]
    return {
        f"share_{score}": (quick[OURS][score] - start[score]) / (full[OURS][score] - start[score]) for score in DIGITS
    }


def main(options: QuickRun) -> None:
    """Compare, print and write.

    Raises
    ------
    UserError: one of the two runs is missing, of another profile or of other pairs.
    """
    path, committed = resolve(options.run_root) / "metrics" / "task1.json", resolve(options.committed)
    if not path.is_file() and resolve(options.output).is_file():
        path = resolve(options.output)
    (about, quick), (about_full, full) = table_of(path, "quick"), table_of(committed, "full")
    if not of_the_same_pairs(quick["bicubic"], full["bicubic"]):
        raise UserError(
            f"{path} and {committed} are of different pairs, since bicubic has other scores: "
            "run make report with the data_root of the second, or give another --run-root or --committed."
        )
    rows = {method: {"method": method, **{score: quick[method][score] for score in DIGITS}} for method in METHODS}
    rows["bicubic"]["count"] = quick["bicubic"]["count"]
    rows[OURS] |= shares(quick, full)
    for row in rows.values():
        print(", ".join(f"{name} {value:.4g}" if name != "method" else value for name, value in row.items()))
    # The numbers are the run's, and so is where they come from.
    write_metrics(resolve(options.output), about | {"full_commit": about_full["commit"]}, list(rows.values()))


if __name__ == "__main__":
    run_benchmark(main, QuickRun, __doc__)
