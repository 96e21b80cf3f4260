"""Cut an image into overlapping tiles, so that a network sees a large photograph a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

TILE, OVERLAP = 256, 32
"""Sides of what is restored at once, in pixels of low resolution."""


def tiles(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a side into tiles: (start, stop) to read with context and (keep_from, keep_to) to write without.

    No tile is longer than ``tile``, and no more are made than needed: the first and the last have context on one side
    only, and keep the more for it.
    """
    if length <= tile:
        yield 0, length, 0, length
        return
    keep_from = 0
    while keep_from < length:
        start = max(0, keep_from - overlap)
        keep_to = length if length - start <= tile else start + tile - overlap
        yield start, min(length, keep_to + overlap), keep_from, keep_to
        keep_from = keep_to
