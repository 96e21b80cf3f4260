"""Training loops of DeFlow and ESRGAN: unpaired likelihood, then pixel, perceptual and adversarial losses.

Both loops keep an exponential moving average of the weights, follow a warm-up and a cosine schedule, clip
gradients, write a resumable state every few steps and stop at the first loss that is not finite. A run that
continues from its state ends with the same weights as one that was never interrupted (same machine and number of
threads). They run on the device that they are given.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sr_utils.checkpoints import load_state, save_model, save_state
from sr_utils.datasets import PairSampler, PatchSampler
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, PerceptualLoss, adversarial_loss, discriminator_loss
from sr_utils.features import imagenet_features
from sr_utils.parameters import check_range
from sr_utils.progress import progress


class TrainingError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message says at which step and where to look."""


@dataclass(frozen=True)
class DeFlowTraining:
    """How a DeFlow is trained. The paper's own: 100,000 steps of 8 patches of 160x160."""

    steps: int
    patch: int = 64
    """Side of the random crops, in pixels of the low-resolution images."""
    batch: int = 16
    """Images a step; half of them clean, half degraded."""
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
        check_range("DeFlowTraining", least=0.0, shift_rate_factor=self.shift_rate_factor)


@dataclass(frozen=True)
class ESRGANTraining:
    """How an ESRGAN is trained: ``pixel_steps`` of L1, then ``gan_steps`` with all three losses."""

    pixel_steps: int
    gan_steps: int
    patch: int = 40
    """Side of the low-resolution crops; patch * scale must be a multiple of 8."""
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


def _check_common(training: DeFlowTraining | ESRGANTraining, owner: str) -> None:
    """The ranges of what both ways of training have."""
    check_range(owner, least=1, largest=4096, patch=training.patch, batch=training.batch)
    check_range(owner, least=0.0, learning_rate=training.learning_rate, gradient_clip=training.gradient_clip)
    check_range(owner, least=0.0, largest=1.0, ema_decay=training.ema_decay)
    check_range(owner, least=0, largest=2**32 - 1, seed=training.seed)


