"""Commands for folders of images: degrade, restore and score them; `cli` has them all.

Each command imports what it needs itself, as there.
"""

from pathlib import Path
from typing import Annotated

import tyro

from sr_utils.errors import UserError


def translate(
    weights: Annotated[Path, tyro.conf.Positional],
    images: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    *,
    like: Path | None = None,
    sensor: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    tile: int = 768,
    first: int = 0,
    count: int | None = None,
    device: str = "cpu",
) -> None:
    """Degrade every image of a folder as a DeFlow learned it.

    Parameters
    ----------
    weights
        of a DeFlow: a run's deflow.safetensors, or a released .pth.
    images
        folder of clean images, at the size of the degraded ones.
    output
        folder for the results, as 8-bit RGB PNG of the same names; transparency and further pages are dropped.
    like
        folder of real degraded images: the results are compressed as those show that they were.
    sensor
        draw the noise on the mosaic of the sensor that the images of like show, instead of the flow's own. They must
        be of one camera and never have been resized, nor turned but by a note in the file.
    temperature
        scales the noise that is drawn.
    seed
        of the noise; the first image is drawn with it, the next with seed + 1, and so on.
    tile
        side in pixels of what is degraded at once: less takes less memory.
    first
        number of the image to begin with, from 0, in the order of their names.
    count
        how many images to do; all of the rest unless given.
    device
        where to compute: cpu, cuda for a GPU, or cuda:1 for the second one.
    """
    from sr_utils.compression import estimate_qualities
    from sr_utils.images import list_images, load_image
    from sr_utils.sampling import translate_folder
    from sr_utils.sensor_calibration import sensor_of
    from sr_utils.shards import part_of
    from sr_utils.weights import load_deflow

    if sensor and like is None:
        raise UserError("--sensor reads a camera off real degraded images: give their folder with --like.")
    model, paths = load_deflow(weights, device=device), part_of(images, first, count)
    likes = list_images(like) if like else []
    # Mosaic and blocks lie as the sensor had them.
    real = (load_image(path, upright=False) for path in likes)
    options = {"temperature": temperature, "seed": seed + first, "tile": tile, "device": device, "kept": likes}
    if sensor:
        found = sensor_of(real, name=str(like))
        written = translate_folder(model, paths, output, sensor=found, **options)
        how = f"their first red pixel is in row {found.phase[0]}, column {found.phase[1]}"
        told = f"{len(found.log_strengths)} images of {like} show their sensor: {how}."
    else:
        qualities = estimate_qualities(real)
        written = translate_folder(model, paths, output, qualities=qualities, **options)
        what = "the results are compressed likewise" if qualities else "the results are not compressed"
        told = f"{len(qualities)} images of {like} show a JPEG quality: {what}."
    print(f"Wrote {len(written)} images to {output}")
    if like:
        print(told)


def restore(
    weights: Annotated[Path, tyro.conf.Positional],
    images: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    *,
    consistency: float | None = None,
    tile: int = 256,
    first: int = 0,
    count: int | None = None,
    device: str = "cpu",
) -> None:
    """Restore and enlarge every image of a folder.

    Parameters
    ----------
    weights
        of an ESRGAN: a run's esrgan.safetensors, a base checkpoint, or a released .pth.
    images
        folder of degraded images.
    output
        folder for the results, as 8-bit RGB PNG of the same names; transparency and further pages are dropped.
    consistency
        how closely the result follows the input: the width in pixels over which the two agree. Unless given, the one
        of the weights, 6 as a rule, which keeps brightness and colour; 0.4 keeps all that an image with little noise
        shows.
    tile
        side in pixels of what is restored at once: less takes less memory.
    first
        number of the image to begin with, from 0, in the order of their names.
    count
        how many images to do; all of the rest unless given.
    device
        where to compute: cpu, cuda for a GPU, or cuda:1 for the second one.
    """
    from sr_utils.esrgan import with_consistency
    from sr_utils.sampling import restore_folder
    from sr_utils.shards import part_of
    from sr_utils.weights import load_esrgan

    network = load_esrgan(weights, device=device)
    if consistency is not None:
        network = with_consistency(network, consistency)
    written = restore_folder(network, part_of(images, first, count), output, device=device, tile=tile)
    print(f"Wrote {len(written)} images to {output}")


def score(
    images: Annotated[Path, tyro.conf.Positional],
    truths: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    *,
    first: int = 0,
    count: int | None = None,
) -> None:
    """Score every image of a folder against the ground truth of the same name, into a JSON file.

    Parameters
    ----------
    images
        folder of restored images.
    truths
        folder of ground truths of the same names and sizes.
    output
        file for the scores.
    first
        number of the image to begin with, from 0, in the order of their names.
    count
        how many images to do; all of the rest unless given.
    """
    from sr_utils.shards import part_of, score_folder

    rows = score_folder(part_of(images, first, count), truths, output)
    print(f"Wrote the scores of {len(rows)} images to {output}")
