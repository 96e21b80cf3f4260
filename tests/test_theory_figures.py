"""Pictures of the theory: what is drawn is what was computed."""

import io

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt

from sr_utils import theory_figures
from sr_utils.gaussian_shift import draw_unpaired, maximum_likelihood

matplotlib.use("Agg")

TRUTH = torch.tensor([0.0, 1.0, 0.5, 0.6], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)


def drawn(figure):
    """The figure, once it has been written without complaint and without pyplot's keeping it."""
    figure.savefig(io.BytesIO())
    assert not plt.get_fignums()
    return figure


def marked(axis, label):
    """Where a labelled marker or line of an axis lies."""
    return next(line for line in axis.lines if line.get_label() == label).get_xydata()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [10, 300])
@pytest.mark.parametrize("deviation", [0.0, 0.6])
def test_the_explorer_marks_truth_and_estimate_inside_its_axes(count, deviation):
    truth = torch.tensor([0.0, 1.0, 0.5, deviation], dtype=torch.float64)
    axis = drawn(theory_figures.explorer(truth, count=count, seed=1)).axes[1]
    samples = draw_unpaired(truth, count, count, torch.Generator().manual_seed(1))
    assert marked(axis, "truth")[0].tolist() == [0.5, deviation]
    assert marked(axis, "estimate")[0].tolist() == maximum_likelihood(*samples)[2:].tolist()
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    for label in ("truth", "estimate"):
        x, y = marked(axis, label)[0]
        assert left < x < right and low < y < high


@pytest.mark.filterwarnings("error")
def test_confidence_narrows_and_estimates_of_zero_become_rare():
    figure = drawn(theory_figures.confidence(TRUTH, [20, 200, 2000], repeats=100))
    share = figure.axes[1].lines[0].get_ydata()
    assert share[0] > share[1] >= share[2] == 0
    fisher = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    width = fisher[0].get_ydata() - fisher[1].get_ydata()
    assert width[0] / width[1] == pytest.approx(10**0.5)


@pytest.mark.filterwarnings("error")
def test_the_gradient_is_zero_at_zero_and_at_the_estimate():
    samples = draw_unpaired(TRUTH, 500, 500, GENERATOR)
    path = torch.zeros(3, 4, dtype=torch.float64)
    figure = drawn(theory_figures.gradient_at_zero({"a": samples}, {"path": path}, reach=1.0))
    curve = next(line for line in figure.axes[0].lines if len(line.get_xdata()) > 2).get_xydata()
    crossings = curve[1:][(curve[:-1, 1] < 0) & (curve[1:, 1] >= 0), 0]
    assert max(crossings) == pytest.approx(maximum_likelihood(*samples)[3].item(), abs=0.02)
    assert abs(curve[len(curve) // 2, 1]) < 1e-12


@pytest.mark.filterwarnings("error")
def test_ellipses_lie_two_deviations_out():
    covariance = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    gaussians = {"one": (torch.tensor([1.0, 2.0]), covariance)}
    figure = drawn(theory_figures.plane_gaussians({"panel": gaussians}, title="Heading", label="value"))
    (patch,) = figure.axes[0].patches
    assert tuple(patch.center) == (1.0, 2.0) and (patch.width, patch.height) == (8.0, 4.0) and patch.angle % 180 == 0
    cloud = torch.randn(500, 2, generator=GENERATOR)
    figure = drawn(theory_figures.residual_clouds({"a": cloud}, gaussians["one"], title="Heading", label="added"))
    assert [patch.get_label() for patch in figure.axes[0].patches] == ["true", "generated"]


@pytest.mark.filterwarnings("error")
def test_curves_grids_and_couplings_have_a_panel_each():
    values, places = torch.randn(300, generator=GENERATOR), torch.linspace(-3, 3, 20)
    curve = (places, theory_figures.gaussian_density(places, 0, 1))
    assert torch.trapezoid(*reversed(curve)).item() == pytest.approx(1, abs=0.01)
    figure = drawn(theory_figures.flow_of_one_pixel({"f": curve}, {"a": (values, curve)}, {"a": (values, curve)}))
    assert len(figure.axes) == 3
    panels = {"one": (values, {"exact": curve}), "two": (values, {"exact": curve})}
    figure = drawn(theory_figures.samples_and_curves(panels, title="Heading", xlabel="x", legend="drawn"))
    assert [axis.get_title() for axis in figure.axes] == ["one", "two"]
    grid = torch.randn(4, 5, 2, generator=GENERATOR)
    figure = drawn(theory_figures.warped_grids({"one": (grid, grid.flatten(0, 1))}, reach=2.0))
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [5] * 4
    figure = drawn(theory_figures.couplings(values, {"one": values + 1, "two": -values}))
    assert len(figure.axes) == 4
