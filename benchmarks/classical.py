"""Classical enlargement, side by side: on task 1's pairs, on clean bicubic pairs and on bursts, and where it breaks.

`python -m benchmarks.classical` writes figures/metrics/classical.json. Its rows have the columns ``method`` and ``data``:

- ``pairs``: task 1's pairs, with the camera's noise and JPEG; every method of `sr_utils.classical`.
- ``clean``: the truths of some of them, shrunk by antialiased bicubic and nothing else.
- ``burst``, ``burst_noisy``: four clean frames and eight noisy ones of a scene (`sr_utils.burst`), shifted at random;
  methods that use several frames, with known and with estimated shifts, beside bicubic of the first frame.
- ``frames``, ``shift_error``, ``noise``: the same methods as one of these changes (``value``).
- ``local_motion``, ``uneven_noise``: what breaks the frequency domain's assumptions.

Milliseconds are those the processor worked, on one thread, so that other work on the machine hardly counts; a median over
the images. ``multiplications_per_pixel`` counts real multiplications per pixel of the enlarged RGB image. What is
finished is kept in ``states`` and not done again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
import tyro
from torch import Tensor

from sr_utils.classical import single_image_methods
from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, open_data_root
from sr_utils.evaluate import PSNR_CEILING, write_metrics
from sr_utils.files import read_json, write_json
from sr_utils.images import imresize, load_image, quantize
from sr_utils.metrics import lpips, psnr, ssim
from sr_utils.progress import progress
from sr_utils.repository import resolve

Scores = dict[str, float]


@dataclass(frozen=True)
class Classical:
    """What is compared, and where things are."""

    parts: Sequence[str] = ("pairs", "clean")
    clean_images: int = 25
    """How many of the truths make clean pairs, spread over all."""
    data_root: Path = Path("data")
    states: Path = Path("runs/classical")
    output: Path = Path("figures/metrics/classical.json")


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """``count`` of the paths, evenly spread; all of them if there are fewer."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


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


def means(rows: Sequence[Scores]) -> Scores:
    """Means over images; the median of milliseconds; and the count."""
    result = {name: statistics.fmean(row[name] for row in rows) for name in rows[0] if name != "milliseconds"}
    return result | {"milliseconds": statistics.median(row["milliseconds"] for row in rows), "count": len(rows)}


def single_images(part: str, data: DataRoot, options: Classical) -> Iterator[tuple[Tensor, Tensor]]:
    """Small images and their truths."""
    if part == "pairs":
        for path, truth in data.pairs:
            yield load_image(path), load_image(truth)
        return
    for path in spread(data.truths, options.clean_images):
        truth = load_image(path)
        yield quantize(imresize(truth, 1 / data.scale)), truth


def compare_single_images(part: str, data: DataRoot, options: Classical) -> Iterator[Scores]:
    """A row a method."""
    for name, method in single_image_methods(data.scale).items():
        known = resolve(options.states) / f"{part}_{name}.json"
        if not known.is_file():
            rows, counts = [], []
            for low, truth in progress(single_images(part, data, options), label=f"{name} on {part}"):
                restored, milliseconds = timed(lambda low=low: method.upscale(low))
                rows.append(score(restored, truth) | {"milliseconds": milliseconds})
                counts.append(method.multiplications(*low.shape[1:]))
            about = {"method": name, "domain": method.domain, "data": part}
            write_json(known, about | means(rows) | {"multiplications_per_pixel": statistics.fmean(counts)})
        yield read_json(known)


def main(options: Classical) -> None:
    """Score, print and write."""
    begun = time.monotonic()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = open_data_root(resolve(options.data_root))
    rows = []
    for part in options.parts:
        for row in compare_single_images(part, data, options):
            rows.append(row)
            print(", ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))
            about = {"profile": "bench", "seed": 0, **describe_machine()}
            about["seconds"] = round(time.monotonic() - begun, 1)
            write_metrics(resolve(options.output), about | pairs_provenance(data), rows)


if __name__ == "__main__":
    main(tyro.cli(Classical, description=__doc__))
