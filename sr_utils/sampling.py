"""Use trained models on whole photographs: translate clean to degraded, make pairs, restore, at any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils import fidelity
from sr_utils.deflow import DeFlow, condition_of
from sr_utils.esrgan import RRDBNet
from sr_utils.files import checksum, read_json, write_json
from sr_utils.images import crop_to_multiple, imresize, load_image, quantize, save_image
from sr_utils.progress import progress

TILE, OVERLAP = 256, 32


def _pad_to_multiple(image: Tensor, factor: int) -> Tensor:
    """Extend the bottom and right of (3, H, W) by replication to multiples of ``factor``."""
    height, width = image.shape[1:]
    return F.pad(image[None], (0, -width % factor, 0, -height % factor), mode="replicate")[0]


def tiles(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a side into tiles: (start, stop) to read with context and (keep_from, keep_to) to write without."""
    step = tile - 2 * overlap
    if length <= tile:
        yield 0, length, 0, length
        return
    for keep_from in range(0, length, step):
        keep_to = min(keep_from + step, length)
        yield max(0, keep_from - overlap), min(length, keep_to + overlap), keep_from, keep_to


@torch.no_grad()
def translate_image(
    model: DeFlow, clean: Tensor, *, temperature: float = 1.0, seed: int = 0, device: str = "cpu"
) -> Tensor:
    """Degrade one clean image (3, H, W) in [0, 1] of any size; the result is clamped and rounded to 8 bits.

    The draw depends on ``seed`` and the image's size only. Sides are padded by replication to the multiple that
    the flow needs, and cut again.
    """
    factor = model.config.side_multiple
    padded = _pad_to_multiple(clean, factor)[None].to(device)
    generator = torch.Generator().manual_seed(seed)
    condition = condition_of(padded, model.config.condition_factor)
    degraded = model.translate(padded, condition, temperature=temperature, generator=generator)
    return quantize(degraded[0, :, : clean.shape[1], : clean.shape[2]].cpu())


@dataclass(frozen=True)
class Calibration:
    """At which temperature generated images are as noisy as real ones, and the curve that says so."""

    temperature: float
    target: float
    """Deviation of the real images' flat patches, in image units."""
    temperatures: list[float]
    deviations: list[float]
    """Deviation of the generated images' flat patches at each of ``temperatures``."""

    def spread(self, count: int, *, share: float = 0.3) -> list[float]:
        """``count`` temperatures from ``1 - share`` to ``1 + share`` times the calibrated one, for as many draws."""
        if count == 1:
            return [self.temperature]
        steps = torch.linspace(1 - share, 1 + share, count).tolist()
        return [round(self.temperature * step, 4) for step in steps]


def _flat_deviation(images: list[Tensor]) -> float:
    """Deviation in the flattest hundredth of the patches, or in 64 of them if that is more."""
    share = max(0.01, 64 / len(fidelity.to_patches(images, 16)))
    return fidelity.flat_patches(images, share=min(1.0, share)).residual.std().item()


def calibrate_temperature(
    model: DeFlow,
    clean: list[Tensor],
    real: list[Tensor],
    *,
    temperatures: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5),
    seed: int = 0,
    device: str = "cpu",
) -> Calibration:
    """The temperature at which flat patches of generated images deviate as much as those of real ones.

    Parameters
    ----------
    clean, real: images (3, H, W) in [0, 1] at one resolution; they need not show the same.
    temperatures: increasing candidates. Between two of them the answer is interpolated; outside, it is the nearest.

    Notes
    -----
    No ground truth is used. A flow of few parameters explains part of a noisy image by its noisy neighbourhood, which
    a clean image does not have, so at temperature 1 it adds too little noise where the scene is flat.
    """
    target = _flat_deviation(real)
    deviations = []
    for temperature in temperatures:
        generated = [
            translate_image(model, image, temperature=temperature, seed=seed + index, device=device)
            for index, image in enumerate(clean)
        ]
        deviations.append(_flat_deviation(generated))
    chosen = float(np.interp(target, np.maximum.accumulate(deviations), temperatures))
    return Calibration(round(chosen, 4), target, list(temperatures), deviations)


@dataclass(frozen=True)
class PairFolders:
    """Generated pairs on disk: a folder of truths and one of degraded images for every draw, same names."""

    truth: Path
    draws: list[Path]
    made: int
    """Images written by this call; 0 when everything was there already."""

    def load(self) -> tuple[list[list[Tensor]], list[Tensor]]:
        """All draws of each image, and the truths, in the order of their names, as `PairSampler` wants them."""
        names = sorted(path.name for path in self.truth.glob("*.png"))
        truths = [load_image(self.truth / name) for name in names]
        return [[load_image(draw / name) for draw in self.draws] for name in names], truths


