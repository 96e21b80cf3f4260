import io
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sr_utils.decoding import colour_profile, image_size, load_image
from sr_utils.errors import UserError
from sr_utils.images import save_image


def tensor_of(array):
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_formats(tmp_path, picture, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    image = load_image(path)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, tensor_of(picture))
    assert image_size(path) == (20, 32)


def test_jpeg_under_a_non_ascii_name_and_a_wrong_suffix(tmp_path, picture):
    path = tmp_path / "Füße 照片.png"
    Image.fromarray(picture).save(path, "JPEG", quality=98, subsampling=0)
    assert (load_image(path) - tensor_of(picture)).abs().max() < 0.03


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK"])
def test_modes_become_rgb(tmp_path, picture, mode):
    converted = Image.fromarray(picture).convert(mode)
    path = tmp_path / "a.tif"
    converted.save(path)
    expected = tensor_of(np.asarray(converted.convert("RGB")))
    assert (load_image(path) - expected).abs().max() <= 2 / 255


def test_transparency_is_dropped_not_blended(tmp_path, picture):
    alpha = np.zeros((20, 32, 1), np.uint8)
    Image.fromarray(np.concatenate((picture, alpha), -1)).save(tmp_path / "a.png")
    torch.testing.assert_close(load_image(tmp_path / "a.png"), tensor_of(picture))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_transparency_of_an_8_bit_tiff_is_dropped_not_blended(
    tmp_path, picture, grey, random, orientation, compression
):
    alpha = np.random.default_rng(0).integers(0, 256, (20, 32, 1), dtype=np.uint8) if random else np.zeros_like(picture)
    channels = np.concatenate((picture[..., : 1 if grey else 3], alpha[..., :1]), -1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(channels).save(tmp_path / "a.tif", exif=exif, compression=compression)
    expected = np.repeat(picture[..., :1], 3, -1) if grey else picture
    expected = np.rot90(expected, {1: 0, 6: 3}[orientation])
    torch.testing.assert_close(load_image(tmp_path / "a.tif"), tensor_of(expected))


def test_a_16_bit_tiff_with_transparency_keeps_its_depth(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    expected = torch.from_numpy(values[..., 2::-1].astype(np.float32) / 65535).permute(2, 0, 1)
    torch.testing.assert_close(load_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_depth_is_kept(tmp_path, suffix, channels):
    values = np.arange(20 * 32 * 3, dtype=np.uint16).reshape(20, 32, 3) * 30 + 7
    bgr = values[..., ::-1] if channels == 3 else values[..., 0]
    cv2.imwrite(str(tmp_path / f"a{suffix}"), np.ascontiguousarray(bgr))
    expected = values if channels == 3 else values[..., :1].repeat(3, -1)
    expected = torch.from_numpy(expected.astype(np.float32) / 65535).permute(2, 0, 1)
    torch.testing.assert_close(load_image(tmp_path / f"a{suffix}"), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff(tmp_path, picture, channels):
    values = picture.astype(np.float32) / 200
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.ascontiguousarray(values[..., ::-1] if channels == 3 else values[..., 0]))
    expected = values if channels == 3 else values[..., :1].repeat(3, -1)
    torch.testing.assert_close(load_image(path), torch.from_numpy(expected).permute(2, 0, 1).clamp(0, 1))
    assert image_size(path) == (20, 32)


def test_float_tiff_with_nan(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((4, 4, 3), np.nan, np.float32))
    with pytest.raises(UserError, match=r"a\.tif.*NaN"):
        load_image(tmp_path / "a.tif")


def test_a_damaged_exif_orientation_means_the_same_to_size_and_pixels(tmp_path):
    stream = io.BytesIO()
    # An entry of no type, in which one decoder still finds orientation 5.
    entry = b"\x01\x12" + b"\0\0" + b"\0\0\0\x01" + b"\0\x05\0\0"
    exif = b"Exif\0\0" + b"MM\0*" + b"\0\0\0\x08" + b"\0\x01" + entry + b"\0\0\0\0"
    Image.new("RGB", (7, 1)).save(stream, "JPEG", exif=exif)
    path = tmp_path / "a.jpg"
    path.write_bytes(stream.getvalue())
    assert image_size(path) == tuple(load_image(path).shape[1:])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_exif_rotation(tmp_path, picture, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif, quality=98)
    expected = picture
    if orientation in (2, 4, 5, 7):
        expected = expected[:, ::-1]
    # Quarter turns to the left that undo what the camera did, after its mirroring.
    expected = np.rot90(expected, {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation])
    image = load_image(path)
    assert image_size(path) == tuple(image.shape[1:])
    assert (image - tensor_of(expected)).abs().mean() < 0.02
    if suffix != ".tif":
        assert (load_image(path, upright=False) - tensor_of(picture)).abs().mean() < 0.02


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (255, 0, 51)).save(tmp_path / "a.png")
    torch.testing.assert_close(load_image(tmp_path / "a.png").flatten(), torch.tensor([1.0, 0.0, 0.2]))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"The (image|file) .*a\."):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"II*\0nothing"])
