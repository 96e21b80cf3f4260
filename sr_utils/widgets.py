"""Pictures that answer to the hand: one function a widget, each over a drawing function of its topic's module.

Every widget is a container of controls above an image. Whoever cannot run it finds its first picture drawn in the
notebook as well.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import ipywidgets
import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sr_utils.classical_figures import burst_explorer
from sr_utils.esrgan import RRDBNet, interpolated
from sr_utils.figure_style import STYLE
from sr_utils.gaussian_shift import PARAMETERS
from sr_utils.report import busiest_window, comparison_strip
from sr_utils.sampling import restore_image
from sr_utils.theory_figures import explorer

SAMPLE_SIZES = (10, 30, 100, 300, 1000, 3000)
_NAMES = {"mu_x": "mean of x", "sigma_x": "deviation of x", "mu_u": "mean of u", "sigma_u": "deviation of u"}


def picture_bytes(figure: Figure) -> bytes:
    """A figure as a PNG file's content, in the course's style."""
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="png")
    return stream.getvalue()


def answering(controls: Mapping[str, ipywidgets.ValueWidget], draw: Callable[..., Figure]) -> ipywidgets.VBox:
    """Controls above the picture that ``draw`` makes of their values, passed by name; drawn anew at each change."""
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))

    def redraw(change: object = None) -> None:
        picture.value = picture_bytes(draw(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    rows = ipywidgets.Box(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([rows, picture])


def flow_theory_widget(*, seed: int = 0) -> ipywidgets.VBox:
    """The one-dimensional model: four parameters and the sample size; densities, likelihood and estimate."""
    start = {"mu_x": 0.0, "sigma_x": 1.0, "mu_u": 0.5, "sigma_u": 0.6}
    style = {"description_width": "110px"}
    controls: dict[str, ipywidgets.ValueWidget] = {}
    for name in PARAMETERS:
        low, high = (-3.0, 3.0) if name.startswith("mu") else (0.1 if name == "sigma_x" else 0.0, 2.0)
        controls[name] = ipywidgets.FloatSlider(
            value=start[name], min=low, max=high, step=0.05, description=_NAMES[name], style=style
        )
    controls["count"] = ipywidgets.SelectionSlider(
        options=SAMPLE_SIZES, value=100, description="sample size", style=style
    )

    def draw(count: int, **parameters: float) -> Figure:
        values = torch.tensor([parameters[name] for name in PARAMETERS], dtype=torch.float64)
        return explorer(values, count=count, seed=seed)

    return answering(controls, draw)


def burst_widget(scene: Tensor, *, seed: int = 0) -> ipywidgets.VBox:
    """A burst of a scene (3, H, W): number of frames, error of the shifts and noise; one frame against all of them."""
    style = {"description_width": "110px"}
    controls: dict[str, ipywidgets.ValueWidget] = {
        "frames": ipywidgets.IntSlider(value=4, min=1, max=12, description="frames", style=style),
        "shift_error": ipywidgets.FloatSlider(
            value=0.0, min=0.0, max=0.5, step=0.02, description="shift error", style=style
        ),
        "noise": ipywidgets.FloatSlider(value=0.0, min=0.0, max=0.1, step=0.005, description="noise", style=style),
    }
    return answering(controls, lambda **chosen: burst_explorer(scene, seed=seed, **chosen))


def mixture_widget(
    first: RRDBNet, second: RRDBNet, low_resolution: Tensor, truth: Tensor, *, size: int = 96
) -> ipywidgets.VBox:
    """Every mixture of two networks of one shape (ESRGAN, section 3.4), on the liveliest crop of an image.

    Parameters
    ----------
    first, second: the networks at 0 and at 1.
    low_resolution, truth: an image (3, H, W) in [0, 1] and its ground truth, ``scale`` times larger.
    size: side of the crop in pixels of ``low_resolution``.
    """
    size, scale = min(size, *low_resolution.shape[1:]), first.config.scale
    top, left = busiest_window(low_resolution, size)
    low = low_resolution[:, top : top + size, left : left + size]
    high = truth[:, scale * top : scale * (top + size), scale * left : scale * (left + size)]
    share = ipywidgets.FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, description="share of the second")

    def draw(share: float) -> Figure:
        restored = restore_image(interpolated(first, second, share), low)
        scene = {"input": low, f"{1 - share:.2f} first + {share:.2f} second": restored, "ground truth": high}
        return comparison_strip([scene], title="Between two networks")

    share.style.description_width = "initial"
    return answering({"share": share}, draw)
