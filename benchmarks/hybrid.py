"""The hybrids on task 1's pairs: classical methods, refinement networks over them, and ESRGANs, in quality and cost.

`python -m benchmarks.hybrid` writes figures/metrics/hybrid.json, which notebook 9 shows. Rows:

- ``bicubic``, ``non_local_means``, ``shrunk_spectrum``: `hybrid.CLASSICAL`, without training. The last is called the
  best because it was so on every eighth of task 1's pairs. ``validation_psnr``, on the few photographs held out for
  validation, degraded by a `pair_generator`, says how much that choice owes to the scenes.
- ``refinement_best``, ``refinement_several``: the base refinement networks, fine-tuned with L1 on the ladder's DeFlow
  pairs for as many steps as the ladder's ESRGANs. ``refinement_bicubic``, over plain enlargement, can be asked for once
  its base weights are trained (``sr_utils.cli base refinement_bicubic``).
- ``refinement_best_classical_pairs``, ``refinement_best_patch_pairs``: the second one fine-tuned on the pairs of a
  `pair_generator` instead, with noise drawn from its spectrum or cut out of the inputs.
- ``refinement_best_gan``: fine-tuned with the ladder's three losses.
- ``esrgan_classical_pairs``, ``esrgan_classical_patches``: the ladder's ESRGAN on a classical generator's pairs.
- ``esrgan_deflow``: the row of figures/metrics/ladder.json, read anew each time.

Milliseconds are of one thread's processor time for an input, so that other programs do not count; multiplications are
per pixel of the result. Every other finished row is kept in ``states`` and not done again; rows and networks of another
data root are not taken.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.comparison import data_provenance, keep, kept
from benchmarks.ladder import Ladder, degradation, network_path, train_and_score
from benchmarks.speed import multiplications
from sr_utils.checkpoints import load_model, save_model
from sr_utils.comparisons import known_row, pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, clean_at_input_size, load_images, open_data_root
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.evaluate import parameter_count, score, score_method, summarise, write_metrics
from sr_utils.hybrid import (
    CLASSICAL,
    RefinementNetwork,
    classical_multiplications,
    classical_results,
    refine_image,
)
from sr_utils.images import crop_to_multiple, load_image, quantize
from sr_utils.parameters import refuse_unknown
from sr_utils.patch_samplers import PairSampler
from sr_utils.profiles import PROFILES
from sr_utils.provenance import known_weights
from sr_utils.repository import resolve
from sr_utils.sampling import restore_image
from sr_utils.training import train_esrgan
from sr_utils.training_state import forget_states

GAN, CLASSICAL_PAIRS, PATCH_PAIRS = "_gan", "_classical_pairs", "_patch_pairs"
"""Endings of the refinement networks' rows; without one, they learn with L1 from DeFlow's pairs."""
RATE = 2e-4
"""Learning rate of the fine-tuning with L1."""

Restore = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Hybrid:
    """Budget of the comparison, and where things are."""

    methods: Sequence[str] = (
        *CLASSICAL,
        "refinement_best",
        "refinement_several",
        f"refinement_best{CLASSICAL_PAIRS}",
        f"refinement_best{PATCH_PAIRS}",
        f"refinement_best{GAN}",
        "esrgan_classical_pairs",
        "esrgan_deflow",
    )
    seed: int = 0
    profile: str = "quick"
    """Whose ESRGAN training and number of draws are used."""
    timed_images: int = 5
    data_root: Path = Path("data")
    shifts: Path = Path("runs/shifts")
    ladder: Path = Path("figures/metrics/ladder.json")
    states: Path = Path("runs/hybrid")
    output: Path = Path("figures/metrics/hybrid.json")

    def __post_init__(self):
        refuse_unknown(self.profile, PROFILES, what="profile")
        for method in self.methods:
            refuse_unknown(method, (*Hybrid.methods, *Ladder.sources), what="method")

    def rungs(self) -> Ladder:
        """The ladder with this budget."""
        return Ladder(
            seeds=(self.seed,),
            profile=self.profile,
            data_root=self.data_root,
            shifts=self.shifts,
            states=self.states,
        )

    def state(self, method: str, ending: str) -> Path:
        """Where a method's finished or unfinished work is."""
        return resolve(self.states) / f"{method}_{self.profile}_{self.seed}{ending}"

    def about(self, method: str, data: DataRoot) -> dict[str, Any]:
        """What a method's finished work is of."""
        return {"method": method, "seed": self.seed, "profile": self.profile, **data_provenance(data)}


def source_of(method: str) -> str:
    """Which of the ladder's sources makes the pairs that a refinement network is fine-tuned on."""
    if method.endswith(CLASSICAL_PAIRS):
        return "esrgan_classical_pairs"
    return "esrgan_classical_patches" if method.endswith(PATCH_PAIRS) else "esrgan_deflow"


@functools.cache
def ladder_inputs(source: str, data_root: Path, shifts: Path, profile: str) -> list[list[Tensor]]:
    """The ladder's inputs for each training photograph, degraded by one of its sources."""
    data = open_data_root(resolve(data_root))
    degrade = degradation(source, data, Ladder(data_root=data_root, shifts=shifts))
    return [
        [quantize(degrade(image, 1000 * draw + index)) for draw in range(PROFILES[profile].draws)]
        for index, image in enumerate(clean_at_input_size(data.train, data.scale))
    ]


