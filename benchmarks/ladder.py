"""From knowing nothing of a degradation to knowing all of it: one network, one budget, pairs from many sources.

`python -m benchmarks.ladder` fine-tunes the base ESRGAN on the training photographs, shrunk and then degraded by each
source in turn, restores task 1's inputs and writes figures/metrics/ladder.json. Everything else is the same: start,
photographs, number of draws, steps, and for each seed the very same crops.

- ``esrgan_bicubic``: shrunk, and nothing else.
- ``esrgan_white_noise``, ``esrgan_noise_model``: `noise_model`, its numbers read off the inputs.
- ``esrgan_white_noise_by_image``: the same noise, as strong in each image as in one of the inputs. The level of
  ``esrgan_white_noise`` is that of the flattest places, and these are mostly of the least noisy inputs.
- ``esrgan_noise_patches``: grain cut out of the inputs.
- ``esrgan_deflow_constant_shift``, ``esrgan_deflow``: translated by the models of `benchmarks.shifts`, which have
  seen the same images for the same number of steps: the published start, and ours.
- ``esrgan_deflow_sensor``: what is certain by ours, with noise and compression of the `sensor` that the inputs show.
  Not among the default sources: it asks more of the inputs than any other. ``--sources esrgan_deflow_sensor`` adds it
  to the rows that are there.
- ``esrgan_classical_pairs``, ``esrgan_classical_patches``: `pair_generator`, with the noise drawn from its spectrum or
  cut out of the inputs. Not among the default sources; `benchmarks.hybrid` asks for them.
- ``esrgan_oracle``: the true camera, with settings drawn anew. It alone knows the simulator, and is no method.

The scores ``_unseen`` are of the last 20 inputs. No network is trained on them: the flows learn from the first 80. But
what is read off the inputs, the levels of white noise, the noise patches and the JPEG qualities, is read off all.

What is finished is kept in ``states`` and not done again, and an interrupted training goes on where it stopped. States
and flows of another data root or budget are not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.comparison import compare, data_provenance, keep, kept, summarise_with_unseen
from benchmarks.shifts import Shifts, trained_flow
from sr_utils.checkpoints import load_model, save_model
from sr_utils.compression import estimate_qualities
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, clean_at_input_size, load_images, open_data_root
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.evaluate import parameter_count, score_method
from sr_utils.images import crop_to_multiple, quantize
from sr_utils.noise_model import fit_noise_model
from sr_utils.noise_patches import collect_noise, inject_noise
from sr_utils.pair_generator import fit_pair_generator
from sr_utils.parameters import refuse_unknown
from sr_utils.patch_samplers import PairSampler
from sr_utils.profiles import PROFILES
from sr_utils.repository import resolve
from sr_utils.sampling import beside_sensor, degrade_image, restore_image
from sr_utils.sensor_calibration import sensor_of
from sr_utils.training import train_esrgan
from sr_utils.training_state import forget_states


@dataclass(frozen=True)
class Ladder:
    """Budget of the comparison."""

    seeds: Sequence[int] = (0, 1, 2)
    profile: str = "quick"
    """Whose ESRGAN training and number of draws are used."""
    sources: Sequence[str] = (
        "esrgan_bicubic",
        "esrgan_white_noise",
        "esrgan_white_noise_by_image",
        "esrgan_noise_model",
        "esrgan_noise_patches",
        "esrgan_deflow_constant_shift",
        "esrgan_deflow",
        "esrgan_oracle",
    )
    processes: int = 2
    """Trainings at a time, on one thread each."""
    deflow_steps: int = 1000
    """Of the models of `benchmarks.shifts`."""
    data_root: Path = Path("data")
    shifts: Path = Path("runs/shifts")
    states: Path = Path("runs/ladder")
    output: Path = Path("figures/metrics/ladder.json")

    def __post_init__(self):
        refuse_unknown(self.profile, PROFILES, what="profile")


LEARNED_FROM = Shifts().inputs
"""How many of the inputs the flows have learned from; the others are unseen, and scored on their own too."""

Degrade = Callable[[Tensor, int], Tensor]
"""A degraded version of a clean image; the integer is the draw's seed."""

FLOWS = {
    "esrgan_deflow_constant_shift": "deflow_constant_shift",
    "esrgan_deflow": "deflow_gain_shift",
    "esrgan_deflow_sensor": "deflow_gain_shift",
}
"""Sources that are models of `benchmarks.shifts`, and which."""


