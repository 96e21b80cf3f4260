"""Hostile image files: each one is answered by the right pixels or by one sentence, and stays as it was.

A sample of the generated cases runs here; `make soak` runs hundreds of each test.
"""

import contextlib
import io
import os
import tempfile
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image, ImageOps

from sr_utils.errors import UserError
from sr_utils.images import SUFFIXES, image_size, list_images, load_image

FORMATS = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "BMP": ("1", "L", "P", "RGB", "RGBA")}
FORMATS |= {"JPEG": ("L", "RGB", "CMYK"), "WEBP": ("L", "RGB", "RGBA")}
FORMATS |= {"TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "float", "YCbCr", "LAB")}
SIZES = some.sampled_from([(1, 1), (1, 7), (40_000, 1), (1, 40_000), (8, 8), (17, 5), (64, 48)])
SECONDS = 20
"""Longer than this counts as a hang; a file of these sizes takes milliseconds."""


def picture(mode: str, width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(values[..., 0].astype(np.float32) / 255)
    return Image.fromarray(values).convert(mode)


@some.composite
def encoded(draw) -> tuple[bytes, str, torch.Tensor | None]:
    """An image file's bytes, its right suffix, and its pixels where Pillow's own conversion says them."""
    kind = draw(some.sampled_from(sorted(FORMATS)))
    mode = draw(some.sampled_from(FORMATS[kind]))
    (width, height), seed = draw(SIZES), draw(some.integers(0, 99))
    suffix = {"PNG": ".png", "BMP": ".bmp", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif"}[kind]
    if kind == "WEBP":
        width, height = min(width, 16_000), min(height, 16_000)
    if mode == "float":
        values = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
        pixels = torch.from_numpy(values[..., ::-1].copy()).permute(2, 0, 1)
        return cv2.imencode(".tif", values)[1].tobytes(), suffix, pixels
    image, options = picture(mode, width, height, seed), {}
    # Orientations 0 and 9 do not exist; libtiff would not write them.
    orientation = draw(some.sampled_from([None, *range(1, 9), *([0, 9] if kind != "TIFF" else [])]))
    if orientation is not None and kind != "BMP" and mode not in ("F", "I;16"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind == "TIFF" and mode in ("L", "RGB"):
        options["compression"] = draw(some.sampled_from([None, "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    stream = io.BytesIO()
    image.save(stream, kind, **options, **({"lossless": True, "quality": 0} if kind == "WEBP" else {}))
    if mode in ("F", "I;16"):
        values = np.asarray(image).astype(np.float32) / (1 if mode == "F" else 65535)
        return stream.getvalue(), suffix, torch.from_numpy(values).expand(3, -1, -1)
    if mode in ("CMYK", "LAB", "YCbCr") or kind == "JPEG":
        return stream.getvalue(), suffix, None
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(stream.getvalue()))).convert("RGBA").convert("RGB")
    return stream.getvalue(), suffix, torch.from_numpy(np.array(shown, dtype=np.float32) / 255).permute(2, 0, 1)


@some.composite
def damaged(draw) -> bytes:
    """The bytes of an image file, cut, changed, filled or followed by others."""
    content = bytearray(draw(encoded())[0])
    way = draw(some.sampled_from(["cut", "bits", "header", "zeros", "more", "spliced"]))
    place = int(draw(some.floats(0, 1, exclude_max=True)) * len(content))
    if way == "cut":
        del content[place:]
    elif way == "bits":
        for _ in range(draw(some.integers(1, 8))):
            content[int(draw(some.floats(0, 1, exclude_max=True)) * len(content))] ^= 1 << draw(some.integers(0, 7))
    elif way == "header":
        start = draw(some.integers(0, 60))
        content[start : start + 4] = draw(some.binary(min_size=4, max_size=4))
    elif way == "zeros":
        content[place:] = bytes(len(content) - place)
    elif way == "more":
        content += draw(some.binary(max_size=64))
    else:
        content[place:] = draw(encoded())[0][place:]
    return bytes(content)


def answer(path: Path) -> torch.Tensor | None:
    """The image, checked, or None where one sentence refused it; the file must stay as it was."""
    before, begun = (path.read_bytes(), path.stat().st_mtime_ns), time.monotonic()
    try:
        image = load_image(path)
    except UserError as error:
        image = None
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 600 + len(str(path))
    assert time.monotonic() - begun < SECONDS
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    if image is not None:
        assert image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] == 3
        assert 0 <= image.min() and image.max() <= 1
        assert image_size(path) == tuple(image.shape[1:])
    return image


@contextlib.contextmanager
def file_of(content: bytes, name: str = "a.png"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


@given(encoded(), some.sampled_from([None, *SUFFIXES, ".txt", ""]))
def test_a_whole_file_gives_its_pixels_under_any_suffix(file, suffix):
    content, right, pixels = file
    with file_of(content, f"a{right if suffix is None else suffix}") as path:
        image = answer(path)
        assert image is not None
        if pixels is not None:
            torch.testing.assert_close(image, pixels, rtol=0, atol=1.01 / 255)


@given(damaged())
def test_a_damaged_file_is_read_or_refused(content):
    with file_of(content) as path:
        answer(path)


@given(
    some.binary(max_size=200),
    some.sampled_from(
        [
            b"",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            b"BM",
            b"II*\0",
            b"MM\0*",
            b"RIFF\x10\0\0\0WEBP",
            b"GIF89a",
            b"%!PS-Adobe",
        ]
    ),
)
def test_bytes_that_only_begin_like_an_image_are_refused(tail, start):
    with file_of(start + tail) as path:
        answer(path)


def tiff(width: int, height: int, samples: int) -> bytes:
    """A TIFF of floating-point RGB without any pixels, which Pillow does not know and OpenCV does."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 1), (262, 3, 2), (273, 4, 8)]
    entries += [(277, 3, samples), (278, 4, height), (279, 4, 4 * width * height * samples % 2**32), (339, 3, 3)]
    content = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    for tag, kind, value in entries:
        content += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little")
        content += value.to_bytes(4, "little")
    return content + bytes(4)


@given(some.integers(0, 2**32 - 1), some.integers(0, 2**32 - 1), some.sampled_from(["png", "bmp", "tif"]))
def test_a_header_that_claims_any_size_takes_no_memory(width, height, kind):
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, {"png": "PNG", "bmp": "BMP", "tif": "TIFF"}[kind])
    content = bytearray(stream.getvalue())
    if kind == "png":
        content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    elif kind == "bmp":
        content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    else:
        content = tiff(width, height, 3)
    with file_of(bytes(content)) as path:
        image = answer(path)
        assert image is None or (width, height) == (1, 1) or kind == "bmp"


NAMES = some.text(some.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(NAMES, some.sampled_from(SUFFIXES))
def test_any_name_that_is_text(stem, suffix):
    stem = stem.encode()[:240].decode(errors="ignore")
    content = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 51)).save(content, "PNG")
    with file_of(content.getvalue(), f"a{stem}{suffix}") as path:
        assert list_images(path.parent) == [path]
        torch.testing.assert_close(answer(path).flatten(1).mean(1), torch.tensor([1.0, 0.0, 0.2]))


@given(some.binary(min_size=1, max_size=8).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_a_name_that_is_no_text_is_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, os.fsdecode(b"a" + name + b".png"))
        path.write_bytes(b"")
        try:
            name.decode()
        except UnicodeDecodeError:
            with pytest.raises(UserError, match="not valid text: rename it") as caught:
                list_images(folder)
            assert str(caught.value).encode()
        else:
            assert list_images(folder) == [path]


def whole(path: Path) -> Path:
    Image.new("RGB", (3, 2), (9, 8, 7)).save(path)
    return path


def test_links_and_special_files(tmp_path):
    original = whole(tmp_path / "a.png")
    (tmp_path / "good.png").symlink_to(original)
    assert torch.equal(load_image(tmp_path / "good.png"), load_image(original))
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("dangling", "loop", "pipe"):
        with pytest.raises(UserError, match=rf"{name}\.png"):
            load_image(tmp_path / f"{name}.png")
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "good.png"]


def test_a_name_longer_than_the_system_takes(tmp_path):
    with pytest.raises(UserError, match="name"):
        load_image(tmp_path / ("a" * 300 + ".png"))


def test_unreadable_permissions_for_any_user():
    """As an ordinary user, who runs this or not."""
    with tempfile.TemporaryDirectory() as folder:
        path = whole(Path(folder) / "a.png")
        os.chmod(folder, 0o755)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(UserError, match="Permission denied"):
                load_image(path)
        finally:
            os.seteuid(user)
