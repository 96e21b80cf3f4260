"""Score restored images against ground truths, and write tables of results.

The headline is measured on RGB, without a crop, on images rounded to 8 bits; PSNR and SSIM of luma with four
border pixels cropped, the older habit of the field, stand beside it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sr_utils.deflow import DeFlow
from sr_utils.errors import UserError
from sr_utils.files import checksum, read_json, write_json
from sr_utils.images import crop_to_multiple, imresize, load_image, quantize, save_image
from sr_utils.metrics import lpips, psnr, ssim
from sr_utils.progress import progress

SCORES = ("psnr", "ssim", "lpips", "psnr_y", "ssim_y")
LUMA_CROP = 4

PSNR_CEILING = 100.0
"""Equal images have an infinite PSNR; they count as this many decibels, so that means stay finite."""


def score(restored: Tensor, truth: Tensor) -> dict[str, float]:
    """All five scores of one image (3, H, W) in [0, 1], both sides rounded to 8 bits first.

    Raises
    ------
    UserError: the sizes differ, or the images are smaller than LPIPS needs.
    """
    pair = quantize(restored)[None], quantize(truth)[None]
    luma = {"data_range": 1.0, "y_channel": True, "crop_border": LUMA_CROP}
    return {
        "psnr": min(psnr(*pair, data_range=1.0).item(), PSNR_CEILING),
        "ssim": ssim(*pair, data_range=1.0).item(),
        "lpips": lpips(*pair, data_range=1.0).item(),
        "psnr_y": min(psnr(*pair, **luma).item(), PSNR_CEILING),
        "ssim_y": ssim(*pair, **luma).item(),
    }


def score_named(restored: Tensor, truth: Tensor, *, name: str, truth_name: str) -> dict[str, float]:
    """`score`, whose errors say which files they are about.

    Parameters
    ----------
    name: what errors call the restored image, at the beginning of a sentence.
    truth_name: what they call the truth.

    Raises
    ------
    UserError: as `score`.
    """
    try:
        return score(restored, truth)
    except UserError as error:
        raise UserError(f"{name} cannot be compared with {truth_name}: {error}") from error


def score_pairs(restored: Iterable[Tensor], truths: Iterable[Tensor]) -> list[dict[str, float]]:
    """One row of scores an image; both arguments may be generators, so that no set is held in memory."""
    return [score(image, truth) for image, truth in zip(restored, truths, strict=True)]


def score_method(
    restore: Callable[[Tensor], Tensor],
    pairs: Sequence[tuple[Path, Path]],
    *,
    label: str,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Restore and score pairs of files one at a time.

    Parameters
    ----------
    restore: takes a low-resolution image (3, H, W) and returns the restored one at the truth's size.
    pairs: (input, truth) paths.
    folder: where to write each restored image as PNG under its input's name; nothing is written when None.

    Returns
    -------
    A row an image: ``name``, the five scores, and ``seconds`` that ``restore`` took.

    Raises
    ------
    UserError: a file cannot be read, or a result cannot be compared with its truth.
    """
    rows = []
    for input_path, truth_path in progress(pairs, label=label, total=len(pairs)):
        low, truth = load_image(input_path), load_image(truth_path)
        begun = time.perf_counter()
        restored = restore(low)
        seconds = time.perf_counter() - begun
        names = {"name": f"The result for {input_path}", "truth_name": str(truth_path)}
        rows.append({"name": input_path.stem, **score_named(restored, truth, **names), "seconds": seconds})
        if folder is not None:
            save_image(restored, folder / f"{input_path.stem}.png")
    return rows


def bicubic(low: Tensor, scale: int) -> Tensor:
    """The baseline: bicubic enlargement of (3, H, W), rounded to 8 bits; the input itself at scale 1."""
    return quantize(low if scale == 1 else imresize(low, scale))


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over images, the deviation between images (``_image_std``), median seconds, and the count."""
    summary: dict[str, float] = {}
    for name in (name for name in SCORES if name in rows[0]):
        values = [row[name] for row in rows]
        summary[name] = statistics.fmean(values)
        summary[f"{name}_image_std"] = statistics.pstdev(values)
    if "seconds" in rows[0]:
        # The median: the first image also pays for loading libraries.
        summary["seconds_per_image"] = statistics.median(row["seconds"] for row in rows)
    summary["count"] = len(rows)
    return summary


def parameter_count(model: nn.Module) -> int:
    """How many numbers a model learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def write_metrics(path: str | Path, provenance: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write ``{"provenance": ..., "rows": [...]}``, the shape that every results file of the course has.

    Raises
    ------
    ValueError: a number is NaN or infinite, or a row has no ``method``.
    """
    for row in rows:
        if "method" not in row:
            raise ValueError(f"A row of {path} has no method: {row}")
        bad = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            raise ValueError(f"The row {row['method']} of {path} is not finite in {', '.join(bad)}.")
    write_json(path, {"provenance": provenance, "rows": list(rows)})


@torch.no_grad()
def bits_per_dimension(model: DeFlow, images: Sequence[Tensor], domain: int, *, seed: int = 0) -> float:
    """Mean negative log-likelihood of images (3, H, W), with dequantisation noise that follows from ``seed``.

    Sides are cropped to the multiple that the flow needs; large images weigh more, by their pixels.
    """
    factor = model.config.side_multiple
    device = next(model.parameters()).device
    total, pixels = 0.0, 0
    # Without noise on h, its map has a chance of its own, as in training.
    chance = None if model.config.condition_noise else torch.default_generator
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for image in images:
            image = crop_to_multiple(image, factor)[None].to(device)
            condition = model.condition(image, generator=chance)
            bits = model(image, condition, torch.full((1,), domain, device=device), noise=True)
            total += bits.item() * image[0].numel()
            pixels += image[0].numel()
    return total / pixels


@dataclass(frozen=True)
class Weights:
    """Which weights restore a data root: the file, the name of its row, and a sentence that says why."""

    path: Path
    method: str
    why: str


def choose_weights(run_root: Path, base: Path, *, scale: int, inputs: Sequence[Path]) -> Weights:
    """A run's own ESRGAN if it was trained for these inputs at this scale, else the base checkpoint ``base``.

    Raises
    ------
    UserError: neither file exists, or the run's provenance cannot be read.
    """
    own = run_root / "esrgan.safetensors"
    stamp = own.with_suffix(".json")
    if not (own.is_file() and stamp.is_file()):
        reason = "this run has not trained an ESRGAN"
    else:
        provenance = read_json(stamp)
        if provenance.get("scale") != scale:
            reason = f"this run's ESRGAN enlarges by {provenance.get('scale')}, not by {scale}"
        elif provenance.get("inputs") != checksum(inputs):
            reason = "this run's ESRGAN was trained for other input images"
        else:
            why = "The ESRGAN that this run trained for these very inputs is used."
            return Weights(own, "esrgan_deflow", why)
    if not base.is_file():
        raise UserError(f"{base} does not exist, and {reason}: get it with git checkout, or run 03 to 05.")
    return Weights(base, "esrgan_base", f"The committed base checkpoint is used, because {reason}.")
