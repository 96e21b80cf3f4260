"""Several shifted small images made one large image: by undoing aliasing in the frequency domain, or in space.

Sampling folds the large image's spectrum X: every frequency u of a small frame holds scale² frequencies of X at once.
Frames with different shifts hold them with different phases (Tsai and Huang 1984)::

    Y_k(u) = 1 / scale² sum_a T_k(u + a H) X(u + a H)

with T_k of `burst.transfer`. At each u these are K equations for scale² unknowns, and scale² frames are enough if their
shifts differ well. In space the same model is solved by adding each pixel where it belongs, or step by step.

Everything is reckoned from a first estimate, the frames moved into place, averaged and enlarged: frames tell what *it*
lacks. So a window may fade the borders out, where frames look elsewhere, and where they say nothing it remains.

References
----------
Tsai and Huang, "Multiframe image restoration and registration", 1984.
Kim, Bose and Valenzuela, "Recursive reconstruction of high resolution image from noisy undersampled multiframes", 1990
(noise and regularisation).
Irani and Peleg, "Improving resolution by image registration", 1991.
Farsiu, Robinson, Elad and Milanfar, "Fast and robust multiframe super resolution", 2004 (shift and add).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_utils.burst import see, transfer
from sr_utils.images import imresize
from sr_utils.registration import moved_back
from sr_utils.spectrum import transform_multiplications

ROUNDING = 1 / 255 / 12**0.5
"""Deviation of the error of rounding to 8 bits."""
MARGIN = 8
"""Small pixels over which borders fade to the first estimate."""


def first_estimate(frames: Tensor, shifts: Tensor, scale: int, *, weights: Tensor | None = None) -> Tensor:
    """Frames moved into place, averaged and enlarged by bicubic, (3, scale H, scale W); averaging thins noise out.

    With ``weights`` (K, 1, H, W) a pixel counts as far as it is trusted; where none is, the first frame's remains.
    """
    weights = torch.ones_like(frames[:, :1]) if weights is None else weights
    moved = [moved_back(frame, shift) for frame, shift in zip(frames, shifts, strict=True)]
    trust = [moved_back(each, shift).clamp_min(0) for each, shift in zip(weights, shifts, strict=True)]
    least = 1e-6
    total = least * moved[0] + sum(each * frame for each, frame in zip(trust, moved, strict=True))
    return imresize(total / (least + sum(trust)), scale)


def _residuals(frames: Tensor, shifts: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The first estimate, and what each frame shows beyond it, fading out at the borders."""
    first = first_estimate(frames, shifts, scale)
    mirrored = torch.cat((first, first.flip(-1)), -1)
    mirrored = torch.cat((mirrored, mirrored.flip(-2)), -2)
    height, width = frames.shape[-2:]
    seen = see(mirrored, shifts, scale)[..., :height, :width]
    return first, (frames - seen) * _fading(height)[:, None] * _fading(width)


