"""Which h is best? Every domain-invariant map, measured by what it hides, by what it keeps, and by what it is for.

`python -m benchmarks.h_design` goes through all maps of `domain_maps` for one seed after the other:

- leakage and content of h (`map_scores`), on task 1's pairs and on task 2's frames against their temporal median;
- the base DeFlow, its condition encoder begun anew, fine-tuned with this h; the noise calibrated as in the course;
- fidelity of the degradation: AKLD and the rest, on every fourth scene of task 1;
- the base ESRGAN fine-tuned on pairs of that flow; every fourth pair of task 1 restored and scored.

Within a seed everything but h is the same: start, photographs, crops, draws and steps. The base DeFlow was trained with
the published h, which would favour it; so every run, the published one too, forgets the weights that read h.

Each finished map and seed is kept in ``states`` and figures/metrics/h_design.json is written anew with all of them, so
an interrupted call loses one run at most, and two calls with the same ``states`` share the work. States of another data
root or budget are not taken.
"""

from __future__ import annotations

import fcntl
import functools
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.comparison import data_provenance, keep, kept
from sr_utils.checkpoints import load_model, save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.compression import estimate_qualities
from sr_utils.condition_encoder import ConditionEncoder
from sr_utils.course import describe_machine
from sr_utils.datasets import clean_at_input_size, load_images, open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradation_scores import TaskPairs, score_degradation, task_pairs
from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.evaluate import write_metrics
from sr_utils.files import checksum
from sr_utils.images import crop_to_multiple
from sr_utils.map_scores import content_kept, leakage, linear_probe_auc, matched_auc, picture_statistics
from sr_utils.metrics import lpips, psnr
from sr_utils.noise_calibration import calibrate_noise
from sr_utils.parameters import refuse_unknown
from sr_utils.patch_samplers import PairSampler
from sr_utils.repository import resolve
from sr_utils.sampling import degrade_image, restore_image
from sr_utils.temporal import temporal_pairs
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_config import DeFlowTraining, ESRGANTraining


@dataclass(frozen=True)
class Design:
    """Budget of the comparison."""

    maps: tuple[str, ...] = tuple(DOMAIN_MAPS)
    seeds: tuple[int, ...] = (0, 1, 2)
    strength: float = 1.0
    deflow_steps: int = 60
    esrgan_steps: int = 30
    every: int = 4
    """One in so many of task 1's pairs is restored and scored, its central half only."""
    inputs: int = 32
    """How many of task 1's inputs are learned from."""
    data_root: Path = Path("data")
    states: Path = Path("runs/h_design")
    output: Path = Path("figures/metrics/h_design.json")

    def __post_init__(self):
        for name in self.maps:
            refuse_unknown(name, DOMAIN_MAPS, what="map")


@dataclass(frozen=True)
class Material:
    """All images of the comparison, read once."""

    pairs: TaskPairs
    """Task 1 at the inputs' size."""
    frames: tuple[Tensor, Tensor]
    """Task 2: temporal medians and frames of the same content."""
    clean: list[Tensor]
    truths: list[Tensor]
    validation: list[Tensor]
    inputs: list[Tensor]
    qualities: list[int]
    """JPEG qualities that the inputs show."""
    scored: list[tuple[Tensor, Tensor]]
    """Central crops of inputs and truths that are restored and scored."""


@functools.cache
def material(options: Design) -> Material:
    """Everything there is to read; the same for every map."""
    data = open_data_root(resolve(options.data_root))
    inputs = load_images(data.inputs)[: options.inputs]
    chosen = [load_images(paths) for paths in zip(*data.pairs[:: options.every], strict=True)]
    return Material(
        task_pairs(data),
        temporal_pairs(load_images(data.task2)),
        clean_at_input_size(data.train, data.scale),
        [crop_to_multiple(image, data.scale) for image in load_images(data.train)],
        clean_at_input_size(data.validation, data.scale),
        inputs,
        estimate_qualities(inputs),
        [(middle(low), middle(high, data.scale)) for low, high in zip(*chosen, strict=True)],
    )


SPREAD = ("leakage_auc", "probe_auc", "content_psnr", "content_lpips", "akld")
SPREAD += ("restoration_lpips", "restoration_psnr", "restoration_lpips_gain")
"""What gets its deviation over seeds, ``_std``."""
PUBLISHED = "bicubic_noise"


