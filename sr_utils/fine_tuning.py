"""The trainings of notebooks 3 and 5 without the notebooks, on as many processes as Accelerate started.

Both end with the training state of the run. The notebook of the same run finds that nothing is left to train, and goes
on with what follows: calibration, figures and saving.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from sr_utils.checkpoints import load_model
from sr_utils.course import Course
from sr_utils.datasets import clean_at_input_size, load_images
from sr_utils.deflow import DeFlow, reconfigured
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.files import read_json
from sr_utils.fresh_pairs import RedrawnPairs, draws_of
from sr_utils.patch_samplers import PairSampler
from sr_utils.repository import resolve
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_pairs import make_pairs, sensor_of_pairs


def fine_tune_deflow(course: Course, accelerator: Accelerator, *, domain_normalisation: bool = False) -> Path:
    """Train the DeFlow of a run, as notebook 3 does, and return its training state.

    Raises
    ------
    UserError: the data root lacks images, or the batch cannot be shared by the processes.
    """
    data = course.data
    clean, degraded = clean_at_input_size(data.train, data.scale), load_images(data.inputs)
    degraded = degraded[: -max(1, len(degraded) // 5)] or degraded
    torch.manual_seed(course.seed)
    start = DeFlow(course.profile.deflow)
    if course.profile.from_base:
        start = load_model(resolve("checkpoints/base_deflow.safetensors"), DeFlow)
    model = reconfigured(start, domain_normalisation=domain_normalisation)
    model.set_domain_statistics(clean, degraded)
    state_path = course.run_root / "states" / "deflow.safetensors"
    train_deflow(
        model,
        clean,
        degraded,
        replace(course.profile.deflow_training, seed=course.seed),
        state_path=state_path,
        device=str(accelerator.device),
        accelerator=accelerator,
        clean_names=[path.name for path in data.train],
        degraded_names=[path.name for path in data.inputs[: len(degraded)]],
    )
    return state_path


def fine_tune_esrgan(course: Course, accelerator: Accelerator) -> Path:
    """Train the ESRGAN of a run on the pairs of notebook 4, as notebook 5 does, and return its training state.

    Raises
    ------
    UserError: notebook 4 has not been run, or the batch cannot be shared by the processes.
    """
    data, scale, profile = course.data, course.data.scale, course.profile
    weights, stamp = course.run_root / "deflow.safetensors", course.run_root / "pairs" / "settings.json"
    if not (weights.is_file() and stamp.is_file()):
        raise UserError(f"{course.run_root} has no DeFlow with generated pairs: run notebooks 3 and 4 there first.")
    torch.manual_seed(course.seed)
    if profile.from_base:
        network = load_model(resolve(f"checkpoints/base_esrgan_x{scale}.safetensors"), RRDBNet)
        discriminator = load_model(resolve("checkpoints/base_discriminator.safetensors"), Discriminator)
    else:
        network, discriminator = RRDBNet(profile.esrgan_at(scale)), Discriminator(profile.discriminator)
    deflow, settings = load_model(weights, DeFlow), read_json(stamp)
    options = {"model_path": weights, "temperatures": settings["temperatures"], "qualities": settings["qualities"]}
    options["sensor"] = sensor_of_pairs(settings)
    with accelerator.main_process_first():
        pairs = make_pairs(deflow, data.train, course.run_root, scale=scale, seed=settings["seed"], **options)
    inputs, truths = pairs.load()
    training = replace(profile.esrgan_training, seed=course.seed)
    names = sorted(path.name for path in pairs.truth.glob("*.png"))
    if profile.redraw:
        draw = draws_of(deflow, truths, settings, scale=scale, device=str(accelerator.device))
        drawn = [draws[0] for draws in inputs]
        samples = RedrawnPairs(draw, truths, training.patch, scale, seed=course.seed, names=names, drawn=drawn)
    else:
        samples = PairSampler(inputs, truths, training.patch, scale, seed=course.seed, names=names)
    state_path = course.run_root / "states" / "esrgan.safetensors"
    train_esrgan(
        network,
        discriminator,
        samples,
        training,
        state_path=state_path,
        pixel_path=course.run_root / "esrgan_pixels.safetensors",
        device=str(accelerator.device),
        accelerator=accelerator,
    )
    return state_path
