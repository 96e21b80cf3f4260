"""Scores, their summaries and files, and the choice of weights."""

import json
import math
import time

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from sr_utils import evaluate
from sr_utils.deflow import CLEAN, DEGRADED, DeFlow, DeFlowConfig, condition_of
from sr_utils.errors import UserError
from sr_utils.evaluate import SCORES, score, score_method, score_pairs, summarise, write_metrics
from sr_utils.files import checksum
from sr_utils.images import save_image
from sr_utils.metrics import lpips


def tensor_of(array):
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)


@pytest.fixture(scope="module")
def photographs():
    """8-bit RGB (48, 56, 3): one with noise, and the truth."""
    truth = data.astronaut()[60:108, 190:246]
    noise = np.random.default_rng(0).normal(0, 12, truth.shape)
    return np.clip(truth + noise, 0, 255).round().astype(np.uint8), truth


@pytest.fixture
def pair(photographs):
    return tuple(map(tensor_of, photographs))


@pytest.fixture
def files(tmp_path, pair):
    """Two pairs of files of one size: the first input is noisy, the second is its truth."""
    inputs = [tmp_path / "in" / name for name in ("000.png", "b b.png")]
    for path, image in zip(inputs, pair, strict=True):
        save_image(image, path)
    return [(path, inputs[1]) for path in inputs]


def test_scores_are_those_of_scikit_image_on_8_bit_pictures(photographs, pair):
    scores = score(*pair)
    assert tuple(scores) == SCORES and all(type(value) is float for value in scores.values())
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    noisy, truth = (photograph.astype(float) for photograph in photographs)
    assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, noisy, data_range=255), abs=1e-4)
    assert scores["ssim"] == pytest.approx(structural_similarity(truth, noisy, channel_axis=-1, **window), abs=1e-5)
    noisy, truth = (rgb2ycbcr(photograph)[4:-4, 4:-4, 0] for photograph in photographs)
    assert scores["psnr_y"] == pytest.approx(peak_signal_noise_ratio(truth, noisy, data_range=255), abs=1e-4)
    assert scores["ssim_y"] == pytest.approx(structural_similarity(truth, noisy, **window), abs=1e-5)
    uncropped = lpips(pair[0][None], pair[1][None], data_range=1.0).item()
    assert scores["lpips"] == pytest.approx(uncropped, abs=1e-6) and uncropped > 0.01


def test_equal_images_have_the_ceiling_and_the_best_of_the_others(pair):
    best = {"psnr": 100, "ssim": 1, "lpips": 0, "psnr_y": 100, "ssim_y": 1}
    assert score(pair[1], pair[1]) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("side", [0, 1], ids=["restored", "truth"])
@pytest.mark.parametrize(("levels", "decibels"), [(0.4, 100), (0.6, 20 * math.log10(255)), (-0.4, 100)])
def test_both_sides_are_rounded_to_8_bits_first(side, levels, decibels):
    images = [torch.full((3, 40, 40), 128 / 255) for _ in range(2)]
    images[side] += levels / 255
    assert score(*images)["psnr"] == pytest.approx(decibels, abs=1e-4)


def test_values_beyond_white_and_black_are_clamped_first():
    white, black = torch.full((3, 40, 40), 1.5), torch.full((3, 40, 40), -0.5)
    assert score(white, black)["psnr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [(((40, 40), (40, 41)), r"\(1, 3, 40, 40\).*\(1, 3, 40, 41\)"), (((30, 40), (30, 40)), "LPIPS.*31x31.*40x30")],
)
def test_images_that_cannot_be_scored_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        score(*(torch.rand(3, *size) for size in sizes))


def test_pairs_from_generators_are_scored_in_order(pair):
    noisy, truth = pair
    rows = score_pairs((image for image in (truth, noisy)), (truth for _ in range(2)))
    assert rows == [score(truth, truth), score(noisy, truth)]
    with pytest.raises(ValueError, match="shorter"):
        score_pairs([noisy, noisy], [truth])


