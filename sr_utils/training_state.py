"""What a training saves so that it continues bit for bit, and how it is found again when the newest file is damaged.

A state holds the modules, their averages, the optimisers, the samplers, the random states, the step, the history and
the configuration. The schedule follows from the step. The last three states are kept: ``name.safetensors``, and
``name.earlier1`` and ``name.earlier2`` beside it.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sr_utils.checkpoints import load_state, save_state
from sr_utils.errors import UserError

KEPT = 3


@dataclass
class History:
    """What a run recorded: one entry a logged step, each a dictionary with ``step`` and its losses."""

    records: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, **values: float) -> None:
        """Record the values of one step, by name."""
        self.records.append({"step": step, **values})

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one recorded quantity."""
        found = [(record["step"], record[name]) for record in self.records if name in record]
        return [step for step, _ in found], [value for _, value in found]


def state_files(path: Path) -> list[Path]:
    """Where the last states of a run lie, the newest first, whether they exist or not."""
    return [path, *(path.with_name(f"{path.stem}.earlier{age}{path.suffix}") for age in range(1, KEPT))]


def forget_states(path: str | Path) -> None:
    """Remove the states of a run that is over."""
    for file in state_files(Path(path)):
        file.unlink(missing_ok=True)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Save a state as the newest, and keep those before it. A kill at any moment leaves at least one whole."""
    new = path.with_name(f"{path.stem}.new{path.suffix}")
    save_state(new, state)
    files = state_files(path)
    for older, younger in zip(reversed(files), [*reversed(files[:-1]), new], strict=True):
        if younger.exists():
            younger.replace(older)


def _settings(parts: dict[str, Any]) -> str:
    """How the modules were set up: what their weights alone do not say."""
    configs = {name: part.config for name, part in parts.items() if is_dataclass(getattr(part, "config", None))}
    return repr({name: asdict(config) for name, config in configs.items()})


def _fingerprint(tensors: Iterable[Tensor], settings: str) -> int:
    """A number that changes with any value of the tensors and with the settings."""
    found = zlib.crc32(settings.encode())
    for tensor in tensors:
        found = zlib.crc32(tensor.detach().cpu().contiguous().numpy(), found)
    return found


class TrainingRun:
    """What both loops save and restore: modules, averages, optimisers, samplers, random states, history.

    ``origin`` is what a run starts from, images and weights; with others, or with modules of another ``config``, an old
    state is no state of this run.
    """

    def __init__(
        self,
        config: Any,
        parts: dict[str, nn.Module | torch.optim.Optimizer],
        samplers: dict[str, Any],
        state_path: str | Path | None,
        origin: Iterable[Tensor],
    ):
        self.config, self.parts, self.samplers = asdict(config), parts, samplers
        self.origin = 0 if state_path is None else _fingerprint(origin, _settings(parts))
        self.state_path = None if state_path is None else Path(state_path)
        self.history, self.start = History(), 0
        self.device = next(
            weight.device for part in parts.values() if isinstance(part, nn.Module) for weight in part.parameters()
        )

    def resume(self) -> None:
        """Continue from the newest state that is whole, if there is one, with a warning that names a damaged one.

        Raises
        ------
        UserError: a state was written with other settings, images or starting weights; or none is whole.
        """
        damaged: list[UserError] = []
        for path in state_files(self.state_path) if self.state_path else []:
            if not path.is_file():
                continue
            try:
                self._restore(path)
            except _Damaged as error:
                damaged.append(error)
                continue
            for error in damaged:
                warnings.warn(f"{error} Continuing from {path.name}, step {self.start}.", stacklevel=3)
            return
        if damaged:
            raise UserError(f"{damaged[0]} No earlier one is whole: delete it to start again.")

    def _restore(self, path: Path) -> None:
        try:
            state = load_state(path)
        except UserError as error:
            raise _Damaged(f"The training state {path} is damaged.") from error
        again = f"delete {path.name} and what is called alike to start again."
        if state.get("config") != self.config:
            raise UserError(f"The training state {path} was written with other settings; {again}")
        if state.get("origin") != self.origin:
            other = "other images, starting weights or settings of the network"
            raise UserError(f"The training state {path} was written with {other}; {again}")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
            for name, sampler in self.samplers.items():
                sampler.load_state(state["samplers"][name])
            torch.set_rng_state(state["random"])
            # Older states hold one for every device that the first process saw, of which it used the first.
            for random in state.get("random_of_devices", [])[:1] if self.device.type == "cuda" else []:
                torch.cuda.set_rng_state(random, self.device)
            self.history, self.start = History(state["history"]), state["step"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise _Damaged(f"The training state {path} is damaged.") from error

    def save(self, step: int) -> None:
        """Write the state as it is after ``step`` steps."""
        if self.state_path is None:
            return
        # All processes draw alike, each on a device of its own, so the first one's state is everyone's.
        devices = [self.device] if self.device.type == "cuda" else []
        write_state(
            self.state_path,
            {
                "config": self.config,
                "origin": self.origin,
                "step": step,
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "samplers": {name: sampler.state() for name, sampler in self.samplers.items()},
                "random": torch.get_rng_state(),
                "random_of_devices": [torch.cuda.get_rng_state(device) for device in devices],
                "history": self.history.records,
            },
        )


class _Damaged(UserError):
    """A state that cannot be read, so that an earlier one is tried."""
