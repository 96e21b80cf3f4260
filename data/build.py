"""Build the embedded data of the course from free photographs and one free video clip.

    python data/build.py --sources DIR

`sources.csv` is the one table: each photograph's split, author, licence, origin, and the images made of it.
DIR holds one folder a package, named as the first part of the table's `path`. The script downloads nothing.
On Debian 12, `apt-get download` fetches these packages and `dpkg-deb -x FILE.deb DIR/NAME` unpacks each one:

    lomiri-wallpapers-16.04  lomiri-wallpapers-20.04  mate-backgrounds  plasma-workspace-wallpapers
    palapeli-data  opencv-doc

The other folders are check-outs of two git repositories (by `git worktree add` or `git archive`):

    budgie-backgrounds-2.0, budgie-backgrounds-8206742   github.com/BuddiesOfBudgie/budgie-backgrounds
    elementary-wallpapers-5.0, elementary-wallpapers-5.4 github.com/elementary/wallpapers

What is made is deterministic, pixel by pixel. The committed task 1 and task 2 files were then packed with
`oxipng -o 4 --nx`, which loses nothing. What is made:

- clean/ and validation/: one crop a photograph, the photograph downsampled at least twice, antialiased, so
  that its own JPEG artefacts and most of its sensor noise are gone;
- task1/GroundTruth: 100 crops of 512x512 from the test photographs, made in the same way; task1/Input: the
  same at half size, seen by the camera simulation of `sr_utils.camera`;
- task2_clip/vtest.avi: the first 17 seconds of the clip, its compressed frames copied bit by bit; task2/: 120
  crops of its decoded frames, five fixed positions, 24 frames each.
"""

import csv
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from sr_utils.camera import sample_parameters, simulate_camera
from sr_utils.errors import UserError
from sr_utils.files import atomic_path
from sr_utils.images import imresize, load_image, quantize

DATA = Path(__file__).resolve().parent
CLIP = "opencv-doc/usr/share/doc/opencv-doc/examples/data/vtest.avi"
CLIP_FRAMES = 168
FRAME_STEP = 7  # frames between two crops of one position: 0.7 s at 10 frames a second
POSITIONS = ((40, 16), (50, 300), (40, 512), (200, 490), (190, 320))  # top, left of each 256x256 crop
CROPS_A_POSITION = 24


@dataclass(frozen=True)
class Options:
    """Options of the build."""

    sources: Path
    """Folder that holds the unpacked packages."""
    output: Path = DATA
    """Folder to write to."""
    seed: int = 20240
    """Seed of the simulated camera."""


def save_png(image: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) RGB bytes as PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", optimize=True)


def to_bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) bytes."""
    return (quantize(image) * 255).round().byte().permute(1, 2, 0).numpy()


def detail_map(image: Tensor) -> np.ndarray:
    """Local detail (H, W) of an image (3, H, W): the logarithm of the smoothed gradient of the mean colour.

    By the logarithm, a crop full of structure counts more than one strong edge before a flat background.
    """
    grey = image.mean(0).numpy()
    gradient = np.hypot(*np.gradient(cv2.GaussianBlur(grey, (0, 0), 1.0)))
    return np.log(cv2.blur(gradient, (33, 33)) + 2e-3)


def choose_crops(
    image: Tensor, height: int, width: int, count: int, *, quantile: float
) -> list[tuple[int, int]]:
    """(top, left) of `count` crops that overlap as little as the image allows.

    They are those whose detail is closest to a quantile of all candidates: 1 takes the most detailed places.
    Candidates lie on a grid of 16 pixels. A crop may cover up to a tenth of another; where the image is too
    small for that, the limit rises in steps of a twentieth.

    Raises
    ------
    UserError: the image is smaller than a crop, or too small for so many.
    """
    rows, columns = image.shape[1:]
    if rows < height or columns < width:
        raise UserError(
            f"A crop of {width}x{height} exceeds a picture of {columns}x{rows}; lower its factor."
        )
    integral = np.pad(detail_map(image), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    grid = [
        (top, left) for top in range(0, rows - height + 1, 16) for left in range(0, columns - width + 1, 16)
    ]

    def detail(corner: tuple[int, int]) -> float:
        top, left = corner
        bottom, right = top + height, left + width
        return integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]

    score = {corner: detail(corner) for corner in grid}
    wanted = np.quantile(list(score.values()), quantile)
    ranked = sorted(grid, key=lambda corner: (abs(score[corner] - wanted), corner))

    def overlap(a: tuple[int, int], b: tuple[int, int]) -> float:
        return max(0, height - abs(a[0] - b[0])) * max(0, width - abs(a[1] - b[1])) / (height * width)

    for limit in np.arange(0.1, 1.0, 0.05):
        chosen: list[tuple[int, int]] = []
        for corner in ranked:
            if len(chosen) < count and all(overlap(corner, other) <= limit for other in chosen):
                chosen.append(corner)
        if len(chosen) == count:
            return chosen
    raise UserError(f"{count} different crops of {width}x{height} do not fit a picture of {columns}x{rows}.")


def build_photographs(options: Options) -> list[str]:
    """Write clean/, validation/ and task1/GroundTruth; returns the names of the task 1 images in order."""
    truths = []
    with open(DATA / "sources.csv", newline="", encoding="utf-8") as stream:
        table = [row for row in csv.DictReader(stream) if row["split"] != "video"]
    for row in table:
        path = options.sources / row["path"]
        if not path.is_file():
            raise UserError(f"The photograph {path} is missing; unpack its package, {row['package']}, there.")
        factor = float(row["factor"])
        if factor < 2:
            raise UserError(f"The factor {factor} of {row['name']} in sources.csv is below 2; raise it.")
        small = quantize(imresize(load_image(path), 1 / factor))
        width, height = (int(side) for side in row["crop"].split("x"))
        names = row["images"].split(";")
        # One crop: the most detailed place. Several: places typical of the photograph, not its densest ones.
        quantile = 1.0 if len(names) == 1 else 0.7
        corners = choose_crops(small, height, width, len(names), quantile=quantile)
        for name, (top, left) in zip(names, corners, strict=True):
            save_png(to_bytes(small[:, top : top + height, left : left + width]), options.output / name)
        if row["split"] == "test":
            truths += [Path(name).name for name in names]
        print(f"{row['split']:<10} {row['name']}: {len(names)} image(s)", flush=True)
    return sorted(truths)


def build_inputs(names: list[str], options: Options) -> None:
    """Write task1/Input from task1/GroundTruth; the camera's parameters leave no trace."""
    generator = torch.Generator().manual_seed(options.seed)
    for name in names:
        truth = load_image(options.output / "task1" / "GroundTruth" / name)
        clean = quantize(imresize(truth, 0.5))
        seen = simulate_camera(clean, sample_parameters(generator), generator)
        save_png(to_bytes(seen), options.output / "task1" / "Input" / name)
    print(f"task1: {len(names)} pairs", flush=True)