def degradation(source: str, data: DataRoot, options: Ladder) -> Degrade:
    """How ``source`` degrades a clean image (3, H, W) of the inputs' size.

    Raises
    ------
    ValueError: there is no such source. UserError: its flow is missing or of another data root.
    """

    def chance(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    if source == "esrgan_bicubic":
        return lambda image, seed: image
    if source in ("esrgan_white_noise", "esrgan_noise_model"):
        model = fit_noise_model(load_images(data.inputs), multiplicative=source == "esrgan_noise_model")
        return lambda image, seed: model.add_to(image, chance(seed))
    if source == "esrgan_noise_patches":
        noise = collect_noise(load_images(data.inputs))
        return lambda image, seed: inject_noise(image, noise, chance(seed))
    if source == "esrgan_white_noise_by_image":
        parts = {"coloured": False, "signal_dependent": False, "compressed": False}
        white = fit_pair_generator(load_images(data.inputs), **parts)
        return lambda image, seed: white.degrade(image, seed=seed)
    if source in ("esrgan_classical_pairs", "esrgan_classical_patches"):
        generator = fit_pair_generator(load_images(data.inputs), patches=source == "esrgan_classical_patches")
        return lambda image, seed: generator.degrade(image, seed=seed)
    if source in FLOWS:
        flow = trained_flow(resolve(options.shifts), FLOWS[source], options.deflow_steps, data)
        if source == "esrgan_deflow_sensor":
            sensor = sensor_of(load_images(data.inputs[:LEARNED_FROM]), name=str(data.root))
            sharp = beside_sensor(flow, sensor)
            return lambda image, seed: degrade_image(sharp, image, sensor=sensor, seed=seed)
        # The published way knows of no compression, and ours reads it off the inputs.
        qualities = estimate_qualities(load_images(data.inputs)) if source == "esrgan_deflow" else []
        return lambda image, seed: degrade_image(flow, image, qualities=qualities, seed=seed)
    if source != "esrgan_oracle":
        raise ValueError(f"There is no source {source!r}.")
    # Imported here and nowhere above, so that no other source has the simulator within reach.
    from sr_utils.camera import sample_parameters, simulate_camera

    def shoot(image: Tensor, seed: int) -> Tensor:
        generator = chance(seed)
        return simulate_camera(image, sample_parameters(generator), generator)

    return shoot


def network_path(options: Ladder, source: str, seed: int) -> Path:
    """Where the trained network of one source and seed is."""
    return resolve(options.states) / f"{source}_{options.profile}_{seed}_network.safetensors"


def train_and_score(
    source: str, seed: int, options: Ladder, *, degradation: Callable[[str, DataRoot, Ladder], Degrade] = degradation
) -> dict[str, float]:
    """The scores of one source and seed; kept, so that nothing is done twice."""
    torch.set_num_threads(1)
    data, profile = open_data_root(resolve(options.data_root)), PROFILES[options.profile]
    known = resolve(options.states) / f"{source}_{options.profile}_{seed}.json"
    about = {"source": source, "seed": seed, "profile": options.profile, **data_provenance(data)}
    if source in FLOWS:
        about["deflow_steps"] = options.deflow_steps
    if scores := kept(known, about):
        return scores
    degrade = degradation(source, data, options)
    clean = clean_at_input_size(data.train, data.scale)
    truths = [crop_to_multiple(image, data.scale) for image in load_images(data.train)]
    inputs = [
        [quantize(degrade(image, 1000 * draw + index)) for draw in range(profile.draws)]
        for index, image in enumerate(clean)
    ]
    network = load_model(resolve(f"checkpoints/base_esrgan_x{data.scale}.safetensors"), RRDBNet)
    discriminator = load_model(resolve("checkpoints/base_discriminator.safetensors"), Discriminator)
    training = replace(profile.esrgan_training, seed=seed)
    samples = PairSampler(inputs, truths, training.patch, data.scale, seed=seed)
    train_esrgan(network, discriminator, samples, training, state_path=known.with_suffix(".safetensors"), save_every=50)
    network.to(memory_format=torch.contiguous_format)
    save_model(network_path(options, source, seed), network, about | describe_machine())
    images = score_method(lambda low: restore_image(network, low), data.pairs, label=source)
    scores = summarise_with_unseen(images, LEARNED_FROM) | {"parameters": parameter_count(network)}
    keep(known, about, scores)
    forget_states(known.with_suffix(".safetensors"))
    return scores


def main(options: Ladder) -> None:
    """Train, score, print and write."""
    *before, oracle = Ladder().sources
    order = (*before, "esrgan_deflow_sensor", oracle)
    compare(
        train_and_score,
        options.sources,
        options,
        profile=options.profile,
        about={},
        spread_of=("psnr", "ssim", "lpips"),
        order=order,
    )


if __name__ == "__main__":
    run_benchmark(main, Ladder, __doc__)
