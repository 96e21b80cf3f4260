"""Bursts, their shifts, and the large images made of them."""

import gc

import pytest
import torch

from sr_utils.burst import aperture_response, grid_shifts, random_shifts, see, simulate_burst
from sr_utils.datasets import load_images, open_data_root
from sr_utils.errors import UserError
from sr_utils.images import imresize, quantize
from sr_utils.metrics import psnr
from sr_utils.multi_frame import (
    agreement,
    back_project_frames,
    back_projection_frames_multiplications,
    first_estimate,
    shift_and_add,
    undo_aliasing,
    undo_aliasing_multiplications,
)
from sr_utils.registration import estimate_shift, estimate_shifts, moved_back
from sr_utils.repository import resolve


@pytest.fixture(scope="module")
def photograph():
    return load_images(open_data_root(resolve("data")).validation[:1])[0][:, :256, 32:320]


@pytest.fixture(scope="module")
def burst(photograph):
    """Four clean frames whose samples interleave."""
    return simulate_burst(photograph, grid_shifts(2))


def decibels(image, truth):
    return psnr(quantize(image)[None], truth[None], data_range=1.0).item()


def test_an_unmoved_frame_is_the_mean_of_squares_and_whole_shifts_are_exact():
    scene = torch.rand(3, 24, 32, dtype=torch.float64)
    frames = see(scene, torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.5, 0.0]]), 2)
    still = torch.nn.functional.avg_pool2d(scene, 2)
    assert torch.allclose(frames[0], still)
    assert torch.allclose(frames[1], still.roll((-1, 2), (-2, -1)))
    assert torch.allclose(frames[2], torch.nn.functional.avg_pool2d(scene.roll(-1, -2), 2))
    assert aperture_response(torch.tensor([0.0, 0.5]), 2) == pytest.approx([1.0, 0.0], abs=1e-12)


def test_a_burst_shows_its_truth_and_is_drawn_again_alike(photograph, burst):
    assert burst.frames.shape == (4, 3, 96, 112) and burst.truth.shape == (3, 192, 224)
    still = torch.nn.functional.avg_pool2d(burst.truth, 2)
    assert (burst.frames[0] - still).abs().max() <= 0.51 / 255
    noisy = [simulate_burst(photograph, grid_shifts(2), noise=0.05, seed=7).frames for _ in range(2)]
    assert torch.equal(*noisy)
    assert (noisy[0] - burst.frames).std().item() == pytest.approx(0.05, rel=0.1)
    with pytest.raises(ValueError, match="margins"):
        simulate_burst(photograph[:, :40], grid_shifts(2))


def test_a_moving_object_moves_and_the_rest_stays(photograph, burst):
    moved = simulate_burst(photograph, grid_shifts(2), moving=(60, 60, 80, 100), travel=3.0)
    assert torch.equal(moved.frames[0], burst.frames[0])
    changed = (moved.frames[3] - burst.frames[3]).abs().amax(0) > 0.02
    rows, columns = changed.nonzero().T
    assert 30 <= rows.min() and rows.max() < 70 and 30 <= columns.min() and columns.max() < 90
    still, gone = moved.frames[0, :, 35:65, 35:75], moved.frames[3, :, 35:65, 44:84]
    # The object's own pixels came along, but for the camera's half pixel.
    assert torch.corrcoef(torch.stack((still.flatten(), gone.flatten())))[0, 1] > 0.9


def test_shifts_are_found_to_a_hundredth_of_a_pixel(photograph):
    shifts = random_shifts(6, seed=3, reach=3.0)
    found = estimate_shifts(simulate_burst(photograph, shifts).frames)
    assert (found - shifts).abs().max() < 0.01
    noisy = estimate_shifts(simulate_burst(photograph, shifts, noise=0.02).frames)
    assert (noisy - shifts).abs().mean() < 0.05
    with pytest.raises(ValueError, match="one size"):
        estimate_shift(torch.rand(3, 8, 8), torch.rand(3, 8, 9))
    for value in (0.0, 0.5):
        with pytest.raises(UserError, match="shows no detail, so its shift cannot be found"):
            estimate_shift(torch.rand(3, 32, 32), torch.full((3, 32, 32), value))


def test_moving_back_undoes_a_shift(burst):
    back = moved_back(burst.frames[0], torch.tensor([2.0, -1.0]))
    assert torch.allclose(back[:, 2:, :-1], burst.frames[0][:, :-2, 1:], atol=1e-5)


def test_undoing_aliasing_beats_bicubic_by_three_decibels_and_by_two_with_estimated_shifts(photograph):
    burst = simulate_burst(photograph, random_shifts(4, seed=11))
    plain = decibels(imresize(burst.frames[0], 2), burst.truth)
    known = decibels(undo_aliasing(burst.frames, burst.shifts), burst.truth)
    assert known > plain + 3
    estimated = estimate_shifts(burst.frames)
    assert decibels(undo_aliasing(burst.frames, estimated), burst.truth) > plain + 2
    # Wrong by a third of a pixel, it does harm.
    wrong = burst.shifts + 0.3 * (burst.shifts != 0)
    assert decibels(undo_aliasing(burst.frames, wrong), burst.truth) < known - 6


def test_four_frames_hold_all_that_the_aperture_let_through():
    # A periodic scene without what the aperture blocks and without rounding: the equations have one answer.
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(3, 16, 16, generator=generator)
    smooth = torch.nn.functional.interpolate(scene[None], size=(64, 64), mode="bicubic")[0]
    frames = see(torch.cat((smooth, smooth.flip(-1)), -1), grid_shifts(2), 2)
    large = undo_aliasing(frames, grid_shifts(2), noise=1e-7)
    inside = (..., slice(20, -20), slice(20, -20))
    truth = torch.cat((smooth, smooth.flip(-1)), -1)
    assert decibels(large[inside], truth[inside]) > decibels(imresize(frames[0], 2)[inside], truth[inside]) + 8


