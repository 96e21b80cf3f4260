"""Images on disk and in memory: float32 tensors (3, H, W), RGB, in [0, 1]; `decoding` reads them."""

import functools
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from sr_utils.decoding import colour_profile, image_size, load_image
from sr_utils.errors import UserError
from sr_utils.files import atomic_path

__all__ = [
    "SUFFIXES",
    "colour_profile",
    "crop_to_multiple",
    "cubic",
    "finite_bytes",
    "image_size",
    "images_by_stem",
    "imresize",
    "list_images",
    "load_image",
    "of_one_stem",
    "quantize",
    "resize_matrix",
    "save_image",
    "stacked",
    "to_bytes",
    "to_y",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

# BT.601 luma of R, G, B in [0, 1], as MATLAB's rgb2ycbcr: 16/255 for black, 235/255 for white.
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_LUMA_OFFSET = 16 / 255


def list_images(folder: str | os.PathLike) -> list[Path]:
    """The image files in `folder` (not in its sub-folders), sorted by name; hidden files are left out.

    Raises:
        UserError: the folder is missing, unreadable or holds no image.
    """
    folder = Path(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be listed ({error.strerror}): make it and put images in."
        ) from error
    paths = [
        folder / name
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES and (folder / name).is_file()
    ]
    for path in paths:
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{folder} holds {path.name!a}, whose name is not valid text: rename it.") from error
    if not paths:
        endings = " ".join(SUFFIXES)
        raise UserError(f"The folder {folder} holds no images: put some in (files ending in {endings}).")
    return paths


def of_one_stem(paths: Iterable[Path]) -> tuple[Path, Path] | None:
    """The first two different paths that share their name without its ending; None if no two do."""
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other != path:
            return other, path
    return None


def images_by_stem(folder: str | os.PathLike) -> dict[str, Path]:
    """The images of `list_images` by their name without its ending, in that order.

    Raises:
        UserError: as `list_images`, or two images differ in their ending only.
    """
    paths = list_images(folder)
    if alike := of_one_stem(paths):
        raise UserError(f"{alike[0]} and {alike[1]} have one name: rename or remove one of them.")
    return {path.stem: path for path in paths}


def quantize(image: torch.Tensor) -> torch.Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file, still as float."""
    return image.clamp(0, 1).mul(255).round().div(255)


def to_bytes(image: torch.Tensor) -> torch.Tensor:
    """The 256 levels of an 8-bit file, of an image in [0, 1]; an image of bytes already stays as it is."""
    return image if image.dtype == torch.uint8 else image.clamp(0, 1).mul_(255).round_().byte()


def finite_bytes(image: torch.Tensor, *, of: str) -> torch.Tensor:
    """`to_bytes` of what a network made.

    Raises:
        UserError: a pixel is not finite, which bytes could not show. ``of`` names the network.
    """
    if not torch.isfinite(image).all():
        raise UserError(f"The {of} gave pixels that are not finite: its weights are damaged, train or copy them anew.")
    return to_bytes(image)


def save_image(image: torch.Tensor, path: str | os.PathLike, *, profile: bytes | None = None) -> None:
    """Write a tensor (3, H, W) in [0, 1], or of bytes, as an 8-bit RGB PNG, clamped, rounded, atomically.

    Args:
        profile: an ICC profile for the file, as `colour_profile` reads it.

    Raises:
        ValueError: the shape is not (3, H, W), a pixel is not finite, or the name does not end in .png.
        UserError: the file cannot be written.
    """
    path = Path(path)
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"save_image needs a tensor (3, H, W), not {tuple(image.shape)}.")
    if path.suffix.lower() != ".png":
        raise ValueError(f"save_image writes PNG files only, and {path.name} does not end in .png.")
    if image.is_floating_point() and not torch.isfinite(image).all():
        raise ValueError(f"The image for {path} holds NaN or infinite pixels.")
    array = to_bytes(image.detach().cpu()).permute(1, 2, 0).numpy()
    with atomic_path(path) as temporary:
        if profile:
            # OpenCV writes none.
            Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG", icc_profile=profile)
        else:
            temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(array[..., ::-1]))[1].tobytes())


def to_y(image: torch.Tensor) -> torch.Tensor:
    """BT.601 luma (N, 1, H, W) of RGB (N, 3, H, W), or (1, H, W) of (3, H, W), as MATLAB's rgb2ycbcr.

    RGB in [0, 1] gives luma in [16/255, 235/255].
    """
    weights = image.new_tensor(_LUMA).view(3, 1, 1)
    return (image * weights).sum(-3, keepdim=True) + _LUMA_OFFSET


def crop_to_multiple(image: torch.Tensor, factor: int, *, name: str = "An image") -> torch.Tensor:
    """Cut the bottom and right of (..., H, W) so that both sides are multiples of `factor`.

    Args:
        name: what the error calls the image, such as its path.

    Raises:
        UserError: a side is smaller than `factor`.
    """
    height, width = (side - side % factor for side in image.shape[-2:])
    if not (height and width):
        size = f"{image.shape[-1]}x{image.shape[-2]}"
        raise UserError(f"{name} is {size}, smaller than {factor} pixels: remove it or use a larger one.")
    return image[..., :height, :width]


def stacked(*sets: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Each set of images (3, H, W) as one batch, all of them cut to the largest rectangle, top left, that all have."""
    every = [image for images in sets for image in images]
    height, width = (min(image.shape[axis] for image in every) for axis in (1, 2))
    return tuple(torch.stack([image[:, :height, :width] for image in images]) for images in sets)


def imresize(image: torch.Tensor, scale: float) -> torch.Tensor:
    """Antialiased bicubic resizing of (N, C, H, W) or (C, H, W), equal to MATLAB's `imresize` for doubles.

    Keys' kernel with a = -0.5, widened by 1/scale when the image shrinks, weights normalised, borders
    mirrored with the edge pixel repeated, output sides ceil(side * scale). Differentiable; keeps dtype and
    device. Values are not clamped: bicubic weights overshoot at edges, so follow with `quantize` for what a
    file would hold.

    Raises:
        ValueError: `scale` is not positive and finite, or the image is not a floating-point tensor.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"imresize needs a positive scale, not {scale}.")
    if image.ndim not in (3, 4) or not image.is_floating_point():
        shape = tuple(image.shape)
        raise ValueError(f"imresize needs a float tensor (N, C, H, W) or (C, H, W), not {image.dtype} {shape}.")
    rows, columns = (
        torch.from_numpy(resize_matrix(side, float(scale))).to(image.device, image.dtype) for side in image.shape[-2:]
    )
    return rows @ image @ columns.T


# One image's rows and columns, there and back: of large photographs each matrix takes a hundred megabytes.
@functools.lru_cache(maxsize=4)
def resize_matrix(length: int, scale: float) -> np.ndarray:
    """The (ceil(length * scale), length) matrix that resizes one axis, float64.

    Output pixel i sits at (i + 0.5) / scale - 0.5 of the input, pixel centres at integers.
    """
    # Without the small slack 30 * (1/3 as a float) or 100 * 1.1 would gain a row by rounding.
    size = max(1, math.ceil(length * scale - 1e-9))
    shrink = min(scale, 1.0)
    centres = (np.arange(size) + 0.5) / scale - 0.5
    support = 4 / shrink
    left = np.floor(centres - support / 2).astype(int)
    taps = left[:, None] + np.arange(math.ceil(support) + 2)
    weights = cubic((centres[:, None] - taps) * shrink)
    weights /= weights.sum(axis=1, keepdims=True)

    # Mirrored positions: 0 1 2 | 2 1 0 | 0 1 2 ...
    folded = taps % (2 * length)
    folded = np.minimum(folded, 2 * length - 1 - folded)
    matrix = np.zeros((size, length))
    np.add.at(matrix, (np.arange(size)[:, None], folded), weights)
    return matrix


def cubic(distance: np.ndarray, *, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution kernel at distances in pixels; 0 from 2 on (Keys 1981, equations 4 to 15).

    With a = -0.5 it is exact for quadratics (his equation 15), as MATLAB has it; others have other constants.
    """
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
