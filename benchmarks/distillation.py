"""A released network as the teacher of smaller ones, on the camera's own pictures (Hinton et al. 2015).

`python -m benchmarks.distillation` lets Real-ESRGAN x4plus restore the first 80 of task 1's inputs, trains two networks
to give the same, and writes figures/metrics/distillation.json and the weights to checkpoints/. No ground truth takes
part in the training, nor does DeFlow: where the degradation is one that a released network knows, its results are pairs
already. One number, `CONSISTENCY`, was chosen with the truths of every fifth pair, four of the unseen ones among them;
the form of the second student and its learning rate in short trials that were scored on nine pairs, two of the unseen
ones among them. Rows:

- ``real_esrgan_x4plus``: the teacher, shrunk to the truth's size, as in figures/metrics/peers.json.
- ``real_esrgan_agreeing``: the same with what is coarse from the input (`esrgan.agreeing`); this is what is taught.
- ``esrgan_distilled``: the base network, taught; it has 1/15 of the teacher's weights.
- ``esrgan_distilled_fine``: the teacher cut short (`cut_short`), taught; it has 1/11 of the weights, sees its input
  unfolded, and takes several times as long as the other student.
- ``..._grain``: students and teacher under grey noise of `GRAIN`, too weak to see. They say how much of LPIPS is fine
  grain, and are no methods.

A teacher's result is a function of its input, so a student needs no adversary to become sharp: its loss is L1. The
scores ``_unseen`` are of the inputs that nothing was learned from; ``times_as_fast`` is the teacher's time over the
student's, both restoring the same few inputs in turn on one thread, which says little if anything else runs. The
teacher's pictures are those of `benchmarks.peers`, which makes them if they are not there; its weights, which the extra
``peers`` brings, are needed in any case, for the times. An interrupted training goes on where it stopped. Weights that
are there, the committed ones too, are scored and not trained again; `--small.weights` and `--fine.weights` with other
paths train anew.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.command import run_benchmark
from benchmarks.comparison import summarise_with_unseen
from benchmarks.ladder import LEARNED_FROM
from benchmarks.peers import Peers, Restore
from sr_utils.checkpoints import load_model, save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, load_images, open_data_root
from sr_utils.esrgan import Discriminator, RRDBNet, RRDBNetConfig, agreeing, with_consistency
from sr_utils.evaluate import parameter_count, score_method, write_metrics
from sr_utils.files import checksum
from sr_utils.images import load_image, quantize
from sr_utils.parameters import check_range
from sr_utils.patch_samplers import PairSampler
from sr_utils.provenance import known_weights
from sr_utils.repository import resolve
from sr_utils.sampling import restore_image
from sr_utils.training import train_esrgan
from sr_utils.training_config import ESRGANTraining
from sr_utils.training_state import forget_states

TEACHER = "real_esrgan_x4plus"
STUDENT, FINE = "esrgan_distilled", "esrgan_distilled_fine"
GRAIN = 1 / 255
"""Deviation of the grain, one grey level: the smallest step of a file, chosen by no score."""
CONSISTENCY = 12.0
"""Window of the students' agreement with their input (`esrgan.RRDBNet`), twice the base network's: the less noise is
left, the more shows what a window lets through. Chosen on every fifth pair with the small student, from 6, 12, 24."""


@dataclass(frozen=True)
class Budget:
    """What a student's training takes, and where its weights go."""

    steps: int
    patch: int
    batch: int
    learning_rate: float
    weights: Path

    def training(self, seed: int) -> ESRGANTraining:
        """L1 alone."""
        return ESRGANTraining(
            pixel_steps=self.steps,
            gan_steps=0,
            patch=self.patch,
            batch=self.batch,
            learning_rate=self.learning_rate,
            seed=seed,
        )


