"""Names of the released checkpoints' tensors, translated to this package's. Nothing is computed here.

Released are DeFlow's ``RRDBGlowNet`` and ESRGAN's ``RRDBNet`` in three layouts: numbered (``model.1.sub.0...``, the
first release), named (``RRDB_trunk.0...``, the second) and BasicSR's (``body.0...``, used by Real-ESRGAN).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from sr_utils.errors import UserError

_UNUSED = re.compile(
    r"^(I|RRDB\.(HRconv|conv_last|upconv\d)\..*|flowUpsamplerNet\.f\.0\..*|flowUpsamplerNet\.layers\.\d+\.I)$"
)
"""What the released code stores and never uses, once the used doublings have been taken."""

_PARTS = {"logs": "log_scale", "l": "lower", "u": "upper", "p": "permutation"}
_PARTS |= {"log_s": "log_diagonal", "sign_s": "sign"}
_TRUNK = re.compile(r"^(\d+)\.RDB(\d)\.conv(\d)\.(?:0\.)?(weight|bias)$", re.IGNORECASE)


def _dense_block(rest: str) -> str | None:
    """``3.RDB1.conv2.weight`` as ``3.blocks.0.convs.1.weight``."""
    found = _TRUNK.match(rest)
    if not found:
        return None
    block, dense, conv, kind = found.groups()
    return f"{block}.blocks.{int(dense) - 1}.convs.{int(conv) - 1}.{kind}"


def _step_part(rest: str) -> str | None:
    """A flow step's tensor: actnorm, invertible convolution, or one of the two networks of the coupling."""
    owner, _, name = rest.rpartition(".")
    if owner in ("actnorm", "invconv"):
        return f"{'actnorm' if owner == 'actnorm' else 'mixing'}.{_PARTS.get(name, name)}"
    found = re.match(r"^affine\.(fAffine|fFeatures)\.(\d)\.(.+)$", rest)
    if not found:
        return None
    network = {"fAffine": "coupling", "fFeatures": "injector"}[found[1]]
    inner = {
        "weight": "conv.weight",
        "bias": "conv.bias",
        "logs": "log_gain",
        "actnorm.bias": "norm.bias",
        "actnorm.logs": "norm.log_scale",
    }.get(found[3])
    return inner and f"coupling.{network}.{found[2]}.{inner}"


def _flow_part(rest: str, places: list[tuple[str, int, int]]) -> str | None:
    """A tensor of ``flowUpsamplerNet.layers``; ``places`` says what stands at each number."""
    number, _, name = rest.partition(".")
    known = number.isdecimal() and int(number) < len(places)
    kind, level, index = places[int(number)] if known else ("none", 0, 0)
    if kind == "step":
        part = _step_part(name)
        return part and f"steps.{level}.{index}.{part}"
    if kind == "split":
        shift = {"mean_shift": f"shifts.{level}.mean", "cov_shift": f"shifts.{level}.factor"}
        prior = {"conv.weight": "conv.weight", "conv.bias": "conv.bias", "conv.logs": "log_gain"}
        return shift.get(name) or (prior.get(name) and f"splits.{level}.prior.{prior[name]}")
    return None


def deflow_tensors(published: Mapping[str, Tensor], *, steps: list[int], splits: int) -> dict[str, Tensor]:
    """A released DeFlow's tensors under this package's names.

    Parameters
    ----------
    steps: flow steps of each level, those without a coupling included.
    splits: how many levels, from the first, end with a split.

    Raises
    ------
    UserError: a name is not of a released DeFlow of these sizes.
    """
    places: list[tuple[str, int, int]] = []
    for level, count in enumerate(steps):
        places += [("squeeze", level, 0)] + [("step", level, index) for index in range(count)]
        places += [("split", level, 0)] if level < splits else []
    translated = {}
    for name, tensor in published.items():
        head, _, rest = name.partition(".")
        new = None
        if head == "RRDB":
            part, _, kind = rest.partition(".")
            if part == "RRDB_trunk":
                new = _dense_block(kind)
                new = new and f"encoder.trunk.{new}"
            elif part in ("conv_first", "trunk_conv"):
                new = f"encoder.{'first' if part == 'conv_first' else 'after_trunk'}.{kind}"
            elif part.startswith("upconv") and part[6:].isdecimal():
                new = f"encoder.upsampled.{int(part[6:]) - 1}.{kind}"
        elif name.startswith("flowUpsamplerNet.layers."):
            new = _flow_part(name.removeprefix("flowUpsamplerNet.layers."), places)
        elif name in ("mean_shift", "cov_shift"):
            new = f"shifts.{splits}.{'mean' if name == 'mean_shift' else 'factor'}"
        if new is not None:
            flat = tensor.flatten() if new.endswith((".bias", ".log_scale")) else tensor
            translated[new] = flat
        elif not _UNUSED.match(name):
            raise UserError(f"The tensor {name} is not of a released DeFlow of these sizes; check the configuration.")
    return translated


_NAMED = {
    "conv_first": "first", "trunk_conv": "after_trunk", "conv_body": "after_trunk", "upconv1": "upsampled.0",
    "upconv2": "upsampled.1", "conv_up1": "upsampled.0", "conv_up2": "upsampled.1", "HRconv": "high_resolution",
    "conv_hr": "high_resolution", "conv_last": "last",
}  # fmt: skip
_NUMBERED = {"0": "first", "3": "upsampled.0", "6": "upsampled.1", "8": "high_resolution", "10": "last"}


def esrgan_tensors(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released RRDBNet's tensors, in any of the three layouts, under this package's names.

    Raises
    ------
    UserError: a name is not of a released RRDBNet.
    """
    translated = {}
    for name, tensor in published.items():
        plain = name.removeprefix("module.")
        head, _, rest = plain.partition(".")
        new = None
        if head in ("RRDB_trunk", "body"):
            new = _dense_block(rest)
            new = new and f"trunk.{new}"
        elif head in _NAMED:
            new = f"{_NAMED[head]}.{rest}"
        elif head == "model":
            number, _, rest = rest.partition(".")
            if number in _NUMBERED:
                new = f"{_NUMBERED[number]}.{rest}"
            elif number == "1" and rest.startswith("sub."):
                inner = rest.removeprefix("sub.")
                new = _dense_block(inner)
                new = f"trunk.{new}" if new else f"after_trunk.{inner.partition('.')[2]}"
        if new is None:
            raise UserError(f"The tensor {name} is not of a released RRDBNet; give ESRGAN's or Real-ESRGAN's weights.")
        translated[new] = tensor
    return translated
