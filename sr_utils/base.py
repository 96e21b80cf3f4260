"""Base checkpoints: what `quick` fine-tunes from, trained on clean photographs and generic degradations only.

Nothing here reads task 1 or knows its camera. The base DeFlow learns slight blur, white noise and JPEG. The base
ESRGANs undo them, first that simple kind and then one whose noise has grain of any coarseness, colour and dependence
on brightness, over ranges as wide as blind restoration uses (compare Real-ESRGAN, section 3). They give every task a
start from which minutes of fine-tuning are enough. The base refinement networks learn from the second kind alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_utils.checkpoints import load_model, save_model
from sr_utils.datasets import DataRoot, load_images
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradations import GenericDegradation
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, DiscriminatorConfig, RRDBNet, RRDBNetConfig
from sr_utils.files import checksum, read_json
from sr_utils.fresh_pairs import RedrawnPairs
from sr_utils.hybrid import RefinementConfig, RefinementNetwork, classical_results
from sr_utils.images import crop_to_multiple, imresize, quantize
from sr_utils.patch_samplers import PatchSampler
from sr_utils.provenance import check_about
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_config import DeFlowTraining, ESRGANTraining
from sr_utils.training_state import History, forget_states

BASE_DEFLOW = DeFlowTraining(steps=3000, patch=64, batch=8, learning_rate=1e-3, degraded_grid=8, seed=0)
BASE_ESRGAN = ESRGANTraining(pixel_steps=4000, gan_steps=900, patch=40, batch=8, mixed_precision=True, seed=0)
BASE_REFINEMENT = ESRGANTraining(
    pixel_steps=300,
    gan_steps=2100,
    patch=40,
    batch=8,
    learning_rate=1e-4,
    gan_learning_rate=2e-4,
    perceptual_weight=1.0,
    mixed_precision=True,
    seed=1,
)
BASE_TRANSFER = ESRGANTraining(
    pixel_steps=500,
    gan_steps=150,
    patch=40,
    batch=8,
    learning_rate=2e-4,
    perceptual_weight=1.0,
    mixed_precision=True,
    seed=0,
)
BASE_HYBRID = ESRGANTraining(pixel_steps=1500, gan_steps=0, patch=80, batch=8, learning_rate=1e-3, seed=0)
"""Of a refinement network, whose crops are of the truth's size: fewer steps than `BASE_ESRGAN`, and no second stage."""
ANY_GRAIN = GenericDegradation(grain=(0.0, 1.0), grey=(0.0, 0.8), shot=(0.0, 1.0))
DEGRADED_DRAWS = 4


class GenericPairSampler:
    """Endless pairs (degraded low resolution, clean high resolution) with a fresh degradation for every crop."""

    def __init__(
        self,
        images: list[Tensor],
        patch: int,
        scale: int,
        degradation: GenericDegradation,
        *,
        seed: int,
        names: Sequence[str] = (),
    ):
        self.crops = PatchSampler(images, patch * scale, seed=seed, names=names)
        self.scale, self.degradation = scale, degradation

    def next(self, batch: int) -> tuple[Tensor, Tensor]:
        """(batch, 3, patch, patch) and (batch, 3, scale * patch, scale * patch), both in [0, 1]."""
        high = self.crops.next(batch)
        clean = high if self.scale == 1 else imresize(high, 1 / self.scale).clamp(0, 1)
        return quantize(self.degradation(clean, self.crops.generator)), high

    def files(self) -> list[str]:
        """The names of the photographs that the last batch was cut from."""
        return self.crops.files()

    def sources(self) -> list[Tensor]:
        """All photographs."""
        return self.crops.sources()

    def state(self) -> Tensor:
        """Where the sequence stands; see `PatchSampler.state`."""
        return self.crops.state()

    def load_state(self, state: Tensor) -> None:
        """Continue where ``state`` was taken."""
        self.crops.load_state(state)


