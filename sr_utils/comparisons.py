"""What benchmarks measured on the very pairs of a data root, beside what a run measured itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sr_utils.datasets import DataRoot
from sr_utils.files import checksum, read_json

Row = dict[str, Any]

FLOOR, CEILING = "esrgan_white_noise", "esrgan_oracle"
"""Between these two rows of the ladder lies what knowing the degradation is worth."""
OURS = "esrgan_deflow"


def pairs_provenance(data: DataRoot) -> dict[str, str]:
    """Which pairs a benchmark was measured on."""
    return {"pairs": checksum([path for pair in data.pairs for path in pair])}


def known_rows(path: Path, data: DataRoot) -> list[Row]:
    """The rows that a benchmark wrote to ``path``, if they were measured on these very pairs; else none.

    Each row also says at which ``profile`` it was measured.
    """
    if not path.is_file():
        return []
    written = read_json(path)
    about = written.get("provenance", {})
    if about.get("pairs") != pairs_provenance(data)["pairs"]:
        return []
    return [{**row, "profile": about.get("profile")} for row in written["rows"]]


def known_row(path: Path, method: str, data: DataRoot) -> Row | None:
    """The row of ``method`` among `known_rows`, or None."""
    return next((row for row in known_rows(path, data) if row["method"] == method), None)


def with_ladder(own: Sequence[Row], ladder: Sequence[Row], *, profile: str) -> list[Row]:
    """A run's own rows, then those of the ladder of pair sources.

    The ladder has a row for DeFlow too, of several seeds and the ladder's own budget. It is comparable with the other
    rungs and is named ``esrgan_deflow_ladder``; if the ladder had this run's ``profile``, and so its budget, the run's
    own row gets the ladder's spread over seeds. All rungs are one network, so they take as long as the run's own.
    """
    own = [dict(row) for row in own]
    mine = next((row for row in own if row["method"] == OURS), {})
    rungs = []
    for row in ladder:
        rung = dict(row)
        if "seconds_per_image" in mine:
            rung["seconds_per_image"] = mine["seconds_per_image"]
        if row["method"] == OURS:
            rung["method"] = f"{OURS}_ladder"
            if mine and row.get("profile") == profile:
                mine |= {name: value for name, value in row.items() if name.endswith("_std")}
        rungs.append(rung)
    return [*own, *rungs]


def share_of_gap(ladder: Sequence[Row], measure: str, *, method: str = OURS, floor: str = FLOOR) -> float:
    """How much of the way from white-noise pairs, or another ``floor``, to the oracle's a method has come; 1 is all.

    Raises
    ------
    KeyError: the ladder lacks one of the three rows.
    """
    value = {row["method"]: row[measure] for row in ladder}
    return (value[method] - value[floor]) / (value[CEILING] - value[floor])
