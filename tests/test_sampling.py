"""Whole photographs through trained models: any size, tiles without seams, pairs that continue."""

from pathlib import Path

import pytest
import torch

from sr_utils import tiled_translation
from sr_utils.checkpoints import load_model, save_model
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradations import jpeg
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.images import load_image, save_image
from sr_utils.sampling import (
    degrade_image,
    restore_folder,
    restore_image,
    translate_folder,
    translate_image,
)
from sr_utils.tiles import tiles
from sr_utils.training_pairs import make_pairs

REPOSITORY = Path(__file__).parent.parent
CHECKPOINT = REPOSITORY / "checkpoints" / "base_deflow.safetensors"
PHOTOGRAPH = REPOSITORY / "data" / "clean" / "bee.png"


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


def test_every_image_of_a_folder_is_degraded_as_it_would_be_alone(flow, tmp_path):
    paths = [tmp_path / "in" / f"{index}.png" for index in range(6)]
    for path in paths:
        save_image(torch.rand(3, 16, 16), path)
    written = translate_folder(flow, paths, tmp_path / "out", qualities=[30, 90], seed=5)
    for index, (path, result) in enumerate(zip(paths, written, strict=True)):
        alone = degrade_image(flow, load_image(path), qualities=[30, 90], seed=5 + index)
        assert torch.equal(load_image(result), alone)


def test_no_result_overwrites_the_images_whose_compression_was_read(flow, tmp_path):
    clean, real = tmp_path / "clean" / "a.png", tmp_path / "real" / "a.png"
    for path in (clean, real):
        save_image(torch.rand(3, 16, 16), path)
    before = real.read_bytes()
    with pytest.raises(UserError, match="would overwrite the input"):
        translate_folder(flow, [clean], real.parent, kept=[real])
    assert real.read_bytes() == before


def test_seeds_that_would_not_fit_are_refused_before_the_first_result(flow, tmp_path):
    save_image(torch.rand(3, 16, 16), tmp_path / "a.png")
    with pytest.raises(UserError, match="seed"):
        translate_folder(flow, [tmp_path / "a.png"], tmp_path / "out", seed=2**63 - 1)
    assert not (tmp_path / "out").exists()


def test_all_bands_of_an_image_have_one_strength_of_noise(noisy_camera):
    config = DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1, levels=2, shift="gain", coherence=1.0)
    height = 6 * tiled_translation.BAND
    bands = tiled_translation._NoiseBands(noisy_camera(config), height, 8, seed=0)
    bands.move_to(0, height)
    strengths = {level.log_strength.item() for noise in bands.held.values() for level in noise}
    assert len(bands.held) == 6 and len(strengths) == 1


def test_what_completes_an_image_repeats_its_border():
    image = torch.rand(3, 5, 6)
    padded = tiled_translation._pad_to_multiple(image, 8)
    assert torch.equal(padded[:, 5:], padded[:, 4:5].expand(-1, 3, -1))
    assert torch.equal(padded[:, :, 6:], padded[:, :, 5:6].expand(-1, -1, 2))
