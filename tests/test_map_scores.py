import numpy as np
import pytest
import torch

from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.errors import UserError
from sr_utils.images import imresize
from sr_utils.map_scores import content_kept, leakage, linear_probe_auc, matched_auc, mmd, picture_statistics


def pictures(count, side, seed):
    return imresize(torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)), side / 6).clamp(0, 1)


def test_leakage_of_noise_is_found_and_no_difference_is_not():
    clean = pictures(16, 16, 0)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    scores = leakage(clean, noisy, steps=50, permutations=50)
    assert scores["leakage_auc"] > 0.9 and scores["probe_auc"] > 0.9
    assert scores["mmd"] > scores["mmd_floor"] and scores["mmd_p_value"] < 0.05
    for name in ("leakage_auc_floor", "probe_auc_floor"):
        assert abs(scores[name] - 0.5) < 0.35
    assert scores == leakage(clean, noisy, steps=50, permutations=50)
    same = leakage(clean, clean, steps=5, permutations=20)
    assert same["leakage_auc"] == 0.5 and same["probe_auc"] == 0.5 and same["mmd_p_value"] == 1.0


def test_the_probe_learns_from_even_scenes_and_is_tested_on_odd_ones():
    clean = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    degraded = clean.clone()
    degraded[0::2, 0] += 5  # a difference that the test scenes do not have
    assert abs(linear_probe_auc(clean, degraded) - 0.5) < 0.05
    degraded[1::2, 0] += 5
    assert linear_probe_auc(clean, degraded) > 0.99


def test_the_kernel_test_is_fair_when_nothing_differs():
    values = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        both = torch.randn(2, 20, 3, generator=generator)
        values.append(mmd(*both, permutations=40, generator=generator)["mmd_p_value"])
    assert 0.3 < sum(values) / len(values) < 0.7


def test_statistics_see_detail_and_not_only_colour():
    flat, rough = torch.full((1, 3, 8, 8), 0.5), torch.rand(1, 3, 8, 8)
    assert picture_statistics(flat).shape == (1, 15)
    assert (picture_statistics(rough) - picture_statistics(flat))[:, 3:].min() > 1


def test_a_larger_h_keeps_more_content():
    train, test = list(pictures(3, 48, 0)), list(pictures(1, 48, 1))
    kept = [content_kept("bicubic_noise", train, test, factor=factor, steps=40) for factor in (2, 6)]
    assert kept[0]["content_psnr"] > kept[1]["content_psnr"] + 1
    assert kept[0]["content_lpips"] < kept[1]["content_lpips"]


def test_too_few_scenes_are_refused():
    with pytest.raises(UserError, match="at least 4 scenes"):
        leakage(pictures(3, 8, 0), pictures(3, 8, 1))


def test_the_network_is_tested_on_scenes_that_it_has_not_learned_from():
    """Even scenes differ as odd ones do, the other way round."""
    generator = torch.Generator().manual_seed(0)
    quiet, loud = (level * torch.randn(24, 3, 16, 16, generator=generator) for level in (0.02, 0.08))
    even = (torch.arange(24) % 2 == 0)[:, None, None, None]
    clean, degraded = torch.where(even, quiet, loud), torch.where(even, loud, quiet)
    assert matched_auc(0.5 + clean, 0.5 + degraded, steps=60) < 0.2


def test_the_discrepancy_its_floor_and_its_chance_are_those_of_numpy():
    generator = torch.Generator().manual_seed(0)
    clean, degraded = torch.randn(12, 3, generator=generator), torch.randn(12, 3, generator=generator) + 1.0
    found = mmd(clean, degraded, permutations=39, generator=torch.Generator().manual_seed(1))
    both = torch.cat([clean, degraded]).double().numpy()
    both = (both - both.mean(0)) / both.std(0, ddof=1)
    square = ((both[:, None] - both[None]) ** 2).sum(2)
    positive = np.sort(square[square > 0])
    kernel = np.exp(-square / positive[(len(positive) - 1) // 2])
    expected = (kernel[:12, :12].mean() + kernel[12:, 12:].mean() - 2 * kernel[:12, 12:].mean()) ** 0.5
    generator, chance = torch.Generator().manual_seed(1), []
    for _ in range(39):
        sign = 2.0 * torch.randint(2, (12,), generator=generator).double() - 1
        sign = torch.cat([sign, -sign]).numpy()
        chance.append(max(sign @ kernel @ sign / 144, 0) ** 0.5)
    assert found["mmd"] == pytest.approx(expected, rel=1e-6)
    assert found["mmd_p_value"] == 1 / 40
    assert found["mmd_floor"] == pytest.approx(np.sort(chance)[int(0.95 * 39)], rel=1e-6)


def test_a_condition_of_two_pixels_says_nothing():
    with pytest.raises(UserError, match="at least 3x3 pixels, and it has 2x2"):
        leakage(torch.rand(6, 3, 2, 2), torch.rand(6, 3, 2, 2))


def test_content_is_measured_at_the_strength_that_is_asked_for(monkeypatch):
    h, seen = DOMAIN_MAPS["bicubic_noise"], set()

    def watched(image, generator, *, factor, strength):
        seen.add(strength)
        return h(image, generator, factor=factor, strength=strength)

    monkeypatch.setitem(DOMAIN_MAPS, "bicubic_noise", watched)
    images = [torch.rand(3, 48, 48)]
    content_kept("bicubic_noise", images, images, factor=2, strength=0.25, steps=1)
    assert seen == {0.25}
