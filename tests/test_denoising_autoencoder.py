import torch

from sr_utils.base import ANY_GRAIN
from sr_utils.checkpoints import load_model
from sr_utils.datasets import clean_at_input_size, open_data_root
from sr_utils.denoising_autoencoder import (
    AutoencoderConfig,
    AutoencoderTraining,
    DenoisingAutoencoder,
    train_autoencoder,
)
from sr_utils.images import imresize
from sr_utils.repository import resolve


def test_training_lowers_the_error_and_repeats():
    image = imresize(torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)), 4).clamp(0, 1)
    training = AutoencoderTraining(steps=40, batch=4, patch=16, confusion=0.1)
    config = AutoencoderConfig(factor=4, features=8)
    network, records = train_autoencoder([image], ANY_GRAIN, training, config)
    assert records[-1]["reconstruction"] < 0.7 * records[0]["reconstruction"]
    assert {"classifier", "confusion"} <= set(records[0])
    again, _ = train_autoencoder([image], ANY_GRAIN, training, config)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_the_committed_ones_denoise_photographs_they_have_not_seen():
    data = open_data_root(resolve("data"))
    clean = torch.stack([image[:, :128, :128] for image in clean_at_input_size(data.validation, 2)])
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for name in ("map_autoencoder", "map_confusion_autoencoder"):
        network = load_model(resolve(f"checkpoints/{name}.safetensors"), DenoisingAutoencoder)
        with torch.no_grad():
            # Closer to the clean image than the noisy one is, though it passed a picture 64 times smaller.
            assert (network(noisy) - clean).abs().mean() < (noisy - clean).abs().mean()
            assert network.encode(noisy).shape == (3, 3, 16, 16)
            assert torch.equal(network.encode(clean, strength=0.0), torch.nn.functional.avg_pool2d(clean, 8))