@dataclass(frozen=True)
class Distillation:
    """Budgets of both students, and where things are."""

    small: Budget = Budget(6000, 40, 8, 4e-4, Path("checkpoints/distilled_esrgan_x2.safetensors"))
    fine: Budget = Budget(5000, 32, 8, 1e-3, Path("checkpoints/distilled_fine_esrgan_x2.safetensors"))
    seed: int = 0
    inputs: int = LEARNED_FROM
    """How many of the inputs are learned from; the others are unseen."""
    threads: int = 1
    """Of the processor while students learn; another number changes their last digits."""
    timed_images: int = 3
    data_root: Path = Path("data")
    peers: Path = Path("runs/peers")
    """Where `benchmarks.peers` keeps its pictures."""
    base: Path = Path("checkpoints/base_esrgan_x2.safetensors")
    states: Path = Path("runs/distillation")
    output: Path = Path("figures/metrics/distillation.json")

    def __post_init__(self):
        check_range("Distillation", least=1, largest=1024, threads=self.threads, timed_images=self.timed_images)


def cut_short(teacher: RRDBNet, scale: int) -> RRDBNet:
    """A network that begins as the first and the last block of ``teacher`` and what is around its trunk.

    The trunk works at the input's own resolution, as the teacher's does, and the result is ``scale`` times finer. Of
    the convolutions behind the trunk, whose images are largest, the last quarter of the filters is left out. What
    remains computes nothing of use at first, but learns far faster than random filters.
    """
    sizes = teacher.config
    config = RRDBNetConfig(
        scale,
        sizes.features,
        sizes.growth,
        blocks=min(2, sizes.blocks),
        consistency=CONSISTENCY,
        upsampling=scale,
        last_features=sizes.features * 3 // 4,
    )
    network, theirs = RRDBNet(config), teacher.state_dict()
    for name, value in network.state_dict().items():
        known = theirs[name.replace("trunk.1.", f"trunk.{sizes.blocks - 1}.")]
        value.copy_(known[tuple(map(slice, value.shape))])
    return network


def taught(path: Path, options: Distillation) -> Tensor:
    """The teacher's result for the input at ``path``, (3, scale H, scale W) in [0, 1], agreeing with that input."""
    result, low = load_image(resolve(options.peers) / TEACHER / f"{path.stem}.png"), load_image(path)
    return agreeing(result[None], low[None], CONSISTENCY)[0].clamp(0, 1)


def with_grain(restore: Callable[[Path], Tensor], seed: int) -> Callable[[Path], Tensor]:
    """``restore`` with noise of `GRAIN` over its results, alike in all channels; other noise for each call."""
    generator = torch.Generator().manual_seed(seed)

    def grained(path: Path) -> Tensor:
        restored = restore(path)
        return restored + GRAIN * torch.randn(1, *restored.shape[1:], generator=generator)

    return grained


def start_of(method: str, options: Distillation) -> RRDBNet:
    """What a student is before its first step."""
    base = load_model(resolve(options.base), RRDBNet)
    if method == STUDENT:
        return with_consistency(base, CONSISTENCY)
    return cut_short(peers.released_network(TEACHER, Peers()), base.config.scale)