@dataclass
class History:
    """What a run recorded: one entry a logged step, each a dictionary with ``step`` and its losses."""

    records: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, **values: float) -> None:
        self.records.append({"step": step, **values})

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one recorded quantity."""
        found = [(record["step"], record[name]) for record in self.records if name in record]
        return [step for step, _ in found], [value for _, value in found]


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def learning_rate_at(step: int, *, steps: int, peak: float, warmup: int = 50) -> float:
    """Linear warm-up, then a cosine from ``peak`` down to a twentieth of it."""
    warmup = min(warmup, max(1, steps // 10))
    if step < warmup:
        return peak * (step + 1) / warmup
    phase = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, phase))))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's parameters, buffers copied as they are."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def descend(loss: Tensor, optimiser: torch.optim.Optimizer, clip: float, *, rate: float, step: int, what: str) -> None:
    """One optimiser step at learning rate ``rate``; raises `TrainingError` on a loss or gradient not finite."""
    if not torch.isfinite(loss):
        raise TrainingError(f"The {what} loss is {loss.item()} at step {step}; lower the learning rate.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not torch.isfinite(norm):
        raise TrainingError(f"The {what} gradient is not finite at step {step}; lower the learning rate.")
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    optimiser.step()


def _fingerprint(tensors: Iterable[Tensor]) -> int:
    """A number that changes with any value of the tensors."""
    found = 0
    for tensor in tensors:
        found = zlib.crc32(tensor.detach().cpu().contiguous().numpy(), found)
    return found


class _Run:
    """What both loops save and restore: modules, averages, optimisers, samplers, random state, history.

    ``origin`` is what a run starts from, images and weights; with others, an old state is no state of this run.
    """

    def __init__(
        self,
        config,
        parts: dict[str, nn.Module | torch.optim.Optimizer],
        samplers: dict,
        state_path,
        origin: Iterable[Tensor],
    ):
        self.config, self.parts, self.samplers = asdict(config), parts, samplers
        self.origin = 0 if state_path is None else _fingerprint(origin)
        self.state_path = None if state_path is None else Path(state_path)
        self.history, self.start = History(), 0

    def resume(self) -> None:
        """Continue from the state file if there is one; it must have been written with the same settings."""
        if self.state_path is None or not self.state_path.is_file():
            return
        state = load_state(self.state_path)
        if state["config"] != self.config:
            raise UserError(
                f"The training state {self.state_path} was written with other settings; delete it to start again."
            )
        if state["origin"] != self.origin:
            raise UserError(
                f"The training state {self.state_path} was written with other images or starting weights; "
                "delete it to start again."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        for name, sampler in self.samplers.items():
            sampler.load_state(state["samplers"][name])
        torch.set_rng_state(state["random"])
        self.history, self.start = History(state["history"]), state["step"]

    def save(self, step: int) -> None:
        if self.state_path is None:
            return
        save_state(
            self.state_path,
            {
                "config": self.config,
                "origin": self.origin,
                "step": step,
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "samplers": {name: sampler.state() for name, sampler in self.samplers.items()},
                "random": torch.get_rng_state(),
                "history": self.history.records,
            },
        )


def train_deflow(
    model: DeFlow,
    clean: list[Tensor],
    degraded: list[Tensor],
    config: DeFlowTraining,
    *,
    state_path: str | Path | None = None,
    save_every: int = 500,
    log_every: int = 10,
    device: str = "cpu",
    stop_after: int | None = None,
) -> History:
    """Maximise the likelihood of clean and degraded images that are not paired (DeFlow, eq. 10).

    Parameters
    ----------
    model: trained in place; on return it holds the averaged weights.
    clean, degraded: images (3, H, W) in [0, 1] at the same resolution; contents need not match.
    state_path: file to continue from and to write every ``save_every`` steps.
    stop_after: stop at this step, as an interruption would (the schedule stays that of ``config.steps``).

    Raises
    ------
    TrainingError: a loss or gradient is not finite. UserError: an image is smaller than the patch.
    """
    torch.manual_seed(config.seed)
    model.to(device).train()
    model.set_domain_statistics(clean, degraded)
    average = averaged(model, config.ema_decay)
    shifts = model.shift_constants()
    others = [parameter for parameter in model.parameters() if all(parameter is not shift for shift in shifts)]
    groups = [{"params": others}, {"params": shifts, "rate_factor": config.shift_rate_factor}]
    optimiser = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    samplers = {
        "clean": PatchSampler(clean, config.patch, seed=config.seed),
        "degraded": PatchSampler(degraded, config.patch, seed=config.seed + 1, grid=config.degraded_grid),
    }
    parts = {"model": model, "average": average, "optimiser": optimiser}
    run = _Run(config, parts, samplers, state_path, [*model.state_dict().values(), *clean, *degraded])
    run.resume()
    half = config.batch // 2
    domain = torch.tensor([CLEAN] * half + [DEGRADED] * (config.batch - half), device=device)
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    likelihood = torch.compile(model) if config.compiled else model
    # The condition's noise is drawn in the model's forward pass; without it, h draws its own.
    chance = None if model.config.condition_noise else torch.default_generator
    for step in progress(range(run.start, last), label="DeFlow", total=config.steps, initial=run.start):
        image = torch.cat([samplers["clean"].next(half), samplers["degraded"].next(config.batch - half)]).to(device)
        nll = likelihood(image, model.condition(image, generator=chance), domain)
        rate = learning_rate_at(step, steps=config.steps, peak=config.learning_rate)
        descend(nll.mean(), optimiser, config.gradient_clip, rate=rate, step=step, what="DeFlow")
        average.update_parameters(model)
        if step % log_every == 0 or step == config.steps - 1:
            clean_nll, degraded_nll = nll[:half].mean().item(), nll[half:].mean().item()
            run.history.add(step, nll=nll.mean().item(), nll_clean=clean_nll, nll_degraded=degraded_nll)
        if (step + 1) % save_every == 0 or step + 1 == last:
            run.save(step + 1)
    model.load_state_dict(average.module.state_dict())
    model.eval()
    return run.history


def train_esrgan(
    network: nn.Module,
    discriminator: Discriminator,
    samples: PairSampler,
    config: ESRGANTraining,
    *,
    state_path: str | Path | None = None,
    pixel_path: str | Path | None = None,
    save_every: int = 250,
    log_every: int = 10,
    device: str = "cpu",
    stop_after: int | None = None,
) -> History:
    """Train a restoring network on pairs: L1 first, then L1, perceptual and relativistic adversarial loss.

    Parameters
    ----------
    network, discriminator: trained in place; on return ``network`` holds the averaged weights.
    samples: yields aligned crops: what the network takes, as (N, 3, patch, patch) of low resolution, and what it should
        give, scale times as large.
    state_path, stop_after: as in `train_deflow`.
    pixel_path: where to keep the averaged network as it is after the first stage, for `esrgan.interpolated`.

    Raises
    ------
    TrainingError: a loss or gradient is not finite.

    Notes
    -----
    ESRGAN (section 3) weighs 0.01 L1 + 1 perceptual (VGG-19, conv5_4) + 0.005 adversarial. Here L1 leads and
    the perceptual distance is VGG-16's, relative to the features' own magnitude, which keeps small networks with
    short schedules from inventing texture.
    """
    torch.manual_seed(config.seed)
    for part in (network, discriminator):
        part.to(device=device, memory_format=torch.channels_last).train()
    average = averaged(network, config.ema_decay)
    optimisers = {
        "network": torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99)),
        "discriminator": torch.optim.Adam(discriminator.parameters(), lr=config.gan_learning_rate, betas=(0.9, 0.99)),
    }
    perceptual = None
    if config.gan_steps:
        perceptual = PerceptualLoss(imagenet_features("vgg16")).to(device, memory_format=torch.channels_last)
    parts = {"network": network, "discriminator": discriminator, "average": average}
    parts |= {f"{name}_optimiser": optimiser for name, optimiser in optimisers.items()}
    start = (*network.state_dict().values(), *discriminator.state_dict().values())
    run = _Run(config, parts, {"pairs": samples}, state_path, [*start, *samples.sources()])
    run.resume()
    steps = config.pixel_steps + config.gan_steps
    last = steps if stop_after is None else min(stop_after, steps)
    for step in progress(range(run.start, last), label="ESRGAN", total=steps, initial=run.start):
        low, high = (
            part.to(device=device, memory_format=torch.channels_last) for part in samples.next(config.batch)
        )
        losses = _esrgan_step(network, discriminator, perceptual, optimisers, low, high, config, step)
        average.update_parameters(network)
        if pixel_path is not None and step + 1 == config.pixel_steps:
            # Written before the state, so that a run which continues beyond this step has it.
            save_model(pixel_path, average.module, {"training": asdict(config), "steps": step + 1})
        if step % log_every == 0 or step == steps - 1:
            run.history.add(step, **losses)
        if (step + 1) % save_every == 0 or step + 1 == last:
            run.save(step + 1)
    network.load_state_dict(average.module.state_dict())
    for part in (network, discriminator):
        part.eval()
    return run.history


def _esrgan_step(
    network: nn.Module,
    discriminator: Discriminator,
    perceptual: PerceptualLoss | None,
    optimisers: dict[str, torch.optim.Optimizer],
    low: Tensor,
    high: Tensor,
    config: ESRGANTraining,
    step: int,
) -> dict[str, float]:
    """One step of either stage; returns the losses as numbers."""
    mixed = bfloat16_is_native(low.device) if config.mixed_precision is None else config.mixed_precision
    autocast = torch.autocast(low.device.type, dtype=torch.bfloat16, enabled=mixed)
    with autocast:
        restored = network(low)
    restored = restored.float()
    pixel = F.l1_loss(restored, high)
    if step < config.pixel_steps:
        rate = learning_rate_at(step, steps=config.pixel_steps, peak=config.learning_rate)
        descend(pixel, optimisers["network"], config.gradient_clip, rate=rate, step=step, what="ESRGAN pixel")
        return {"pixel": pixel.item()}

    rate = learning_rate_at(step - config.pixel_steps, steps=config.gan_steps, peak=config.gan_learning_rate)
    discriminator.requires_grad_(False)
    with autocast:
        perceived = perceptual(restored, high)
        with torch.no_grad():
            real_logits = discriminator(high)
        adversarial = adversarial_loss(real_logits.float(), discriminator(restored).float())
    total = (
        config.pixel_weight * pixel
        + config.perceptual_weight * perceived.float()
        + config.adversarial_weight * adversarial
    )
    descend(total, optimisers["network"], config.gradient_clip, rate=rate, step=step, what="ESRGAN generator")

    discriminator.requires_grad_(True)
    with autocast:
        real_logits, fake_logits = discriminator(torch.cat([high, restored.detach()])).float().chunk(2)
    judged = discriminator_loss(real_logits, fake_logits)
    descend(
        judged, optimisers["discriminator"], config.gradient_clip, rate=rate, step=step, what="ESRGAN discriminator"
    )
    return {
        "pixel": pixel.item(),
        "perceptual": perceived.item(),
        "adversarial": adversarial.item(),
        "discriminator": judged.item(),
    }
