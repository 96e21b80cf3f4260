"""Decode image files, whatever they are called and whatever is in them, into tensors or one clear sentence."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, TiffImagePlugin

from sr_utils.errors import UserError

# Whatever a file is called, only these are decoded: some of Pillow's other formats start programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")

# A photograph of 24 megapixels, enlarged four times, has 384. A small file that claims more than this is more often an
# attack on memory than an image. OpenCV takes twice as many.
_MAX_PIXELS = 2**29

_PILLOW_LIMIT = threading.Lock()


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


def colour_profile(path: str | os.PathLike) -> bytes | None:
    """The ICC profile in an image file, which says what its red, green and blue are; None if it has none of these.

    Raises:
        UserError: as `image_size`.
    """
    image = _open_with_pillow(path)
    if image is None:
        return None
    with image:
        profile = image.info.get("icc_profile")
    # Grey and CMYK pictures have profiles of their own, which do not fit what they are read as.
    return profile if profile and profile[16:20] == b"RGB " else None


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
            if image.mode == "LAB":
                raise UserError(f"The image {path} has CIELAB colours, which are not read: save it again as RGB.")
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
