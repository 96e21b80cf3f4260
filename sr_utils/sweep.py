"""A grid of domain-invariant maps, strengths and seeds: its settings, and one table and one figure of all its runs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.errors import UserError
from sr_utils.evaluate import write_metrics
from sr_utils.figure_style import LINES, STYLE, new_figure, styled
from sr_utils.files import atomic_path, read_json
from sr_utils.graph import PROFILE_NAMES
from sr_utils.parameters import refuse_unknown
from sr_utils.repository import expand_home

MEASURES = {
    "leakage_auc": "leakage, AUC",
    "content_psnr": "content, dB",
    "niqe": "NIQE of task 2",
    "agreement_psnr": "agreement, dB",
}
"""What the figure shows, with the names of its panels."""


@dataclass(frozen=True)
class Grid:
    """What is run: every combination of ``maps``, ``strengths`` and ``seeds``."""

    maps: tuple[str, ...] = ("bicubic_noise", "median_filter", "denoising_autoencoder")
    strengths: tuple[str, ...] = ("0.5", "1", "2")
    """As text, since folders are named after them."""
    seeds: tuple[str, ...] = ("0", "1")
    profile: str = "quick"
    data_root: str = "data"
    root: str = "runs/sweep"

    def points(self) -> list[str]:
        """Names of all runs, as ``median_filter_0.5_1``."""
        return ["_".join(each) for each in itertools.product(self.maps, self.strengths, self.seeds)]


def read_grid(settings: Mapping[str, Any]) -> Grid:
    """A grid from texts such as ``maps=mean_filter,median_filter``; commas separate.

    Raises
    ------
    UserError: a setting or a map is not known, or a strength or seed is no number that fits.
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        refuse_unknown(name, Grid.__dataclass_fields__, what="setting of the sweep")
        parts = tuple(part.strip() for part in str(value).split(",") if part.strip())
        values[name] = parts if name in ("maps", "strengths", "seeds") else str(value)
        if not values[name]:
            raise UserError(f"The setting {name} of the sweep is empty: give at least one value.")
    for name in {"data_root", "root"} & values.keys():
        values[name] = str(expand_home(values[name], name=name))
    grid = Grid(**values)
    for name in grid.maps:
        refuse_unknown(name, DOMAIN_MAPS, what="map")
    refuse_unknown(grid.profile, PROFILE_NAMES, what="profile")
    for strength in grid.strengths:
        if not _is_number(strength):
            raise UserError(f"The strength {strength!r} of the sweep is no number from 0 on.")
    for seed in grid.seeds:
        if not seed.isdecimal():
            raise UserError(f"The seed {seed!r} of the sweep is no whole number from 0 on.")
    return grid


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False


def collect(grid: Grid) -> list[dict[str, Any]]:
    """A row a run: its map, strength and seed, and what its notebook measured."""
    rows = []
    for name, strength, seed in itertools.product(grid.maps, grid.strengths, grid.seeds):
        folder = Path(grid.root) / f"{name}_{strength}_{seed}" / "metrics"
        task2 = {row["method"]: row for row in read_json(folder / "task2.json")["rows"]}
        measures = {row["method"]: row for row in read_json(folder / "map.json")["rows"]}
        row = {**measures[name], **task2["esrgan_deflow"]}
        rows.append(row | {"method": name, "strength": float(strength), "seed": int(seed)})
    return rows


@styled
def sweep_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every measure over the strength, a line a map, with the spread over seeds."""
    figure, axes = new_figure(1, len(MEASURES), title="Maps and strengths", height=4.6)
    maps = list(dict.fromkeys(row["method"] for row in rows))
    for axis, (key, label) in zip(axes[0], MEASURES.items(), strict=True):
        for index, name in enumerate(maps):
            strengths = sorted({row["strength"] for row in rows if row["method"] == name})
            groups = [[r[key] for r in rows if (r["method"], r["strength"]) == (name, each)] for each in strengths]
            spread = [statistics.stdev(group) if len(group) > 1 else 0.0 for group in groups]
            means = [statistics.fmean(group) for group in groups]
            style = {"linestyle": LINES[index % len(LINES)], "marker": "o", "capsize": 3}
            axis.errorbar(strengths, means, yerr=spread, label=name.replace("_", " "), **style)
        axis.set(title=label, xlabel="strength")
        axis.ticklabel_format(axis="y", useOffset=False)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(maps)))
    return figure


def write_sweep(grid: Grid) -> None:
    """Write ``sweep.json`` and ``sweep.png`` into the sweep's folder."""
    rows, root = collect(grid), Path(grid.root)
    provenance = {"profile": grid.profile, "seed": int(grid.seeds[0])}
    first = read_json(root / grid.points()[0] / "metrics" / "task2.json")["provenance"]
    write_metrics(root / "sweep.json", {**first, **provenance}, rows)
    with atomic_path(root / "sweep.png") as temporary, matplotlib.rc_context(STYLE):
        sweep_figure(rows).savefig(temporary, format="png")