def test_more_frames_help_and_one_does_no_harm(photograph):
    burst = simulate_burst(photograph, random_shifts(8, seed=1), noise=0.02)
    gains = [
        decibels(undo_aliasing(burst.frames[:count], burst.shifts[:count], noise=0.02), burst.truth)
        for count in (1, 4, 8)
    ]
    assert gains[0] > decibels(imresize(burst.frames[0], 2), burst.truth) - 0.3
    assert gains[0] < gains[1] < gains[2]


def test_frames_are_added_where_they_belong(burst):
    added = shift_and_add(burst.frames, burst.shifts)
    plain = decibels(imresize(burst.frames[0], 2), burst.truth)
    assert decibels(added, burst.truth) > plain
    flat = shift_and_add(torch.full((4, 3, 12, 10), 0.4), random_shifts(4, seed=0))
    assert torch.allclose(flat, torch.full((3, 24, 20), 0.4), atol=1e-6)


def test_back_projection_trusts_whom_it_is_told(photograph, burst):
    plain = decibels(imresize(burst.frames[0], 2), burst.truth)
    assert decibels(back_project_frames(burst.frames, burst.shifts), burst.truth) > plain + 3
    spoilt = burst.frames.clone()
    spoilt[1, :, :, 56:] = 0.5
    trust = torch.ones(4, 1, 96, 112)
    trust[1, :, :, 56:] = 0
    blind, told = (
        decibels(back_project_frames(spoilt, burst.shifts, weights=each), burst.truth) for each in (None, trust)
    )
    assert told > plain + 2 > blind
    found = agreement(spoilt, burst.shifts)
    assert found[1, 0, :, 61:].mean() < 0.3 < 0.7 < found[1, 0, :, :51].mean()
    assert found.shape == (4, 1, 96, 112)


@pytest.mark.parametrize("moves", [False, True])
def test_what_moves_is_left_out_and_fine_texture_is_not(photograph, moves):
    # Bristles nearly everywhere: aliasing alone makes the frames differ.
    place = {"moving": (96, 112, 64, 64), "travel": 0.7} if moves else {}
    seen = simulate_burst(photograph, random_shifts(4, seed=0), margin=8, **place)
    trusted = agreement(seen.frames, seen.shifts)
    assert (trusted[0] == 1).all() and trusted[1:].mean() > 0.7
    plain, blind, told = (
        decibels(image, seen.truth)
        for image in (
            imresize(seen.frames[0], 2),
            back_project_frames(seen.frames, seen.shifts),
            back_project_frames(seen.frames, seen.shifts, weights=trusted),
        )
    )
    assert told > plain + 3.5
    assert told > blind + 3 if moves else blind > told


def test_one_frame_agrees_with_itself_and_where_none_is_trusted_the_first_remains(burst):
    assert (agreement(burst.frames[:1], burst.shifts[:1]) == 1).all()
    nobody = torch.zeros(4, 1, 96, 112)
    assert torch.allclose(
        first_estimate(burst.frames, burst.shifts, 2, weights=nobody), imresize(burst.frames[0], 2), atol=1e-5
    )


def test_no_matrix_outlives_its_burst(burst):
    sizes = ((96, 192), (112, 224))
    frames, shifts = burst.frames, burst.shifts + 0.017
    back_project_frames(frames, shifts, iterations=1)
    agreement(frames, shifts)
    gc.collect()
    held = [each for each in gc.get_objects() if type(each) is torch.Tensor and tuple(each.shape) in sizes]
    assert not held


def test_costs_grow_with_frames_and_iterations():
    assert undo_aliasing_multiplications(8, 240, 240) > undo_aliasing_multiplications(4, 240, 240) > 0
    four = [back_projection_frames_multiplications(4, 2, count) for count in (1, 2, 3)]
    assert four[2] - four[1] == four[1] - four[0] > 0


def test_places_that_no_frame_has_seen_are_the_first_frames():
    frames = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = shift_and_add(frames, torch.tensor([[0.0, 0.0], [0.5, 0.0]]), 4)
    torch.testing.assert_close(found[:, 0], imresize(frames[0], 4)[:, 0])


def test_weights_may_be_alike_for_all_frames():
    frames = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    shifts = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    plain, alike = (back_project_frames(frames, shifts, weights=weights) for weights in (None, torch.ones(1, 1, 6, 5)))
    torch.testing.assert_close(plain, alike)


def test_a_burst_is_of_whole_pixels_and_8_bits_at_any_scale():
    photograph = torch.rand(3, 131, 140, generator=torch.Generator().manual_seed(0))
    still = simulate_burst(photograph, grid_shifts(3), 3, noise=0.01)
    assert still.frames.shape == (9, 3, 10, 14) and still.truth.shape == (3, 30, 42)
    assert torch.equal(still.frames, quantize(still.frames))
    moved = simulate_burst(photograph, grid_shifts(3), 3, noise=0.01, moving=(9, 9, 12, 12), travel=1.0)
    rows, columns = (moved.frames[2] != still.frames[2]).any(0).nonzero().T
    assert (rows.min(), rows.max()) == (3, 6) and (columns.min(), columns.max()) == (5, 8)


def test_frames_without_detail_or_likeness_have_no_shift():
    detail = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    for reference, frame in ((torch.full((3, 32, 32), 0.5), detail), (detail, 1 - detail), (detail[:, :4, :4],) * 2):
        with pytest.raises(UserError, match="shows no detail|do not resemble each other"):
            estimate_shift(reference, frame)
