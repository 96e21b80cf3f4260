"""The strips of notebook 6 and README: drawn from what benchmarks left; where that lacks, left out, with a reason."""

from dataclasses import replace

import pytest
import torch

from benchmarks import strips
from benchmarks.ladder import Ladder, network_path
from benchmarks.strips import Strips
from sr_utils.checkpoints import save_model
from sr_utils.datasets import open_data_root
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.evaluate import bicubic
from sr_utils.images import load_image, save_image
from sr_utils.sampling import restore_image

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


CORNERS = {"000": (0, 8), "001": (12, 4), "002": (16, 0)}
"""Top and left of each truth's only lively place, which is as large as a crop."""


@pytest.fixture
def known(options):
    """Pictures that are all different: truths as `CORNERS` says, and noise for every folder and scene; by both."""
    generator, pictures = torch.Generator().manual_seed(1), {}
    folders = {"truth": options.data_root / "task1" / "GroundTruth", "restored": options.run_root / "restored"}
    folders |= {name: options.peers / name for name in PEERS}
    for stem, (top, left) in CORNERS.items():
        for name, folder in folders.items():
            noise = torch.rand(3, 128, 120, generator=generator)
            if name == "truth":
                outside = torch.ones(128, 120, dtype=torch.bool)
                outside[top : top + strips.CROP, left : left + strips.CROP] = False
                noise[:, outside] = 0.5
            save_image(noise, folder / f"{stem}.png")
            pictures[name, stem] = load_image(folder / f"{stem}.png")
    return pictures


def cut(image, stem):
    top, left = CORNERS[stem]
    return image[:, top : top + strips.CROP, left : left + strips.CROP]


def check(scene, expected, stem):
    """Whether a scene has these whole pictures, by these names and in this order, all cut where the truth is lively."""
    assert list(scene) == list(expected)
    for name, picture in expected.items():
        assert torch.equal(scene[name], cut(picture, stem)), name


def test_every_peers_crop_is_its_own_folders_and_lies_where_the_truth_is_lively(options, known):
    data, student = open_data_root(options.data_root), strips.load_model(options.student, RRDBNet)
    scenes = strips.peer_scenes(replace(options, scenes=3), data)
    for scene, stem in zip(scenes, CORNERS, strict=True):
        low = load_image(options.data_root / "task1" / "Input" / f"{stem}.png")
        expected = {"bicubic": bicubic(low, 2), "RealSR": known["realsr_df2k", stem]}
        expected |= {"Real-ESRGAN": known["real_esrgan_x4plus", stem], "ours": known["restored", stem]}
        check(scene, expected | {"student": restore_image(student, low), "truth": known["truth", stem]}, stem)


def test_every_rungs_crop_is_its_own_networks_and_lies_where_the_truth_is_lively(options, known):
    ladder, networks = Ladder(states=options.ladder, profile=options.profile), {}
    for seed, source in enumerate(ladder.sources):
        torch.manual_seed(seed)
        networks[source] = RRDBNet(RRDBNetConfig(scale=2, features=8, growth=4, blocks=1)).eval()
        save_model(network_path(ladder, source, 0), networks[source], {})
    labels = {"white noise": "white_noise", "noise patches": "noise_patches"}
    labels |= {"constant shift": "deflow_constant_shift", "deflow": "deflow", "oracle": "oracle"}
    (scene,) = strips.ladder_scenes(options, open_data_root(options.data_root))
    low = load_image(options.data_root / "task1" / "Input" / "001.png")
    expected = {"input": bicubic(low, 2)}
    expected |= {label: restore_image(networks[f"esrgan_{source}"], low) for label, source in labels.items()}
    check(scene, expected | {"truth": known["truth", "001"]}, "001")


def test_every_crop_of_readmes_strip_is_its_own_folders_and_the_input_shows_the_same_place(options, known):
    data, student = open_data_root(options.data_root), strips.load_model(options.student, RRDBNet)
    (scene,) = strips.readme_scenes(options, data)
    low = load_image(options.data_root / "task1" / "Input" / "001.png")
    top, left = (place // 2 for place in CORNERS["001"])
    assert list(scene)[0] == "input"
    assert torch.equal(scene.pop("input"), low[:, top : top + strips.CROP // 2, left : left + strips.CROP // 2])
    expected = {"bicubic": bicubic(low, 2), "Real-ESRGAN": known["real_esrgan_x4plus", "001"]}
    expected |= {"its student": restore_image(student, low), "DeFlow's": known["restored", "001"]}
    check(scene, expected | {"truth": known["truth", "001"]}, "001")
