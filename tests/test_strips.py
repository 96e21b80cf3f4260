"""The strips of notebook 6 and README: drawn from what benchmarks left; where that lacks, left out, with a reason."""

import pytest
import torch

from benchmarks import strips
from benchmarks.ladder import Ladder, network_path
from benchmarks.strips import Strips
from sr_utils.checkpoints import save_model
from sr_utils.datasets import open_data_root
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.images import load_image, save_image

PEERS = ("realsr_df2k", "real_esrgan_x4plus")


@pytest.fixture
def options(root, tmp_path):
    """Pairs large enough for a crop, and nothing that a benchmark left yet."""
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        save_image(torch.rand(3, 64, 60, generator=generator), root / f"task1/Input/{index:03}.png")
        save_image(torch.rand(3, 128, 120, generator=generator), root / f"task1/GroundTruth/{index:03}.png")
    paths = {name: tmp_path / name for name in ("run_root", "peers", "ladder", "figures")}
    student = tmp_path / "student.safetensors"
    save_model(student, RRDBNet(RRDBNetConfig(scale=2, features=8, growth=4, blocks=1)), {})
    return Strips(data_root=root, student=student, profile="smoke", scenes=1, example="001", **paths)


def test_what_is_not_there_is_said_and_not_drawn(options, capsys):
    strips.main(options)
    said = capsys.readouterr().out
    assert all(f"No {name}" in said for name in ("ladder_strip", "peers_strip", "readme_strip"))
    assert not list(options.figures.glob("*.png"))


def test_what_is_there_is_drawn(options, capsys):
    data = open_data_root(options.data_root)
    for path in data.inputs:
        for folder in (*(options.peers / name for name in PEERS), options.run_root / "restored"):
            save_image(torch.rand(3, 128, 120), folder / path.name)
    ladder = Ladder(states=options.ladder, profile=options.profile)
    for source in ladder.sources:
        network = RRDBNet(RRDBNetConfig(scale=2, features=8, growth=4, blocks=1))
        save_model(network_path(ladder, source, 0), network, {})
    strips.main(options)
    assert not capsys.readouterr().out
    for name in ("ladder_strip", "peers_strip", "readme_strip"):
        assert load_image(options.figures / f"{name}.png").std() > 0.01


def test_the_students_picture_stands_beside_its_teachers_and_is_cropped_alike(options):
    data = open_data_root(options.data_root)
    for name in PEERS[1], "restored":
        folder = options.run_root / name if name == "restored" else options.peers / name
        save_image(torch.rand(3, 128, 120), folder / "001.png")
    (scene,) = strips.readme_scenes(options, data)
    assert list(scene) == ["input", "bicubic", "Real-ESRGAN", "its student", "DeFlow's", "truth"]
    assert {image.shape for name, image in scene.items() if name != "input"} == {(3, strips.CROP, strips.CROP)}
