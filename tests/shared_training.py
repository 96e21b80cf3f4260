"""Twenty steps of both trainings on as many processes as there are; run by tests/test_processes.py.

The losses of every step are written as JSON by the first process.
"""

import sys

import torch

from sr_utils.checkpoints import load_state
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.esrgan import Discriminator, DiscriminatorConfig, RRDBNet, RRDBNetConfig
from sr_utils.files import write_json
from sr_utils.patch_samplers import PairSampler
from sr_utils.processes import Processes, launched
from sr_utils.training import train_deflow, train_esrgan
from sr_utils.training_config import DeFlowTraining, ESRGANTraining

FLOW = DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1)
DEFLOW = DeFlowTraining(steps=20, patch=16, batch=4)
# In full precision, or processors that compute bfloat16 natively would round more than is compared.
ESRGAN = ESRGANTraining(pixel_steps=10, gan_steps=10, patch=16, batch=4, mixed_precision=False)


def images(count: int, side: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 0.5, side) * torch.rand(count, 3, side, 1, generator=generator)
    return list((0.25 + ramp + 0.05 * torch.randn(count, 3, side, side, generator=generator)).clamp(0, 1))


def losses(state_path, accelerator=None) -> dict[str, list[dict[str, float]]]:
    """Train both and return what they recorded; the DeFlow's state is written half way and at the end."""
    torch.manual_seed(0)
    options = {"log_every": 1, "accelerator": accelerator}
    flow = train_deflow(
        DeFlow(FLOW), images(3, 24, 0), images(3, 24, 1), DEFLOW, state_path=state_path, save_every=10, **options
    )
    pairs = PairSampler([[image] for image in images(3, 24, 2)], images(3, 48, 3), ESRGAN.patch, 2, seed=0)
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    restored = train_esrgan(network, Discriminator(DiscriminatorConfig(features=4)), pairs, ESRGAN, **options)
    return {"deflow": flow.records, "esrgan": restored.records}


if __name__ == "__main__":
    accelerator = launched()
    found = losses(f"{sys.argv[1]}/state.safetensors", accelerator)
    if Processes(accelerator).is_first:
        step = load_state(f"{sys.argv[1]}/state.safetensors")["step"]
        write_json(f"{sys.argv[1]}/losses.json", found | {"processes": accelerator.num_processes, "step": step})
