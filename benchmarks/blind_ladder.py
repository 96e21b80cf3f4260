"""Was DeFlow's recipe made for one camera only? The ladder once more, with one that nothing was tuned for.

Task 1 is no blind test: the methods were revised while their scores on it were known. `python -m
benchmarks.blind_ladder` photographs task 1's truths, at half their size, with `second_camera`, learns from the first 80
inputs as `benchmarks.shifts` does, with the same steps and calibrations, and climbs the ladder as `benchmarks.ladder`
does. It was run with seed 0 when it was written; seeds 1 and 2 followed, with nothing changed in between. The rows go
to figures/metrics/blind.json; ``deflow_gain_shift`` there says how close the learned degradation is, by the measures
of notebook 4.

The oracle is the second camera itself. The classical pair generator is on this ladder too, since it needs no training.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import ladder, shifts
from benchmarks.command import run_benchmark
from benchmarks.comparison import compare
from benchmarks.ladder import Degrade, Ladder
from benchmarks.second_camera import take_picture
from benchmarks.shifts import Shifts
from sr_utils.datasets import DataRoot, clean_at_input_size, open_data_root
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.images import save_image
from sr_utils.progress import progress
from sr_utils.repository import resolve

FLOW = "deflow_gain_shift"


@dataclass(frozen=True)
class BlindLadder:
    """Budget, and where things are."""

    sources: Sequence[str] = (
        "esrgan_bicubic",
        "esrgan_white_noise",
        "esrgan_white_noise_by_image",
        "esrgan_noise_patches",
        "esrgan_classical_pairs",
        "esrgan_deflow",
        "esrgan_oracle",
    )
    seeds: Sequence[int] = (0, 1, 2)
    profile: str = "quick"
    steps: int = Shifts().steps
    """Of the flow."""
    processes: int = 2
    data_root: Path = Path("data")
    states: Path = Path("runs/blind")
    output: Path = Path("figures/metrics/blind.json")


def photographed(data: DataRoot, folder: Path) -> Path:
    """A data root like ``data``, but for task 1's inputs, which the second camera has taken."""
    for source in (*data.train, *data.validation, *(truth for _, truth in data.pairs)):
        target = folder / source.relative_to(data.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    clean = clean_at_input_size([truth for _, truth in data.pairs], data.scale)
    pairs = progress(zip(data.pairs, clean, strict=True), label="Pictures", total=len(data.pairs))
    for index, ((path, _), image) in enumerate(pairs):
        picture = take_picture(image, torch.Generator().manual_seed(index))
        save_image(picture, folder / path.relative_to(data.root).with_suffix(".png"))
    return folder


def degradation(source: str, data: DataRoot, options: Ladder) -> Degrade:
    """`ladder.degradation`, with another oracle: one whose settings and noise are drawn anew."""
    if source != "esrgan_oracle":
        return ladder.degradation(source, data, options)

    def shoot(image: Tensor, seed: int) -> Tensor:
        return take_picture(image, torch.Generator().manual_seed(10**6 + seed))

    return shoot


def train_and_score(source: str, seed: int, options: Ladder) -> dict[str, float]:
    """`ladder.train_and_score` with this ladder's degradations."""
    return ladder.train_and_score(source, seed, options, degradation=degradation)


def main(options: BlindLadder) -> None:
    """Take the pictures, train, score, print and write."""
    states, data = resolve(options.states), open_data_root(resolve(options.data_root))
    root = photographed(data, states / "data")
    about_flow = {"steps": options.steps, "data_root": root, "states": states / "shifts"}
    scores = shifts.train_and_score(FLOW, 0, Shifts(**about_flow))
    rungs = Ladder(
        seeds=options.seeds,
        profile=options.profile,
        sources=options.sources,
        processes=options.processes,
        deflow_steps=options.steps,
        data_root=root,
        shifts=states / "shifts",
        states=states / "ladder",
        output=options.output,
    )
    measures = ("psnr", "ssim", "lpips")
    compare(train_and_score, options.sources, rungs, profile=options.profile, about={}, spread_of=measures)
    written = read_json(resolve(options.output))
    rows = [row for row in written["rows"] if row["method"] != FLOW]
    write_metrics(resolve(options.output), written["provenance"], [*rows, {"method": FLOW, **scores}])


if __name__ == "__main__":
    run_benchmark(main, BlindLadder, __doc__)
