"""Cut an image into overlapping tiles, so that a network sees a large photograph a part at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

TILE, OVERLAP = 256, 32
"""Sides of what is restored at once, in pixels of low resolution."""


def tiles(length: int, tile: int, overlap: int, *, multiple: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """Cut a side into tiles: (start, stop) to read with context and (keep_from, keep_to) to write without.

    As few as fit ``tile``, and about equally long, which needs the least memory. The first and the last have context on
    one side only. All borders but ``length`` are multiples of ``multiple``; ``tile`` and ``overlap`` must be too.
    """
    inner = length - 2 * overlap
    count = max(1, math.ceil(inner / (tile - 2 * overlap)))
    step = math.ceil(inner / count / multiple) * multiple
    borders = [0, *(overlap + number * step for number in range(1, count)), length]
    for keep_from, keep_to in itertools.pairwise(borders):
        yield max(0, keep_from - overlap), min(length, keep_to + overlap), keep_from, keep_to
