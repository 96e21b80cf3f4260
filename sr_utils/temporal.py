"""Frames of a fixed camera: what stays is a reference, what moves and what flickers is not.

The median over time of one place keeps what does not move and drops what changes from frame to frame: noise, marks of
compression, and people who walk by. It is no ground truth, since blur stays, but it has hardly any noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.errors import UserError
from sr_utils.images import imresize, quantize, stacked

MOVED = 0.06
"""A pixel has moved if its neighbourhood of 5x5 departs from the median by more than this on average."""
LIKE = 0.65
"""Correlation of two frames' block means, 8x8, from which they count as one place."""
FEWEST = 3
"""Frames of one view that a median needs."""


@dataclass(frozen=True)
class View:
    """The frames of one camera position."""

    indices: list[int]
    """Which of the given frames these are."""
    median: Tensor
    """Their median over time, (3, H, W)."""
    still: Tensor
    """Where each frame shows what the median shows, (F, 1, H, W), boolean."""


def find_views(frames: Sequence[Tensor]) -> list[View]:
    """The camera positions among frames (3, H, W) in [0, 1] that have three frames or more, each with its median."""
    views = []
    for chosen in _same_places(frames):
        if len(chosen) < FEWEST:
            continue
        stack = torch.stack([frames[index] for index in chosen])
        median = _median(stack)
        change = F.avg_pool2d((stack - median).mean(1, keepdim=True), 5, stride=1, padding=2, count_include_pad=False)
        moved = F.max_pool2d((change.abs() > MOVED).float(), 9, stride=1, padding=4) > 0
        views.append(View(chosen, median, ~moved))
    return views


def required_views(frames: Sequence[Tensor]) -> list[View]:
    """`find_views`, for what cannot do without one.

    Raises
    ------
    UserError: no position has at least three frames.
    """
    views = find_views(frames)
    if not views:
        raise UserError("No camera position has 3 frames, so there is no median over time: give frames of one place.")
    return views


def _same_places(frames: Sequence[Tensor]) -> list[list[int]]:
    """Indices of frames of one place, place by place: linked are those whose block means correlate by `LIKE`."""
    groups: list[list[int]] = []
    small = [F.avg_pool2d(frame[None], 8, ceil_mode=True).flatten() for frame in frames]
    for index, frame in enumerate(frames):
        alike = [
            group
            for group in groups
            if any(
                frames[other].shape == frame.shape
                and torch.corrcoef(torch.stack([small[index], small[other]]))[0, 1] > LIKE
                for other in group
            )
        ]
        # Who walks by can part two frames of one place; a third that resembles both joins them again.
        groups = [group for group in groups if group not in alike] + [sorted([index, *sum(alike, [])])]
    return sorted(groups)


def _median(stack: Tensor) -> Tensor:
    """The median over frames (F, ...), the mean of the two middle ones where their number is even."""
    # `Tensor.median` is the lower of the two, so the negated frames give the upper. Sorting would take more memory.
    return (stack.median(0).values - (-stack).median(0).values) / 2


def temporal_pairs(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Median and frame for every frame that has a median, both (N, 3, H, W), with the same content.

    What moves in a frame is taken from the median, so that it cannot tell the two apart. Frames of several sizes are
    cut to the largest rectangle that all have.

    Raises
    ------
    UserError: no position has at least three frames.
    """
    medians, degraded = [], []
    for view in required_views(frames):
        for index, still in zip(view.indices, view.still, strict=True):
            medians.append(view.median)
            degraded.append(torch.where(still, frames[index], view.median))
    return stacked(medians, degraded)


def measured_and_others(
    total: int, views: Sequence[View], *, first: int | None = None, limit: int = 24
) -> tuple[list[int], list[int]]:
    """Indices of frames to measure, and of others to choose by, out of ``total``; about ``limit`` of each.

    Every few of the ``first`` ones are measured, and every few of the rest are the others. Where that would leave one
    of the two without any place of three frames, whole places take turns; of a single place both are the same frames.
    """

    def has_a_median(chosen: list[int]) -> bool:
        return any(len(set(view.indices) & set(chosen)) >= FEWEST for view in views)

    of_first = range(total)[:first]
    measured = list(of_first[:: max(1, len(of_first) // limit)])
    others = [index for index in range(total) if index not in measured] or measured
    others = others[:: max(1, len(others) // limit)]
    apart = not set(measured) & set(others) or len(views) == 1
    if not views or (apart and has_a_median(measured) and has_a_median(others)):
        return measured, others
    each = max(FEWEST, limit // len(views))
    places = max(1, limit // each)
    measured, others = (sorted(sum((view.indices[:each] for view in views[turn::2][:places]), [])) for turn in (0, 1))
    return measured, others or measured


def agreement(image_of: Callable[[int], Tensor], views: Sequence[View]) -> float:
    """PSNR in dB between restored images, shrunk to the frames' size, and the temporal median, on still pixels.

    ``image_of`` gives the restored image (3, s H, s W) of a frame's index, so that not all are in memory at once; all
    pixels of all frames count together. It can be tricked: a blurred image agrees well, so it must be read beside a
    measure of sharpness.

    Raises
    ------
    UserError: nothing stays the same in any view.
    """
    error, count = 0.0, 0
    for view in views:
        for index, still in zip(view.indices, view.still, strict=True):
            small = shrunk(image_of(index), view.median)
            difference = (small - view.median).square().mean(0, keepdim=True)[still]
            error, count = error + difference.double().sum().item(), count + difference.numel()
    _check_still(count)
    return float(10 * torch.log10(torch.tensor(count / max(error, 1e-12))))


def _check_still(count: int) -> None:
    if not count:
        raise UserError("Nothing stays the same in these frames: give frames of a fixed camera in even light.")


def shrunk(image: Tensor, reference: Tensor) -> Tensor:
    """An image (3, s H, s W) at the size of ``reference``, on 8-bit levels."""
    scale = reference.shape[1] / image.shape[1]
    return image if scale == 1 else quantize(imresize(image, scale))


def flicker(image_of: Callable[[int], Tensor], views: Sequence[View]) -> float:
    """Deviation over time of the same pixel where nothing moves, in grey levels; 0 for a noiseless fixed camera.

    ``image_of`` gives the frame or the restored frame (3, s H, s W) of an index; the difference to their own median
    over time is taken, so slow changes of light count too.

    Raises
    ------
    UserError: nothing stays the same in any view.
    """
    total, count = 0.0, 0
    for view in views:
        stack = torch.stack([image_of(index) for index in view.indices])
        scale = stack.shape[2] // view.median.shape[1]
        still = view.still.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        change = (stack - _median(stack)).square().mean(1, keepdim=True)[still]
        total, count = total + change.double().sum().item(), count + change.numel()
    _check_still(count)
    return 255 * (total / count) ** 0.5
