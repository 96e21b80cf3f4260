"""Pictures of classical enlargement have the panels and curves that they are asked for."""

import torch

from sr_utils.classical_figures import burst_explorer, edge_profiles, kernel_responses, labelled_crops, series
from sr_utils.resampling import BICUBIC, NEAREST
from sr_utils.targets import zone_plate


def test_a_kernel_has_its_picture_above_its_response():
    figure = kernel_responses((NEAREST, BICUBIC), zone_plate(16))
    assert [axis.get_title() for axis in figure.axes] == ["nearest", "bicubic", "", ""]
    nearest = figure.axes[2].lines[0]
    assert nearest.get_ydata()[0] == 1.0 and min(nearest.get_ydata()) < -0.2


def test_curves_and_crops_carry_their_names():
    profile = edge_profiles({"one": [0.2, 0.8], "two": [0.1, 0.9]}, title="Edge").axes[0]
    assert [text.get_text() for text in profile.get_legend().get_texts()] == ["one", "two"]
    panels = series({"frames": {"a": ([1, 2], [3, 4]), "b": ([1], [2])}, "noise": {"a": ([0], [1])}}, title="S").axes
    assert [axis.get_xlabel() for axis in panels] == ["frames", "noise"]
    truth = torch.rand(3, 20, 24)
    crops = labelled_crops({"half": truth * 0.5, "same": truth}, truth, title="Crops").axes
    assert crops[0].get_title().startswith("half\n") and crops[2].get_title().startswith("truth")
    assert not crops[2].axison


def test_a_burst_is_explored():
    figure = burst_explorer(torch.rand(3, 72, 72), frames=2, shift_error=0.1, noise=0.02)
    assert "2 frames" in figure.get_suptitle() and len(figure.axes) == 3
