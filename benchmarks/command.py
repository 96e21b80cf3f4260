"""How a benchmark is started from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tyro

from sr_utils.errors import told_in_one_sentence

Options = TypeVar("Options")


def run_benchmark(main: Callable[[Options], object], options: type[Options], description: str | None) -> None:
    """Run ``main`` with the options that the command line gives; a mistake of the user's ends it with one sentence."""
    with told_in_one_sentence():
        main(tyro.cli(options, description=description))
