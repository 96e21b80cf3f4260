"""Training loops of DeFlow and ESRGAN: unpaired likelihood, then pixel, perceptual and adversarial losses.

Both loops keep an exponential moving average of the weights, follow a warm-up and a cosine schedule, clip
gradients, write a resumable state every few steps and stop at the first loss that is not finite. A run that
continues from its state ends with the same weights as one that was never interrupted (same machine and number of
threads). They run on the device that they are given, and on several processes if an accelerator says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sr_utils.checkpoints import save_model
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow
from sr_utils.descent import Suspects, descend, learning_rate_at
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, PerceptualLoss, adversarial_loss, discriminator_loss
from sr_utils.features import imagenet_features
from sr_utils.patch_samplers import PairSampler, PatchSampler
from sr_utils.processes import Processes
from sr_utils.progress import progress
from sr_utils.training_config import DeFlowTraining, ESRGANTraining, bfloat16_is_native
from sr_utils.training_state import History, TrainingRun

if TYPE_CHECKING:
    from accelerate import Accelerator


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's parameters, buffers copied as they are."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _seen_through_h(model: DeFlow, image: Tensor) -> Tensor:
    """h of ``image`` (1, 3, H, W), coarsely: an edited map is another run, but not a device that rounds differently."""
    generator = None if model.config.condition_noise else torch.Generator().manual_seed(0)
    return model.condition(image, generator=generator).mul(10).round()


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
    accelerator: Accelerator | None = None,
    clean_names: Sequence[str] = (),
    degraded_names: Sequence[str] = (),
) -> History:
    """Maximise the likelihood of clean and degraded images that are not paired (DeFlow, eq. 10).

    Parameters
    ----------
    model: trained in place; on return it holds the averaged weights.
    clean, degraded: images (3, H, W) in [0, 1] at the same resolution; contents need not match.
    state_path: file to continue from and to write every ``save_every`` steps.
    stop_after: stop at this step, as an interruption would (the schedule stays that of ``config.steps``).
    accelerator: of `processes.launched`; each of its processes takes a share of ``config.batch``.
    clean_names, degraded_names: what errors call the images, such as their files.

    Raises
    ------
    TrainingError: a loss or gradient is not finite. UserError: a domain has no images, an image is smaller than the
        patch, the patch is no multiple of what the flow needs, or the batch is none of the number of processes.
    """
    processes = Processes(accelerator)
    processes.check_batch(config.batch)
    factor = model.config.side_multiple
    if config.patch % factor:
        raise UserError(f"patch={config.patch} of DeFlowTraining must be a multiple of {factor} for this flow.")
    torch.manual_seed(config.seed)
    model.to(device).train()
    model.set_domain_statistics(clean, degraded)
    average = averaged(model, config.ema_decay)
    shifts = model.shift_constants()
    others = [parameter for parameter in model.parameters() if all(parameter is not shift for shift in shifts)]
    groups = [{"params": others}, {"params": shifts, "rate_factor": config.shift_rate_factor}]
    optimiser = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    samplers = {
        "clean": PatchSampler(
            clean,
            config.patch,
            seed=config.seed,
            names=clean_names or [f"clean image {index}" for index in range(len(clean))],
        ),
        "degraded": PatchSampler(
            degraded,
            config.patch,
            seed=config.seed + 1,
            grid=config.degraded_grid,
            names=degraded_names or [f"degraded image {index}" for index in range(len(degraded))],
        ),
    }
    parts = {"model": model, "average": average, "optimiser": optimiser}
    first = (images[0][None, :, : config.patch, : config.patch].to(device) for images in (clean, degraded))
    seen = [_seen_through_h(model, image) for image in first] if state_path is not None else []
    origin = [*model.state_dict().values(), *clean, *degraded, *seen]
    run = TrainingRun(config, parts, samplers, state_path, origin)
    run.resume()
    processes.check_start(run.start, run.origin, run.device)
    half = config.batch // 2
    domain = torch.tensor([CLEAN] * half + [DEGRADED] * (config.batch - half), device=device)
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    likelihood = processes.wrapped(torch.compile(model) if config.compiled else model)
    # The condition's noise is drawn in the model's forward pass; without it, h draws its own.
    chance = None if model.config.condition_noise else torch.default_generator
    steps = range(run.start, last)
    for step in progress(steps, label="DeFlow", total=config.steps, initial=run.start) if processes.is_first else steps:
        image = torch.cat([samplers["clean"].next(half), samplers["degraded"].next(config.batch - half)]).to(device)
        batch = (image, model.condition(image, generator=chance), domain)
        noise = None
        if processes.count > 1:
            noise = model.draw_training_noise(*batch[:2])
            if step == 0:
                # Some layers set themselves by their first batch, and that is the whole one.
                with torch.no_grad():
                    model(*batch, noise=noise)
            batch, noise = (tuple(processes.share(part) for part in parts) for parts in (batch, noise))
        nll = likelihood(*batch, noise=noise)
        rate = learning_rate_at(step, steps=config.steps, peak=config.learning_rate)
        files = processes.share_of_names([*samplers["clean"].files(), *samplers["degraded"].files()])
        suspects = Suspects({"flow": model}, lambda: model(*batch, noise=noise), files)  # noqa: B023
        options = {"suspects": suspects, "each": nll.detach(), "processes": processes}
        descend(nll.mean(), optimiser, config.gradient_clip, rate=rate, step=step, what="DeFlow", **options)
        average.update_parameters(model)
        if step % log_every == 0 or step == config.steps - 1:
            nll = processes.gathered(nll)
            clean_nll, degraded_nll = nll[:half].mean().item(), nll[half:].mean().item()
            run.history.add(step, nll=nll.mean().item(), nll_clean=clean_nll, nll_degraded=degraded_nll)
        if processes.is_first and ((step + 1) % save_every == 0 or step + 1 == last):
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
    accelerator: Accelerator | None = None,
) -> History:
    """Train a restoring network on pairs: L1 first, then L1, perceptual and relativistic adversarial loss.

    Parameters
    ----------
    network, discriminator: trained in place; on return ``network`` holds the averaged weights.
    samples: yields aligned crops: what the network takes, as (N, 3, patch, patch) of low resolution, and what it should
        give, scale times as large.
    state_path, stop_after, accelerator: as in `train_deflow`.
    pixel_path: where to keep the averaged network as it is after the first stage, for `esrgan.interpolated`.

    Raises
    ------
    TrainingError: a loss or gradient is not finite. UserError: the second stage's discriminator cannot judge crops of
        this size, or the batch is no multiple of the number of processes.

    Notes
    -----
    ESRGAN (section 3) weighs 0.01 L1 + 1 perceptual (VGG-19, conv5_4) + 0.005 adversarial. Here L1 leads and
    the perceptual distance is VGG-16's, relative to the features' own magnitude, which keeps small networks with
    short schedules from inventing texture.
    """
    processes = Processes(accelerator)
    processes.check_batch(config.batch)
    side, factor = config.patch * samples.scale, discriminator.side_multiple
    if config.gan_steps and side % factor:
        raise UserError(
            f"patch={config.patch} of ESRGANTraining makes crops of {side} pixels at scale {samples.scale}: choose one "
            f"that makes them a multiple of {factor}, or gan_steps=0."
        )
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
    run = TrainingRun(config, parts, {"pairs": samples}, state_path, [*start, *samples.sources()])
    run.resume()
    processes.check_start(run.start, run.origin, run.device)
    models = _Models(
        network, discriminator, perceptual, optimisers, processes, *map(processes.wrapped, (network, discriminator))
    )
    total = config.pixel_steps + config.gan_steps
    last = total if stop_after is None else min(stop_after, total)
    steps = range(run.start, last)
    for step in progress(steps, label="ESRGAN", total=total, initial=run.start) if processes.is_first else steps:
        low, high = (
            processes.share(part).to(device=device, memory_format=torch.channels_last)
            for part in samples.next(config.batch)
        )
        losses = _esrgan_step(models, low, high, config, step, processes.share_of_names(samples.files()))
        average.update_parameters(network)
        if pixel_path is not None and step + 1 == config.pixel_steps and processes.is_first:
            # Written before the state, so that a run which continues beyond this step has it.
            save_model(pixel_path, average.module, {"training": asdict(config), "steps": step + 1})
        if step % log_every == 0 or step == total - 1:
            run.history.add(step, **processes.means(losses))
        if processes.is_first and ((step + 1) % save_every == 0 or step + 1 == last):
            run.save(step + 1)
    network.load_state_dict(average.module.state_dict())
    for part in (network, discriminator):
        part.eval()
    return run.history


@dataclass(frozen=True)
class _Models:
    """What takes part in a step of `train_esrgan`."""

    network: nn.Module
    discriminator: Discriminator
    perceptual: PerceptualLoss | None
    optimisers: dict[str, torch.optim.Optimizer]
    processes: Processes
    shared_network: nn.Module
    shared_discriminator: nn.Module
    """The same two, with gradients averaged over all processes."""


def _esrgan_step(
    models: _Models, low: Tensor, high: Tensor, config: ESRGANTraining, step: int, files: list[str]
) -> dict[str, Tensor]:
    """One step of either stage; returns the losses of this process's share."""
    discriminator, mean = models.discriminator, models.processes.mean
    mixed = bfloat16_is_native(low.device) if config.mixed_precision is None else config.mixed_precision
    autocast = torch.autocast(low.device.type, dtype=torch.bfloat16, enabled=mixed)

    def again() -> None:
        with autocast:
            discriminator(models.network(low))

    suspects = Suspects({"network": models.network, "discriminator": discriminator}, again, files)
    options = {"step": step, "suspects": suspects, "processes": models.processes}
    optimiser, clip = models.optimisers["network"], config.gradient_clip
    with autocast:
        restored = models.shared_network(low)
    restored = restored.float()
    pixel = F.l1_loss(restored, high)
    if step < config.pixel_steps:
        rate = learning_rate_at(step, steps=config.pixel_steps, peak=config.learning_rate)
        each = (restored - high).detach().abs().mean((1, 2, 3))
        descend(pixel, optimiser, clip, rate=rate, what="ESRGAN pixel", each=each, **options)
        return {"pixel": pixel.detach()}

    rate = learning_rate_at(step - config.pixel_steps, steps=config.gan_steps, peak=config.gan_learning_rate)
    discriminator.requires_grad_(False)
    with autocast:
        perceived = models.perceptual(restored, high, mean=mean)
        with torch.no_grad():
            real_logits = discriminator(high)
        adversarial = adversarial_loss(real_logits.float(), discriminator(restored).float(), mean=mean)
    total = (
        config.pixel_weight * pixel
        + config.perceptual_weight * perceived.float()
        + config.adversarial_weight * adversarial
    )
    descend(total, optimiser, clip, rate=rate, what="ESRGAN generator", **options)

    discriminator.requires_grad_(True)
    with autocast:
        both = torch.cat([high, restored.detach()])
        real_logits, fake_logits = models.shared_discriminator(both).float().chunk(2)
    judged = discriminator_loss(real_logits, fake_logits, mean=mean)
    descend(judged, models.optimisers["discriminator"], clip, rate=rate, what="ESRGAN discriminator", **options)
    return {
        "pixel": pixel.detach(),
        "perceptual": perceived.detach().float(),
        "adversarial": adversarial.detach(),
        "discriminator": judged.detach(),
    }
