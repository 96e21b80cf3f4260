"""What draws by a seed of its own leaves the random numbers of every device as they were."""

import pytest
import torch

from sr_utils.base import ANY_GRAIN
from sr_utils.deflow import CLEAN, DeFlow, DeFlowConfig
from sr_utils.denoising_autoencoder import AutoencoderConfig, AutoencoderTraining, train_autoencoder
from sr_utils.evaluate import bits_per_dimension
from sr_utils.map_scores import content_kept, matched_auc
from sr_utils.residual_distances import classifier_auc

FLOW = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)).eval()
AUTOENCODER = AutoencoderTraining(steps=1, batch=2, patch=16), AutoencoderConfig(factor=4, features=4)


def images(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


WORK = {
    "bits_per_dimension": lambda: bits_per_dimension(FLOW, images(1, 8), CLEAN),
    "matched_auc": lambda: matched_auc(images(4, 16), images(4, 16), steps=1, batch=2),
    "content_kept": lambda: content_kept("bicubic_noise", [*images(1, 64)], [*images(1, 64)], steps=1),
    "classifier_auc": lambda: classifier_auc(images(4, 32), images(4, 32), steps=1, batch=2),
    "train_autoencoder": lambda: train_autoencoder(list(images(1, 32)), ANY_GRAIN, *AUTOENCODER),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_generators_of_the_cpu_and_of_a_cuda_device_stay(work, monkeypatch):
    """CUDA's generator is a number here; `torch.manual_seed` sets it as it does the real one's."""
    states, seeds = {0: 7}, []

    def seed_all(seed):
        seeds.append(seed)
        states[0] = seed

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    before = torch.get_rng_state()
    work()
    assert seeds and states == {0: 7}
    assert torch.equal(torch.get_rng_state(), before)
