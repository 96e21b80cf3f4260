import numpy as np
import pytest
import torch

from sr_utils.ablations import view_map
from sr_utils.map_figures import (
    gain_bars,
    label_offsets,
    map_plane,
    map_view,
    pareto_front,
    predictors,
    rank_correlation,
)
from sr_utils.small_plots import plane_svg, stairs_svg


def rows():
    names = ("bicubic_noise", "median_filter", "min_max_pool")
    values = ((0.8, 19.0, 0.36), (0.7, 18.0, 0.35), (0.9, 14.5, 0.37))
    return [
        {
            "method": name,
            "leakage_auc": leakage,
            "leakage_auc_floor": 0.5,
            "content_psnr": content,
            "restoration_lpips": lpips,
            "restoration_lpips_gain": 0.36 - lpips,
            "restoration_lpips_gain_std": 0.002,
        }
        for name, (leakage, content, lpips) in zip(names, values, strict=True)
    ]


def test_the_front_holds_what_nothing_beats_in_both():
    front = pareto_front(rows(), low="leakage_auc", high="content_psnr")
    assert [row["method"] for row in front] == ["median_filter", "bicubic_noise"]


def test_rank_correlation_of_known_orders():
    up = [1.0, 2.0, 5.0, 9.0, 20.0, 21.0]
    assert rank_correlation(up, [value**3 for value in up])[0] == pytest.approx(1)
    correlation, chance = rank_correlation(up, [-value for value in up])
    assert correlation == pytest.approx(-1) and chance < 0.02
    # Ties share their places; by hand: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4])[0] == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation([1, 2, 3, 4], [2, 1, 4, 3])[1] > 0.3


def test_figures_name_every_map():
    figure = map_plane(rows(), marked="median_filter", title="Plane")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "3"]
    key = figure.texts[-1].get_text().splitlines()
    assert key == ["1  bicubic noise", "2  median filter", "3  min max pool (14.5 dB)"]
    panels = predictors(
        rows(), keys={"leakage_auc": "x", "content_psnr": "y"}, target="restoration_lpips", target_label="z", title="t"
    )
    assert "rank correlation +1.00" in panels.axes[0].get_title()
    assert len(gain_bars(rows(), title="t", xlabel="x").axes[0].patches) == 3


def test_a_label_is_nearest_to_its_own_mark():
    places = np.array([[0.0, 0.0], [12.0, 9.0], [14.0, -4.0], [100.0, 100.0]])
    labels = places + label_offsets(places)
    distances = np.linalg.norm(labels[:, None] - places[None], axis=2)
    assert distances.argmin(axis=1).tolist() == [0, 1, 2, 3]
    assert np.linalg.norm(labels[:2] - labels[1:3], axis=1).min() > 13


def test_the_static_view_has_all_parts():
    image = torch.rand(3, 32, 32)
    figure = map_view(view_map(image, 1 - image, "median_filter"), rows())
    titles = [axis.get_title() for axis in figure.axes]
    assert {"x, clean", "y, degraded", "h(x)", "h(y)", "share of values"} <= set(titles)


def test_small_plots_are_well_formed():
    from xml.etree import ElementTree

    edges, shares = torch.linspace(-1, 1, 5), torch.tensor([0.1, 0.4, 0.4, 0.1])
    drawn = ElementTree.fromstring(stairs_svg({"a < b": (edges, shares)}, title="shares & more"))
    assert len(drawn.findall("{*}polyline")) == 1
    plane = ElementTree.fromstring(plane_svg({"a": (0.5, 1.0), "b": (0.5, 2.0)}, marked="a", title="t", xlabel="x"))
    assert [circle.get("r") for circle in plane.findall("{*}circle")] == ["4", "7"]
