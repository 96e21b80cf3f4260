"""Classical enlargement, side by side: on task 1's pairs, on clean bicubic pairs and on bursts, and where it breaks.

`python -m benchmarks.classical` writes figures/metrics/classical.json. Rows are told apart by ``method`` and ``data``:

- ``pairs``: task 1's pairs, with the camera's noise and JPEG; every method of `sr_utils.classical`.
- ``clean``: the truths of some of them, shrunk by antialiased bicubic and nothing else.
- ``burst`` and others: bursts of scenes cut from some of the truths, see `benchmarks.bursts`; methods that use several
  frames, told the shifts or estimating them, beside bicubic of the first frame. A series also has a ``value``.

Milliseconds are those the processor worked, on one thread, so that other work on the machine hardly counts; a median
over the images. ``multiplications_per_pixel`` counts real multiplications per pixel of the enlarged RGB image.

Each image's scores are kept in ``states`` and not computed again; those of another data root are not taken. The file is
written anew after every image, with means over those that are finished, and images are taken in an order that has every
part of the set in it early.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from torch import Tensor

from benchmarks.bursts import SETTINGS, inside_and_outside, make_burst, multiplications, quick_score, restorers
from benchmarks.command import run_benchmark
from benchmarks.comparison import keep, kept
from sr_utils.classical import single_image_methods
from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import open_data_root
from sr_utils.errors import UserError
from sr_utils.evaluate import PSNR_CEILING, write_metrics
from sr_utils.images import imresize, load_image, quantize
from sr_utils.metrics import lpips, psnr, ssim
from sr_utils.parameters import check_range
from sr_utils.repository import resolve

Scores = dict[str, float]
Row = dict[str, float | str]


@dataclass(frozen=True)
class Classical:
    """What is compared, and where things are."""

    images: int | None = None
    """How many of the pairs are scored; None scores all of them."""
    clean_images: int = 25
    """How many of the truths make clean pairs."""
    burst_images: int = 8
    """How many of the truths make bursts."""
    processes: int = 2
    """Images at a time, on one thread each."""
    data_root: Path = Path("data")
    states: Path = Path("runs/classical")
    output: Path = Path("figures/metrics/classical.json")

    def __post_init__(self):
        parts = {"clean_images": self.clean_images, "burst_images": self.burst_images}
        check_range("Classical", least=0, **parts, **({} if self.images is None else {"images": self.images}))
        if not any((self.images is None, self.images, *parts.values())):
            raise UserError("Classical has no images: give one of images, clean_images and burst_images above 0.")


def scattered(count: int) -> list[int]:
    """0 to ``count`` - 1 in an order whose every beginning is spread over the whole."""
    stride = max(1, round(0.618 * count))
    while math.gcd(stride, count) > 1:
        stride -= 1
    return [index * stride % count for index in range(count)]


def score(image: Tensor, truth: Tensor) -> Scores:
    """PSNR, SSIM and LPIPS of one image (3, H, W), as in the headline table."""
    pair = quantize(image)[None], truth[None]
    return {
        "psnr": min(psnr(*pair, data_range=1.0).item(), PSNR_CEILING),
        "ssim": ssim(*pair, data_range=1.0).item(),
        "lpips": lpips(*pair, data_range=1.0).item(),
    }


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What ``work`` returns, and the milliseconds that the processor spent on it."""
    begun = time.process_time()
    result = work()
    return result, 1000 * (time.process_time() - begun)


def score_image(part: str, index: int, options: Classical, about: dict[str, str]) -> list[Row]:
    """A row for every method on one image; kept with ``about``, which pairs they are of, and not done twice."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = open_data_root(resolve(options.data_root))
    path, truth_path = data.pairs[index]
    known = resolve(options.states) / part / f"{path.stem}.json"
    if rows := kept(known, about):
        return rows
    truth = load_image(truth_path)
    if part == "bursts":
        rows = score_bursts(truth, seed=index)
    else:
        low = load_image(path) if part == "pairs" else quantize(imresize(truth, 1 / data.scale))
        rows = score_single(part, low, truth, data.scale)
    keep(known, about, rows)
    return rows


def score_single(part: str, low: Tensor, truth: Tensor, scale: int) -> list[Row]:
    """A row for every method that needs one image."""
    rows = []
    for method in single_image_methods(scale).values():
        restored, milliseconds = timed(lambda method=method: method.upscale(low))
        row = {"method": method.name, "domain": method.domain, "data": part, **score(restored, truth)}
        row["milliseconds"] = milliseconds
        row["multiplications_per_pixel"] = method.multiplications(*low.shape[1:])
        rows.append(row)
    return rows


def score_bursts(truth: Tensor, *, seed: int) -> list[Row]:
    """A row for every setting of a burst and every method that makes something of it."""
    rows = []
    for setting in SETTINGS:
        burst, deviation = make_burst(truth, setting, seed=seed)
        for name, restore in restorers(burst, deviation, setting, seed=seed).items():
            restored, milliseconds = timed(restore)
            row = {"method": name, "domain": "burst", "data": setting.data, "value": setting.value}
            # A series needs one number a point.
            scorer = score if setting.data.startswith("burst") else quick_score
            row |= scorer(restored, burst.truth)
            if setting.moving:
                row |= inside_and_outside(restored, burst.truth)
            row["milliseconds"] = milliseconds
            size = burst.frames.shape[2:]
            row["multiplications_per_pixel"] = multiplications(name, setting.frames, *size, burst.scale)
            rows.append(row)
    return rows


def summarised(images: Sequence[Sequence[Row]]) -> list[Row]:
    """Means over images for every method; the median of milliseconds; and the count."""
    found = []
    for rows in zip(*images, strict=True):
        row = {
            name: value if isinstance(value, str) else statistics.fmean(each[name] for each in rows)
            for name, value in rows[0].items()
        }
        row["milliseconds"] = statistics.median(each["milliseconds"] for each in rows)
        found.append(row | {"count": len(rows)})
    return found


def main(options: Classical) -> None:
    """Score, print and write."""
    begun = time.monotonic()
    data = open_data_root(resolve(options.data_root))
    of_pairs = pairs_provenance(data)
    order = scattered(len(data.pairs))
    jobs = [("clean", index) for index in order[: options.clean_images]]
    jobs += [("bursts", index) for index in order[: options.burst_images]]
    jobs += [("pairs", index) for index in order[: options.images]]
    finished: dict[str, list[list[Row]]] = {"pairs": [], "clean": [], "bursts": []}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(score_image, part, index, options, of_pairs): part for part, index in jobs}
        for future in as_completed(running):
            finished[running[future]].append(future.result())
            rows = [row for images in finished.values() for row in summarised(images)]
            about = {"profile": "bench", "seed": 0, **describe_machine()}
            about["seconds"] = round(time.monotonic() - begun, 1)
            write_metrics(resolve(options.output), about | of_pairs, rows)
            print({part: len(images) for part, images in finished.items()}, flush=True)
    for row in rows:
        print(", ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))


if __name__ == "__main__":
    run_benchmark(main, Classical, __doc__)
