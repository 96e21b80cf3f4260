"""Scores of a generated degradation on task 1's pairs, and the floor that is only believed of the same pairs."""

from pathlib import Path

import pytest
import torch

from sr_utils.datasets import open_data_root
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.degradation_scores import (
    TaskPairs,
    describe_residual,
    non_finite_patches,
    score_degradation,
    task_pairs,
)
from sr_utils.images import imresize, load_image, quantize, save_image

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def pairs():
    return task_pairs(open_data_root(DATA), limit=16)


def test_pairs_are_the_shrunk_truths_and_the_inputs(pairs):
    assert pairs.clean.shape == pairs.degraded.shape == (16, 3, 256, 256)
    first = open_data_root(DATA).pairs[0]
    assert torch.equal(pairs.degraded[0], load_image(first[0]))
    assert torch.equal(pairs.clean[0], quantize(imresize(load_image(first[1]), 0.5)))


def test_pairs_of_different_sizes_are_cut_to_what_they_share(tmp_path):
    for name, size in (("a", (40, 64)), ("b", (48, 56))):
        save_image(torch.rand(3, *size), tmp_path / "task1" / "Input" / f"{name}.png")
        save_image(torch.rand(3, *(4 * side for side in size)), tmp_path / "task1" / "GroundTruth" / f"{name}.png")
    found = task_pairs(open_data_root(tmp_path))
    assert found.clean.shape == found.degraded.shape == (2, 3, 40, 56)


def test_the_real_images_themselves_are_at_no_distance(pairs):
    scores = score_degradation(pairs.degraded, pairs, steps=20)
    assert scores["akld"] == pytest.approx(0) and scores["sliced_wasserstein"] == 0
    assert scores["histogram_divergence"] == 0 and scores["spectrum_distance"] == 0
    assert scores["auc"] == 0.5


def test_white_noise_is_told_apart_by_every_measure(pairs):
    generator = torch.Generator().manual_seed(0)
    noise = pairs.residual.std() * torch.randn(pairs.clean.shape, generator=generator)
    scores = score_degradation(quantize(pairs.clean + noise), pairs, steps=60)
    assert scores["auc"] > 0.95 and scores["spectrum_distance"] > 2 and scores["akld"] > 0.2
    assert abs(scores["neighbour_correlation"]) < 0.05 and abs(scores["channel_correlation"]) < 0.05


def test_too_few_pairs_leave_the_classifier_out(pairs):
    few = TaskPairs(pairs.clean[:3], pairs.degraded[:3])
    scores = score_degradation(few.clean, few, steps=5)
    assert "auc" not in scores and scores["akld"] > 0.5


def test_patches_that_are_not_finite_are_counted_and_all_others_are_not():
    torch.manual_seed(0)
    config = DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1)
    model = DeFlow(config).eval()
    images = [torch.rand(3, 40, 48)]
    seen, translate = [], model.translate

    def spoilt(image, condition, *, temperature, generator):
        seen.append((image, temperature))
        out = translate(image, condition, temperature=temperature, generator=generator)
        out[image.flatten(1).amax(1) == 0, 0, 3, 3] = torch.nan
        out[image.flatten(1).amin(1) == 1, 1, 2, 2] = torch.inf
        return out

    assert non_finite_patches(model, images, patches=230) == 0
    model.translate = spoilt
    bad = non_finite_patches(model, images, patches=230)
    patches = torch.cat([image for image, _ in seen]).flatten(1)
    flat = patches.std(1) == 0
    assert len(patches) == 230 and bad == int((flat & ((patches == 0) | (patches == 1)).all(1)).sum()) > 1
    assert [temperature for _, temperature in seen] == [0.25, 0.5, 0.75, 1.0, 0.25]


def test_a_residual_is_described_in_grey_levels():
    noise = 0.04 * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert describe_residual(noise)["deviation"] == pytest.approx(255 * 0.04, rel=0.02)
