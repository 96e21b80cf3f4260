"""Progress of long work: a bar in JupyterLab or a terminal, one throttled line in a headless log."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm
from tqdm.std import tqdm as text_tqdm

LOG_VARIABLE = "SR_UTILS_PROGRESS_LOG"
"""Environment variable naming the file that headless runs append their progress lines to."""

SECONDS_BETWEEN_LINES = 15.0

Item = TypeVar("Item")


def progress(items: Iterable[Item], *, label: str, total: int | None = None, initial: int = 0) -> Iterator[Item]:
    """Yield ``items`` while showing how many are done and how long the rest will take.

    Where the variable ``SR_UTILS_PROGRESS_LOG`` names a file, one line is appended to it at most every 15
    seconds and nothing is drawn, so an executed notebook keeps no half-finished bar.
    """
    path = os.environ.get(LOG_VARIABLE)
    if not path:
        yield from tqdm(items, desc=label, total=total, initial=initial, leave=False)
        return
    with open(path, "a", encoding="utf-8") as log:
        # The automatic choice would draw a widget in a kernel, whatever file it is given.
        yield from text_tqdm(
            items,
            desc=label,
            total=total,
            initial=initial,
            file=log,
            mininterval=SECONDS_BETWEEN_LINES,
            bar_format="{desc}: {n_fmt}/{total_fmt}, {percentage:.0f}%, {remaining} left\n",
        )
