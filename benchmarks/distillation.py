"""A released network as the teacher of the course's own, on the camera's own pictures (Hinton et al. 2015).

`python -m benchmarks.distillation` lets Real-ESRGAN x4plus restore the first 80 of task 1's inputs, trains the base
ESRGAN to give the same, and writes figures/metrics/distillation.json and checkpoints/distilled_esrgan_x2.safetensors.
No ground truth takes part in the training, nor does DeFlow: where the degradation is one that a released network knows,
its results are pairs already. One number, the student's `CONSISTENCY`, was chosen with the truths of every fifth pair,
four of the unseen ones among them. Rows:

- ``real_esrgan_x4plus``: the teacher, shrunk to the truth's size, as in figures/metrics/peers.json.
- ``real_esrgan_agreeing``: the same with what is coarse from the input (`esrgan.agreeing`); this is what is taught.
- ``esrgan_distilled``: the student, with 1/15 of the teacher's weights.
- ``esrgan_distilled_grain``, ``real_esrgan_grain``: student and teacher under grey noise of `GRAIN`, too weak to see.
  They say how much of LPIPS is fine grain, and are no methods.

A teacher's result is a function of its input, so the student needs no adversary to become sharp: its loss is L1. The
scores ``_unseen`` are of the inputs that nothing was learned from. The teacher's pictures are those of
`benchmarks.peers`, which makes them if they are not there (the extra ``peers``). An interrupted training goes on where
it stopped. Weights that are there, the committed ones too, are scored and not trained again; `--weights` with another
path trains anew.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.comparison import check_about, provenance_beside, summarise_with_unseen
from benchmarks.ladder import LEARNED_FROM
from benchmarks.peers import Peers, score_peer
from sr_utils.checkpoints import load_model, save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, PairSampler, load_images, open_data_root
from sr_utils.esrgan import Discriminator, RRDBNet, agreeing, with_consistency
from sr_utils.evaluate import parameter_count, score_method, write_metrics
from sr_utils.files import checksum
from sr_utils.images import load_image, quantize
from sr_utils.parameters import check_range
from sr_utils.repository import resolve
from sr_utils.sampling import restore_image
from sr_utils.training import ESRGANTraining, train_esrgan
from sr_utils.training_state import forget_states

TEACHER = "real_esrgan_x4plus"
STUDENT = "esrgan_distilled"
GRAIN = 1 / 255
"""Deviation of the grain, one grey level: the smallest step of a file, chosen by no score."""
CONSISTENCY = 12.0
"""Window of the student's agreement with its input (`esrgan.RRDBNet`), twice the base network's: the less noise is
left, the more shows what a window lets through. Chosen on every fifth pair, from 6, 12 and 24."""


@dataclass(frozen=True)
class Distillation:
    """Budget of the training, and where things are."""

    steps: int = 6000
    patch: int = 40
    batch: int = 8
    learning_rate: float = 4e-4
    seed: int = 0
    inputs: int = LEARNED_FROM
    """How many of the inputs are learned from; the others are unseen."""
    threads: int = 1
    """Of the processor; another number changes the student's last digits."""
    data_root: Path = Path("data")
    peers: Path = Path("runs/peers")
    """Where `benchmarks.peers` keeps its pictures."""
    base: Path = Path("checkpoints/base_esrgan_x2.safetensors")
    states: Path = Path("runs/distillation")
    weights: Path = Path("checkpoints/distilled_esrgan_x2.safetensors")
    output: Path = Path("figures/metrics/distillation.json")

    def __post_init__(self):
        check_range("Distillation", least=1, largest=1024, threads=self.threads)

    def training(self) -> ESRGANTraining:
        """L1 alone."""
        return ESRGANTraining(
            pixel_steps=self.steps,
            gan_steps=0,
            patch=self.patch,
            batch=self.batch,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )


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


def train_student(lessons: Sequence[Path], options: Distillation) -> RRDBNet:
    """The base network, taught with the inputs at ``lessons``; known weights are not trained again.

    Raises
    ------
    UserError: the weights are of other inputs or another budget.
    """
    path = resolve(options.weights)
    about = {"teacher": TEACHER, "inputs": len(lessons), "steps": options.steps, "seed": options.seed}
    about["lessons"] = checksum(lessons)
    if path.is_file():
        check_about(path, provenance_beside(path), about)
        return load_model(path, RRDBNet)
    network = with_consistency(load_model(resolve(options.base), RRDBNet), CONSISTENCY)
    # It takes no part: there is no second stage.
    discriminator = load_model(resolve("checkpoints/base_discriminator.safetensors"), Discriminator)
    samples = PairSampler(
        [[low] for low in load_images(lessons)],
        [taught(path, options) for path in lessons],
        options.patch,
        network.config.scale,
        seed=options.seed,
        names=[path.name for path in lessons],
    )
    state = resolve(options.states) / "student.safetensors"
    history = train_esrgan(network, discriminator, samples, options.training(), state_path=state)
    network.to(memory_format=torch.contiguous_format)
    about |= describe_machine()
    about["loss"] = history.records[:: max(1, len(history.records) // 100)]
    save_model(path, network, about)
    forget_states(state)
    return network


def scored(method: str, data: DataRoot, restore: Callable[[Path], Tensor], options: Distillation) -> dict[str, float]:
    """The mean scores of what ``restore`` makes of an input's path, over all pairs and over the unseen ones."""
    paths = iter([path for path, _ in data.pairs])
    images = score_method(lambda _low: quantize(restore(next(paths))), data.pairs, label=method)
    scores = summarise_with_unseen(images, options.inputs)
    # Two of the three rows only read pictures that are there already.
    del scores["seconds_per_image"]
    return {"method": method, **scores}


def main(options: Distillation) -> None:
    """Teach, score, print and write."""
    begun, data = time.monotonic(), open_data_root(resolve(options.data_root))
    teacher = score_peer(TEACHER, Peers(data_root=options.data_root, states=options.peers))
    # Not before: the peers have taken one thread.
    torch.set_num_threads(options.threads)
    student = train_student(data.inputs[: options.inputs], options)
    pictures = resolve(options.peers) / TEACHER
    by_teacher, by_student = int(teacher["parameters"]), parameter_count(student)

    def released(path: Path) -> Tensor:
        return load_image(pictures / f"{path.stem}.png")

    # Two rows are of these.
    @functools.cache
    def restored(path: Path) -> Tensor:
        return restore_image(student, load_image(path))

    ways = {
        TEACHER: (released, by_teacher),
        "real_esrgan_agreeing": (lambda path: taught(path, options), by_teacher),
        STUDENT: (restored, by_student),
        f"{STUDENT}_grain": (with_grain(restored, options.seed), by_student),
        "real_esrgan_grain": (with_grain(released, options.seed), by_teacher),
    }
    rows = [scored(name, data, restore, options) | {"parameters": count} for name, (restore, count) in ways.items()]
    for row in rows:
        print(", ".join(f"{name} {value:.4g}" if name != "method" else value for name, value in row.items()))
    about = {"profile": "bench", "seed": options.seed, **describe_machine()}
    about["seconds"] = round(time.monotonic() - begun, 1)
    write_metrics(resolve(options.output), about | pairs_provenance(data), rows)


if __name__ == "__main__":
    run_benchmark(main, Distillation, __doc__)
