"""Which kind of shift learns task 1's degradation best? Every kind from random weights, on the same data and budget.

`python -m benchmarks.shifts` trains one flow a kind and seed, degrades task 1's clean scenes with each, and holds the
residuals to the real ones. An interrupted call continues. The rows go to figures/metrics/shifts.json, where notebook 4
finds them. With the defaults, about half an hour on two cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.command import run_benchmark
from benchmarks.comparison import compare
from sr_utils.checkpoints import save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.compression import estimate_qualities
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, clean_at_input_size, load_images, open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradation_scores import score_degradation, task_pairs
from sr_utils.detail_calibration import calibrate_detail
from sr_utils.files import read_json, write_json
from sr_utils.grain_calibration import calibrate_grain
from sr_utils.noise_calibration import calibrate_noise
from sr_utils.repository import resolve
from sr_utils.sampling import degrade_image
from sr_utils.strength_calibration import calibrate_strengths
from sr_utils.training import DeFlowTraining, train_deflow

KINDS = {
    "deflow_constant_shift": DeFlowConfig(shift="constant", initial_shift=0.0),
    "deflow_constant_covariance": DeFlowConfig(shift="constant"),
    "deflow_local_shift": DeFlowConfig(shift="local"),
    "deflow_gain_shift": DeFlowConfig(shift="gain"),
}
"""Rows and models: the published start, at which the covariance stays zero; a covariance that learns; and ours."""


@dataclass(frozen=True)
class Shifts:
    """Budget of the comparison."""

    steps: int = 1000
    seeds: Sequence[int] = (0,)
    learning_rate: float = 5e-4
    inputs: int = 80
    """How many of task 1's inputs are learned from."""
    kinds: Sequence[str] = tuple(KINDS)
    processes: int = 2
    """Trainings at a time, on one thread each."""
    data_root: Path = Path("data")
    states: Path = Path("runs/shifts")
    output: Path = Path("figures/metrics/shifts.json")


def model_path(states: Path, kind: str, steps: int, seed: int) -> Path:
    """Where the trained weights of one kind and seed are."""
    return states / f"{kind}_{steps}_{seed}_model.safetensors"


def train_and_score(kind: str, seed: int, options: Shifts) -> dict[str, float]:
    """The scores of one kind and seed; kept beside the training state, so that nothing is done twice."""
    torch.set_num_threads(1)
    known = resolve(options.states) / f"{kind}_{options.steps}_{seed}.json"
    if known.is_file():
        return read_json(known)
    data = open_data_root(resolve(options.data_root))
    torch.manual_seed(seed)
    model = DeFlow(KINDS[kind])
    training = DeFlowTraining(
        options.steps, batch=8, learning_rate=options.learning_rate, degraded_grid=8, ema_decay=0.995, seed=seed
    )
    clean, degraded = clean_at_input_size(data.train, data.scale), load_images(data.inputs)[: options.inputs]
    history = train_deflow(model, clean, degraded, training, state_path=known.with_suffix(".safetensors"))
    if model.config.shift == "gain":
        calibrate_noise(model, clean, degraded)
        behind = {"qualities": estimate_qualities(degraded), "seed": seed}
        calibrate_strengths(model, degraded, **behind)
        calibrate_grain(model, degraded, **behind)
        model, _ = calibrate_detail(model, clean, degraded)
    about = {"kind": kind, "seed": seed, "steps": options.steps, **pairs_provenance(data), **describe_machine()}
    save_model(model_path(resolve(options.states), kind, options.steps, seed), model, about)
    scores = score_model(model, data, seed=seed) | {
        f"nll_{name}": statistics.fmean(history.curve(f"nll_{name}")[1][-20:]) for name in ("clean", "degraded")
    }
    write_json(known, scores)
    return scores


def score_model(model: DeFlow, data: DataRoot, *, seed: int) -> dict[str, float]:
    """Degrade task 1's clean scenes and compare with the inputs.

    The gain shift's noise is calibrated for the compression that follows it; the published way knows of none.
    """
    pairs = task_pairs(data)
    qualities = estimate_qualities(load_images(data.inputs)) if model.config.shift == "gain" else []
    generated = [
        degrade_image(model, image, qualities=qualities, seed=seed + index) for index, image in enumerate(pairs.clean)
    ]
    return score_degradation(torch.stack(generated), pairs, seed=seed)


def main(options: Shifts) -> None:
    """Train, score, print and write."""
    compare(train_and_score, options.kinds, options, profile="bench", about={"steps": options.steps})


if __name__ == "__main__":
    run_benchmark(main, Shifts, __doc__)
