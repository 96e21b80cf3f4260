"""Widgets without a browser: each control changes the picture, and the first picture is the drawing function's."""

import base64

import pytest
import torch

from sr_utils.classical_figures import burst_explorer
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.figure_style import picture_bytes
from sr_utils.report import comparison_strip
from sr_utils.sampling import restore_image
from sr_utils.theory_figures import explorer
from sr_utils.widgets import SAMPLE_SIZES, burst_widget, flow_theory_widget, mixture_widget


def controls_of(container):
    return {control.description: control for control in container.children[0].children}


@pytest.fixture(scope="module")
def theory():
    return flow_theory_widget(seed=3)


def test_the_first_picture_is_the_static_one(theory):
    truth = torch.tensor([0.0, 1.0, 0.5, 0.6], dtype=torch.float64)
    fresh = flow_theory_widget(seed=3)
    assert fresh.children[1].value == picture_bytes(explorer(truth, count=100, seed=3), "png")


def test_every_control_changes_the_picture_and_back(theory):
    picture = theory.children[1]
    for name, control in controls_of(theory).items():
        before, start = picture.value, control.value
        control.value = SAMPLE_SIZES[0] if name == "sample size" else control.max
        assert picture.value != before, name
        assert picture.value[:4] == b"\x89PNG"
        control.value = start
        assert picture.value == before, name


def test_a_burst_answers_to_frames_shift_error_and_noise():
    scene = torch.rand(3, 72, 72, generator=torch.Generator().manual_seed(2))
    widget = burst_widget(scene, seed=5)
    picture = widget.children[1]
    assert picture.value == picture_bytes(burst_explorer(scene, frames=4, shift_error=0.0, noise=0.0, seed=5), "jpeg")
    for control in controls_of(widget).values():
        before, start = picture.value, control.value
        control.value = control.max
        assert picture.value != before, control.description
        control.value = start


def test_the_ends_of_a_mixture_are_the_two_networks():
    first, second = (RRDBNet(RRDBNetConfig(scale=2, features=8, growth=4, blocks=1)).eval() for _ in range(2))
    low, truth = torch.rand(3, 24, 24), torch.rand(3, 48, 48)
    widget = mixture_widget(first, second, low, truth)
    for share, network, label in ((0.0, first, "0.00 all losses"), (1.0, second, "1.00 all losses")):
        controls_of(widget)["share of all losses"].value = share
        scene = {"input": low, label: restore_image(network, low), "ground truth": truth}
        strip = comparison_strip([scene], title="Between pixel loss only (0) and all losses (1)")
        assert widget.children[1].value == picture_bytes(strip, "jpeg")


def test_a_displayed_widget_brings_a_still_of_its_state_beside_its_view(theory):
    bundle = theory._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == theory.model_id
    assert base64.b64decode(bundle["image/png"]) == theory.children[1].value
    control = controls_of(theory)["sample size"]
    control.value = SAMPLE_SIZES[0]
    assert theory._repr_mimebundle_()["image/png"] != bundle["image/png"]
    control.value = 100
