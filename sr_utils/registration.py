"""How far one frame has moved against another, to a hundredth of a pixel, from the phases of their spectra.

A movement by d turns the spectrum's phase by 2 pi f d: a plane through zero (phase correlation). The plane is
found in two steps. The peak of the normalised cross-power spectrum gives d to a tenth of a pixel; then a weighted
least squares fit of the plane itself gives the rest, at low frequencies only, since those of aliased frames are nearly
free of aliasing (Vandewalle et al. 2006, section 3). The fit is repeated on the frame moved back by what is known so
far: a window that fades the borders out favours no movement at all, which does no harm once nothing is left to move.

References
----------
Kuglin and Hines, "The phase correlation image alignment method", 1975.
Guizar-Sicairos, Thurman and Fienup, "Efficient subpixel image registration algorithms", 2008 (skimage's peak).
Vandewalle, Süsstrunk and Vetterli, "A frequency domain approach to registration of aliased images", 2006.
"""

from __future__ import annotations

import torch
from skimage.registration import phase_cross_correlation
from torch import Tensor

from sr_utils.errors import UserError
from sr_utils.images import to_y

BAND = (0.02, 0.2)
"""Cycles per pixel that the plane is fitted on."""


def moved_back(image: Tensor, shift: Tensor) -> Tensor:
    """The image (..., H, W) whose value at m is this one's at m - shift, by its Fourier series, mirrored at borders."""
    mirrored = torch.cat((image, image.flip(-1)), -1)
    mirrored = torch.cat((mirrored, mirrored.flip(-2)), -2).double()
    spectrum = torch.fft.rfft2(mirrored)
    down = torch.fft.fftfreq(mirrored.shape[-2], dtype=torch.float64)[:, None]
    across = torch.fft.rfftfreq(mirrored.shape[-1], dtype=torch.float64)
    turn = torch.exp(-2j * torch.pi * (down * shift[0].double() + across * shift[1].double()))
    moved = torch.fft.irfft2(spectrum * turn, s=mirrored.shape[-2:])
    return moved[..., : image.shape[-2], : image.shape[-1]].to(image)


def _windowed(luma: Tensor) -> Tensor:
    rows, columns = (torch.hann_window(side, periodic=False, dtype=torch.float64) for side in luma.shape)
    return (luma.double() - luma.double().mean()) * rows[:, None] * columns


def estimate_shift(reference: Tensor, frame: Tensor, *, iterations: int = 4) -> Tensor:
    """The shift (down, across) of a frame (3, H, W) against a reference of its size, in pixels, as in `burst.Burst`.

    Raises
    ------
    ValueError: the sizes differ. UserError: a frame shows no detail, or the two are too small or too unlike.
    """
    if reference.shape != frame.shape:
        raise ValueError(f"Frames of one burst have one size, not {tuple(reference.shape)} and {tuple(frame.shape)}.")
    first, second = (to_y(image)[0] for image in (reference, frame))
    base = _windowed(first)
    if min(image.std().item() for image in (first, second)) < 1e-6:
        raise UserError("A frame of the burst shows no detail, so its shift cannot be found: leave it out.")
    peak, _, _ = phase_cross_correlation(_windowed(second).numpy(), base.numpy(), upsample_factor=10)
    # skimage says how to move the second argument onto the first; the camera moved the other way.
    shift = -torch.as_tensor(peak, dtype=torch.float64)

    down = torch.fft.fftfreq(base.shape[0], dtype=torch.float64)[:, None].expand(base.shape)
    across = torch.fft.fftfreq(base.shape[1], dtype=torch.float64).expand(base.shape)
    radius = torch.hypot(down, across)
    band = (radius > BAND[0]) & (radius < BAND[1])
    slopes = 2 * torch.pi * torch.stack((down[band], across[band]), 1)
    spectrum = torch.fft.fft2(base)[band]
    for _ in range(iterations):
        other = torch.fft.fft2(_windowed(moved_back(second, shift)))[band]
        cross = other * spectrum.conj()
        # The phase of a coefficient is as certain as its power; a phase near half a turn says nothing.
        weight = cross.abs() * (cross.real > 0)
        weighted = slopes * weight[:, None]
        # Two equations need two frequencies that agree, which small or opposite frames do not have.
        if torch.linalg.matrix_rank(slopes.T @ weighted) < 2:
            raise UserError("Two frames of the burst do not resemble each other enough to find a shift: leave one out.")
        shift = shift + torch.linalg.solve(slopes.T @ weighted, weighted.T @ cross.angle())
    return shift


def estimate_shifts(frames: Tensor) -> Tensor:
    """Shifts (K, 2) of frames (K, 3, H, W) against the first one."""
    shifts = [torch.zeros(2, dtype=torch.float64)]
    shifts += [estimate_shift(frames[0], frame) for frame in frames[1:]]
    return torch.stack(shifts).to(frames)
