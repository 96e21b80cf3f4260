from pathlib import Path

import pytest
import torch

from sr_utils import sampling
from sr_utils.checkpoints import save_model
from sr_utils.deflow import DeFlow, DeFlowConfig, reconfigured
from sr_utils.degradations import jpeg
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.images import image_size, imresize, load_image, quantize, save_image
from sr_utils.mosaic import demosaic, mosaic
from sr_utils.sampling import degrade_image
from sr_utils.sensor_calibration import sensor_of
from tests.shared_commands import call

ROOT = Path(__file__).resolve().parent.parent


def test_folders_are_translated_and_restored(monkeypatch, capsys, tmp_path):
    for name in ("a", "b"):
        save_image(torch.rand(3, 24, 33), tmp_path / "in" / f"{name}.png")
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1))
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    for command, model, size in (("translate", flow, (24, 33)), ("restore", network, (48, 66))):
        weights = save_model(tmp_path / f"{command}.safetensors", model, {})
        call(monkeypatch, command, weights, tmp_path / "in", tmp_path / command)
        assert "Wrote 2 images" in capsys.readouterr().out
        assert [image_size(tmp_path / command / f"{name}.png") for name in ("a", "b")] == [size, size]
    photograph = load_image(ROOT / "data" / "clean" / "bee.png")[:, :96, :96]
    save_image(jpeg(photograph, 40), tmp_path / "like" / "real.png")
    like = ("--like", tmp_path / "like")
    call(monkeypatch, "translate", tmp_path / "translate.safetensors", tmp_path / "in", tmp_path / "likewise", *like)
    assert "1 images of" in capsys.readouterr().out
    for name in ("a", "b"):
        plain, compressed = (load_image(tmp_path / folder / f"{name}.png") for folder in ("translate", "likewise"))
        assert torch.equal(compressed, jpeg(plain, 40)) and not torch.equal(compressed, plain)
    with pytest.raises(SystemExit, match="holds RRDBNet, not DeFlow"):
        call(monkeypatch, "translate", tmp_path / "restore.safetensors", tmp_path / "in", tmp_path / "out")


def test_a_folder_is_translated_with_the_noise_of_the_sensor_that_others_show(monkeypatch, capsys, tmp_path):
    generator = torch.Generator().manual_seed(0)
    photograph = load_image(ROOT / "data" / "clean" / "bee.png")[:, :96, :96]
    for index in range(4):
        raw = mosaic(photograph, (1, 0)) + 0.04 * torch.randn(96, 96, generator=generator)
        save_image(demosaic(raw, (1, 0), interpolation="bilinear"), tmp_path / "like" / f"{index}.png")
        save_image(torch.full((3, 24, 33), 0.3 + 0.1 * index), tmp_path / "in" / f"{index}.png")
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1, shift="gain", blur=0.7))
    weights = save_model(tmp_path / "flow.safetensors", flow, {})
    words = (weights, tmp_path / "in", tmp_path / "out", "--sensor", "--seed", "5", "--temperature", "0.8")
    with pytest.raises(SystemExit, match="error: --sensor reads a camera off real degraded images: give their folder"):
        call(monkeypatch, "translate", *words)
    call(monkeypatch, "translate", *words, "--like", tmp_path / "like")
    told = capsys.readouterr().out
    assert "4 images of" in told and "their first red pixel is in row 1, column 0." in told
    sensor = sensor_of([load_image(path) for path in sorted((tmp_path / "like").iterdir())], name="like")
    sharp, options = reconfigured(flow, blur=0.0), {"sensor": sensor, "temperature": 0.8}
    for index in range(4):
        clean, degraded = (load_image(tmp_path / folder / f"{index}.png") for folder in ("in", "out"))
        assert torch.equal(degraded, degrade_image(sharp, clean, seed=5 + index, **options))
    with pytest.raises(SystemExit, match="show no sensor's mosaic: they were resized, so leave the sensor out"):
        call(monkeypatch, "translate", *words, "--like", tmp_path / "in")


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_the_model_and_the_images_go_to_the_device(monkeypatch, tmp_path, device):
    save_image(torch.rand(3, 24, 32), tmp_path / "in" / "a.png")
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1))
    network = RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1))
    weights = {
        command: save_model(tmp_path / f"{command}.safetensors", model, {})
        for command, model in (("translate", flow), ("restore", network))
    }
    moved, used = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, where: moved.append((type(model), where)) or model)
    for command in weights:
        monkeypatch.setattr(sampling, f"{command}_folder", lambda *_, device, **__: used.append(device) or [])
        where = () if device == "cpu" else ("--device", device)
        call(monkeypatch, command, weights[command], tmp_path / "in", tmp_path / "out", *where)
    assert moved == [(DeFlow, device), (RRDBNet, device)] and used == [device, device]
    with pytest.raises(SystemExit, match="error: PyTorch finds no device 'cuda:2' on this machine"):
        call(monkeypatch, "restore", weights["restore"], tmp_path / "in", tmp_path / "out", "--device", "cuda:2")


def test_a_narrow_window_follows_the_input(monkeypatch, tmp_path):
    torch.manual_seed(0)
    weights = save_model(tmp_path / "network.safetensors", RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1)), {})
    low = quantize(torch.rand(3, 24, 32))
    save_image(low, tmp_path / "in" / "a.png")
    gaps = []
    for window in ([], ["--consistency", "0.3"]):
        call(monkeypatch, "restore", weights, tmp_path / "in", tmp_path / "out", *window)
        gaps.append((imresize(load_image(tmp_path / "out" / "a.png"), 0.5) - low).abs().mean())
    assert gaps[1] < 0.5 * gaps[0]
    with pytest.raises(SystemExit, match="consistency"):
        call(monkeypatch, "restore", weights, tmp_path / "in", tmp_path / "out", "--consistency", "-1")