def train_student(method: str, lessons: Sequence[Path], options: Distillation) -> RRDBNet:
    """A student, taught with the inputs at ``lessons``; known weights are not trained again.

    Raises
    ------
    UserError: the weights are of other inputs or another budget.
    """
    budget = options.small if method == STUDENT else options.fine
    path = resolve(budget.weights)
    about: dict[str, Any] = {"teacher": TEACHER, "inputs": len(lessons), "steps": budget.steps, "seed": options.seed}
    about |= {"lessons": checksum(lessons), "patch": budget.patch, "batch": budget.batch}
    about["learning_rate"] = budget.learning_rate
    if method == FINE:
        about["student"] = method
    if known_weights(path, about):
        return load_model(path, RRDBNet)
    network = start_of(method, options)
    # It takes no part: there is no second stage.
    discriminator = load_model(resolve("checkpoints/base_discriminator.safetensors"), Discriminator)
    samples = PairSampler(
        [[low] for low in load_images(lessons)],
        [taught(path, options) for path in lessons],
        budget.patch,
        network.config.scale,
        seed=options.seed,
        names=[path.name for path in lessons],
    )
    state = resolve(options.states) / ("student.safetensors" if method == STUDENT else "fine.safetensors")
    history = train_esrgan(network, discriminator, samples, budget.training(options.seed), state_path=state)
    network.to(memory_format=torch.contiguous_format)
    about |= describe_machine()
    about["loss"] = history.records[:: max(1, len(history.records) // 100)]
    save_model(path, network, about)
    forget_states(state)
    return network


def times_as_fast(teacher: Restore, networks: Mapping[str, RRDBNet], paths: Sequence[Path]) -> dict[str, float]:
    """The teacher's median time for an image of ``paths`` over each network's; see `peers.measure_seconds`."""
    ways: dict[str, Restore] = {TEACHER: teacher}
    ways |= {name: functools.partial(restore_image, network) for name, network in networks.items()}
    seconds = peers.measure_seconds(ways, paths)
    return {name: seconds[TEACHER] / seconds[name] for name in networks}


def scored(method: str, data: DataRoot, restore: Callable[[Path], Tensor], options: Distillation) -> dict[str, float]:
    """The mean scores of what ``restore`` makes of an input's path, over all pairs and over the unseen ones."""
    paths = iter([path for path, _ in data.pairs])
    images = score_method(lambda _low: quantize(restore(next(paths))), data.pairs, label=method)
    scores = summarise_with_unseen(images, options.inputs)
    # Some rows only read pictures that are there already.
    del scores["seconds_per_image"]
    return {"method": method, **scores}


def main(options: Distillation) -> None:
    """Teach, score, print and write."""
    begun, data = time.monotonic(), open_data_root(resolve(options.data_root))
    teacher = peers.score_peer(TEACHER, Peers(data_root=options.data_root, states=options.peers))
    released_way = peers.restorer(TEACHER, data, Peers())[0]
    # Not before: the peers have taken one thread.
    torch.set_num_threads(options.threads)
    about = {"profile": "bench", "seed": options.seed, **describe_machine()}
    lessons = data.inputs[: options.inputs]
    students = {method: train_student(method, lessons, options) for method in (STUDENT, FINE)}
    pictures = resolve(options.peers) / TEACHER
    by_teacher = int(teacher["parameters"])

    def released(path: Path) -> Tensor:
        return load_image(pictures / f"{path.stem}.png")

    # Two rows are of each student's.
    restored = {
        method: functools.cache(lambda path, network=network: restore_image(network, load_image(path)))
        for method, network in students.items()
    }
    counts = {method: parameter_count(network) for method, network in students.items()}
    ways = {
        TEACHER: (released, by_teacher),
        "real_esrgan_agreeing": (lambda path: taught(path, options), by_teacher),
        **{method: (restored[method], counts[method]) for method in students},
        **{f"{method}_grain": (with_grain(restored[method], options.seed), counts[method]) for method in students},
        "real_esrgan_grain": (with_grain(released, options.seed), by_teacher),
    }
    rows = [scored(name, data, restore, options) | {"parameters": count} for name, (restore, count) in ways.items()]
    speeds = times_as_fast(released_way, students, data.inputs[: options.timed_images])
    rows = [row | {"times_as_fast": speeds[row["method"]]} if row["method"] in speeds else row for row in rows]
    for row in rows:
        print(", ".join(f"{name} {value:.4g}" if name != "method" else value for name, value in row.items()))
    about["seconds"] = round(time.monotonic() - begun, 1)
    write_metrics(resolve(options.output), about | pairs_provenance(data), rows)


if __name__ == "__main__":
    run_benchmark(main, Distillation, __doc__)
