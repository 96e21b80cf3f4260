"""How cost grows with work: images of one size, pixels of one image, and processes side by side.

`python -m benchmarks.growth` adds the rows growth_images, growth_pixels and growth_processes to
figures/metrics/speed.json and leaves the others as they are. Every point is a fresh process that translates with the
base DeFlow and restores with the base ESRGAN, as the commands do, files included. Time is the processor's (user and
system), so that other programs do not count, without the start and with one thread. `exponent` is the slope of
log(seconds) over log(work); 1 is linear.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import run_benchmark
from benchmarks.peak_memory import resident_megabytes
from benchmarks.published_work import smooth_images
from sr_utils.course import describe_machine
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.images import save_image
from sr_utils.repository import repository_root, resolve
from sr_utils.sampling import restore_folder, translate_folder
from sr_utils.weights import load_deflow, load_esrgan


@dataclass(frozen=True)
class Growth:
    """Sizes of the work."""

    images: tuple[int, ...] = (10, 100, 1000)
    """How many images of ``side`` x ``side`` pixels."""
    side: int = 32
    megapixels: tuple[float, ...] = (0.25, 1.0, 4.0, 24.0)
    """Of one photograph, 4:3."""
    processes: tuple[int, ...] = (1, 2)
    """How many share the work of ``shared`` images."""
    shared: int = 64
    tasks: tuple[str, ...] = ("translate", "restore")
    output: Path = Path("figures/metrics/speed.json")


@dataclass(frozen=True)
class Cost:
    """What one process spent."""

    seconds: float
    """Of the processor, while the images were worked on."""
    megabytes: float
    """Peak resident memory."""


def work(task: str, photographs: list[Path], folder: Path) -> Cost:
    """Translate or restore photographs in this process, as the commands do, and say what it cost."""
    torch.set_num_threads(1)
    checkpoints = repository_root() / "checkpoints"
    if task == "translate":
        function, model = translate_folder, load_deflow(checkpoints / "base_deflow.safetensors")
    else:
        function, model = restore_folder, load_esrgan(checkpoints / "base_esrgan_x2.safetensors")
    small = folder / "once" / "in.png"
    save_image(smooth_images(1, 32)[0], small)
    function(model, [small], small.parent / "out")  # what is paid once
    begun = _processor_seconds()
    function(model, photographs, folder)
    return Cost(_processor_seconds() - begun, resident_megabytes("VmHWM"))


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def in_fresh_processes(task: str, shares: list[list[Path]], folder: Path) -> list[Cost]:
    """The cost of each share, all of them at once, each in a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(len(shares), maxtasksperchild=1) as pool:
        return pool.starmap(work, [(task, share, folder) for share in shares], chunksize=1)


def exponent(works: list[float], seconds: list[float]) -> float:
    """Least-squares slope of log(seconds) over log(work)."""
    x, y = ([math.log(value) for value in values] for values in (works, seconds))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


def photographs(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """So many different files of one size, cut from one image with something to see at every scale."""
    image = smooth_images(1, max(height, width))[0, :, :height, :width]
    paths = [folder / f"{index:04d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        save_image(image.roll(index, 2), path)
    return paths


def growth_images(growth: Growth, folder: Path) -> dict[str, Any]:
    """Cost over the number of images."""
    paths = photographs(folder / "images", max(growth.images), growth.side, growth.side)
    costs = {
        task: [in_fresh_processes(task, [paths[:count]], folder / task)[0] for count in growth.images]
        for task in growth.tasks
    }
    return _row("growth_images", "images", list(growth.images), costs) | {"side": growth.side}


def growth_pixels(growth: Growth, folder: Path) -> dict[str, Any]:
    """Cost over the size of one image."""
    costs: dict[str, list[Cost]] = {task: [] for task in growth.tasks}
    for number, megapixels in enumerate(growth.megapixels):
        height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
        paths = photographs(folder / f"size{number}", 1, height, height * 4 // 3)
        for task in growth.tasks:
            costs[task].append(in_fresh_processes(task, [paths], folder / task)[0])
    return _row("growth_pixels", "sizes_in_megapixels", list(growth.megapixels), costs)


def growth_processes(growth: Growth, folder: Path) -> dict[str, Any]:
    """Processor time of the same images shared by one process or more: sharing must not cost anything."""
    paths = photographs(folder / "shared", growth.shared, growth.side, growth.side)
    totals = []
    for count in growth.processes:
        costs = in_fresh_processes("translate", [paths[part::count] for part in range(count)], folder / "shared_out")
        totals.append(sum(cost.seconds for cost in costs))
    row = {"method": "growth_processes", "processes": list(growth.processes), "seconds": totals}
    return row | {"overhead": totals[-1] / totals[0]}


def _row(method: str, name: str, works: list[float], costs: dict[str, list[Cost]]) -> dict[str, Any]:
    """A row of speed.json; ``exponent`` and ``memory_ratio`` are those of the task that grows most."""
    row: dict[str, Any] = {"method": method, name: works}
    for task, points in costs.items():
        row[f"{task}_seconds"] = [point.seconds for point in points]
        row[f"{task}_megabytes"] = [point.megabytes for point in points]
        row[f"{task}_exponent"] = exponent(works, row[f"{task}_seconds"])
    row["exponent"] = max(row[f"{task}_exponent"] for task in costs)
    row["memory_ratio"] = max(points[-1].megabytes / points[0].megabytes for points in costs.values())
    return row


def add_row(path: Path, row: dict[str, Any], *, begun: float) -> None:
    """Put a row into a results file in place of the one with its ``method``, with a stamp of its own."""
    known = read_json(path) if path.is_file() else {"provenance": {"profile": "bench", "seed": 0}, "rows": []}
    stamp = {**describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
    rows = [each for each in known["rows"] if each["method"] != row["method"]]
    write_metrics(path, known["provenance"], [*rows, row | {"measured": stamp}])


def main(growth: Growth) -> None:
    """Measure, print, and write each row as soon as it is there."""
    begun, path = time.monotonic(), resolve(growth.output)
    with tempfile.TemporaryDirectory() as folder:
        for measure in (growth_images, growth_processes, growth_pixels):
            row = measure(growth, Path(folder))
            add_row(path, row, begun=begun)
            numbers = {name: f"{row[name]:.3f}" for name in ("exponent", "memory_ratio", "overhead") if name in row}
            print(f"{row['method']}: {numbers}", flush=True)


if __name__ == "__main__":
    run_benchmark(main, Growth, __doc__)
