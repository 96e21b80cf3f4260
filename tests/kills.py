"""Work that tests/test_kills.py interrupts: each function does all of it, and a later call goes on where it stopped.

They run in processes forked from one that has imported everything, so that a kill costs no start.
"""

from pathlib import Path

import torch

from sr_utils.checkpoints import save_model
from sr_utils.datasets import open_data_root
from sr_utils.deflow import DeFlow
from sr_utils.esrgan import Discriminator, DiscriminatorConfig, RRDBNet, RRDBNetConfig
from sr_utils.images import list_images, save_image
from sr_utils.patch_samplers import PairSampler
from sr_utils.sampling import translate_folder
from sr_utils.scales import prepare_scales
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_config import DeFlowTraining, ESRGANTraining
from sr_utils.training_pairs import make_pairs
from sr_utils.weights import load_deflow
from tests.shared_training import FLOW, images


def prepare(folder: Path) -> None:
    """Photographs, pairs and a DeFlow's weights, all that the work below starts from."""
    for part, side in (("clean", 64), ("task1/Input", 32), ("task1/GroundTruth", 64)):
        for index, image in enumerate(images(4, side, len(part))):
            save_image(image, folder / "data" / part / f"{index}.png")
    torch.manual_seed(0)
    save_model(folder / "deflow.safetensors", DeFlow(FLOW), {})


def train_flow(start: Path, out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, training = DeFlow(FLOW), DeFlowTraining(steps=8, patch=16, batch=2)
    state = out / "state.safetensors"
    history = train_deflow(model, images(2, 24, 0), images(2, 24, 1), training, state_path=state, save_every=1)
    save_model(out / "model.safetensors", model, {"history": history.records})


def train_network(start: Path, out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    training = ESRGANTraining(pixel_steps=12, gan_steps=0, patch=16, batch=2)
    pairs = PairSampler([[image] for image in images(2, 24, 2)], images(2, 48, 3), 16, 2, seed=0)
    options = {"state_path": out / "state.safetensors", "pixel_path": out / "pixel.safetensors", "save_every": 1}
    train_esrgan(network, Discriminator(DiscriminatorConfig(features=4)), pairs, training, **options)
    save_model(out / "model.safetensors", network, {})


def make_dataset(start: Path, out: Path) -> None:
    torch.set_num_threads(1)
    data, weights = open_data_root(start / "data"), start / "deflow.safetensors"
    prepare_scales(data, out, workers=2)
    make_pairs(load_deflow(weights), data.clean, out, scale=2, temperatures=[1.0, 1.5], model_path=weights)


def translate(start: Path, out: Path) -> None:
    torch.set_num_threads(1)
    translate_folder(load_deflow(start / "deflow.safetensors"), list_images(start / "data" / "clean"), out / "degraded")


WORK = {"training a DeFlow": train_flow, "training an ESRGAN": train_network}
WORK |= {"dataset creation": make_dataset, "translation": translate}