def fine_tuned(method: str, data: DataRoot, options: Hybrid) -> RefinementNetwork:
    """A base refinement network after the ladder's budget on the ladder's pairs."""
    path, about = options.state(method, "_network.safetensors"), options.about(method, data)
    if known_weights(path, about):
        return load_model(path, RefinementNetwork)
    name = functools.reduce(str.removesuffix, (GAN, CLASSICAL_PAIRS, PATCH_PAIRS), method)
    network = load_model(resolve(f"checkpoints/base_{name}.safetensors"), RefinementNetwork)
    discriminator = load_model(resolve("checkpoints/base_discriminator.safetensors"), Discriminator)
    training = PROFILES[options.profile].esrgan_training
    training = replace(training, patch=data.scale * training.patch, seed=options.seed)
    if not method.endswith(GAN):
        steps = training.pixel_steps + training.gan_steps
        training = replace(training, pixel_steps=steps, gan_steps=0, learning_rate=RATE)
    truths = [crop_to_multiple(image, data.scale) for image in load_images(data.train)]
    inputs = ladder_inputs(source_of(method), options.data_root, options.shifts, options.profile)
    stacks = [[classical_results(low, data.scale, network.config.inputs) for low in draws] for draws in inputs]
    samples = PairSampler(stacks, truths, training.patch, 1, seed=options.seed)
    train_esrgan(network, discriminator, samples, training, state_path=options.state(method, ".safetensors"))
    network.to(memory_format=torch.contiguous_format)
    save_model(path, network, about | describe_machine())
    forget_states(options.state(method, ".safetensors"))
    return network


def restorer(method: str, data: DataRoot, options: Hybrid) -> tuple[Restore, dict[str, float]]:
    """What restores an input (3, H, W), and what it costs: learned numbers, multiplications a pixel."""
    scale = data.scale
    if method in CLASSICAL:
        cost = {"parameters": 0, "multiplications_per_pixel": classical_multiplications(method, scale)}
        return lambda low: quantize(CLASSICAL[method](low, scale)), cost
    if method.startswith("refinement"):
        network = fine_tuned(method, data, options)
        inputs = network.config.inputs
        stack = torch.rand(1, 3 * len(inputs), 64, 64)
        # The enlargements' few products count each time, although they share most of them.
        before = sum(classical_multiplications(name, scale) for name in inputs)
        restore: Restore = functools.partial(_refine, network, scale)
    else:
        own = network_path(options.rungs(), method, options.seed)
        # All ESRGANs here are of one size, and cost alike.
        path = own if own.is_file() else resolve(f"checkpoints/base_esrgan_x{scale}.safetensors")
        network = load_model(path, RRDBNet)
        stack, before = torch.rand(1, 3, 64 // scale, 64 // scale), 0.0
        restore = functools.partial(restore_image, network)
    with torch.no_grad():
        products = multiplications(lambda: network(stack)) / 64**2
    return restore, {
        "parameters": parameter_count(network),
        "multiplications_per_pixel": before + products,
    }


def _refine(network: RefinementNetwork, scale: int, low: Tensor) -> Tensor:
    return refine_image(network, low, scale)


def validation_psnr(method: str, data: DataRoot, options: Hybrid) -> float:
    """PSNR of a classical method on validation photographs that the classical generator degraded."""
    degrade = degradation("esrgan_classical_pairs", data, options.rungs())
    truths = [crop_to_multiple(image, data.scale) for image in load_images(data.validation)]
    lows = [degrade(image, index) for index, image in enumerate(clean_at_input_size(data.validation, data.scale))]
    pairs = zip(lows, truths, strict=True)
    return statistics.fmean(score(CLASSICAL[method](low, data.scale), truth)["psnr"] for low, truth in pairs)


def measured(method: str, data: DataRoot, options: Hybrid) -> dict[str, Any]:
    """The scores of a row; kept, so that nothing is done twice. Empty if the ladder is yet to measure it."""
    if method == "esrgan_deflow":
        row = known_row(resolve(options.ladder), method, data) or {}
        # It is kept already, and may be made anew.
        return {name: value for name, value in row.items() if name not in ("method", "profile", "seconds_per_image")}
    known, about = options.state(method, "_scores.json"), options.about(method, data)
    if scores := kept(known, about):
        return scores
    if method.startswith("esrgan"):
        scores = train_and_score(method, options.seed, options.rungs())
    else:
        scores = summarise(score_method(restorer(method, data, options)[0], data.pairs, label=method))
        if method in CLASSICAL:
            scores["validation_psnr"] = validation_psnr(method, data, options)
    scores.pop("seconds_per_image", None)
    keep(known, about, scores)
    return scores


def milliseconds(restore: Restore, data: DataRoot, options: Hybrid) -> float:
    """Median processor time of one thread for an input."""
    taken = []
    for path in data.inputs[: options.timed_images]:
        low = load_image(path)
        begun = time.process_time()
        restore(low)
        taken.append(1000 * (time.process_time() - begun))
    return statistics.median(taken)


def main(options: Hybrid) -> None:
    """Train, score, time, print and write after every row."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    begun, data, rows = time.monotonic(), open_data_root(resolve(options.data_root)), []
    for method in options.methods:
        scores = measured(method, data, options)
        if not scores:
            print(f"{method}: figures/metrics/ladder.json has no row for these pairs; make ladder measures it.")
            continue
        restore, cost = restorer(method, data, options)
        rows.append({"method": method, **scores, **cost, "milliseconds": milliseconds(restore, data, options)})
        values = rows[-1].items()
        print(", ".join(f"{name} {value:.4g}" if isinstance(value, float) else str(value) for name, value in values))
        about = {"profile": options.profile, "seed": options.seed, **describe_machine()}
        about["seconds"] = round(time.monotonic() - begun, 1)
        write_metrics(resolve(options.output), about | pairs_provenance(data), rows)


if __name__ == "__main__":
    run_benchmark(main, Hybrid, __doc__)
