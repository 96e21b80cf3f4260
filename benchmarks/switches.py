"""Do the switches for speed change what the flow says of an image?

`python -m benchmarks.switches` scores a corner of each clean photograph, at the inputs' size, and of those of task 1's
inputs that no flow has learned from, with the base DeFlow as it is and then with each switch, and adds the rows
switch_... to figures/metrics/speed.json. ``bits_difference`` is the largest difference of any image's likelihood, in
bits per dimension; the dequantisation noise is the same. What a switch gains is another question, and one for a GPU.

- ``switch_mixed_precision``: the networks that read h and the latents compute in bfloat16; latents and log-determinants
  stay in float32.
- ``switch_channels_last``: weights with a pixel's channels side by side in memory.
- ``switch_compiled``: `torch.compile`, which needs a C++ compiler.

Gradient checkpointing computes the very same numbers again, which a test holds it to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.growth import add_row
from benchmarks.ladder import LEARNED_FROM
from sr_utils.checkpoints import load_model
from sr_utils.datasets import clean_at_input_size, load_images, open_data_root
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow, reconfigured
from sr_utils.images import crop_to_multiple
from sr_utils.repository import resolve

SWITCHES: dict[str, Callable[[DeFlow], DeFlow]] = {
    "switch_mixed_precision": lambda model: reconfigured(model, mixed_precision=True),
    "switch_channels_last": lambda model: reconfigured(model).to(memory_format=torch.channels_last),
    "switch_compiled": lambda model: torch.compile(model),
}


@dataclass(frozen=True)
class Switches:
    """What is scored, and where the rows go."""

    weights: Path = Path("checkpoints/base_deflow.safetensors")
    data_root: Path = Path("data")
    side: int = 128
    """Pixels of the corner of each image that is scored."""
    output: Path = Path("figures/metrics/speed.json")


@torch.no_grad()
def likelihoods(model: DeFlow, images: Sequence[tuple[Tensor, int]]) -> list[float]:
    """Bits per dimension of every image, each with the domain that it is of."""
    bits = []
    for index, (image, domain) in enumerate(images):
        torch.manual_seed(index)
        image = crop_to_multiple(image, model.config.side_multiple)[None]
        condition = model.condition(image)
        # Drawn outside: what is compiled draws other numbers.
        noise = model.draw_training_noise(image, condition)
        bits.append(model(image, condition, torch.tensor([domain]), noise=noise).item())
    return bits


def main(options: Switches) -> None:
    """Score, compare, print and write."""
    begun, data = time.monotonic(), open_data_root(resolve(options.data_root))
    plain = load_model(resolve(options.weights), DeFlow)
    sets = {CLEAN: clean_at_input_size(data.clean, data.scale), DEGRADED: load_images(data.inputs[LEARNED_FROM:])}
    corner = (..., slice(options.side), slice(options.side))
    images = [(image[corner], domain) for domain, whole in sets.items() for image in whole]
    known = likelihoods(plain, images)
    for name, switched in SWITCHES.items():
        pairs = zip(likelihoods(switched(plain), images), known, strict=True)
        difference = max(abs(found - expected) for found, expected in pairs)
        add_row(resolve(options.output), {"method": name, "bits_difference": difference}, begun=begun)
        print(f"{name}: {difference:.6f} bits per dimension, the most of {len(images)} images", flush=True)


if __name__ == "__main__":
    run_benchmark(main, Switches, __doc__)
