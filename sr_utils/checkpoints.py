"""Weights on disk: safetensors with the configuration inside and the provenance beside. No pickle is executed.

A model file carries its architecture's name and configuration in its header, so it is rebuilt without guessing;
``<name>.json`` beside it says where the weights come from. A training state holds whatever a run needs to continue
bit for bit: several modules' and optimisers' tensors, random states and a few plain values.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sr_utils.errors import UserError
from sr_utils.files import atomic_path, write_json

Model = TypeVar("Model", bound=nn.Module)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the header's texts of a safetensors file, or a sentence that says what is wrong."""
    # Of os.path, which answers no where pathlib would raise: a name that is too long, a folder of another user.
    if not os.path.isfile(path):
        raise UserError(f"The checkpoint {path} does not exist; train it first or give another path.")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"The checkpoint {path} is damaged or not a safetensors file ({error}); delete it and train it again."
        ) from error


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write tensors and texts as safetensors, aside and then renamed.

    Raises
    ------
    UserError: as `files.atomic_path`.
    """
    # Not `save_file`: it makes a file that only its owner may read.
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, header)
    # The library writes the header's entries in an order that changes from run to run; equal weights give equal files.
    end = 8 + int.from_bytes(content[:8], "little")
    entries = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    entries += b" " * (-len(entries) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(entries).to_bytes(8, "little") + entries)
        stream.write(memoryview(content)[end:])


def save_model(path: str | Path, model: nn.Module, provenance: dict) -> Path:
    """Save a model's weights with its configuration to ``path`` (.safetensors) and ``provenance`` beside it."""
    path = Path(path)
    tensors, config = model.state_dict(), asdict(model.config)
    header = {"architecture": type(model).__name__, "config": json.dumps(config)}
    save_tensors(path, tensors, header | {"sum": str(_sum(tensors, header["config"]))})
    write_json(path.with_suffix(".json"), {**header, "config": config, **provenance})
    return path


@contextlib.contextmanager
def _no_larger_than(tensors: dict[str, Tensor]) -> Iterator[None]:
    """Stop building a model that outgrows its own file: a header may claim any size, and memory ends first."""
    # A parametrised weight is registered twice.
    left = 3 * sum(1 + tensor.numel() for tensor in tensors.values())

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else 1 + parameter.numel()
        if left < 0:
            raise ValueError("its header claims a larger model than the file holds")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def load_model(path: str | Path, model_class: type[Model]) -> Model:
    """Rebuild a model of ``model_class`` from `save_model`'s file, in evaluation mode on the CPU.

    Raises
    ------
    UserError: the file is missing, damaged, of another architecture, or of sizes this version does not know. Of files
        without a sum, as older versions wrote them, damage inside a tensor is not noticed.
    """
    path = Path(path)
    tensors, header = _read(path)
    found = header.get("architecture", "an unknown architecture")
    if found != model_class.__name__:
        raise UserError(f"The checkpoint {path} holds {found}, not {model_class.__name__}; give the matching file.")
    try:
        _check_sum(header, tensors, header["config"])
        with _no_larger_than(tensors):
            model = model_class(model_class.config_class(**json.loads(header["config"])))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, RecursionError) as error:
        reason = (str(error) or repr(error)).splitlines()[0][:300]
        raise UserError(
            f"The checkpoint {path} does not fit this version's {model_class.__name__} ({reason}); train it again."
        ) from error
    return model.eval()


def load_pickled_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of somebody's ``.pth`` or ``.safetensors``; of a pickle nothing but tensors is ever built.

    Weights that lie one level deeper, under ``params_ema``, ``params`` or ``state_dict``, are found.

    Raises
    ------
    UserError: the file is missing, damaged, holds other things than tensors, or would execute code.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read(path)[0]
    if not os.path.isfile(path):
        raise UserError(f"The checkpoint {path} does not exist; give another path.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the reader of pickles raise nearly anything
        raise UserError(
            f"The checkpoint {path} is damaged, or it holds more than weights and is not safe to open; "
            "get it from its authors again, or save its state_dict alone."
        ) from error
    content = content if isinstance(content, dict) else {}
    for name in ("params_ema", "params", "state_dict"):
        if isinstance(content.get(name), dict):
            content = content[name]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"The checkpoint {path} holds no named tensors; give a file with a state_dict.")
    return tensors


def _flatten(prefix: str, value, tensors: dict[str, Tensor], plain: dict) -> None:
    """Walk nested dicts and lists: tensors to ``tensors``, everything else to ``plain``, both by dotted name."""
    if isinstance(value, Tensor):
        tensors[prefix] = value
    elif isinstance(value, dict):
        plain[prefix] = {"dict": list(value)}
        for key, item in value.items():
            _flatten(f"{prefix}.{key}", item, tensors, plain)
    elif isinstance(value, list | tuple):
        plain[prefix] = {"list": len(value)}
        for index, item in enumerate(value):
            _flatten(f"{prefix}.{index}", item, tensors, plain)
    else:
        plain[prefix] = {"value": value}


def _restore(prefix: str, tensors: dict[str, Tensor], plain: dict):
    """The inverse of `_flatten`."""
    if prefix in tensors:
        return tensors[prefix]
    node = plain[prefix]
    if "dict" in node:
        return {key: _restore(f"{prefix}.{key}", tensors, plain) for key in node["dict"]}
    if "list" in node:
        return [_restore(f"{prefix}.{index}", tensors, plain) for index in range(node["list"])]
    return node["value"]


def save_state(path: str | Path, state: dict) -> None:
    """Save a nested state of dicts, lists, tensors, numbers and texts; dictionary keys are str or int."""
    tensors: dict[str, Tensor] = {}
    plain: dict = {}
    _flatten("state", state, tensors, plain)
    # Two names may share one storage (tied weights); safetensors wants each on its own.
    tensors = {key: value.detach().cpu().clone() for key, value in tensors.items()}
    text = json.dumps(plain)
    save_tensors(Path(path), tensors, {"plain": text, "sum": str(_sum(tensors, text))})


def _sum(tensors: dict[str, Tensor], text: str) -> int:
    """A number that changes with any bit of a file's content; safetensors itself keeps none."""
    found = zlib.crc32(text.encode())
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), found)
    return found


def _check_sum(header: dict[str, str], tensors: dict[str, Tensor], text: str) -> None:
    """Hold a file's content against its `_sum`, which older files lack.

    Raises
    ------
    ValueError: they differ.
    """
    if "sum" in header and int(header["sum"]) != _sum(tensors, text):
        raise ValueError("the sum of its bytes does not match")


def load_state(path: str | Path) -> dict:
    """Load what `save_state` wrote.

    Raises
    ------
    UserError: the file is missing or damaged.
    """
    tensors, header = _read(Path(path))
    try:
        _check_sum(header, tensors, header["plain"])
        return _restore("state", tensors, json.loads(header["plain"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"The training state {path} is damaged; delete it to start again.") from error
