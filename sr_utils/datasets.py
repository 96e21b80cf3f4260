"""A data root in the assignment's tree, and its checks."""

import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from sr_utils.errors import UserError
from sr_utils.images import crop_to_multiple, image_size, images_by_stem, imresize, load_image, quantize
from sr_utils.repository import expand_home

TREE = "clean/*.png, task1/Input/*.png, task1/GroundTruth/*.png, task2/*.png"
SCALES = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class DataRoot:
    """A folder in the assignment's tree. Each part is listed and checked when it is first asked for.

    Parts raise a UserError that names the folder or file and the mend: a folder that is missing or empty, two
    images of one name, pairs whose names or sizes do not match.
    """

    root: Path

    @functools.cached_property
    def clean(self) -> list[Path]:
        """High-quality photographs, paired with nothing."""
        return self._part("clean")

    @functools.cached_property
    def validation(self) -> list[Path]:
        """Photographs for choosing, not learning: `validation/`, else the last tenth of `clean` (or one)."""
        if (self.root / "validation").is_dir():
            return self._part("validation")
        return self.clean[-max(1, len(self.clean) // 10) :]

    @functools.cached_property
    def train(self) -> list[Path]:
        """The clean photographs without those of `validation`.

        Raises:
            UserError: none is left.
        """
        held_out = set(self.validation)
        paths = [path for path in self.clean if path not in held_out]
        if not paths:
            raise UserError(f"{self.root / 'clean'} holds one image, which validation takes: add at least one more.")
        return paths

    @functools.cached_property
    def inputs(self) -> list[Path]:
        """Task 1's degraded low-resolution images. For learning they need no ground truths."""
        return self._part("task1/Input")

    @functools.cached_property
    def truths(self) -> list[Path]:
        """Task 1's ground truths."""
        return self._part("task1/GroundTruth")

    @functools.cached_property
    def task2(self) -> list[Path]:
        """Task 2's real frames, without ground truth."""
        return self._part("task2")

    @functools.cached_property
    def pairs(self) -> list[tuple[Path, Path]]:
        """Task 1's (input, truth) paths, one to one by name; an input may carry DIV2K's ending x2 or x4.

        Raises:
            UserError: an input has no truth, or a truth no input.
        """
        truths = {path.stem: path for path in self.truths}
        pairs = []
        for path in self.inputs:
            stem = path.stem if path.stem in truths else re.sub(r"x[124]$", "", path.stem)
            truth = truths.pop(stem, None)
            if truth is None:
                raise UserError(
                    f"{path} has no image of its own called {stem}.* in {self.root / 'task1/GroundTruth'}: "
                    "add that ground truth, rename one of them, or remove the input."
                )
            pairs.append((path, truth))
        if truths:
            path = next(iter(truths.values()))
            raise UserError(
                f"{path} has no image called {path.stem}.* in {self.root / 'task1/Input'}: "
                "add that input, rename one of them, or remove the ground truth."
            )
        return pairs

    @functools.cached_property
    def scale(self) -> int:
        """How many times larger the ground truths are than the inputs: 1, 2 or 4, the same for every pair.

        Read from the files' headers.

        Raises:
            UserError: the sizes of a pair do not fit, or those of two pairs differ; or as `pairs`.
        """
        scale = None
        for path, truth in self.pairs:
            (height, width), (true_height, true_width) = image_size(path), image_size(truth)
            ratio = true_height // height
            if ratio not in SCALES or (height * ratio, width * ratio) != (true_height, true_width):
                raise UserError(
                    f"{truth} is {true_width}x{true_height} and {path} is {width}x{height}: crop them "
                    "so that the ground truth is exactly 1, 2 or 4 times as large on both sides."
                )
            if scale is not None and ratio != scale:
                raise UserError(
                    f"{truth} is {ratio} times as large as {path}, but the pairs before it have scale "
                    f"{scale}: keep one scale in a data root."
                )
            scale = ratio
        return scale

    def _part(self, name: str) -> list[Path]:
        folder = self.root / name
        if not folder.is_dir():
            raise UserError(f"The folder {folder} does not exist: a data root holds {TREE}.")
        return list(images_by_stem(folder).values())


def open_data_root(path: str | os.PathLike) -> DataRoot:
    """The data root at `path`; its parts are checked when they are asked for.

    Raises:
        UserError: `path` is not a folder, or begins with the home folder of an unknown user.
    """
    root = expand_home(path, name="data_root")
    # Of os.path, which answers no where pathlib would raise: a name that is too long, a folder of another user.
    if not os.path.isdir(root):
        raise UserError(f"The data root {root} is not a folder: give data_root a folder that holds {TREE}.")
    return DataRoot(root)


def load_images(paths: Sequence[Path]) -> list[torch.Tensor]:
    """Read images as float32 tensors (3, H, W) in [0, 1], in the order of `paths`."""
    return [load_image(path) for path in paths]


def clean_at_input_size(paths: Sequence[Path], scale: int) -> list[torch.Tensor]:
    """Clean photographs shrunk by `scale` with antialiased bicubic, on 8-bit levels, as `load_images` gives them."""
    images = (crop_to_multiple(load_image(path), scale, name=str(path)) for path in paths)
    return [quantize(image if scale == 1 else imresize(image, 1 / scale)) for image in images]
