"""Which kind of shift learns task 1's degradation best? Every kind from random weights, on the same data and budget.

`python -m benchmarks.shifts` trains one flow a kind and seed, degrades task 1's clean scenes with each, and holds the
residuals to the real ones. An interrupted call continues; what is finished for another data root or budget is not
taken. The rows go to figures/metrics/shifts.json, where notebook 4 finds them. With the defaults, about half an hour on
two cores.

Whole methods are compared, each as it would be used: only the gain shift is calibrated and compressed as the inputs
are, so its AUC is not that of the kind of shift alone. How much compression has to do with it, the row
``deflow_uncompressed`` of figures/metrics/fidelity.json shows.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.command import run_benchmark
from benchmarks.comparison import compare, keep, kept
from sr_utils.checkpoints import load_model, save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.compression import estimate_qualities
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, clean_at_input_size, load_images, open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradation_scores import score_degradation, task_pairs
from sr_utils.detail_calibration import calibrate_detail
from sr_utils.errors import UserError
from sr_utils.files import checksum
from sr_utils.grain_calibration import calibrate_grain
from sr_utils.noise_calibration import calibrate_noise
from sr_utils.parameters import refuse_unknown
from sr_utils.provenance import provenance_beside
from sr_utils.repository import resolve
from sr_utils.sampling import degrade_image
from sr_utils.strength_calibration import calibrate_strengths
from sr_utils.training import train_deflow
from sr_utils.training_config import DeFlowTraining
from sr_utils.training_state import forget_states

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

    def __post_init__(self):
        for kind in self.kinds:
            refuse_unknown(kind, KINDS, what="kind of shift")


def model_path(states: Path, kind: str, steps: int, seed: int) -> Path:
    """Where the trained weights of one kind and seed are."""
    return states / f"{kind}_{steps}_{seed}_model.safetensors"


def learned_from(data: DataRoot, inputs: int) -> dict[str, str]:
    """Which images a flow learns from: the training photographs and the first ``inputs`` of task 1's inputs."""
    return {"learned_from": checksum([*data.train, *data.inputs[:inputs]])}


def trained_flow(states: Path, kind: str, steps: int, data: DataRoot) -> DeFlow:
    """The flow of one kind that this benchmark trained on ``data`` with seed 0 and the default number of inputs.

    Raises
    ------
    UserError: it is not there, or has learned from other images: those of another data root, or more of the inputs,
        of which some would then be unseen no longer.
    """
    path = model_path(states, kind, steps, 0)
    found = provenance_beside(path) or {}
    if learned_from(data, Shifts().inputs).items() <= found.items():
        return load_model(path, DeFlow)
    raise UserError(
        f"The flow {path} is missing, or has not learned from the images in {data.root}: run python -m "
        f"benchmarks.shifts --data-root {data.root} --steps {steps} --states FOLDER, and give --shifts FOLDER here."
    )


def train_and_score(kind: str, seed: int, options: Shifts) -> dict[str, float]:
    """The scores of one kind and seed; kept beside the training state, so that nothing is done twice."""
    torch.set_num_threads(1)
    data = open_data_root(resolve(options.data_root))
    known = resolve(options.states) / f"{kind}_{options.steps}_{seed}.json"
    about = {name: getattr(options, name) for name in ("steps", "learning_rate", "inputs")}
    about |= {"kind": kind, "seed": seed, **pairs_provenance(data), **learned_from(data, options.inputs)}
    if scores := kept(known, about):
        return scores
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
    path = model_path(resolve(options.states), kind, options.steps, seed)
    save_model(path, model, about | describe_machine())
    scores = score_model(model, data, seed=seed) | {
        f"nll_{name}": statistics.fmean(history.curve(f"nll_{name}")[1][-20:]) for name in ("clean", "degraded")
    }
    keep(known, about, scores)
    forget_states(known.with_suffix(".safetensors"))
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
