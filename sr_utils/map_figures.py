"""Figures about the domain-invariant map h: the plane of leakage and content, what predicts restoration, views."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sr_utils.ablations import MapView
from sr_utils.figure_style import INK, PALETTE, RULE, WIDTH, draw_image, new_figure, styled

Row = Mapping[str, Any]


def pareto_front(rows: Sequence[Row], *, low: str, high: str) -> list[Row]:
    """The rows that no other beats in both, by increasing ``low``; small is good there, large is good in ``high``."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[low], -row[high])):
        if not front or row[high] > front[-1][high]:
            front.append(row)
    return front


def rank_correlation(
    first: Sequence[float], second: Sequence[float], *, permutations: int = 5000
) -> tuple[float, float]:
    """Spearman's rank correlation, and how often chance alone gives one as far from 0 (permutations, seed 0)."""
    ranks = []
    for values in (first, second):
        ordered = sorted(values)
        # Equal values share the mean of their places.
        places = [statistics.fmean(i for i, other in enumerate(ordered) if other == value) for value in values]
        centred = torch.tensor(places, dtype=torch.float64) - statistics.fmean(places)
        ranks.append(centred / centred.norm().clamp_min(1e-12))
    found = float(ranks[0] @ ranks[1])
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(len(ranks[1]), generator=generator) for _ in range(permutations)])
    chance = (ranks[1][orders] @ ranks[0]).abs()
    return found, float(((chance >= abs(found) - 1e-9).sum() + 1) / (permutations + 1))


def label_offsets(places: np.ndarray, *, reach: float = 13.0) -> np.ndarray:
    """Where labels of marks at ``places`` (N, 2) should be, beside their marks: offsets (N, 2), ``reach`` long each.

    One after the other, each in that of sixteen directions in which the nearest other mark or label is farthest away.
    """
    angles = np.arange(16) * np.pi / 8
    directions = reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    taken, offsets = [*places], []
    for index, place in enumerate(places):
        others = np.array([other for number, other in enumerate(taken) if number != index])
        room = [np.hypot(*(others - place - each).T).min(initial=np.inf) for each in directions]
        offsets.append(directions[int(np.argmax(room))])
        taken.append(place + offsets[-1])
    return np.array(offsets)


@styled
def map_plane(
    rows: Sequence[Row], *, leakage: str = "leakage_auc", content: str = "content_psnr", marked: str = "", title: str
) -> Figure:
    """Every map in the plane of leakage and content, its Pareto front, its spread over seeds, and the floor.

    Rows have ``method`` and the two keys, each with ``_std`` where there are several seeds, and ``leakage_auc_floor``.
    The upper left corner is best; the map ``marked`` has a ring. Colours show ``restoration_lpips`` if all have it.
    """
    figure, axes = new_figure(1, 1, title=title, height=6.0)
    axis = axes[0][0]
    x, y = ([row[key] for row in rows] for key in (leakage, content))
    # A map far below all others is drawn at the lower edge with its number, so that the others stay apart.
    bottom = max(min(y), sorted(y)[min(1, len(y) - 1)] - 1.0)
    names = [row["method"].replace("_", " ") for row in rows]
    names = [f"{name} ({at:.1f} dB)" if at < bottom else name for name, at in zip(names, y, strict=True)]
    y = [max(at, bottom) for at in y]
    front = pareto_front(rows, low=leakage, high=content)
    axis.step([row[leakage] for row in front], [row[content] for row in front], where="post", color=RULE, zorder=1)
    spreads = [[row.get(f"{key}_std", 0.0) for row in rows] for key in (leakage, content)]
    axis.errorbar(x, y, xerr=spreads[0], yerr=spreads[1], fmt="none", ecolor=RULE, elinewidth=1.2, zorder=1)
    if all("restoration_lpips" in row for row in rows):
        quality = [row["restoration_lpips"] for row in rows]
        drawn = axis.scatter(x, y, c=quality, cmap="viridis", s=70, zorder=3, edgecolor=INK, linewidth=0.6)
        figure.colorbar(drawn, ax=axis, label="restoration LPIPS, lower is better")
    else:
        axis.scatter(x, y, color=PALETTE[0], s=70, zorder=3)
    own = [place for place, row in enumerate(rows) if row["method"] == marked]
    axis.scatter([x[i] for i in own], [y[i] for i in own], s=190, facecolor="none", edgecolor=PALETTE[1], linewidth=2)
    if leakage == "leakage_auc":
        floor = statistics.fmean(row["leakage_auc_floor"] for row in rows)
        axis.axvline(floor, color=PALETTE[1], linestyle="--", label="floor: labels by coin")
        figure.legend(loc="outside lower center")
    axis.margins(x=0.1, y=0.12)
    # Numbers at the points and their names beside the plane: a dozen names would lie on one another.
    key = "\n".join(f"{number}  {name}" for number, name in enumerate(names, start=1))
    figure.text(0.735, 0.5, key, ha="left", va="center", fontsize=11, linespacing=1.5)
    figure.get_layout_engine().set(rect=(0, 0, 0.71, 1))
    figure.draw_without_rendering()
    places = axis.transData.transform(list(zip(x, y, strict=True))) * 72 / figure.dpi
    centred = {"ha": "center", "va": "center", "fontsize": 11}
    for number, (*at, offset) in enumerate(zip(x, y, label_offsets(places), strict=True), start=1):
        axis.annotate(str(number), at, xytext=tuple(offset), textcoords="offset points", **centred)
    axis.set(xlabel="leakage: area under the curve, 0.5 hides all", ylabel="content kept: PSNR of a decoder, dB")
    return figure