def make_pairs(
    model: DeFlow,
    paths: list[Path],
    run_root: str | Path,
    *,
    scale: int,
    temperatures: list[float],
    seed: int = 0,
    model_path: Path | None = None,
) -> PairFolders:
    """Write training pairs: each clean photograph, and a degraded version of it at 1/scale for each temperature.

    Images go to ``run_root/pairs/truth`` and ``run_root/pairs/draw_0``... as PNG. What an earlier call with the
    same model file, photographs and settings wrote is kept, so an interrupted call continues.
    """
    folder = Path(run_root) / "pairs"
    settings = {"scale": scale, "temperatures": list(temperatures), "seed": seed}
    settings |= {"photographs": checksum(paths), "model": checksum([model_path]) if model_path else ""}
    stamp = folder / "settings.json"
    unchanged = bool(model_path) and stamp.is_file() and read_json(stamp) == settings
    if not unchanged:
        for stale in folder.glob("*/*.png"):
            stale.unlink()
        write_json(stamp, settings)
    result = PairFolders(folder / "truth", [folder / f"draw_{draw}" for draw in range(len(temperatures))], 0)
    made = 0
    for index, path in enumerate(progress(paths, label="Pairs", total=len(paths))):
        # The number keeps photographs of the same name from different folders apart.
        name = f"{index:03d}_{path.stem}.png"
        targets = [*(draw / name for draw in result.draws), result.truth / name]
        if all(target.is_file() for target in targets):
            continue
        truth = crop_to_multiple(load_image(path), scale, name=str(path))
        clean = quantize(imresize(truth, 1 / scale))
        for draw, target in enumerate(targets[:-1]):
            image_seed = seed + draw * len(paths) + index
            save_image(translate_image(model, clean, temperature=temperatures[draw], seed=image_seed), target)
            made += 1
        save_image(truth, targets[-1])
    return PairFolders(result.truth, result.draws, made)


@torch.no_grad()
def restore_image(network: RRDBNet, low_resolution: Tensor, *, device: str = "cpu") -> Tensor:
    """Restore one image (3, H, W) in [0, 1] to (3, scale * H, scale * W), clamped and rounded to 8 bits.

    Images longer than 256 pixels are processed in tiles with 32 pixels of context, so memory stays flat.
    """
    scale = network.config.scale
    _, height, width = low_resolution.shape
    restored = torch.empty(3, scale * height, scale * width)
    for top, bottom, keep_top, keep_bottom in tiles(height, TILE, OVERLAP):
        for left, right, keep_left, keep_right in tiles(width, TILE, OVERLAP):
            part = low_resolution[None, :, top:bottom, left:right].to(device, memory_format=torch.channels_last)
            out = network(part)[0].cpu()
            rows = slice(scale * (keep_top - top), scale * (keep_bottom - top))
            columns = slice(scale * (keep_left - left), scale * (keep_right - left))
            target = restored[:, scale * keep_top : scale * keep_bottom, scale * keep_left : scale * keep_right]
            target.copy_(out[:, rows, columns])
    return quantize(restored)


def restore_folder(
    network: RRDBNet, paths: list[Path], folder: str | Path, *, device: str = "cpu"
) -> list[Path]:
    """Restore every image of ``paths`` into ``folder`` as PNG of the same stem; returns the written paths."""
    written = []
    for path in progress(paths, label="Restore", total=len(paths)):
        target = Path(folder) / f"{path.stem}.png"
        save_image(restore_image(network, load_image(path), device=device), target)
        written.append(target)
    return written


def translate_folder(
    model: DeFlow,
    paths: list[Path],
    folder: str | Path,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
) -> list[Path]:
    """Degrade every image of ``paths`` into ``folder`` as PNG of the same stem; returns the written paths.

    Image number i is drawn with ``seed + i``, so the result repeats and no two images share their noise.
    """
    written = []
    for index, path in enumerate(progress(paths, label="Translate", total=len(paths))):
        target = Path(folder) / f"{path.stem}.png"
        degraded = translate_image(model, load_image(path), temperature=temperature, seed=seed + index, device=device)
        save_image(degraded, target)
        written.append(target)
    return written
