"""Train the two small autoencoders whose bottlenecks are candidates for h, and write them to checkpoints/.

`python -m benchmarks.map_autoencoders` needs five minutes on one core. Clean photographs and generic degradations are
all they see.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.command import run_benchmark
from sr_utils.base import ANY_GRAIN
from sr_utils.checkpoints import save_model
from sr_utils.course import describe_machine
from sr_utils.datasets import clean_at_input_size, open_data_root
from sr_utils.denoising_autoencoder import AutoencoderConfig, AutoencoderTraining, train_autoencoder
from sr_utils.files import checksum
from sr_utils.repository import resolve

CONFUSION = {"map_autoencoder": 0.0, "map_confusion_autoencoder": 0.05}
"""Weight of the confusion term of each checkpoint."""


@dataclass(frozen=True)
class Autoencoders:
    """Budget and folders."""

    steps: int = 1000
    seed: int = 0
    data_root: Path = Path("data")
    output: Path = Path("checkpoints")


def main(options: Autoencoders) -> None:
    """Train both and save them with their provenance."""
    torch.set_num_threads(1)
    data = open_data_root(resolve(options.data_root))
    images = clean_at_input_size(data.train, data.scale)
    for name, confusion in CONFUSION.items():
        training = AutoencoderTraining(steps=options.steps, confusion=confusion, seed=options.seed)
        network, records = train_autoencoder(images, ANY_GRAIN, training, AutoencoderConfig())
        provenance = {
            **describe_machine(),
            "seed": options.seed,
            "data": {"photographs": len(data.train), "checksum": checksum(data.train)},
            "degradation": asdict(ANY_GRAIN),
            "training": asdict(training),
            "loss": records,
        }
        path = save_model(resolve(options.output) / f"{name}.safetensors", network, provenance)
        print(f"{path.name}: {', '.join(f'{key} {value:.4f}' for key, value in records[-1].items())}")


if __name__ == "__main__":
    run_benchmark(main, Autoencoders, __doc__)