@pytest.mark.parametrize("read", [load_image, image_size])
def test_no_image_at_all(tmp_path, content, read):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png"):
        read(path)


@pytest.mark.parametrize("read", [load_image, image_size])
def test_missing_or_a_folder(tmp_path, read):
    with pytest.raises(UserError, match=r"a\.png does not exist"):
        read(tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permission(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UserError, match=r"a\.png.*Permission denied"):
        load_image(tmp_path / "a.png")


def claiming(path, width, height):
    """A one-pixel bitmap whose header claims more."""
    Image.new("RGB", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    path.write_bytes(content)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [load_image, image_size])
@pytest.mark.parametrize("side", [23_171, 60_000])
def test_decompression_bomb(tmp_path, side, read):
    with pytest.raises(UserError, match=r"a\.bmp has more than 536 million pixels: cut it into parts"):
        read(claiming(tmp_path / "a.bmp", side, side))


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_photograph_of_24_megapixels_may_be_enlarged_four_times(tmp_path):
    assert image_size(claiming(tmp_path / "a.bmp", 4 * 6000, 4 * 4000)) == (16_000, 24_000)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_pillows_own_limit_counts_neither_here_nor_changes(tmp_path, picture, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(path)
    # A third of the picture's pixels, where Pillow refuses.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", picture[..., 0].size // 3)
    assert load_image(path).shape == (3, 20, 32) and image_size(path) == (20, 32)
    assert Image.MAX_IMAGE_PIXELS == picture[..., 0].size // 3
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


@pytest.mark.parametrize("entry", [(284, 2), (262, 0)])
def test_a_deep_tiff_that_would_be_read_wrongly_is_refused(tmp_path, entry):
    """Channels one after the other (284 = 2), or white as 0 (262 = 0), in 16 bits."""
    samples = 3 if entry[0] == 284 else 1
    values = {256: 4, 257: 4, 258: 16, 259: 1, 262: 1 if samples == 1 else 2, 277: samples, 278: 4} | dict([entry])
    pixels, offset = bytes(2 * 16 * samples), 8
    # Three counts or offsets do not fit into an entry: they lie behind the pixels.
    extra, at = b"", offset + len(pixels)
    entries = {tag: (3, 1, value) for tag, value in values.items()}
    for tag, kind, each in ((273, 4, [offset + 32 * plane for plane in range(samples)]), (279, 4, [32] * samples)):
        if samples == 1:
            entries[tag] = (kind, 1, each[0])
        else:
            entries[tag] = (kind, samples, at + len(extra))
            extra += b"".join(number.to_bytes(4, "little") for number in each)
    if samples == 3:
        entries[258] = (3, 3, at + len(extra))
        extra += (16).to_bytes(2, "little") * 3
    content = b"II*\0" + (at + len(extra)).to_bytes(4, "little") + pixels + extra + len(entries).to_bytes(2, "little")
    for tag, (kind, count, value) in sorted(entries.items()):
        content += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        content += value.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content + bytes(4))
    with pytest.raises(UserError, match="in more than 8 bits, which is not read: save it again as PNG"):
        load_image(tmp_path / "a.tif")


def profile_of(colours):
    """The header of a profile, which is all that is read of it."""
    return bytes(16) + colours + bytes(108)


def test_a_colour_profile_goes_with_the_picture(tmp_path):
    picture = Image.new("RGB", (5, 4), (10, 20, 30))
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        picture.save(tmp_path / name, icc_profile=profile_of(b"RGB "))
        assert colour_profile(tmp_path / name) == profile_of(b"RGB ")
    save_image(torch.rand(3, 4, 5), tmp_path / "with.png", profile=profile_of(b"RGB "))
    assert colour_profile(tmp_path / "with.png") == profile_of(b"RGB ")
    save_image(torch.rand(3, 4, 5), tmp_path / "without.png")
    assert colour_profile(tmp_path / "without.png") is None


def test_a_profile_of_grey_is_none_of_a_picture_with_colours(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png", icc_profile=profile_of(b"GRAY"))
    assert colour_profile(tmp_path / "a.png") is None


def test_pixels_are_the_same_with_a_profile_and_without(tmp_path):
    image = torch.rand(3, 9, 7)
    save_image(image, tmp_path / "a.png", profile=profile_of(b"RGB "))
    save_image(image, tmp_path / "b.png")
    assert torch.equal(load_image(tmp_path / "a.png"), load_image(tmp_path / "b.png"))


def test_cielab_is_refused_by_name(tmp_path):
    Image.new("LAB", (5, 4)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has CIELAB colours"):
        load_image(tmp_path / "a.tif")
