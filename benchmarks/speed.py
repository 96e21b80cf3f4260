"""How fast is the published form beside its plain twin, and how much less memory does it take?

`python -m benchmarks.speed` writes figures/metrics/speed.json: ratios of medians of one process, both forms by turns,
and the peaks of memory of processes that do nothing else (`peak_memory`). Each kind of work has a process of its own,
because what a training step leaves of the heap changes what memory costs a translation. Nothing else should run on
the machine meanwhile.

Reference: Wolf et al., "DeFlow", CVPR 2021; the sizes are those of the released AIM-RWSR model, batch 2.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import run_benchmark
from benchmarks.growth import add_row
from benchmarks.peak_memory import PeakMemory, peak_megabytes
from benchmarks.published_work import FORMS, WORK, PublishedSizes, models
from sr_utils.course import describe_machine
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.repository import resolve


@dataclass(frozen=True)
class Speed:
    """What is measured, and how often."""

    sizes: PublishedSizes = field(default_factory=PublishedSizes)
    repeats: int = 5
    """Timed runs of each form; the median counts."""
    memory_repeats: int = 3
    """Runs whose peak of memory counts."""
    machine: str = ""
    """A name for a machine that is not the first one: its rows stand beside those that are there, named after it."""
    output: Path = Path("figures/metrics/speed.json")


def seconds_by_turns(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run of each piece of work, after one that is not counted; by turns, so drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in range(repeats + 1):
        for name, function in work.items():
            begun = time.perf_counter()
            function()
            if run:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def multiplications(function: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions and matrix products in one run; two operations each."""
    # Of itself the counter takes products that are added in place to be free.
    in_place = dict.fromkeys((torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), _operations_of_products)
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function()
    return counter.get_total_flops() // 2


def _operations_of_products(total: torch.Size, one: torch.Size, other: torch.Size, **unused: Any) -> int:
    """Operations of matrix products, from the shapes of what they are added to and of the factors."""
    return 2 * math.prod(one) * other[-1]


def peak_multiplications_per_second(*, side: int = 2048, repeats: int = 10) -> float:
    """The machine's measured peak: multiply-adds a second of the fastest product of two square matrices."""
    one, other = torch.rand(2, side, side)
    out = torch.empty(side, side)
    seconds = seconds_by_turns({"product": lambda: torch.mm(one, other, out=out)}, repeats)["product"]
    return side**3 / min(seconds)


def compare(work: str, speed: Speed, peak: float) -> dict[str, Any]:
    """The row of one kind of work."""
    functions = {name: WORK[work](model, speed.sizes) for name, model in models(speed.sizes).items()}
    seconds = {name: statistics.median(runs) for name, runs in seconds_by_turns(functions, speed.repeats).items()}
    counts = {name: multiplications(function) for name, function in functions.items()}
    del functions
    memory = {form: peak_megabytes(PeakMemory(form, work, speed.memory_repeats, speed.sizes)) for form in FORMS}
    row = {"method": work, "speedup": seconds["plain"] / seconds["ours"]}
    row["peak_memory_ratio"] = memory["ours"]["peak"] / memory["plain"]["peak"]
    row["multiplications_ratio"] = counts["ours"] / counts["plain"]
    for form in FORMS:
        row[f"{form}_seconds"] = seconds[form]
        row[f"{form}_peak_megabytes"] = memory[form]["peak"]
        row[f"{form}_start_megabytes"] = memory[form]["before"]
        row[f"{form}_share_of_peak"] = counts[form] / seconds[form] / peak
    return row


def measured_rows(speed: Speed, peak: float) -> list[dict[str, Any]]:
    """The row of every kind of work, each measured in a process of its own, and printed."""
    rows = []
    for work in WORK:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            row = pool.submit(compare, work, speed, peak).result()
        rows.append(row)
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if name != "method")
        print(f"{row['method']}: {numbers}", flush=True)
    return rows


def main(speed: Speed) -> None:
    """Measure, print and write."""
    begun = time.monotonic()
    peak = peak_multiplications_per_second()
    rows = measured_rows(speed, peak)
    path = resolve(speed.output)
    if speed.machine:
        for row in rows:
            named = {"method": f"{row['method']}_{speed.machine}", "peak_multiplications_per_second": peak}
            add_row(path, row | named, begun=begun)
        return
    provenance = {"profile": "bench", "seed": 0, **describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
    # `benchmarks.growth` and `benchmarks.stages` add rows of their own, which have a stamp of their own.
    others = [row for row in read_json(path)["rows"] if "measured" in row] if path.is_file() else []
    write_metrics(path, provenance | asdict(speed.sizes) | {"peak_multiplications_per_second": peak}, rows + others)


if __name__ == "__main__":
    run_benchmark(main, Speed, __doc__)
