"""The floor of the fidelity measures: what a second shot by the true camera would score.

`python -m benchmarks.oracle` sends task 1's clean images through the hidden camera once more, with settings and noise
drawn anew, and holds the result to task 1's inputs as if it were a generated degradation. So it is what knowing the
camera achieves, but not the setting behind each single image. (AKLD alone forgives noise that is too weak, and can be
lower.) The one row goes to figures/metrics/fidelity_floor.json, where notebook 4 finds it; no image is kept and no
learner comes near it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.command import run_benchmark
from sr_utils.camera import sample_parameters, simulate_camera
from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import open_data_root
from sr_utils.degradation_scores import score_degradation, task_pairs
from sr_utils.evaluate import write_metrics
from sr_utils.repository import resolve


@dataclass(frozen=True)
class Oracle:
    """Options of the floor."""

    data_root: Path = Path("data")
    seed: int = 1
    """Of the second shots; their settings are not the first ones'."""
    output: Path = Path("figures/metrics/fidelity_floor.json")


def main(options: Oracle) -> None:
    """Shoot again, measure, print and write."""
    begun = time.monotonic()
    data = open_data_root(resolve(options.data_root))
    pairs = task_pairs(data)
    generator = torch.Generator().manual_seed(options.seed)
    again = torch.stack([simulate_camera(image, sample_parameters(generator), generator) for image in pairs.clean])
    row = {"method": "real_vs_real", **score_degradation(again, pairs, seed=options.seed)}
    print(", ".join(f"{name} {value:.3g}" for name, value in row.items() if name != "method"))
    about = {"profile": "bench", "seed": options.seed, **describe_machine()}
    about["seconds"] = round(time.monotonic() - begun, 1)
    write_metrics(resolve(options.output), about | pairs_provenance(data), [row])


if __name__ == "__main__":
    run_benchmark(main, Oracle, __doc__)
