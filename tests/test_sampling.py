"""Whole photographs through trained models: any size, tiles without seams, pairs that continue."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sr_utils import sampling, tiled_translation
from sr_utils.checkpoints import load_model, save_model
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradations import jpeg
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.files import read_json
from sr_utils.images import load_image, save_image
from sr_utils.sampling import (
    calibrate_temperature,
    degrade_image,
    make_pairs,
    restore_folder,
    restore_image,
    sensor_of_pairs,
    translate_folder,
    translate_image,
)
from sr_utils.sensor import LEVELS, Sensor
from sr_utils.tiles import tiles

REPOSITORY = Path(__file__).parent.parent
CHECKPOINT = REPOSITORY / "checkpoints" / "base_deflow.safetensors"
PHOTOGRAPH = REPOSITORY / "data" / "clean" / "bee.png"


@pytest.fixture
def flow():
    torch.manual_seed(0)
    return DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)).eval()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RRDBNet(RRDBNetConfig(features=8, growth=4, blocks=1)).eval()


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (8, 50)])
def test_translation_keeps_the_size_and_repeats(flow, size):
    image = torch.rand(3, *size)
    degraded = translate_image(flow, image, seed=3)
    assert degraded.shape == image.shape and 0 <= degraded.min() and degraded.max() <= 1
    assert torch.equal(degraded, translate_image(flow, image, seed=3))
    assert not torch.equal(degraded, translate_image(flow, image, seed=4))


@pytest.mark.parametrize("length", [1, 64, 255, 256, 257, 448, 449, 500, 1000])
@pytest.mark.parametrize("multiple", [1, 8])
def test_tiles_cover_a_side_once(length, multiple):
    covered, count = [], 0
    for start, stop, keep_from, keep_to in tiles(length, 256, 32, multiple=multiple):
        assert 0 <= start <= keep_from < keep_to <= stop <= length and stop - start <= 256
        assert start in (0, keep_from - 32) and stop in (length, keep_to + 32)
        assert start % multiple == keep_from % multiple == 0
        covered += range(keep_from, keep_to)
        count += 1
    assert covered == list(range(length)) and count == max(1, -(-(length - 64) // 192))


@torch.no_grad()
@pytest.mark.parametrize("size,band", [((256, 416), 512), ((250, 301), 64)])
def test_tiled_translation_equals_whole(size, band, monkeypatch):
    monkeypatch.setattr(tiled_translation, "BAND", band)
    model = load_model(CHECKPOINT, DeFlow).eval()
    model.grain.mixing.mul_(torch.linspace(0.6, 1.6, len(model.grain.mixing))[:, None, None])
    image = load_image(PHOTOGRAPH)[:, : size[0], : size[1]]
    whole = translate_image(model, image, seed=5)
    tiled = translate_image(model, image, seed=5, tile=240, overlap=64)
    difference = (255 * (tiled - whole)).abs()
    # The results are rounded to 8 bits: where two values are a hundredth apart, one in a hundred rounds otherwise.
    assert difference.max() <= 1.01 and (difference > 0.5).float().mean() < 0.01
    assert not torch.equal(translate_image(model, image, seed=5, tile=240, overlap=0), whole)


def test_noise_drawn_in_bands_has_one_strength_and_does_not_repeat(monkeypatch):
    monkeypatch.setattr(tiled_translation, "BAND", 16)
    torch.manual_seed(0)
    options = {"steps": 1, "hidden": 8, "features": 8, "encoder_blocks": 1, "shift": "gain"}
    model = DeFlow(DeFlowConfig(**options)).eval()
    bands = tiled_translation._NoiseBands(model, 48, 24, 3)
    bands.move_to(0, 48)
    noise = bands.inside((0, 48, 0, 24))
    assert [each.normal.shape[2] for each in noise] == [24, 12, 6]
    assert noise[0].normal.flatten().unique().numel() == noise[0].normal.numel()
    first = model.draw_noise(1, 16, 24, generator=torch.Generator().manual_seed(3))[0]
    assert noise[0].log_strength == first.log_strength and torch.equal(noise[0].normal[:, :, :8], first.normal)
    bands.move_to(40, 48)
    assert list(bands.held) == [32]
    assert torch.equal(bands.inside((40, 48, 8, 24))[0].uniform, noise[0].uniform[:, :, 20:, 4:])


@pytest.mark.parametrize("tile,overlap", [(100, 16), (96, 20), (64, 32)])
def test_tiles_that_do_not_fit_are_one_sentence(flow, tile, overlap):
    with pytest.raises(UserError, match=f"tile={tile} and overlap={overlap} do not fit: give multiples of 8"):
        translate_image(flow, torch.rand(3, 128, 128), tile=tile, overlap=overlap)


@torch.no_grad()
def test_tiled_restoration_equals_whole(network):
    image = torch.rand(3, 300, 40)
    whole = network(image[None])[0].clamp(0, 1)
    # Equal to one grey level: the result is rounded to 8 bits, and context beyond 32 pixels is cut.
    assert (restore_image(network, image) - whole).abs().max() <= 1.01 / 255


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("height,width,tile", [(330, 40, 256), (40, 330, 259), (101, 101, 82), (75, 73, 68)])
def test_tiles_begin_where_the_network_folds_pixels(scale, height, width, tile):
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(scale, features=8, growth=4, blocks=1)).eval()
    # So strong that pixels folded otherwise differ by 30 grey levels.
    network.last.weight.mul_(3)
    image = torch.rand(3, height, width)
    whole = network(image[None])[0].clamp(0, 1)
    assert (restore_image(network, image, tile=tile) - whole).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("scale,least", [(1, 68), (2, 66), (4, 65)])
def test_a_tile_of_context_alone_is_refused(scale, least):
    network = RRDBNet(RRDBNetConfig(scale, features=8, growth=4, blocks=1)).eval()
    with pytest.raises(UserError, match=f"tile={least - 1} of a restoration must be a whole number from {least}"):
        restore_image(network, torch.rand(3, 100, 8), tile=least - 1)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("work", [restore_folder, translate_folder])
def test_results_never_overwrite_the_images_they_are_made_of(flow, network, work, linked, tmp_path):
    paths = [tmp_path / "in" / name for name in ("a.jpg", "b.png")]
    save_image(torch.rand(3, 8, 8), paths[1])
    # An ending is no format. Its result, a.png, would overwrite nothing, but must not be written either.
    paths[0].write_bytes(paths[1].read_bytes())
    before = {path: path.read_bytes() for path in paths}
    folder = tmp_path / "in"
    if linked:
        folder = tmp_path / "out"
        folder.symlink_to("in")
    model = network if work is restore_folder else flow
    with pytest.raises(UserError, match=r"A result would overwrite the input .*b\.png: choose another output folder"):
        work(model, paths, folder)
    assert {path: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before
    assert len(work(model, paths[:1], folder)) == 1 and (tmp_path / "in" / "a.png").is_file()


@pytest.mark.parametrize("work", [restore_folder, translate_folder])
def test_two_images_of_one_stem_never_become_one_result(flow, network, work, tmp_path):
    paths = [tmp_path / folder / "a.png" for folder in ("first", "second")]
    for path in paths:
        save_image(torch.rand(3, 8, 8), path)
    model = network if work is restore_folder else flow
    with pytest.raises(UserError, match=r"first.a\.png and .*second.a\.png would both become a\.png: rename one"):
        work(model, paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_give_no_numbers_write_no_picture(flow, network, tmp_path):
    save_image(torch.rand(3, 16, 16), tmp_path / "in/a.png")
    with torch.no_grad():
        network.last.bias.fill_(float("nan"))
        for name, parameter in flow.named_parameters():
            if "population" not in name:
                parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="restoring network gave pixels that are not finite"):
        restore_folder(network, [tmp_path / "in/a.png"], tmp_path / "out")
    with pytest.raises(UserError, match="flow gave pixels that are not finite"):
        translate_folder(flow, [tmp_path / "in/a.png"], tmp_path / "out", seed=0)
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_folder_is_restored_under_its_names(network, tmp_path):
    save_image(torch.rand(3, 9, 11), tmp_path / "in" / "a b.png")
    written = restore_folder(network, [tmp_path / "in" / "a b.png"], tmp_path / "out")
    assert [path.name for path in written] == ["a b.png"] and written[0].is_file()


def test_pairs_are_made_once_and_continue(flow, tmp_path):
    paths = [tmp_path / "clean" / f"{name}.png" for name in "ab"]
    for path in paths:
        save_image(torch.rand(3, 35, 42), path)
    weights = save_model(tmp_path / "flow.safetensors", flow, {})

    def make():
        return make_pairs(flow, paths, tmp_path / "run", scale=2, temperatures=[1.0, 2.0], seed=0, model_path=weights)

    first = make()
    inputs, truths = first.load()
    assert first.made == 4 and make().made == 0
    assert [tuple(truth.shape) for truth in truths] == [(3, 34, 42)] * 2
    assert tuple(inputs[0][1].shape) == (3, 17, 21) and not torch.equal(inputs[0][0], inputs[0][1])
    (first.truth / "000_a.png").unlink()
    again = make()
    assert again.made == 2 and torch.equal(again.load()[0][0][0], inputs[0][0])


def test_more_than_a_thousand_photographs_keep_their_order(flow, tmp_path, monkeypatch):
    paths = [tmp_path / "a.png"] * 1001
    save_image(torch.rand(3, 8, 8), paths[0])
    written = []
    monkeypatch.setattr(sampling, "save_image", lambda image, path: written.append(path.name))
    monkeypatch.setattr(sampling, "degrade_image", lambda model, image, **options: image)
    make_pairs(flow, paths, tmp_path / "run", scale=2, temperatures=[1.0], seed=0)
    assert len(set(written)) == 1001 and written == sorted(written)


def test_a_degraded_image_is_compressed_at_one_of_the_qualities(flow, tmp_path):
    image = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    plain = translate_image(flow, image, seed=3)
    assert torch.equal(degrade_image(flow, image, seed=3), plain)
    expected = [jpeg(plain, quality) for quality in (30, 90)]
    drawn = degrade_image(flow, image, qualities=[30, 90], seed=3)
    assert any(torch.equal(drawn, each) for each in expected)
    chosen = {tuple(degrade_image(flow, image, qualities=[30, 90], seed=seed)[0, 0].tolist()) for seed in range(12)}
    assert len(chosen) == 12
    save_image(torch.rand(3, 48, 64), tmp_path / "a.png")
    options = {"scale": 2, "temperatures": [1.0], "model_path": save_model(tmp_path / "flow.safetensors", flow, {})}
    plain = make_pairs(flow, [tmp_path / "a.png"], tmp_path / "run", **options)
    before = plain.load()[0][0][0]
    compressed = make_pairs(flow, [tmp_path / "a.png"], tmp_path / "run", qualities=[20], **options)
    assert compressed.made == 1 and torch.equal(compressed.load()[0][0][0], jpeg(before, 20))


def test_pairs_of_a_sensor_are_known_again_and_those_of_another_are_not(flow, tmp_path):
    save_image(torch.rand(3, 48, 64), tmp_path / "a.png")
    sensor = Sensor((0, 1), "bilinear", (0.004 * LEVELS).log(), torch.ones(3), torch.zeros(2), [None, 85])
    options = {"scale": 2, "temperatures": [1.0], "model_path": save_model(tmp_path / "flow.safetensors", flow, {})}

    def made(taken_by):
        pairs = make_pairs(flow, [tmp_path / "a.png"], tmp_path / "run", sensor=taken_by, **options)
        settings = read_json(tmp_path / "run" / "pairs" / "settings.json")
        known = sensor_of_pairs(settings)
        assert (known and known.numbers()) == (taken_by and taken_by.numbers())
        return pairs.made

    assert [made(each) for each in (None, sensor, sensor, replace(sensor, phase=(1, 0)), None)] == [1, 1, 0, 1, 1]


def test_the_calibrated_temperature_gives_real_and_generated_images_the_same_noise():
    torch.manual_seed(0)
    config = DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1, shift="local", initial_shift=0.05)
    flow = DeFlow(config).eval()

    def with_noise(level, generator):
        return [(0.5 + level * torch.randn(3, 64, 64, generator=generator)).clamp(0, 1) for _ in range(3)]

    generator = torch.Generator().manual_seed(0)
    flat = [torch.full((3, 64, 64), 0.5) for _ in range(3)]
    hot = [translate_image(flow, image, temperature=1.6, seed=index) for index, image in enumerate(flat)]
    found = calibrate_temperature(flow, flat, hot, seed=10)
    assert abs(found.temperature - 1.6) < 0.1
    assert found.deviations == sorted(found.deviations) and found.deviations[0] < found.target < found.deviations[-1]
    assert calibrate_temperature(flow, flat, with_noise(0.0, generator)).temperature == 1.0
    assert calibrate_temperature(flow, flat, with_noise(0.3, generator)).temperature == 2.5