def test_a_method_is_scored_and_timed_and_its_images_written(files, pair, tmp_path):
    def darken(low):
        time.sleep(0.03)
        return low - 10 / 255

    begun = time.perf_counter()
    rows = score_method(darken, files, label="Test", folder=tmp_path / "out")
    elapsed = time.perf_counter() - begun
    assert [row["name"] for row in rows] == ["000", "b b"]
    assert min(row["seconds"] for row in rows) >= 0.03 and sum(row["seconds"] for row in rows) < elapsed
    for row, image in zip(rows, pair, strict=True):
        assert {name: row[name] for name in SCORES} == pytest.approx(score(image - 10 / 255, pair[1]))
    written = np.asarray(Image.open(tmp_path / "out" / "b b.png")).astype(int)
    expected = np.clip(np.asarray(Image.open(files[1][0])).astype(int) - 10, 0, 255)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000.png", "b b.png"]
    np.testing.assert_array_equal(written, expected)


def test_a_result_that_cannot_be_scored_is_told_with_its_files(files):
    said = r"The result for .*in/000\.png cannot be compared with .*in/b b\.png: .*"
    with pytest.raises(UserError, match=said + r"not \(1, 3, 40, 56\) and \(1, 3, 48, 56\): crop or resize one"):
        score_method(lambda low: low[:, :40], files, label="Test")
    for path in files[0]:
        save_image(torch.rand(3, 30, 32), path)
    with pytest.raises(UserError, match=said + "LPIPS needs images of at least 31x31.*not 32x30: use larger ones"):
        score_method(lambda low: low, files, label="Test")


def test_without_a_folder_nothing_is_written(files, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert len(score_method(lambda low: low, files[:1], label="Test")) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_is_pillows_away_from_the_border_and_of_8_bits(photographs, scale):
    noisy = photographs[0]
    large = evaluate.bicubic(tensor_of(noisy), scale)
    height, width = noisy.shape[:2]
    for channel, found in enumerate(large.numpy()):
        image = Image.fromarray(noisy[..., channel].astype(np.float32))
        expected = np.asarray(image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)).clip(0, 255)
        inner = slice(2 * scale, -2 * scale)
        assert np.abs(255 * found - expected)[inner, inner].max() < 0.501
    np.testing.assert_allclose(255 * large, (255 * large).round(), atol=1e-4)


def test_bicubic_at_scale_1_is_the_input_rounded(pair):
    torch.testing.assert_close(evaluate.bicubic(pair[0] + 0.3 / 255, 1), pair[0])


def test_summary_has_means_deviations_between_images_and_the_median_of_seconds():
    rows = [
        {"name": name, "psnr": value, "lpips": value / 100, "seconds": seconds}
        for name, value, seconds in (("a", 20.0, 9.0), ("b", 23.0, 1.0), ("c", 29.0, 2.0))
    ]
    expected = {"psnr": 24, "psnr_image_std": math.sqrt(14), "lpips": 0.24, "lpips_image_std": math.sqrt(14) / 100}
    assert summarise(rows) == pytest.approx(expected | {"seconds_per_image": 2.0, "count": 3})
    assert summarise([{"ssim": 0.5}]) == {"ssim": 0.5, "ssim_image_std": 0.0, "count": 1}


def test_parameters_are_counted_and_buffers_are_not():
    assert evaluate.parameter_count(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))) == 3 * 5 + 5 + 2 * 5


def test_metrics_are_written_as_provenance_and_rows(tmp_path):
    rows = ({"method": "bicubic", "psnr": 20.5, "count": 3}, {"method": "ours"})
    write_metrics(tmp_path / "metrics" / "a.json", {"seed": 0}, rows)
    read = json.loads((tmp_path / "metrics" / "a.json").read_text(encoding="utf-8"))
    assert read == {"provenance": {"seed": 0}, "rows": list(rows)}


