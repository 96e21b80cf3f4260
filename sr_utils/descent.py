"""One step of gradient descent: the rate, the clipped gradient, and a stop that says where a number ceased to be one.

A loss or gradient that is not finite is never skipped. The error names the step, the files of the batch and the first
layer whose output, or the layers whose gradient, is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sr_utils.errors import UserError
from sr_utils.processes import ALONE, Processes

NAMED = 8
"""How many files or layers an error names at most."""


class TrainingError(UserError):
    """A loss or gradient became NaN or infinite; the message says at which step and where to look."""


def learning_rate_at(step: int, *, steps: int, peak: float, warmup: int = 50) -> float:
    """Linear warm-up, then a cosine from ``peak`` down to a twentieth of it."""
    warmup = min(warmup, max(1, steps // 10))
    if step < warmup:
        return peak * (step + 1) / warmup
    phase = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, phase))))


@dataclass(frozen=True)
class Suspects:
    """Who is to be named when a number is not finite."""

    modules: dict[str, nn.Module]
    """The models that took part, by name."""
    again: Callable[[], Any]
    """The forward pass, once more."""
    files: Sequence[str]
    """What the batch was cut from, an entry an image."""

    def layer(self) -> str:
        """The first layer of the forward pass whose output is not finite."""
        found: list[str] = []
        hooks = []
        for owner, model in self.modules.items():
            for name, module in model.named_modules():
                if not list(module.children()):
                    hooks.append(module.register_forward_hook(_note(f"{owner}.{name}", found)))
        try:
            with torch.no_grad():
                self.again()
        finally:
            for hook in hooks:
                hook.remove()
        return f"the first layer whose output is not finite is {found[0]}" if found else "no layer's output is at fault"

    def gradients(self) -> str:
        """The weights whose gradient is not finite."""
        names = [
            f"{owner}.{name}"
            for owner, model in self.modules.items()
            for name, weight in model.named_parameters()
            if weight.grad is not None and not torch.isfinite(weight.grad).all()
        ]
        return f"the gradient is not finite at {_listed(names)}"


def _note(name: str, found: list[str]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
        outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
        if not all(torch.isfinite(part).all() for part in outputs if isinstance(part, Tensor)):
            found.append(name)

    return hook


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def descend(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    clip: float,
    *,
    rate: float,
    step: int,
    what: str,
    suspects: Suspects,
    each: Tensor | None = None,
    processes: Processes = ALONE,
) -> None:
    """One optimiser step at learning rate ``rate``.

    Parameters
    ----------
    each: losses of single images (N,), by which those at fault are named; otherwise the whole batch is.

    Raises
    ------
    TrainingError: the loss or a gradient is not finite, in this process or another.
    """
    where = f"at step {step}"
    if not processes.agree(bool(torch.isfinite(loss)), loss.device):
        files = suspects.files
        if each is not None:
            files = [name for name, value in zip(files, each.tolist(), strict=True) if not math.isfinite(value)]
        # In a process whose own share is in order there is nobody to name.
        said = f"{suspects.layer()}; the batch was cut from {_listed(files)}" if files else "in another process"
        raise TrainingError(f"The {what} loss is {loss.item()} {where}: {said}. Look there or lower the learning rate.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not torch.isfinite(norm):
        said = f"{suspects.gradients()}; the batch was cut from {_listed(suspects.files)}"
        raise TrainingError(f"The {what} gradient is {norm.item()} {where}: {said}. Lower the learning rate.")
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    optimiser.step()
