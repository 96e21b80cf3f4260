"""Generators of training pairs side by side: how close to the real degradation, and what a fit and an image cost.

`python -m benchmarks.pair_generators` degrades task 1's clean scenes with each generator, holds the residuals to the
real ones, and writes figures/metrics/pair_generators.json. A finished row there is not measured again, unless the file
is of another data root or budget: then all of it is written anew.

- ``white_noise``: one deviation, read off the inputs.
- ``classical``, ``classical_patches``: `sr_utils.pair_generator`, its noise drawn from the spectrum or cut out.
- ``classical_uncompressed``, ``classical_one_gain``, ``classical_white``: the first of them without compression,
  without dependence on brightness, with white noise.
- ``sensor``: `sr_utils.sensor`, if the inputs show one: noise drawn on its mosaic, at donors' strengths and qualities.
- ``deflow``: the model that `benchmarks.shifts` trained, compressed as the inputs are.

Seconds are of one thread's processor time, so that other programs do not count. What the flow's training took follows
from the time of a few of its steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.shifts import KINDS, Shifts, trained_flow
from sr_utils.comparisons import known_rows, pairs_provenance
from sr_utils.compression import estimate_qualities
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, clean_at_input_size, load_images, open_data_root
from sr_utils.deflow import DeFlow
from sr_utils.degradation_scores import score_degradation, task_pairs
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.images import quantize
from sr_utils.noise_model import fit_noise_model
from sr_utils.pair_generator import fit_pair_generator
from sr_utils.repository import resolve
from sr_utils.sampling import degrade_image
from sr_utils.sensor_calibration import sensor_of
from sr_utils.training import train_deflow
from sr_utils.training_config import DeFlowTraining

CLASSICAL: dict[str, dict[str, bool]] = {
    "classical": {},
    "classical_patches": {"patches": True},
    "classical_uncompressed": {"compressed": False},
    "classical_one_gain": {"signal_dependent": False},
    "classical_white": {"coloured": False},
}
TIMED_STEPS = 10


@dataclass(frozen=True)
class PairGenerators:
    """What is compared, and where things are."""

    methods: Sequence[str] = ("white_noise", *CLASSICAL, "sensor", "deflow")
    steps: int = 400
    """Of the classifier that tells generated residuals from real ones."""
    deflow_steps: int = Shifts().steps
    data_root: Path = Path("data")
    shifts: Path = Path("runs/shifts")
    output: Path = Path("figures/metrics/pair_generators.json")


def fitted(method: str, data: DataRoot, options: PairGenerators) -> Callable[[Tensor, int], Tensor]:
    """The generator of one row: a clean image (3, H, W) and a seed to a degraded image."""
    if method == "deflow":
        flow = trained_flow(resolve(options.shifts), "deflow_gain_shift", options.deflow_steps, data)
        qualities = estimate_qualities(load_images(data.inputs))
        return lambda image, seed: degrade_image(flow, image, qualities=qualities, seed=seed)
    inputs = load_images(data.inputs)
    if method == "sensor":
        sensor = sensor_of(inputs, name=str(data.root))
        return lambda image, seed: sensor.photograph(image, seed=seed)
    if method == "white_noise":
        model = fit_noise_model(inputs, multiplicative=False)
        return lambda image, seed: quantize(model.add_to(image, torch.Generator().manual_seed(seed)))
    generator = fit_pair_generator(inputs, **CLASSICAL[method])
    return lambda image, seed: generator.degrade(image, seed=seed)


def training_seconds(data: DataRoot, options: PairGenerators) -> float:
    """Processor seconds of the flow's training, from `TIMED_STEPS` of its steps, without the calibration after it."""
    clean = clean_at_input_size(data.train, data.scale)
    training = DeFlowTraining(TIMED_STEPS, batch=8, degraded_grid=8)
    begun = time.process_time()
    train_deflow(DeFlow(KINDS["deflow_gain_shift"]), clean, load_images(data.inputs), training)
    return (time.process_time() - begun) * options.deflow_steps / TIMED_STEPS


def measure(method: str, data: DataRoot, options: PairGenerators) -> dict[str, Any]:
    """One row."""
    begun = time.process_time()
    degrade = fitted(method, data, options)
    fit = training_seconds(data, options) if method == "deflow" else time.process_time() - begun
    seconds = {"fit_seconds": fit}
    pairs = task_pairs(data)
    begun = time.process_time()
    generated = torch.stack([degrade(image, index) for index, image in enumerate(pairs.clean)])
    seconds["milliseconds"] = 1000 * (time.process_time() - begun) / len(generated)
    return {"method": method, **score_degradation(generated, pairs, steps=options.steps), **seconds}


def main(options: PairGenerators) -> None:
    """Fit, degrade, score, print and write after every row."""
    torch.set_num_threads(1)
    begun, output = time.monotonic(), resolve(options.output)
    data = open_data_root(resolve(options.data_root))
    budget = {"steps": options.steps, "deflow_steps": options.deflow_steps}
    known = known_rows(output, data)
    if known and read_json(output)["provenance"].get("budget") != budget:
        known = []
    rows = {row["method"]: row for row in known}
    for method in options.methods:
        if method not in rows:
            rows[method] = measure(method, data, options)
            about = {"profile": "bench", "seed": 0, **describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
            about["budget"] = budget
            kept = [{name: value for name, value in row.items() if name != "profile"} for row in rows.values()]
            write_metrics(output, about | pairs_provenance(data), kept)
        values = rows[method].items()
        print(", ".join(f"{name} {value:.4g}" if isinstance(value, float) else str(value) for name, value in values))


if __name__ == "__main__":
    run_benchmark(main, PairGenerators, __doc__)
