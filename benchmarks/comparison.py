"""What the benchmarks share: jobs side by side, a row a method with means over seeds, the file, and what is finished.

Whatever is finished is kept in a folder of states and not done again. A state says what it is of, the data and those
numbers of the budget that its scores depend on (`keep`), and is taken for nothing else (`kept`). A benchmark that keeps
pictures begins its state before the first one; weights say the same in the provenance beside them. A training that was
interrupted looks after itself: its state knows images and settings (`training_state`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, open_data_root
from sr_utils.evaluate import summarise, write_metrics
from sr_utils.files import checksum, read_json, write_json
from sr_utils.provenance import check_about
from sr_utils.repository import resolve


class Options(Protocol):
    """What the options of both benchmarks have."""

    seeds: Sequence[int]
    processes: int
    data_root: Path
    output: Path


def data_provenance(data: DataRoot) -> dict[str, str]:
    """Which pairs a benchmark was measured on, and which photographs it learned from."""
    return pairs_provenance(data) | {"photographs": checksum([*data.train, *data.validation])}


def keep(path: Path, about: dict[str, Any], scores: Any) -> None:
    """Write finished ``scores`` to ``path``, with what they are of: texts and numbers by name."""
    write_json(path, {"about": about, "scores": scores})


def kept(path: Path, about: dict[str, Any]) -> Any:
    """The scores that `keep` wrote to ``path``; None if there is no such file.

    Raises
    ------
    UserError: the file is of something else than ``about``, or does not say of what.
    """
    if not path.is_file():
        return None
    content = read_json(path)
    found = content if isinstance(content, dict) else {}
    check_about(path, found.get("about"), about)
    return found["scores"]


def summarise_with_unseen(images: Sequence[dict[str, Any]], learned_from: int) -> dict[str, float]:
    """`summarise` of all images, and the means ``_unseen`` of those behind the first ``learned_from``, if any are."""
    scores, unseen = summarise(images), images[learned_from:]
    if unseen:
        means = summarise(unseen)
        scores |= {f"{name}_unseen": means[name] for name in ("psnr", "ssim", "lpips")}
    return scores


def compare(
    train_and_score: Callable[[str, int, Any], dict[str, float]],
    methods: Sequence[str],
    options: Options,
    *,
    profile: str,
    about: dict[str, Any],
    spread_of: Collection[str] | None = None,
    order: Sequence[str] = (),
) -> None:
    """Train every method with every seed, print a row for each, and write them to ``options.output``.

    Rows that are there of other methods, on the same pairs and with the same ``profile`` and ``about``, stay, with a
    stamp of their own (``measured``).

    Parameters
    ----------
    train_and_score: called as (method, seed, options) in processes of their own, seed by seed.
    about: put into every row, beside the number of seeds.
    spread_of: which scores get their deviation over seeds, ``_std``, and the scores of every seed, ``_seeds``; all of
        them when None.
    order: of the rows in the file, by method; methods that are not in it come last.
    """
    begun = time.monotonic()
    jobs = [(method, seed) for seed in options.seeds for method in methods]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(train_and_score, method, seed, options) for method, seed in jobs]
        scores = {job: future.result() for job, future in zip(jobs, running, strict=True)}
    rows = []
    for method in methods:
        runs = [scores[method, seed] for seed in options.seeds]
        row = {"method": method, **about, "seeds": len(runs)}
        for name in runs[0]:
            row[name] = statistics.fmean(run[name] for run in runs)
            if len(runs) > 1 and (spread_of is None or name in spread_of):
                row[f"{name}_std"] = statistics.stdev(run[name] for run in runs)
                row[f"{name}_seeds"] = [run[name] for run in runs]
        rows.append(row)
        numbers = (f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float | int))
        print(", ".join((method, *numbers)))
    provenance = {"profile": profile, "seed": options.seeds[0], **describe_machine()}
    provenance["seconds"] = round(time.monotonic() - begun, 1)
    provenance |= pairs_provenance(open_data_root(resolve(options.data_root)))
    path = resolve(options.output)
    rows = [*_others(path, methods, provenance, about), *rows]
    places = {method: place for place, method in enumerate(order)}
    rows.sort(key=lambda row: places.get(row["method"], len(places)))
    write_metrics(path, provenance, rows)


def _others(path: Path, methods: Sequence[str], provenance: dict[str, Any], about: dict[str, Any]) -> list[dict]:
    """The rows at ``path`` of other methods that may stay beside those of ``methods``; see `compare`."""
    known = read_json(path) if path.is_file() else {"provenance": {}, "rows": []}
    stamp = known["provenance"]
    if any(stamp.get(name) != provenance[name] for name in ("pairs", "profile")):
        return []
    measured = {name: stamp[name] for name in ("commit", "device", "seconds") if name in stamp}
    others = [row for row in known["rows"] if row["method"] not in methods]
    return [{"measured": measured, **row} for row in others if all(row.get(name) == about[name] for name in about)]
