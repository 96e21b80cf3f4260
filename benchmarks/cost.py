"""What training costs at a profile's sizes, counted and not timed: operations and memory of an optimiser step.

`python -m benchmarks.cost` writes figures/metrics/cost.json, which notebooks 3 and 5 show. Steps are really made, with
the true networks on patches of two small sizes; products and activations are a part that does not depend on the
patches and a part in proportion to their pixels, so two sizes tell the cost at any. It holds for any machine; seconds
follow from a rate, which is the reader's to know. All is counted in single precision: half precision does as many
operations, and keeps about half the bytes of the activations.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import run_benchmark
from sr_utils.course import describe_machine
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.evaluate import write_metrics
from sr_utils.patch_samplers import PairSampler
from sr_utils.profiles import PROFILES, Profile
from sr_utils.repository import resolve
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_config import DeFlowTraining

PATCHES, BATCH = (16, 32), 2
"""What is really computed."""
AVERAGED, TRAINED, IDLE = 5, 4, 1
"""Copies of a module's every number: itself; with training also its gradient and Adam's two moments; and the moving
average. A discriminator has no average, and waits idle in the first stage."""


@dataclass(frozen=True)
class StepCost:
    """One optimiser step."""

    operations: float
    """Multiplications and additions of convolutions and matrix products, forward and backward."""
    activations: float
    """Most bytes kept at one time for the backward pass."""
    fixed: float
    """Bytes of weights, gradients, moments and averages."""


class _Kept:
    """A tensor that is kept for the backward pass, counted as long as it lives."""

    def __init__(self, tensor: Tensor, meter: _Meter):
        self.tensor, self.meter = tensor, meter
        self.place = tensor.untyped_storage().data_ptr()
        self.meter.add(self.place, tensor.untyped_storage().nbytes())

    def __del__(self):
        self.meter.remove(self.place)


class _Meter:
    """Bytes of the storages that are kept now, and the most there ever were; a shared storage counts once."""

    def __init__(self, trained: set[int]):
        self.trained, self.uses, self.sizes = trained, Counter(), {}
        self.now = self.peak = 0

    def add(self, place: int, size: int) -> None:
        self.uses[place] += 1
        if self.uses[place] == 1 and place not in self.trained:
            self.sizes[place] = size
            self.now += size
            self.peak = max(self.peak, self.now)

    def remove(self, place: int) -> None:
        self.uses[place] -= 1
        if not self.uses[place]:
            self.now -= self.sizes.pop(place, 0)


@contextmanager
def counted(copies: dict[nn.Module, int]) -> Iterator[list[StepCost]]:
    """Count what one optimiser step inside the context costs; the list holds the result afterwards.

    ``copies`` says for each module how many there are of each of its numbers: `AVERAGED`, `TRAINED` or `IDLE`.
    """
    parameters = [(parameter, count) for module, count in copies.items() for parameter in module.parameters()]
    meter, result = _Meter({parameter.untyped_storage().data_ptr() for parameter, _ in parameters}), []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Kept(tensor, meter), lambda kept: kept.tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        yield result
    fixed = sum(count * parameter.numel() * parameter.element_size() for parameter, count in parameters)
    result.append(StepCost(float(counter.get_total_flops()), float(meter.peak), float(fixed)))


def extrapolated(costs: Sequence[StepCost], pixels: Sequence[int], wanted: int) -> StepCost:
    """The cost at ``wanted`` pixels a batch, on the line through the costs at two numbers of pixels."""
    share = (wanted - pixels[0]) / (pixels[1] - pixels[0])
    small, large = costs
    return StepCost(
        small.operations + share * (large.operations - small.operations),
        small.activations + share * (large.activations - small.activations),
        small.fixed,
    )


def deflow_step_cost(config: DeFlowConfig, training: DeFlowTraining) -> StepCost:
    """The cost of one step of `training.train_deflow`."""
    costs = []
    for patch in PATCHES:
        model = DeFlow(replace(config, mixed_precision=False))
        images = [torch.rand(3, patch, patch) for _ in range(2)]
        with counted({model: AVERAGED}) as found:
            train_deflow(model, images, images, replace(training, steps=1, patch=patch, batch=BATCH, compiled=False))
        costs += found
    return extrapolated(costs, [BATCH * patch**2 for patch in PATCHES], training.batch * training.patch**2)


def esrgan_step_cost(profile: Profile, *, second_stage: bool) -> StepCost:
    """The cost of one step of `training.train_esrgan` at scale 2, in its first or second stage."""
    training, costs = profile.esrgan_training, []
    stage = {"pixel_steps": int(not second_stage), "gan_steps": int(second_stage)}
    for patch in PATCHES:
        modules = RRDBNet(profile.esrgan), Discriminator(profile.discriminator)
        # As the training has them; what it moved would count once more, as kept for the backward pass.
        network, discriminator = (module.to(memory_format=torch.channels_last) for module in modules)
        low, high = torch.rand(3, patch, patch), torch.rand(3, 2 * patch, 2 * patch)
        pairs = PairSampler([[low]], [high], patch, 2, seed=0)
        copies = {network: AVERAGED, discriminator: TRAINED if second_stage else IDLE}
        small = replace(training, **stage, patch=patch, batch=BATCH, mixed_precision=False)
        with counted(copies) as found:
            train_esrgan(network, discriminator, pairs, small)
        costs += found
    return extrapolated(costs, [BATCH * patch**2 for patch in PATCHES], training.batch * training.patch**2)


@dataclass(frozen=True)
class Cost:
    """Whose cost, and where it goes."""

    profile: str = "gpu"
    output: Path = Path("figures/metrics/cost.json")


def main(options: Cost) -> None:
    """Count, print and write."""
    begun = time.monotonic()
    profile = PROFILES[options.profile]
    esrgan = profile.esrgan_training
    stages = {
        "deflow": (profile.deflow_training.steps, deflow_step_cost(profile.deflow, profile.deflow_training)),
        "esrgan_pixels": (esrgan.pixel_steps, esrgan_step_cost(profile, second_stage=False)),
        "esrgan_gan": (esrgan.gan_steps, esrgan_step_cost(profile, second_stage=True)),
    }
    rows = []
    for method, (steps, cost) in stages.items():
        row = {"method": method, "steps": steps, "operations_per_step": cost.operations}
        row |= {"activation_bytes": cost.activations, "fixed_bytes": cost.fixed}
        rows.append(row)
        print(", ".join(f"{name} {value:.4g}" if name != "method" else value for name, value in row.items()))
    about = {"profile": options.profile, "seed": 0, **describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
    write_metrics(resolve(options.output), about, rows)


if __name__ == "__main__":
    run_benchmark(main, Cost, __doc__)