def generic_domains(images: list[Tensor], scale: int, *, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Unpaired clean and generically degraded images at 1/scale of the photographs' size.

    Every second photograph is clean, the others are degraded ``DEGRADED_DRAWS`` times each, so no content is in
    both domains.

    Raises
    ------
    UserError: there is one photograph only, which cannot be in both domains.
    """
    if len(images) < 2:
        raise UserError("One photograph cannot be both clean and degraded: give at least two besides validation's.")
    generator = torch.Generator().manual_seed(seed)
    small = [quantize(imresize(crop_to_multiple(image, scale), 1 / scale)) for image in images]
    degradation = GenericDegradation()
    degraded = [
        quantize(degradation(image[None], generator)[0]) for image in small[1::2] for _ in range(DEGRADED_DRAWS)
    ]
    return small[0::2], degraded


def _names(data: DataRoot) -> list[str]:
    """What errors call the photographs."""
    return [path.name for path in data.train]


def _origin(
    data: DataRoot, training: DeFlowTraining | ESRGANTraining, degradation: GenericDegradation
) -> dict[str, Any]:
    """What weights are made of; with another, they are other weights."""
    return {
        "data": {"photographs": len(data.train), "checksum": checksum(data.train)},
        "degradation": asdict(degradation),
        "training": asdict(training),
    }


def _provenance(
    data: DataRoot,
    training: DeFlowTraining | ESRGANTraining,
    degradation: GenericDegradation,
    history: History,
    about: dict,
) -> dict:
    return {
        **about,
        "seed": training.seed,
        "steps": history.records[-1]["step"] + 1,
        **_origin(data, training, degradation),
        "loss": history.records[:: max(1, len(history.records) // 100)],
    }


def train_base_deflow(
    data: DataRoot, folder: str | Path, *, state_path: str | Path, about: dict, training: DeFlowTraining = BASE_DEFLOW
) -> Path:
    """Train and save ``base_deflow.safetensors``; continues from ``state_path`` if it exists.

    ``about`` (profile, commit, device) is written into the provenance beside the weights.
    """
    clean, degraded = generic_domains(load_images(data.train), 2, seed=training.seed)
    torch.manual_seed(training.seed)
    model = DeFlow(DeFlowConfig())
    names = _names(data)
    names_of_draws = [name for name in names[1::2] for _ in range(DEGRADED_DRAWS)]
    options = {"clean_names": names[0::2], "degraded_names": names_of_draws}
    history = train_deflow(model, clean, degraded, training, state_path=state_path, **options)
    provenance = _provenance(data, training, GenericDegradation(), history, about)
    return save_model(Path(folder) / "base_deflow.safetensors", model, provenance)


def train_base_esrgan(
    data: DataRoot,
    folder: str | Path,
    *,
    scale: int,
    state_path: str | Path,
    about: dict,
    stages: tuple[tuple[ESRGANTraining, GenericDegradation], ...] | None = None,
) -> Path:
    """Train and save ``base_esrgan_x{scale}.safetensors`` and, at x2, ``base_discriminator.safetensors``.

    Scale 2 is trained from scratch, in two stages; each one's result is kept beside ``state_path``, so that a later
    call begins with what is missing. Scales 1 and 4 start from scale 2 and share all weights but the first
    convolution's, whose input has another number of channels, so one short stage is enough.
    """
    folder, state_path = Path(folder), Path(state_path)
    if stages is None:
        from_scratch = ((BASE_ESRGAN, GenericDegradation()), (BASE_REFINEMENT, ANY_GRAIN))
        stages = from_scratch if scale == 2 else ((BASE_TRANSFER, ANY_GRAIN),)
    torch.manual_seed(stages[0][0].seed)
    network, discriminator = RRDBNet(RRDBNetConfig(scale=scale)), Discriminator(DiscriminatorConfig())
    if scale != 2:
        known = load_model(folder / "base_esrgan_x2.safetensors", RRDBNet).state_dict()
        shared = {name: value for name, value in known.items() if not name.startswith("first.")}
        network.load_state_dict(shared, strict=False)
        discriminator = load_model(folder / "base_discriminator.safetensors", Discriminator)
    records = []
    for number, (training, degradation) in enumerate(stages, start=1):
        path = state_path.with_name(f"{state_path.stem}_stage{number}.safetensors")
        done = [path.with_name(f"{path.stem}_{part}.safetensors") for part in ("network", "discriminator")]
        if all(file.is_file() and file.with_suffix(".json").is_file() for file in done):
            network, discriminator = load_model(done[0], RRDBNet), load_model(done[1], Discriminator)
            records.append(read_json(done[0].with_suffix(".json")))
            check_about(done[0], records[-1], _origin(data, training, degradation))
            continue
        options = {"seed": training.seed, "names": _names(data)}
        pairs = GenericPairSampler(load_images(data.train), training.patch, scale, degradation, **options)
        history = train_esrgan(network, discriminator, pairs, training, state_path=path)
        records.append(_provenance(data, training, degradation, history, {**about, "scale": scale}))
        save_model(done[0], network, records[-1])
        save_model(done[1], discriminator, records[-1])
        forget_states(path)
    provenance = {**records[-1], "earlier_stages": records[:-1]}
    if scale == 2:
        save_model(folder / "base_discriminator.safetensors", discriminator, provenance)
    return save_model(folder / f"base_esrgan_x{scale}.safetensors", network, provenance)


def generic_results(
    images: list[Tensor], scale: int, inputs: Sequence[str], training: ESRGANTraining, *, names: Sequence[str] = ()
) -> RedrawnPairs:
    """Endless pairs (classical results, photograph), both of the photograph's size, for `hybrid.RefinementNetwork`.

    A photograph is shrunk, degraded in any way that `ANY_GRAIN` knows and restored by the classical methods named by
    ``inputs``, whole, because they read the noise off the image; again and again, each time all of it has been seen.
    Errors call the photographs by ``names``.
    """
    truths = [crop_to_multiple(image, scale) for image in images]

    def draw(index: int, number: int) -> Tensor:
        chance = torch.Generator().manual_seed(training.seed + number * len(truths) + index)
        clean = imresize(truths[index], 1 / scale).clamp(0, 1)
        return classical_results(quantize(ANY_GRAIN(clean[None], chance)[0]), scale, inputs)

    return RedrawnPairs(draw, truths, training.patch, 1, seed=training.seed, names=names)


def train_base_refinement(
    data: DataRoot,
    folder: str | Path,
    *,
    name: str,
    config: RefinementConfig,
    scale: int,
    state_path: str | Path,
    about: dict,
    training: ESRGANTraining = BASE_HYBRID,
) -> Path:
    """Train a refinement network with L1 only, and save ``base_{name}.safetensors``; continues from ``state_path``.

    Raises
    ------
    UserError: a photograph is smaller than the patch.
    """
    torch.manual_seed(training.seed)
    network, unused = RefinementNetwork(config), Discriminator(DiscriminatorConfig())
    pairs = generic_results(load_images(data.train), scale, config.inputs, training, names=_names(data))
    history = train_esrgan(network, unused, pairs, training, state_path=state_path, save_every=100)
    network.to(memory_format=torch.contiguous_format)
    provenance = _provenance(data, training, ANY_GRAIN, history, {**about, "scale": scale})
    path = save_model(Path(folder) / f"base_{name}.safetensors", network, provenance)
    forget_states(state_path)
    return path
