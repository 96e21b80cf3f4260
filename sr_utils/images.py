"""Read, write and resize images: float32 tensors (3, H, W), RGB, in [0, 1]."""

import contextlib
import functools
import math
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, TiffImagePlugin

from sr_utils.errors import UserError
from sr_utils.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

# Whatever a file is called, only these are decoded: some of Pillow's other formats start programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")

# A photograph of 24 megapixels, enlarged four times, has 384. A small file that claims more than this is more often an
# attack on memory than an image. OpenCV takes twice as many.
_MAX_PIXELS = 2**29

_PILLOW_LIMIT = threading.Lock()

# Keys' cubic convolution kernel (1981) with the constant that is exact for quadratics, as in MATLAB.
_CUBIC_A = -0.5

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


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of an image as `load_image` would return it, from the file's header alone.

    Raises:
        UserError: the file is missing, unreadable or not an image.
    """
    image = _open_with_pillow(path)
    if image is None:
        height, width = load_image(path).shape[1:]
        return height, width
    with image:
        width, height = image.size
        turned = _orientation(image) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def load_image(path: str | os.PathLike, *, upright: bool = True) -> torch.Tensor:
    """Read an image file as a float32 tensor (3, H, W), RGB, in [0, 1].

    16-bit depth is kept, floating-point files are taken to be in [0, 1] and clamped, EXIF rotation is
    applied, grey is repeated over the channels, transparency is dropped. The content tells the format, not
    the name. Unless ``upright``, a file that is no TIFF is left as the sensor had it, whatever its EXIF data say.

    Raises:
        UserError: the file is missing, unreadable, truncated, not an image or too large to be one.
    """
    path = Path(path)
    array, orientation, flags = None, 1, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = _open_with_pillow(path)
    if image is not None:
        with image:
            if image.format != "TIFF":
                # In damaged EXIF data OpenCV finds other orientations than Pillow, which `image_size` asks.
                orientation = _orientation(image) if upright else 1
                flags |= cv2.IMREAD_IGNORE_ORIENTATION
            else:
                # Pillow maps an uncompressed file that has a name into memory, and then turns it wrongly.
                image.filename = ""
            try:
                # OpenCV would fill the missing part of a truncated file with grey; Pillow refuses it. Of a TIFF, it
                # looks at the size again.
                with _pillow_takes_as_many() if image.format == "TIFF" else contextlib.nullcontext():
                    image.load()
            except Exception as error:  # damaged files make decoders raise nearly anything
                raise UserError(f"The image {path} is truncated or corrupt ({error}): replace it.") from error
            if image.format == "TIFF":
                _check_tiff(image, path)
            if image.mode == "F":
                # OpenCV does not turn floating-point grey into colour.
                array = np.repeat(np.asarray(image)[..., None], 3, axis=2)
            elif image.format == "TIFF" and image.mode == "RGBA" and _is_8_bit(image):
                # OpenCV multiplies colour by alpha here; of 16 bits it does not, and Pillow would drop eight.
                array = np.asarray(image)[..., 2::-1]
    if array is None:
        # The name never reaches OpenCV, which cannot open every non-ASCII one.
        content = np.fromfile(path, dtype=np.uint8)
        try:
            array = cv2.imdecode(content, flags)
        except cv2.error:
            array = None
    if array is None:
        raise UserError(f"The image {path} has a format that cannot be read: save it again as PNG.")
    return _to_tensor(_upright(array, orientation)[..., ::-1], path)


def _check_tiff(image: Image.Image, path: Path) -> None:
    """Refuse what OpenCV, which alone keeps more than 8 bits of colour, reads as other values than are meant."""
    tags = image.tag_v2
    planar = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > 1
    inverted = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    if (planar or inverted) and set(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) & {16, 32, 64}:
        kind = "keeps its channels one after the other" if planar else "counts from white to black"
        raise UserError(f"The image {path} {kind} in more than 8 bits, which is not read: save it again as PNG.")


def _is_8_bit(image: Image.Image) -> bool:
    """Whether a TIFF as Pillow opened it has 8 bits a channel."""
    return set(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ())) == {8}


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, that a picture is still to be turned by; Pillow turns a TIFF by itself."""
    try:
        found = image.getexif().get(0x0112) if image.format != "TIFF" else 1
    except Exception:  # damaged data make the parser raise nearly anything
        return 1
    return found if found in range(1, 9) else 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, C) by its EXIF orientation: 5 to 8 are 1 to 4 of the picture mirrored at its diagonal."""
    if orientation > 4:
        array = array.swapaxes(0, 1)
    # Mirrored from left to right, and from top to bottom.
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    return array[::rows, ::columns]


@contextlib.contextmanager
def _pillow_takes_as_many() -> Iterator[None]:
    """Set Pillow's limit, which is the whole process's, to `_MAX_PIXELS`, and put it back; one thread at a time."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_with_pillow(path: str | os.PathLike) -> Image.Image | None:
    """Open an image with Pillow, reading its header; None for the TIFF variants that only OpenCV knows.

    Raises:
        UserError: as `load_image`.
    """
    path = Path(path)
    try:
        # Opening a pipe would wait for someone to write into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"The image {path} cannot be read (it is no file): replace or remove it.")
        with path.open("rb") as stream:
            start = stream.read(4)
        if not start:
            raise UserError(f"The image {path} is empty (zero bytes): replace it.")
        with _pillow_takes_as_many():
            image = Image.open(path, formats=_FORMATS)
    except FileNotFoundError as error:
        raise UserError(f"The image {path} does not exist: check the name.") from error
    except Image.UnidentifiedImageError as error:
        if start in (b"II*\0", b"MM\0*"):
            _check_tiff_size(path)
            return None
        raise UserError(f"The file {path} is not an image that can be read: replace or remove it.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The image {path} cannot be read ({reason}): check its name and permissions.") from error
    except Exception as error:  # damaged headers make decoders raise nearly anything
        raise UserError(f"The image {path} is truncated or corrupt ({error}): replace it.") from error
    # Pillow itself only warns up to twice its limit.
    if image.width * image.height > _MAX_PIXELS:
        image.close()
        raise _too_large(path)
    return image