@pytest.mark.parametrize(
    ("provenance", "row", "message"),
    [
        ({}, {"method": "ours", "psnr": math.nan, "ssim": 1.0, "lpips": math.inf}, r"ours of .*a\.json.*psnr, lpips\."),
        ({}, {"method": "ours", "psnr": -math.inf}, r"ours of .*a\.json.*psnr\."),
        ({}, {"psnr": 20.0}, r"a\.json has no method.*20\.0"),
        ({"seconds": math.nan}, {"method": "ours"}, "not JSON compliant"),
    ],
)
def test_bad_metrics_are_refused_and_the_old_file_stays_whole(tmp_path, provenance, row, message):
    path = tmp_path / "a.json"
    write_metrics(path, {}, [{"method": "old", "psnr": 20.0}])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        write_metrics(path, provenance, [{"method": "good", "psnr": 21.0}, row])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Brightness(nn.Module):
    """Stands in for a flow: an image of domain d costs its mean brightness plus d bits per dimension."""

    config = DeFlowConfig()

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def condition(self, image, *, generator=None):
        return condition_of(image, self.config.condition_factor)

    def forward(self, image, condition, domain, *, noise):
        assert noise and condition.shape[2:] == (image.shape[2] // 8, image.shape[3] // 8)
        return image.mean((1, 2, 3)) + domain + self.offset


@pytest.mark.parametrize("domain", [CLEAN, DEGRADED])
def test_large_images_weigh_by_their_pixels_after_the_crop(domain):
    images = [torch.rand(3, 17, 30), torch.rand(3, 8, 15)]
    pixels = torch.cat([images[0][:, :16, :24].flatten(), images[1][:, :8, :8].flatten()])
    found = evaluate.bits_per_dimension(Brightness(), images, domain)
    assert found == pytest.approx(pixels.mean().item() + domain, abs=1e-6)


def test_likelihood_follows_its_seed_and_leaves_the_random_numbers_alone():
    torch.manual_seed(0)
    flow = DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)).eval()
    images = [torch.rand(3, 16, 24), torch.rand(3, 8, 8)]
    state = torch.get_rng_state()
    first, again, other = (evaluate.bits_per_dimension(flow, images, CLEAN, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again != other
    # No model codes uniformly random 8-bit values in fewer than 8 bits.
    assert 8 < first < 20 and abs(first - other) < 0.1


@pytest.mark.parametrize("noise,drawn", [(0.0, True), (0.02, False)])
def test_a_map_has_its_own_chance_where_no_noise_is_added_to_h(noise, drawn, monkeypatch):
    given = []
    config = DeFlowConfig(
        steps=1, hidden=4, features=4, encoder_blocks=1, domain_map="additive_noise", condition_noise=noise
    )
    flow = DeFlow(config).eval()
    condition = DeFlow.condition
    monkeypatch.setattr(
        DeFlow, "condition", lambda self, image, *, generator=None: given.append(generator) or condition(self, image)
    )
    evaluate.bits_per_dimension(flow, [torch.rand(3, 16, 16)], CLEAN)
    assert [generator is not None for generator in given] == [drawn]


@pytest.fixture
def run(tmp_path):
    """A run whose ESRGAN was trained for two inputs at scale 2; and a base checkpoint."""
    inputs = [tmp_path / "inputs" / name for name in "ab"]
    for path in (*inputs, tmp_path / "esrgan.safetensors", tmp_path / "base.safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    (tmp_path / "esrgan.json").write_text(json.dumps({"scale": 2, "inputs": checksum(inputs)}))
    return tmp_path


def choose(run, scale=2):
    inputs = sorted((run / "inputs").iterdir(), reverse=True)
    return evaluate.choose_weights(run, run / "base.safetensors", scale=scale, inputs=inputs)


def test_own_weights_are_chosen_when_they_fit(run):
    (run / "base.safetensors").unlink()
    chosen = choose(run)
    assert (chosen.path, chosen.method) == (run / "esrgan.safetensors", "esrgan_deflow")
    assert "this run trained" in chosen.why


OBSTACLES = {
    "weights": (lambda run: (run / "esrgan.safetensors").unlink(), 2, "has not trained an ESRGAN"),
    "stamp": (lambda run: (run / "esrgan.json").unlink(), 2, "has not trained an ESRGAN"),
    "scale": (lambda run: None, 4, "enlarges by 2, not by 4"),
    "inputs": (lambda run: (run / "inputs" / "a").write_text("other"), 2, "trained for other input images"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_base_weights_are_chosen_otherwise_and_the_reason_is_told(run, obstacle):
    spoil, scale, reason = OBSTACLES[obstacle]
    spoil(run)
    chosen = choose(run, scale)
    assert (chosen.path, chosen.method) == (run / "base.safetensors", "esrgan_base")
    assert reason in chosen.why
    (run / "base.safetensors").unlink()
    with pytest.raises(UserError, match=rf"base\.safetensors does not exist.*{reason}"):
        choose(run, scale)


def test_unreadable_provenance_is_refused_by_name(run):
    (run / "esrgan.json").write_text("{")
    with pytest.raises(UserError, match=r"esrgan\.json is not valid JSON"):
        choose(run)
