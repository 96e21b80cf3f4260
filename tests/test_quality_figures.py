"""Pictures of results: right places, better is up, names do not lie on each other."""

import io

import pytest

from sr_utils.quality_figures import _ranges, cost_planes, near_together, on_front, share_bars, trade_off

POINTS = {"plain": (27.0, 0.6), "ours": (28.5, 0.33), "close": (28.51, 0.331), "oracle": (29.0, 0.3)}


@pytest.mark.filterwarnings("error")
def test_points_lie_where_they_belong_and_lower_lpips_is_higher_up():
    figure = trade_off(POINTS, title="Heading", spreads={"ours": (0.1, 0.01)}, highlighted=["ours"], joined=False)
    axis = figure.axes[0]
    drawn = {tuple(dots.get_offsets()[0]) for dots in axis.collections if len(dots.get_offsets()) == 1}
    assert set(POINTS.values()) <= {tuple(map(float, each)) for each in drawn}
    assert axis.yaxis_inverted() and figure.get_suptitle() == "Heading"
    figure.savefig(io.BytesIO())


def test_methods_at_one_place_share_a_label():
    same = {"also plain": POINTS["plain"], **POINTS}
    figure = trade_off(same, title="Heading", joined=False)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1, 2", "3, 4", "5"]


def test_names_do_not_lie_on_each_other():
    figure = trade_off(POINTS, title="Heading")
    figure.savefig(io.BytesIO())
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert {text.get_text() for text in figure.axes[0].texts} == set(POINTS)
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])


@pytest.mark.filterwarnings("error")
def test_shares_are_bars_of_their_length_with_the_goal_ruled():
    figure = share_bars(
        {"a": {"PSNR": 0.5, "LPIPS": 0.8}, "b": {"PSNR": -0.1, "LPIPS": 1.2}}, title="Heading", xlabel="x", goal=0.8
    )
    widths = sorted(round(bar.get_width(), 3) for bar in figure.axes[0].patches)
    assert widths == [-0.1, 0.5, 0.8, 1.2]
    assert [label.get_text() for label in figure.axes[0].get_legend().get_texts()] == ["goal, 0.8", "PSNR", "LPIPS"]
    figure.savefig(io.BytesIO())


def test_the_front_is_what_none_beats():
    assert on_front([(1, 5), (2, 3), (3, 4), (2, 3), (4, 1)]) == [True, True, False, True, True]


@pytest.mark.filterwarnings("error")
def test_methods_on_the_front_are_filled_and_all_are_named():
    rows = [
        {"method": name, "psnr": psnr, "lpips": lpips, "multiplications_per_pixel": cost}
        for name, psnr, lpips, cost in (("a", 27.0, 0.6, 20), ("b", 29.0, 0.4, 1e4), ("c", 28.0, 0.5, 1e5))
    ]
    figure = cost_planes(rows, title="Heading")
    left, right = figure.axes
    for axis, key in ((left, "psnr"), (right, "lpips")):
        dots = [dot for dot in axis.collections if len(dot.get_offsets()) == 1]
        assert [tuple(dot.get_offsets()[0]) for dot in dots] == [
            (row["multiplications_per_pixel"], row[key]) for row in rows
        ]
        filled = [tuple(dot.get_facecolor()[0]) == tuple(dot.get_edgecolor()[0]) for dot in dots]
        assert filled == [True, True, False]
    assert right.yaxis_inverted() and not left.yaxis_inverted()
    assert figure.get_supxlabel() == "1 a    2 b    3 c"
    figure.savefig(io.BytesIO())


def test_points_whose_labels_would_overlap_are_grouped_in_chains():
    points = [(0.0, 0.0), (1.0, 1.0), (0.05, 0.0), (0.1, 0.02), (0.05, 0.5)]
    assert near_together(points) == [[0, 2, 3], [1], [4]]
    assert near_together([(2.0, 5.0)]) == [[0]]
    assert _ranges([0, 1, 3, 5, 6, 7]) == "1, 2, 4, 6–8"
