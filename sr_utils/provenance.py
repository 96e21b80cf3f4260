"""What a file says that it is of, and whether that is what is wanted of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr_utils.errors import UserError
from sr_utils.files import read_json


def provenance_beside(weights: Path) -> dict[str, Any] | None:
    """What `checkpoints.save_model` wrote beside ``weights``; None if it is not there."""
    note = weights.with_suffix(".json")
    return read_json(note) if os.path.isfile(note) else None


def known_weights(path: Path, about: Mapping[str, Any]) -> bool:
    """Whether there are weights at ``path``, which then have to be of ``about``.

    Raises
    ------
    UserError: they are of something else.
    """
    if not os.path.isfile(path):
        return False
    check_about(path, provenance_beside(path), about)
    return True


def check_about(path: Path, found: Mapping[str, Any] | None, about: Mapping[str, Any]) -> None:
    """Hold what the file at ``path`` is of, ``found``, against what it has to be of; further entries do not count.

    Raises
    ------
    UserError: an entry of ``about`` is missing or another in ``found``, or ``found`` is no mapping.
    """
    if not isinstance(found, Mapping):
        wrong = "does not say which data and budget it is of"
    else:
        # As a file has them: there, tuples are lists.
        expected = json.loads(json.dumps(about))
        wrong = " and ".join(name for name, value in expected.items() if found.get(name) != value)
        wrong = wrong and f"is of other data or another budget (not the same: {wrong})"
    if wrong:
        raise UserError(f"{path} {wrong}: remove it and what is called alike, or give another place.")