def trim_avi(source: bytes, frames: int) -> bytes:
    """The first `frames` frames of an AVI file with one video stream, their compressed bits unchanged.

    Keeps the header with new frame counts, the `movi` list cut after the last chunk wanted, and an index for
    it (Microsoft, "AVI RIFF File Reference").

    Raises
    ------
    UserError: the file is laid out in another way, or holds fewer frames.
    """
    movi = source.find(b"movi")
    header = bytearray(source[12 : movi - 8])
    avih, strh = header.find(b"avih"), header.find(b"strh")
    if source[:4] != b"RIFF" or min(movi, avih, strh) < 0:
        raise UserError("The clip is not an AVI file with one video stream; take vtest.avi of opencv-doc.")
    struct.pack_into("<I", header, avih + 8 + 16, frames)  # dwTotalFrames
    struct.pack_into("<I", header, strh + 8 + 32, frames)  # dwLength

    index, position = b"", movi + 4
    for number in range(frames):
        name, length = struct.unpack_from("<4sI", source, position)
        if name != b"00dc":
            raise UserError(f"The clip holds {number} frames in a row, fewer than the {frames} wanted.")
        key_frame = 0x10 if number == 0 else 0
        index += struct.pack("<4sIII", name, key_frame, position - movi, length)
        position += 8 + length + length % 2
    body = source[movi:position]

    def chunk(name: bytes, payload: bytes) -> bytes:
        return struct.pack("<4sI", name, len(payload)) + payload + b"\0" * (len(payload) % 2)

    return chunk(b"RIFF", b"AVI " + bytes(header) + chunk(b"LIST", body) + chunk(b"idx1", index))


def read_clip(path: Path) -> list[np.ndarray]:
    """The frames of a clip as (H, W, 3) RGB bytes, decoded with OpenCV."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        read, frame = capture.read()
        if not read:
            break
        frames.append(frame[..., ::-1].copy())
    capture.release()
    return frames


def task2_crops(frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Name of a task 2 image to its pixels: position by position, equally spaced in time."""
    crops = {}
    for top, left in POSITIONS:
        for step in range(CROPS_A_POSITION):
            frame = frames[step * FRAME_STEP]
            crops[f"{len(crops) + 1:03d}.png"] = frame[top : top + 256, left : left + 256]
    return crops


def build_task2(options: Options) -> None:
    """Write task2_clip/vtest.avi and, from that very file, task2/."""
    source = options.sources / CLIP
    if not source.is_file():
        raise UserError(f"The clip {source} is missing; unpack the package opencv-doc there.")
    clip = options.output / "task2_clip" / "vtest.avi"
    with atomic_path(clip) as temporary:
        temporary.write_bytes(trim_avi(source.read_bytes(), CLIP_FRAMES))
    frames = read_clip(clip)
    if len(frames) != CLIP_FRAMES:
        raise UserError(f"OpenCV decoded {len(frames)} of {CLIP_FRAMES} frames of {clip}.")
    for name, crop in task2_crops(frames).items():
        save_png(crop, options.output / "task2" / name)
    print("task2: 120 frames", flush=True)


def main() -> None:
    """Build everything."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    try:
        build_inputs(build_photographs(options), options)
        build_task2(options)
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
