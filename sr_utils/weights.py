"""Any weights a user may have: this package's own files, or what DeFlow's and ESRGAN's authors released."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from sr_utils.checkpoints import load_model, load_pickled_tensors
from sr_utils.conditional_flow import keep_single_precision
from sr_utils.deflow import DeFlow, official_config
from sr_utils.deflow import load_official as load_official_deflow
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet
from sr_utils.esrgan import load_official as load_official_esrgan


def _is_own(path: Path) -> bool:
    """Whether a file was written by `checkpoints.save_model`."""
    try:
        with safe_open(path, framework="pt") as file:
            return "architecture" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def _check_device(name: str) -> None:
    """Refuse a device that this machine does not have."""
    # Compared as text: torch.device takes cuda:256 to mean cuda:0.
    count = torch.cuda.device_count()
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]
    known += ["mps"] if torch.backends.mps.is_available() else []
    if name not in known:
        raise UserError(f"PyTorch finds no device {name!r} on this machine: choose from {', '.join(known)}.")


def load_deflow(path: str | Path, *, device: str = "cpu") -> DeFlow:
    """A DeFlow from this package's checkpoint or a released one such as ``DeFlow-AIM-RWSR-100k.pth``.

    On a GPU it computes in single precision; see `conditional_flow.keep_single_precision`.

    Parameters
    ----------
    device: where it goes: ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.

    Raises
    ------
    UserError: the file is missing, damaged or of another architecture, or there is no such device.
    """
    _check_device(device)
    keep_single_precision()
    path = Path(path)
    if _is_own(path):
        return load_model(path, DeFlow).to(device)
    tensors = load_pickled_tensors(path)
    return load_official_deflow(tensors, official_config(tensors)).to(device)


def load_esrgan(path: str | Path, *, device: str = "cpu") -> RRDBNet:
    """An RRDBNet from this package's checkpoint or a released one such as ``RRDB_ESRGAN_x4.pth``.

    Parameters
    ----------
    device: as in `load_deflow`.

    Raises
    ------
    UserError: the file is missing, damaged or of another architecture, or there is no such device.
    """
    _check_device(device)
    path = Path(path)
    network = load_model(path, RRDBNet) if _is_own(path) else load_official_esrgan(load_pickled_tensors(path))
    return network.to(device)
