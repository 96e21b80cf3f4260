"""The floors of the fidelity measures: what a second shot by the true camera would score.

`python -m benchmarks.oracle` sends task 1's clean images through the hidden camera once more, with settings and noise
drawn anew, and holds the result to task 1's inputs as if it were a generated degradation. So it is what knowing the
camera achieves, but not the setting behind each single image. (AKLD alone forgives noise that is too weak, and can be
lower.) A second row, ``real_vs_real_same_settings``, holds two new shots of each image with the same settings to each
other: what is left is the chance of single draws. The rows go to figures/metrics/fidelity_floor.json, where notebook 4
finds them; no image is kept and no learner comes near them.
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
from sr_utils.degradation_scores import TaskPairs, score_degradation, task_pairs
from sr_utils.evaluate import write_metrics
from sr_utils.repository import resolve
from sr_utils.residual_distances import repeat_correlation


@dataclass(frozen=True)
class Oracle:
    """Options of the floors."""

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
    settings = [sample_parameters(generator) for _ in pairs.clean]
    first, second = (
        torch.stack([simulate_camera(*shot, generator) for shot in zip(pairs.clean, settings, strict=True)])
        for _ in range(2)
    )
    rows = []
    shots = {"real_vs_real": (again, pairs), "real_vs_real_same_settings": (second, TaskPairs(pairs.clean, first))}
    for name, (shot, real) in shots.items():
        row = {"method": name, **score_degradation(shot, real, seed=options.seed)}
        rows.append(row | {"repeat_correlation": repeat_correlation(shot - real.clean, real.residual)})
    for row in rows:
        print(", ".join(f"{name} {value:.3g}" if name != "method" else value for name, value in row.items()))
    about = {"profile": "bench", "seed": options.seed, **describe_machine()}
    about["seconds"] = round(time.monotonic() - begun, 1)
    write_metrics(resolve(options.output), about | pairs_provenance(data), rows)


if __name__ == "__main__":
    run_benchmark(main, Oracle, __doc__)
