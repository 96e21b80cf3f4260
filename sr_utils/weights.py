"""Any weights a user may have: this package's own files, or what DeFlow's and ESRGAN's authors released."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from sr_utils.checkpoints import load_model, load_pickled_tensors
from sr_utils.deflow import DeFlow, official_config
from sr_utils.deflow import load_official as load_official_deflow
from sr_utils.esrgan import RRDBNet
from sr_utils.esrgan import load_official as load_official_esrgan


def _is_own(path: Path) -> bool:
    """Whether a file was written by `checkpoints.save_model`."""
    try:
        with safe_open(path, framework="pt") as file:
            return "architecture" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def load_deflow(path: str | Path) -> DeFlow:
    """A DeFlow from this package's checkpoint or a released one such as ``DeFlow-AIM-RWSR-100k.pth``.

    Raises
    ------
    UserError: the file is missing, damaged or of another architecture.
    """
    path = Path(path)
    if _is_own(path):
        return load_model(path, DeFlow)
    tensors = load_pickled_tensors(path)
    return load_official_deflow(tensors, official_config(tensors))


def load_esrgan(path: str | Path) -> RRDBNet:
    """An RRDBNet from this package's checkpoint or a released one such as ``RRDB_ESRGAN_x4.pth``.

    Raises
    ------
    UserError: the file is missing, damaged or of another architecture.
    """
    path = Path(path)
    return load_model(path, RRDBNet) if _is_own(path) else load_official_esrgan(load_pickled_tensors(path))
