import math
from dataclasses import replace

import pytest
import torch

from sr_utils.errors import UserError
from sr_utils.images import imresize
from sr_utils.temporal import FEWEST, View, agreement, find_views, flicker, measured_and_others, temporal_pairs


@pytest.fixture
def frames():
    """Two views of four noisy frames each; in one frame something bright passes."""
    generator = torch.Generator().manual_seed(0)
    frames = []
    for _ in range(2):
        scene = imresize(torch.rand(3, 6, 6, generator=generator), 16).clamp(0, 1)
        frames += [scene + 0.02 * torch.randn(scene.shape, generator=generator) for _ in range(4)]
    frames[1][:, 8:20, 8:20] = 1.0
    return frames


def test_views_are_found_and_what_moves_is_marked(frames):
    views = find_views(frames)
    assert [view.indices for view in views] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert not views[0].still[1, 0, 10:18, 10:18].any() and views[0].still[1, 0, 30:, 30:].all()
    assert views[1].still.float().mean() > 0.99


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_the_median_of_an_even_number_is_between_its_two_middle_frames(count):
    generator = torch.Generator().manual_seed(0)
    scene = imresize(torch.rand(3, 6, 6, generator=generator), 4).clamp(0, 1)
    frames = [scene + 0.02 * torch.randn(scene.shape, generator=generator) for _ in range(count)]
    (view,) = find_views(frames)
    expected = torch.stack(frames).quantile(0.5, dim=0)
    torch.testing.assert_close(view.median, expected, rtol=0, atol=1e-6)
    # Unlike deviations on both sides of the median, so that flicker about another middle frame would differ.
    levels = torch.tensor([0.1, 0.2, 0.4, 0.8, 0.85, 0.9])[:count]
    shown = [level.expand(scene.shape) for level in levels]
    deviation = 255 * (levels - levels.quantile(0.5)).square().mean().sqrt().item()
    still = View(view.indices, view.median, torch.ones_like(view.still))
    assert flicker(shown.__getitem__, [still]) == pytest.approx(deviation, rel=1e-5)


def test_pairs_differ_by_noise_only(frames):
    medians, degraded = temporal_pairs(frames)
    assert medians.shape == degraded.shape == (8, 3, 96, 96)
    assert (degraded - medians).abs().max() < 0.15 and (degraded - medians).std() > 0.01
    assert torch.equal(degraded[1, :, 10:18, 10:18], medians[1, :, 10:18, 10:18])


def test_frames_of_two_sizes_are_cut_to_what_both_have(frames):
    medians, degraded = temporal_pairs([*frames[:4], *(image[:, :80, 10:] for image in frames[4:])])
    assert medians.shape == degraded.shape == (8, 3, 80, 86)


def test_frames_in_which_nothing_stays_are_one_sentence(frames):
    views = [replace(view, still=torch.zeros_like(view.still)) for view in find_views(frames)]
    for measure in (agreement, flicker):
        with pytest.raises(UserError, match="Nothing stays the same in these frames: give frames of a fixed camera"):
            measure(frames.__getitem__, views)


def test_the_median_agrees_with_itself_and_does_not_flicker(frames):
    views = find_views(frames)
    perfect, noisy = [view.median for view in views for _ in view.indices].__getitem__, frames.__getitem__
    assert agreement(perfect, views) > 60 and flicker(perfect, views) == 0
    assert agreement(noisy, views) < 40 and 255 * 0.01 < flicker(noisy, views) < 255 * 0.03
    assert agreement(lambda index: imresize(perfect(index), 2), views) > agreement(noisy, views)
    assert flicker(lambda index: imresize(frames[index], 2), views) > 0


def test_frames_without_a_common_view_have_none_and_no_pairs():
    generator = torch.Generator().manual_seed(0)
    strangers = [torch.rand(3, 32, 32, generator=generator) for _ in range(3)]
    assert find_views(strangers) == []
    with pytest.raises(UserError, match="No camera position has 3 frames"):
        temporal_pairs(strangers)
    measured, others = measured_and_others(3, [])
    assert measured == [0, 1, 2] == others


def view_of(indices):
    return View(list(indices), torch.zeros(3, 8, 8), torch.ones(len(indices), 1, 8, 8, dtype=torch.bool))


def test_frames_to_measure_and_to_choose_by_are_spread_over_all_of_one_place():
    measured, others = measured_and_others(120, [view_of(range(120))])
    assert measured == list(range(0, 120, 5)) and len(others) == 24 and not set(measured) & set(others)
    assert measured_and_others(120, [view_of(range(120))], first=30)[0] == list(range(30))


@pytest.mark.parametrize("places,each", [(16, 3), (24, 3), (25, 4), (30, 10), (1, 4)])
def test_places_with_few_frames_are_left_whole(places, each):
    views = [view_of(range(place * each, (place + 1) * each)) for place in range(places)]
    for chosen in measured_and_others(places * each, views):
        assert any(len(set(view.indices) & set(chosen)) >= FEWEST for view in views)


def alike_in_common():
    """Two frames that correlate by about a half, and a third that resembles both."""
    common, other = (imresize(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)), 8) for seed in (0, 1))
    return 0.5 * common + 0.3 * other, 0.5 * common - 0.3 * other, 0.5 * common


def test_frames_are_of_one_place_if_each_resembles_another_of_it():
    one, other, middle = alike_in_common()
    assert find_views([one, other, one]) == [] == find_views([one, one]) == find_views([one, other])
    for frames in ([one, other, middle], [one, middle, other]):
        assert [view.indices for view in find_views(frames)] == [[0, 1, 2]]


def test_around_what_moved_nothing_counts_as_still():
    scene = imresize(torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)), 16).clamp(0.2, 0.8)
    frames = [scene.clone() for _ in range(4)]
    frames[1][:, 40:44, 40:44] += 0.15
    still = find_views(frames)[0].still
    assert not still[1, 0, 38:46, 38:46].any() and still[0].all() and still[1, 0, :30].all()


def test_agreement_counts_all_colours_alike():
    view = View([0], torch.full((3, 8, 8), 0.5), torch.ones(1, 1, 8, 8, dtype=torch.bool))
    image = torch.full((3, 8, 8), 0.5)
    image[0] += 0.1
    assert agreement(lambda _: image, [view]) == pytest.approx(10 * math.log10(3 / 0.01), abs=1e-3)


def test_flicker_is_read_where_the_enlarged_mask_says_still():
    still = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    still[:, :, :4, :4] = True
    frames = [torch.zeros(3, 16, 16), torch.zeros(3, 16, 16)]
    frames[1][:, 8:] = 1.0
    frames[1][:, :, 8:] = 1.0
    assert flicker(frames.__getitem__, [View([0, 1], torch.zeros(3, 8, 8), still)]) == 0


def of_places(*lengths):
    """Views of places that were seen so many times each, one after the other."""
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    empty = torch.zeros(3, 4, 4)
    return [
        View(list(range(start, start + length)), empty, torch.ones(length, 1, 4, 4, dtype=torch.bool))
        for start, length in zip(starts, lengths, strict=True)
    ]


def test_no_frame_is_measured_and_chosen_by_where_there_are_several_places():
    for lengths in ((20, 20), (6, 6), (20, 27), (24, 24, 24, 24, 24)):
        measured, others = measured_and_others(sum(lengths), of_places(*lengths))
        assert measured and others and not set(measured) & set(others)


def test_many_places_do_not_lift_the_limit():
    measured, others = measured_and_others(300, of_places(*[3] * 100), limit=24)
    assert len(measured) <= 36 and len(others) <= 36
