"""How long, on what and how fast DeFlow and ESRGAN are trained; see `training`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sr_utils.parameters import check_range, check_switches


@dataclass(frozen=True)
class DeFlowTraining:
    """How a DeFlow is trained. The paper's own: 100,000 steps of 8 patches of 160x160."""

    steps: int
    patch: int = 64
    """Side of the random crops, in pixels of the low-resolution images; a multiple of the flow's ``side_multiple``."""
    batch: int = 16
    """Images a step, at least two; half of them clean, half degraded."""
    learning_rate: float = 5e-4
    degraded_grid: int = 1
    """Above 1, corners of degraded patches lie on multiples of this and these patches are not turned: colour filters
    and JPEG blocks have a grid and a direction."""
    shift_rate_factor: float = 10.0
    """Learning rate of the shifts' own means and covariances relative to the rest. The flow is held to the clean
    domain's unit scale, where the degraded latents' deviation may be ten, so they have further to go than any weight
    of a network."""
    ema_decay: float = 0.999
    gradient_clip: float = 10.0
    compiled: bool = False
    """Translate the model to machine code first (`torch.compile`). That takes minutes, and on two CPU cores a step is
    then a tenth faster only; it is meant for long training on a GPU."""
    seed: int = 0

    def __post_init__(self):
        check_range("DeFlowTraining", least=1, steps=self.steps, degraded_grid=self.degraded_grid)
        _check_common(self, "DeFlowTraining")
        check_range("DeFlowTraining", least=2, batch=self.batch)
        check_range("DeFlowTraining", least=0.0, shift_rate_factor=self.shift_rate_factor)
        check_switches("DeFlowTraining", compiled=self.compiled)


@dataclass(frozen=True)
class ESRGANTraining:
    """How an ESRGAN is trained: ``pixel_steps`` of L1, then ``gan_steps`` with all three losses."""

    pixel_steps: int
    gan_steps: int
    patch: int = 40
    """Side of the low-resolution crops; with ``gan_steps``, patch * scale must be a multiple of 8."""
    batch: int = 8
    learning_rate: float = 4e-4
    gan_learning_rate: float = 1e-4
    pixel_weight: float = 1.0
    perceptual_weight: float = 0.1
    adversarial_weight: float = 0.005
    ema_decay: float = 0.998
    gradient_clip: float = 10.0
    mixed_precision: bool | None = None
    """bfloat16 for the convolutions: twice as fast where the device computes it natively, slower where it emulates
    it. None uses it where it is native."""
    seed: int = 0

    def __post_init__(self):
        check_range("ESRGANTraining", least=0, pixel_steps=self.pixel_steps, gan_steps=self.gan_steps)
        _check_common(self, "ESRGANTraining")
        weights = {"pixel_weight": self.pixel_weight, "perceptual_weight": self.perceptual_weight}
        weights |= {"adversarial_weight": self.adversarial_weight, "gan_learning_rate": self.gan_learning_rate}
        check_range("ESRGANTraining", least=0.0, **weights)
        if self.mixed_precision is not None:
            check_switches("ESRGANTraining", mixed_precision=self.mixed_precision)


def _check_common(training: DeFlowTraining | ESRGANTraining, owner: str) -> None:
    """The ranges of what both ways of training have."""
    check_range(owner, least=1, largest=4096, patch=training.patch, batch=training.batch)
    check_range(owner, least=0.0, learning_rate=training.learning_rate, gradient_clip=training.gradient_clip)
    check_range(owner, least=0.0, largest=1.0, ema_decay=training.ema_decay)
    check_range(owner, least=0, largest=2**32 - 1, seed=training.seed)


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
