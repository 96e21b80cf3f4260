"""Small drawings as SVG text, for widgets: ready in a millisecond, where a full figure takes a quarter second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from torch import Tensor

from sr_utils.figure_style import CARD, INK, PALETTE, RULE

WIDTH, HEIGHT, MARGIN = 300, 190, 26


def _frame(title: str, parts: Sequence[str], ends: tuple[str, str]) -> str:
    """A card with a title, a base line and what its two ends stand for."""
    base = HEIGHT - MARGIN
    text = f'font-family="sans-serif" fill="{INK}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}"><rect width="{WIDTH}" height="{HEIGHT}" fill="{CARD}"/>'
        f'<text x="{WIDTH / 2}" y="15" text-anchor="middle" font-size="12" {text}>{escape(title)}</text>'
        f'<line x1="{MARGIN}" y1="{base}" x2="{WIDTH - 8}" y2="{base}" stroke="{INK}"/>{"".join(parts)}'
        f'<text x="{MARGIN}" y="{HEIGHT - 8}" font-size="11" {text}>{escape(ends[0])}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 8}" text-anchor="end" font-size="11" {text}>{escape(ends[1])}</text></svg>'
    )


def stairs_svg(curves: Mapping[str, tuple[Tensor, Tensor]], *, title: str) -> str:
    """Outlines of histograms, each (edges, shares), on one scale."""
    highest = max(float(shares.max()) for _, shares in curves.values()) or 1.0
    base, parts = HEIGHT - MARGIN, []
    for index, (label, (edges, shares)) in enumerate(curves.items()):
        low, high = float(edges[0]), float(edges[-1])
        places = [MARGIN + (WIDTH - 8 - MARGIN) * (float(edge) - low) / (high - low) for edge in edges]
        points = []
        for left, right, share in zip(places[:-1], places[1:], shares.tolist(), strict=True):
            height = base - (base - 40) * share / highest
            points += [f"{left:.1f},{height:.1f}", f"{right:.1f},{height:.1f}"]
        colour = PALETTE[index]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{WIDTH - 10}" y="{32 + 14 * index}" text-anchor="end" font-size="11" '
            f'font-family="sans-serif" fill="{colour}">{escape(label)}</text>'
        )
    return _frame(title, parts, (f"{low:g}", f"{high:g}"))


def plane_svg(points: Mapping[str, tuple[float, float]], *, marked: str, title: str, xlabel: str) -> str:
    """Points of a plane, one of them marked; the vertical axis is only ordered, from low to high."""
    xs, ys = zip(*points.values(), strict=True)
    spans = [(min(values), (max(values) - min(values)) or 1.0) for values in (xs, ys)]
    parts = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[0] == marked):
        across = MARGIN + 8 + (WIDTH - MARGIN - 30) * (x - spans[0][0]) / spans[0][1]
        down = HEIGHT - MARGIN - 10 - (HEIGHT - MARGIN - 44) * (y - spans[1][0]) / spans[1][1]
        radius, colour = (7, PALETTE[1]) if name == marked else (4, RULE)
        parts.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{radius}" fill="{colour}" stroke="{INK}" '
            f'stroke-width="0.7"><title>{escape(name)}</title></circle>'
        )
    return _frame(title, parts, (f"{min(xs):.3g}", f"{xlabel} {max(xs):.3g}"))