def forget_condition(base: DeFlow, config: DeFlowConfig, *, seed: int) -> DeFlow:
    """A flow of ``config`` with the weights of ``base``, but with an encoder of h that knows nothing yet."""
    model = DeFlow(config)
    model.load_state_dict(base.state_dict())
    torch.manual_seed(seed)
    model.encoder.load_state_dict(ConditionEncoder(config).state_dict())
    return model


def middle(image: Tensor, scale: int = 1) -> Tensor:
    """The central half of an image (3, H, W) along both sides; corners lie on multiples of 8 pixels of the input."""
    height, width = (max(8, side // (16 * scale) * 8) * scale for side in image.shape[1:])
    top, left = (side // (32 * scale) * 8 * scale for side in image.shape[1:])
    return image[:, top : top + height, left : left + width]


def map_measures(name: str, seed: int, options: Design) -> dict[str, float]:
    """Leakage on both tasks and content of one map."""
    h, chance, given = DOMAIN_MAPS[name], torch.Generator().manual_seed(seed), material(options)
    seen = [h(images, chance, strength=options.strength) for images in (given.pairs.clean, given.pairs.degraded)]
    scores = leakage(*seen, steps=60, seed=seed)
    frames = [h(images, chance, strength=options.strength) for images in given.frames]
    scores |= {
        "leakage_auc_task2": matched_auc(*frames, steps=60, seed=seed),
        "probe_auc_task2": linear_probe_auc(*(picture_statistics(each) for each in frames)),
    }
    chosen = {"strength": options.strength, "steps": 100, "seed": seed}
    return scores | content_kept(name, given.clean, given.validation, **chosen)


def train_flow(name: str, seed: int, options: Design) -> DeFlow:
    """The compact DeFlow with this h, from the base checkpoint, at the comparison's budget."""
    base = load_model(resolve("checkpoints/base_deflow.safetensors"), DeFlow)
    # Chance is h's own, so that a map without noise stays without.
    config = replace(base.config, domain_map=name, map_strength=options.strength, condition_noise=0.0)
    model = forget_condition(base, config, seed=seed)
    training = DeFlowTraining(
        options.deflow_steps, batch=4, learning_rate=1e-3, degraded_grid=8, ema_decay=0.95, seed=seed
    )
    given = material(options)
    train_deflow(model, given.clean, given.inputs, training)
    calibrate_noise(model, given.clean[::2], given.inputs[::2], steps=150)
    return model


def degradation_fidelity(model: DeFlow, seed: int, options: Design) -> dict[str, float]:
    """AKLD and the other distances without a classifier, on central crops of every fourth scene."""
    given, every = material(options), slice(None, None, options.every)
    whole = (given.pairs.clean[every], given.pairs.degraded[every])
    pairs = TaskPairs(*(torch.stack([middle(image) for image in images]) for images in whole))
    drawn = [
        degrade_image(model, image, qualities=given.qualities, seed=1000 * seed + index)
        for index, image in enumerate(pairs.clean)
    ]
    scores = score_degradation(torch.stack(drawn), pairs, steps=1, seed=seed)
    kept = ("akld", "histogram_divergence", "sliced_wasserstein", "spectrum_distance", "deviation")
    return {key: scores[key] for key in kept}


def restoration(model: DeFlow, seed: int, options: Design) -> dict[str, float]:
    """Scores of the base ESRGAN fine-tuned on this flow's pairs."""
    given = material(options)
    inputs = [
        [degrade_image(model, image, qualities=given.qualities, seed=1000 * seed + index)]
        for index, image in enumerate(given.clean)
    ]
    scale = given.truths[0].shape[1] // given.clean[0].shape[1]
    network = load_model(resolve(f"checkpoints/base_esrgan_x{scale}.safetensors"), RRDBNet)
    discriminator = load_model(resolve("checkpoints/base_discriminator.safetensors"), Discriminator)
    training = ESRGANTraining(
        pixel_steps=options.esrgan_steps // 5,
        gan_steps=options.esrgan_steps - options.esrgan_steps // 5,
        patch=32,
        batch=4,
        learning_rate=1e-4,
        gan_learning_rate=2e-4,
        perceptual_weight=1.0,
        ema_decay=0.95,
        seed=seed,
    )
    train_esrgan(network, discriminator, PairSampler(inputs, given.truths, training.patch, scale, seed=seed), training)
    network.to(memory_format=torch.contiguous_format)
    scores = {"restoration_lpips": [], "restoration_psnr": []}
    for image, truth in given.scored:
        pair = restore_image(network, image)[None], truth[None]
        scores["restoration_lpips"].append(lpips(*pair, data_range=1.0).item())
        scores["restoration_psnr"].append(psnr(*pair, data_range=1.0).item())
    return {name: statistics.fmean(values) for name, values in scores.items()}


def known_path(states: Path, name: str, seed: int, options: Design) -> Path:
    """Where the scores of one map and seed are."""
    budget = f"{options.deflow_steps}_{options.esrgan_steps}"
    return states / f"{name}_{options.strength:g}_{budget}_{seed}.json"


BUDGET = ("strength", "deflow_steps", "esrgan_steps", "every", "inputs")
"""Options that the scores depend on."""


def budget_of(options: Design) -> dict[str, Any]:
    """The values of `BUDGET`."""
    return {name: getattr(options, name) for name in BUDGET}


def about_runs(options: Design) -> dict[str, Any]:
    """What every finished run of these options is of: the budget, and all images that are read."""
    data = open_data_root(resolve(options.data_root))
    return {**budget_of(options), **data_provenance(data), "frames": checksum(data.task2)}


def run_one(name: str, seed: int, options: Design) -> dict[str, float]:
    """All scores of one map and seed."""
    begun, data = time.process_time(), open_data_root(resolve(options.data_root))
    scores = map_measures(name, seed, options)
    model = train_flow(name, seed, options)
    scores |= degradation_fidelity(model, seed, options) | restoration(model, seed, options)
    about = {"map": name, "seed": seed, **describe_machine(), **pairs_provenance(data)}
    path = known_path(resolve(options.states), name, seed, options)
    save_model(path.with_name(f"{path.stem}_deflow.safetensors"), model, about)
    return {**scores, "cpu_seconds": round(time.process_time() - begun, 1)}


def collect(options: Design) -> list[dict]:
    """A row a map from what is finished: means and spread over seeds, and the gain over the published h.

    ``restoration_lpips_gain`` is the mean over seeds of the published map's LPIPS less this one's: with a seed come the
    same crops and draws, so the difference is less uncertain than either number.
    """
    states, about = resolve(options.states), about_runs(options)
    runs = {
        (name, seed): scores
        for name in options.maps
        for seed in options.seeds
        if (scores := kept(known_path(states, name, seed, options), about))
    }
    for (name, seed), scores in runs.items():
        published = runs.get((PUBLISHED, seed))
        if published and name != PUBLISHED:
            scores["restoration_lpips_gain"] = published["restoration_lpips"] - scores["restoration_lpips"]
    rows = []
    for name in options.maps:
        found = [runs[name, seed] for seed in options.seeds if (name, seed) in runs]
        if not found:
            continue
        row = {"method": name, "seeds": len(found)}
        for key in found[0]:
            values = [scores[key] for scores in found if key in scores]
            row[key] = statistics.fmean(values)
            if key in SPREAD and len(values) > 1:
                row[f"{key}_std"] = statistics.stdev(values)
        row["restoration_lpips_seeds"] = [scores["restoration_lpips"] for scores in found]
        rows.append(row)
    return rows


def write(options: Design) -> None:
    """The results file, from all that is finished."""
    data = open_data_root(resolve(options.data_root))
    provenance = {"profile": "bench", "seed": options.seeds[0], **describe_machine(), "budget": budget_of(options)}
    rows = collect(options)
    provenance["seconds"] = round(sum(row["cpu_seconds"] * row["seeds"] for row in rows), 1)
    write_metrics(resolve(options.output), provenance | pairs_provenance(data), rows)


def main(options: Design) -> None:
    """Seed by seed, map by map: whatever nobody has done or is doing."""
    torch.set_num_threads(1)
    states, about = resolve(options.states), about_runs(options)
    states.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.maps:
            path = known_path(states, name, seed, options)
            with path.with_suffix(".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # another process is at it
                if kept(path, about):
                    continue
                scores = run_one(name, seed, options)
                keep(path, about, scores)
                print(f"seed {seed} {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in scores.items()))
            write(options)
    write(options)


if __name__ == "__main__":
    run_benchmark(main, Design, __doc__)