@styled
def predictors(rows: Sequence[Row], *, keys: Mapping[str, str], target: str, target_label: str, title: str) -> Figure:
    """One panel a predictor: each map's ``target`` against it, with the rank correlation above."""
    figure, axes = new_figure(1, len(keys), title=title, height=4.4)
    values = [row[target] for row in rows]
    for axis, (key, label) in zip(axes[0], keys.items(), strict=True):
        found = [row[key] for row in rows]
        correlation, chance = rank_correlation(found, values)
        error = [row.get(f"{target}_std", 0.0) for row in rows]
        axis.errorbar(found, values, yerr=error, fmt="o", ecolor=RULE, color=PALETTE[0])
        axis.set(xlabel=label, title=f"rank correlation {correlation:+.2f}\n(chance alone: p = {chance:.2f})")
    axes[0][0].set_ylabel(target_label)
    return figure


@styled
def gain_bars(rows: Sequence[Row], *, title: str, xlabel: str) -> Figure:
    """``restoration_lpips_gain`` of every map over the published one, with the spread over seeds; 0 is no gain."""
    found = sorted((row for row in rows if "restoration_lpips_gain" in row), key=lambda r: r["restoration_lpips_gain"])
    figure, axes = new_figure(1, 1, title=title, height=1.6 + 0.36 * len(found))
    gains = [row["restoration_lpips_gain"] for row in found]
    error = [row.get("restoration_lpips_gain_std", 0.0) for row in found]
    names = [row["method"].replace("_", " ") for row in found]
    colours = [PALETTE[2] if gain > spread else PALETTE[0] for gain, spread in zip(gains, error, strict=True)]
    axes[0][0].barh(names, gains, xerr=error, color=colours, ecolor=INK, capsize=3)
    axes[0][0].axvline(0, color=INK, linewidth=1.2)
    axes[0][0].set_xlabel(xlabel)
    return figure


@styled
def map_view(view: MapView, rows: Sequence[Row] = ()) -> Figure:
    """x, y, h(x), h(y), their difference amplified four times, its histogram, and where this h stands in the plane."""
    figure = Figure(figsize=(WIDTH, 5.4 if rows else 6.4))
    axes = figure.subplots(2, 4 if rows else 3)
    figure.subplots_adjust(left=0.05, right=0.98, top=0.87, bottom=0.11, wspace=0.16, hspace=0.22)
    name = view.domain_map.replace("_", " ")
    figure.suptitle(f"{name}, strength {view.strength:g}: {view.effect()}")
    for axis, (label, picture) in zip((*axes[0][:3], *axes[1][:2]), view.pictures().items(), strict=True):
        draw_image(axis, picture, label)
    for label, (edges, shares) in view.histograms().items():
        axes[1][2].stairs(shares, edges, label=label, linewidth=1.8)
    # Room for the legend above the curves.
    axes[1][2].set_ylim(top=1.4 * axes[1][2].get_ylim()[1])
    axes[1][2].legend(fontsize=9, loc="upper right")
    axes[1][2].set_title("share of values")
    axes[1][2].set_xlabel("difference, where white is 1", fontsize=9)
    axes[1][2].tick_params(labelsize=9)
    if rows:
        axes[0][3].axis("off")
        plane = axes[1][3]
        plane.scatter([row["leakage_auc"] for row in rows], [row["content_psnr"] for row in rows], s=18, color=RULE)
        here = [row for row in rows if row["method"] == view.domain_map]
        for row in here:
            plane.scatter(row["leakage_auc"], row["content_psnr"], s=70, color=PALETTE[1])
            lines = [f"leakage {row['leakage_auc']:.3f}", f"content {row['content_psnr']:.2f} dB"]
            lines.append(f"restored LPIPS {row['restoration_lpips']:.4f}" if "restoration_lpips" in row else "")
            axes[0][3].text(0.0, 0.5, "At strength 1:\n" + "\n".join(lines), fontsize=11, va="center")
        plane.set_title("content, dB")
        plane.set_xlabel("leakage, AUC", fontsize=9)
        plane.tick_params(labelsize=9)
    return figure


@styled
def walk_view(pictures: Mapping[str, Tensor]) -> Figure:
    """Images of a walk side by side, as `widgets.sampling_explorer` shows them."""
    figure = Figure(figsize=(WIDTH, WIDTH / len(pictures) + 0.5))
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.01, wspace=0.04)
    for axis, (label, picture) in zip(axes, pictures.items(), strict=True):
        draw_image(axis, picture, label)
    return figure
