"""Use trained models on whole photographs of any size: translate clean to degraded, restore, a folder at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sr_utils.deflow import DeFlow, reconfigured
from sr_utils.degradations import jpeg
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet
from sr_utils.images import colour_profile, finite_bytes, load_image, of_one_stem, save_image
from sr_utils.parameters import check_range
from sr_utils.progress import progress
from sr_utils.sensor import Sensor
from sr_utils.tiled_translation import TRANSLATION_OVERLAP, TRANSLATION_TILE, translated_bytes
from sr_utils.tiles import OVERLAP, TILE, tiles


def translate_image(
    model: DeFlow,
    clean: Tensor,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    tile: int = TRANSLATION_TILE,
    overlap: int = TRANSLATION_OVERLAP,
) -> Tensor:
    """Degrade one clean image (3, H, W) in [0, 1] of any size; the result is clamped and rounded to 8 bits.

    The draw depends on ``seed`` and the image's size only. Sides are padded by replication to the multiple that
    the flow needs, and cut again. Images with a side above ``tile`` are translated in tiles of that side with
    ``overlap`` pixels of context, so that memory grows only with the image and its noise themselves.

    Parameters
    ----------
    device: where ``model`` already is; it is not moved, the image is.

    Raises
    ------
    UserError: ``tile`` or ``overlap`` is no multiple of what the flow needs, or nothing is left of a tile.
    """
    options = {"temperature": temperature, "seed": seed, "device": device, "tile": tile, "overlap": overlap}
    return translated_bytes(model, clean, **options).float().div_(255)


def degrade_image(
    model: DeFlow,
    clean: Tensor,
    *,
    qualities: Sequence[int] = (),
    sensor: Sensor | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
) -> Tensor:
    """`translate_image`, then JPEG compression at one of ``qualities``, drawn by ``seed``; none if there are none.

    Compression rounds the image's blocks, which no noise resembles. Its quality need not be learned: real degraded
    images show theirs, see `compression.estimate_qualities`. The model must already be on ``device``, as for
    `translate_image`.

    Where the real images come from a ``sensor`` that shows (`sensor_calibration.read_sensor`), the model only does what
    is certain, and noise and compression are the sensor's; ``qualities`` are then not used. Give the model that
    `beside_sensor` makes.
    """
    if sensor is not None:
        certain = translate_image(model, clean, temperature=0.0, device=device)
        return sensor.photograph(certain, seed=seed, temperature=temperature)
    degraded = translate_image(model, clean, temperature=temperature, seed=seed, device=device)
    return compressed(degraded, qualities, seed) if qualities else degraded


def beside_sensor(model: DeFlow, sensor: Sensor | None) -> DeFlow:
    """The model that goes with a ``sensor``, if any: without blur, since interpolating colours blurs already."""
    return model if sensor is None else reconfigured(model, blur=0.0)


def compressed(image: Tensor, qualities: Sequence[int], seed: int) -> Tensor:
    """An image (3, H, W) in [0, 1] as JPEG of a quality that is drawn by ``seed``."""
    drawn = torch.randint(len(qualities), (), generator=torch.Generator().manual_seed(seed))
    return jpeg(image, qualities[int(drawn)])


def restore_image(network: RRDBNet, low_resolution: Tensor, *, device: str = "cpu", tile: int = TILE) -> Tensor:
    """Restore one image (3, H, W) in [0, 1] to (3, scale * H, scale * W), clamped and rounded to 8 bits.

    Images with a side above ``tile`` pixels are processed in tiles with 32 pixels of context, so memory stays flat.

    Parameters
    ----------
    device: where ``network`` already is; it is not moved, the image is.
    tile: rounded down to a multiple of the network's ``unshuffle``, for most networks 4 / scale.

    Raises
    ------
    UserError: ``tile`` is below 64 + ``unshuffle``: besides the context nothing would be left.
    """
    return _restored_bytes(network, low_resolution, device, tile).float().div_(255)


@torch.no_grad()
def _restored_bytes(network: RRDBNet, low_resolution: Tensor, device: str, tile: int = TILE) -> Tensor:
    """`restore_image` as bytes, a quarter of the memory."""
    grid = network.unshuffle
    check_range("a restoration", least=2 * OVERLAP + grid, tile=tile)
    # The network folds grid x grid pixels into channels: a tile that began between two of them would show it others.
    tile -= tile % grid
    scale = network.config.scale
    _, height, width = low_resolution.shape
    restored = torch.empty(3, scale * height, scale * width, dtype=torch.uint8)
    for top, bottom, keep_top, keep_bottom in tiles(height, tile, OVERLAP, multiple=grid):
        for left, right, keep_left, keep_right in tiles(width, tile, OVERLAP, multiple=grid):
            part = low_resolution[None, :, top:bottom, left:right].to(device, memory_format=torch.channels_last)
            out = finite_bytes(network(part)[0], of="restoring network").cpu()
            rows = slice(scale * (keep_top - top), scale * (keep_bottom - top))
            columns = slice(scale * (keep_left - left), scale * (keep_right - left))
            target = restored[:, scale * keep_top : scale * keep_bottom, scale * keep_left : scale * keep_right]
            target.copy_(out[:, rows, columns])
    return restored


def _targets(paths: list[Path], folder: str | Path, kept: Sequence[Path] = ()) -> list[Path]:
    """Where the results of ``paths`` go: PNG of the same stem in ``folder``.

    Raises
    ------
    UserError: a result would overwrite one of ``paths`` or of ``kept``, or two of them would have one result.
    """
    targets = [Path(folder) / f"{path.stem}.png" for path in paths]
    if alike := of_one_stem(paths):
        raise UserError(f"{alike[0]} and {alike[1]} would both become {alike[0].stem}.png: rename one of them.")
    # Any of them and not only its own: out of a.jpg comes a.png, which may be an input too.
    inputs = {os.path.realpath(path) for path in (*paths, *kept)}
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise UserError(f"A result would overwrite the input {target}: choose another output folder.")
    return targets


def restore_folder(
    network: RRDBNet, paths: list[Path], folder: str | Path, *, device: str = "cpu", tile: int = TILE
) -> list[Path]:
    """Restore every image of ``paths`` into ``folder`` as PNG of the same stem; returns the written paths.

    Raises
    ------
    UserError: a result would overwrite one of ``paths`` or another result, found before the first is written; or as
        `restore_image`.
    """
    targets = _targets(paths, folder)
    for path, target in progress(zip(paths, targets, strict=True), label="Restore", total=len(paths)):
        restored = _restored_bytes(network, load_image(path), device, tile)
        save_image(restored, target, profile=colour_profile(path))
    return targets


def translate_folder(
    model: DeFlow,
    paths: list[Path],
    folder: str | Path,
    *,
    qualities: Sequence[int] = (),
    sensor: Sensor | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    tile: int = TRANSLATION_TILE,
    kept: Sequence[Path] = (),
) -> list[Path]:
    """Degrade every image of ``paths`` into ``folder`` as PNG of the same stem; returns the written paths.

    Image number i is drawn with ``seed + i``, so the result repeats and no two images share their noise. With
    ``qualities`` it is compressed at one of them, and with a ``sensor`` noise and compression are that one's, as in
    `degrade_image`. No result may overwrite an image of ``kept`` either, such as those that the qualities are of.

    Raises
    ------
    UserError: a result would overwrite an image or another result, or the seeds do not fit into 63 bits, found before
        the first is written; or as `translate_image`.
    """
    check_range("a translation", least=0, largest=2**63 - 1 - len(paths), seed=seed)
    targets, model = _targets(paths, folder, kept), beside_sensor(model, sensor)
    for index, path in enumerate(progress(paths, label="Translate", total=len(paths))):
        options = {"device": device, "tile": tile, "overlap": TRANSLATION_OVERLAP}
        drawn_at = temperature if sensor is None else 0.0
        degraded = translated_bytes(model, load_image(path), temperature=drawn_at, seed=seed + index, **options)
        if sensor is not None:
            certain = degraded.float().div_(255)
            degraded = sensor.photograph(certain, seed=seed + index, temperature=temperature)
        elif qualities:
            degraded = compressed(degraded.float().div_(255), qualities, seed + index)
        save_image(degraded, targets[index], profile=colour_profile(path))
    return targets