def _fading(length: int) -> Tensor:
    """1 inside, down to nearly 0 over the margin at both ends of an axis."""
    margin = min(MARGIN, length // 4)
    ramp = torch.sin(torch.pi / 2 * (torch.arange(margin) + 0.5) / max(margin, 1)).square()
    return torch.cat((ramp, torch.ones(length - 2 * margin), ramp.flip(0)))


def _regularisation(residuals: Tensor, noise: float) -> float:
    """Power of the noise over that of the detail that the first estimate misses, read off the frames."""
    # The estimate has a share of each frame's noise, which the residual lacks.
    shown = residuals.square().mean().item() - noise**2 * (1 - 1 / len(residuals))
    # A frame shows about a quarter of the detail's power: the aperture damps it.
    detail = max(4 * shown, (0.2 * noise) ** 2, 1e-8)
    # The floor holds back what the aperture nearly blocks, which small errors of the model would blow up.
    return 0.01 + noise**2 / detail


def undo_aliasing(frames: Tensor, shifts: Tensor, scale: int = 2, *, noise: float = ROUNDING) -> Tensor:
    """The large image (3, scale H, scale W) whose folded spectra are those of the frames (Tsai and Huang 1984).

    Parameters
    ----------
    frames: (K, 3, H, W); one or more.
    shifts: (K, 2), down and across, in small pixels.
    noise: deviation of the noise of a frame, in image units. The noisier, and the smoother the scene, the more are
        frequencies held back that the frames determine badly, for want of frames or because their shifts are alike.
    """
    first, residuals = _residuals(frames, shifts, scale)
    height, width = frames.shape[-2:]
    down = transfer(scale * height, shifts[:, 0], scale).view(-1, scale, height) / scale
    across = transfer(scale * width, shifts[:, 1], scale).view(-1, scale, width) / scale
    spectra = torch.fft.fft2(residuals.double())  # (K, 3, H, W)

    # Normal equations at every small frequency (u, v), over the scale² large ones (a, b) that fold onto it.
    rows = torch.einsum("kau,kcu->kuac", down.conj(), down)
    columns = torch.einsum("kbv,kdv->kvbd", across.conj(), across)
    normal = torch.einsum("kuac,kvbd->uvabcd", rows, columns).reshape(height, width, scale**2, scale**2)
    right = torch.einsum("kau,kbv,kiuv->uvabi", down.conj(), across.conj(), spectra)
    right = right.reshape(height, width, scale**2, -1)
    ridge = _regularisation(residuals, noise) / scale**2 * torch.eye(scale**2, dtype=normal.dtype)
    found = torch.linalg.solve(normal + ridge, right)  # (H, W, scale², 3)

    spectrum = found.view(height, width, scale, scale, -1).permute(4, 2, 0, 3, 1)
    detail = torch.fft.ifft2(spectrum.reshape(-1, scale * height, scale * width)).real
    return first + detail.to(first)


def shift_and_add(frames: Tensor, shifts: Tensor, scale: int = 2) -> Tensor:
    """Every small pixel is put where it belongs in the large image, spread over its nearest four pixels, and averaged.

    The result is still blurred by the aperture. Places that no frame has seen keep the enlargement of the first frame.
    """
    total = torch.zeros(3, scale * frames.shape[2], scale * frames.shape[3], dtype=torch.float64)
    weights = torch.zeros_like(total[0])
    for frame, shift in zip(frames.double(), shifts.double(), strict=True):
        rows, row_weights = _places(frame.shape[1], shift[0].item(), scale)
        columns, column_weights = _places(frame.shape[2], shift[1].item(), scale)
        for row, row_weight in zip(rows, row_weights, strict=True):
            for column, column_weight in zip(columns, column_weights, strict=True):
                inside = (row >= 0) & (row < total.shape[1])
                across = (column >= 0) & (column < total.shape[2])
                grid = torch.meshgrid(row[inside], column[across], indexing="ij")
                total[:, grid[0], grid[1]] += row_weight * column_weight * frame[:, inside][:, :, across]
                weights[grid] += row_weight * column_weight
    seen = weights > 1e-3
    return torch.where(seen, total / weights.clamp_min(1e-3), imresize(frames[0], scale).double()).to(frames)


def _places(length: int, shift: float, scale: int) -> tuple[tuple[Tensor, Tensor], tuple[float, float]]:
    """The two large pixels nearest to each small one of an axis, and how the small one is shared between them."""
    start = (scale - 1) / 2 + scale * shift
    whole = int(start // 1)
    near = whole + scale * torch.arange(length)
    return (near, near + 1), (1 - (start - whole), start - whole)


# Not cached: every frame has its own, a burst's can take gigabytes, and making one costs far less than one use.
def _looking(length: int, shift: float, scale: int) -> Tensor:
    """The (length, scale * length) matrix of one axis of a frame: aperture, movement, sampling; borders repeated.

    Between large pixels values are interpolated linearly, so each small pixel gathers ``scale`` + 1 of them.
    """
    start = scale * shift
    whole = math.floor(start)
    part = start - whole
    taps = whole + scale * torch.arange(length)[:, None] + torch.arange(scale + 1)
    weights = torch.full((scale + 1,), 1 / scale)
    weights[0], weights[-1] = (1 - part) / scale, part / scale
    matrix = torch.zeros(length, scale * length)
    return matrix.scatter_add_(1, taps.clamp(0, scale * length - 1), weights.expand(length, -1).contiguous())


def back_project_frames(
    frames: Tensor,
    shifts: Tensor,
    scale: int = 2,
    *,
    weights: Tensor | None = None,
    noise: float = ROUNDING,
    iterations: int = 12,
) -> Tensor:
    """Correct the first estimate until every frame can be seen in it, each pixel as far as it is trusted.

    Each iteration adds the frames' residuals, spread over the large pixels they were gathered from and averaged there
    (Irani and Peleg 1991; with the averaging it is the simultaneous algebraic technique, which converges).

    Parameters
    ----------
    weights: how much each small pixel is trusted, (K, 1, H, W) or broadcast to it, for instance one over the noise's
        variance there; 1 everywhere when None. This freedom is what the frequency domain lacks.
    noise: as of `undo_aliasing`, for pixels of weight 1.
    """
    height, width = frames.shape[-2:]
    trust = torch.ones_like(frames[:, :1]) if weights is None else weights.to(frames).expand(len(frames), 1, -1, -1)
    looks = [
        (_looking(height, down, scale).to(frames), _looking(width, across, scale).to(frames))
        for down, across in shifts.tolist()
    ]
    first = estimate = first_estimate(frames, shifts, scale, weights=trust)
    shown = [frame - rows @ first @ columns.T for (rows, columns), frame in zip(looks, frames, strict=True)]
    hold = _regularisation(torch.stack(shown) * (trust / trust.mean()).sqrt(), noise)
    total = hold + sum(rows.T @ each @ columns for (rows, columns), each in zip(looks, trust, strict=True))
    for _ in range(iterations):
        step = hold * (first - estimate)
        for (rows, columns), frame, each in zip(looks, frames, trust, strict=True):
            step = step + rows.T @ (each * (frame - rows @ estimate @ columns.T)) @ columns
        estimate = estimate + step / total.clamp_min(1e-6)
    return estimate


def agreement(frames: Tensor, shifts: Tensor, scale: int = 2) -> Tensor:
    """Weights (K, 1, H, W): near 1 where a frame shows what the first one does, near 0 where something has moved.

    Frames are compared with the moved enlargement of the first one, over 5x5 pixels, so that noise counts little. Where
    the squared difference is twice what is usual, the weight is one half. Usual is the median of these frames or, if
    that is more, twice what the enlargement misses of the first frame itself in that place: in fine texture aliasing
    alone makes frames differ. The first frame is what the others are held to, so it is trusted whole.
    """
    first = imresize(frames[0], scale)
    differences = []
    for frame, (down, across) in zip(frames, shifts.tolist(), strict=True):
        rows, columns = (_looking(frame.shape[1], down, scale), _looking(frame.shape[2], across, scale))
        square = (frame - rows @ first @ columns.T).square().mean(0, keepdim=True)
        differences.append(F.avg_pool2d(square[None], 5, stride=1, padding=2, count_include_pad=False)[0])
    own, *others = differences
    if not others:
        return torch.ones_like(own)[None]
    found = torch.stack(others)
    usual = torch.maximum(found.median(), 2 * own)
    # A steep fall: what has moved must not get in, and what has not should count in full.
    weights = 1 / (1 + (found / (2 * usual).clamp_min(1e-12)) ** 4)
    return torch.cat((torch.ones_like(own)[None], weights))


def undo_aliasing_multiplications(frames: int, height: int, width: int, scale: int = 2) -> float:
    """Real multiplications per pixel of the enlarged RGB image of `undo_aliasing`.

    Transforms that move the frames, of the first estimate as each frame sees it, of what frames show beyond it and of
    the result; and at each small frequency a system of scale² complex unknowns: n³ / 3 products to factorise it, then
    n² and n K a channel.
    """
    small, unknowns = height * width, scale**2
    large = small * unknowns
    mirrored = 2 * frames * transform_multiplications(2 * height, 2 * width)
    mirrored += (1 + frames) * transform_multiplications(2 * scale * height, 2 * scale * width)
    residuals = frames * transform_multiplications(height, width)
    transforms = 3 * (mirrored + residuals + transform_multiplications(scale * height, scale * width))
    # A complex product is four real ones; real images need half of the frequencies.
    system = 4 * small / 2 * (unknowns**3 / 3 + frames * unknowns**2 + 3 * (unknowns**2 + unknowns * frames))
    return (transforms + system) / large


def back_projection_frames_multiplications(frames: int, scale: int, iterations: int) -> float:
    """Real multiplications per pixel of the enlarged RGB image of `back_project_frames`, with its sparse matrices."""
    taps = scale + 1
    one_way = 3 * taps * (1 / scale + 1 / scale**2)
    return 12 * (1 + 1 / scale) + iterations * (frames * (2 * one_way + 3 / scale**2) + 3)