def _check_tiff_size(path: Path) -> None:
    """Refuse a TIFF that Pillow cannot decode if its header claims too many pixels or none."""
    try:
        with path.open("rb") as stream:
            directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
            stream.seek(directory.next)
            directory.load(stream)
        pixels = directory[TiffImagePlugin.IMAGEWIDTH] * directory[TiffImagePlugin.IMAGELENGTH]
    except Exception as error:
        raise UserError(f"The image {path} is truncated or corrupt ({error!r}): replace it.") from error
    if pixels > _MAX_PIXELS:
        raise _too_large(path)


def _too_large(path: Path) -> UserError:
    return UserError(f"The image {path} has more than {_MAX_PIXELS // 10**6} million pixels: cut it into parts.")


def _to_tensor(array: np.ndarray, path: Path) -> torch.Tensor:
    """(H, W, 3) RGB of 8 or 16 bit or floating point -> (3, H, W) float32 in [0, 1]."""
    if np.issubdtype(array.dtype, np.integer):
        array = array.astype(np.float32) / np.iinfo(array.dtype).max
    array = np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"The image {path} holds NaN or infinite pixels: save it again as PNG.")
    return torch.from_numpy(array).clamp_(0, 1)


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


def save_image(image: torch.Tensor, path: str | os.PathLike) -> None:
    """Write a tensor (3, H, W) in [0, 1], or of bytes, as an 8-bit RGB PNG, clamped, rounded, atomically.

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
    encoded = cv2.imencode(".png", np.ascontiguousarray(array[..., ::-1]))[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


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
    weights = _cubic((centres[:, None] - taps) * shrink)
    weights /= weights.sum(axis=1, keepdims=True)

    # Mirrored positions: 0 1 2 | 2 1 0 | 0 1 2 ...
    folded = taps % (2 * length)
    folded = np.minimum(folded, 2 * length - 1 - folded)
    matrix = np.zeros((size, length))
    np.add.at(matrix, (np.arange(size)[:, None], folded), weights)
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel on |x| < 2 (Keys 1981, equation 15, a = -0.5)."""
    x = np.abs(x)
    near = (_CUBIC_A + 2) * x**3 - (_CUBIC_A + 3) * x**2 + 1
    far = _CUBIC_A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
