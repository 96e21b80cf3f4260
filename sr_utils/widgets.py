"""Pictures that answer to the hand: one function a widget, each over a drawing function of its topic's module.

Every widget is an `Explorer`, controls above what they change. Where no kernel answers, a still picture stands for it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import cv2
import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sr_utils.ablations import LEVELS, LatentWalk, MapView, view_map
from sr_utils.classical_figures import burst_explorer
from sr_utils.deflow import DeFlow
from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.esrgan import RRDBNet, interpolated
from sr_utils.figure_style import picture_bytes
from sr_utils.gaussian_shift import PARAMETERS
from sr_utils.images import crop_to_multiple, to_bytes
from sr_utils.map_figures import map_view, walk_view
from sr_utils.report import busiest_window, comparison_strip
from sr_utils.sampling import restore_image
from sr_utils.small_plots import plane_svg, stairs_svg
from sr_utils.theory_figures import explorer

SAMPLE_SIZES = (10, 30, 100, 300, 1000, 3000)
_NARROW = {"description_width": "90px"}
Shown = tuple[Mapping[str, Tensor], str]
"""Pictures (3, H, W) under their labels, and a piece of HTML beside them."""
_NAMES = {"mu_x": "mean of x", "sigma_x": "deviation of x", "mu_u": "mean of u", "sigma_u": "deviation of u"}


class Explorer(ipywidgets.VBox):
    """Controls above what they change.

    Beside its view a displayed explorer gives a still of the state it is in, as ``still`` does: a MIME type and a
    file's content. A kernel, or a page with the widgets' script, shows the view; every other reader shows the still.
    """

    def __init__(self, children: Sequence[ipywidgets.Widget], still: Callable[[], tuple[str, bytes]]):
        super().__init__(children)
        self._still = still

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        kind, content = self._still()
        return {kind: base64.b64encode(content).decode(), **super()._repr_mimebundle_(**options)}


def _values(controls: Mapping[str, ipywidgets.ValueWidget]) -> dict[str, Any]:
    return {name: control.value for name, control in controls.items()}


def answering(
    controls: Mapping[str, ipywidgets.ValueWidget], draw: Callable[..., Figure], *, kind: Literal["png", "jpeg"] = "png"
) -> Explorer:
    """Controls above the picture that ``draw`` makes of their values, passed by name; drawn anew at each change.

    Of photographs, ``kind`` "jpeg" keeps saved notebooks light.
    """
    picture = ipywidgets.Image(format=kind, layout=ipywidgets.Layout(max_width="100%"))

    def redraw(change: object = None) -> None:
        picture.value = picture_bytes(draw(**_values(controls)), kind)

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    rows = ipywidgets.Box(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    return Explorer([rows, picture], lambda: (f"image/{kind}", picture.value))


def flow_theory_widget(*, seed: int = 0) -> Explorer:
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


def burst_widget(scene: Tensor, *, seed: int = 0) -> Explorer:
    """A burst of a scene (3, H, W): number of frames, error of the shifts and noise; one frame against all of them."""
    style = {"description_width": "110px"}
    controls: dict[str, ipywidgets.ValueWidget] = {
        "frames": ipywidgets.IntSlider(value=4, min=1, max=12, description="frames", style=style),
        "shift_error": ipywidgets.FloatSlider(
            value=0.0, min=0.0, max=0.5, step=0.02, description="shift error", style=style
        ),
        "noise": ipywidgets.FloatSlider(value=0.0, min=0.0, max=0.1, step=0.005, description="noise", style=style),
    }
    return answering(controls, lambda **chosen: burst_explorer(scene, seed=seed, **chosen), kind="jpeg")


def photograph_bytes(image: Tensor) -> bytes:
    """An image (3, H, W) in [0, 1] as JPEG, for an `ipywidgets.Image`; as PNG, noise makes saved notebooks heavy."""
    array = to_bytes(image).permute(1, 2, 0).numpy()[..., ::-1]
    return cv2.imencode(".jpg", np.ascontiguousarray(array), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def several_answering(
    draw: Callable[..., Shown],
    still: Callable[..., Figure],
    controls: Mapping[str, ipywidgets.ValueWidget],
    *,
    side: str = "256px",
) -> Explorer:
    """Controls above pictures that are drawn again, as ``draw(**values)``, whenever one of them changes.

    ``still(**values)`` is one figure of the same.
    """
    pictures: dict[str, ipywidgets.Image] = {}
    beside = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        images, text = draw(**_values(controls))
        for label, image in images.items():
            picture = pictures.setdefault(label, ipywidgets.Image(format="jpeg", layout=ipywidgets.Layout(width=side)))
            picture.value = photograph_bytes(image)
        beside.value = text

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    cards = [ipywidgets.VBox([ipywidgets.Label(label), picture]) for label, picture in pictures.items()]
    wrapped = ipywidgets.Layout(flex_flow="row wrap")
    rows = (list(controls.values()), [*cards, beside])
    return Explorer(
        [ipywidgets.HBox(row, layout=wrapped) for row in rows],
        lambda: ("image/jpeg", picture_bytes(still(**_values(controls)), "jpeg")),
    )


def map_explorer(
    scenes: Mapping[str, tuple[Tensor, Tensor]],
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    domain_map: str = "bicubic_noise",
    size: int = 256,
) -> Explorer:
    """Choose h, its strength, an image and a crop; see what `ablations.view_map` sees.

    ``scenes`` are pairs of a clean and a degraded image (3, H, W) of one place; ``rows`` those of h_design.json.
    """
    reach = max(max(clean.shape[1:]) for clean, _ in scenes.values())
    start = min(size, reach)
    controls = {
        "scene": ipywidgets.Dropdown(options=list(scenes), description="image", style=_NARROW),
        "name": ipywidgets.Dropdown(options=list(DOMAIN_MAPS), value=domain_map, description="map h", style=_NARROW),
        "strength": ipywidgets.FloatSlider(1.0, min=0.0, max=3.0, step=0.25, description="strength", style=_NARROW),
        "side": ipywidgets.IntSlider(start, min=min(64, start), max=start, step=16, description="side", style=_NARROW),
        "top": ipywidgets.IntSlider(0, min=0, max=reach, step=8, description="crop, top", style=_NARROW),
        "left": ipywidgets.IntSlider(0, min=0, max=reach, step=8, description="crop, left", style=_NARROW),
    }

    points = {row["method"]: (row["leakage_auc"], row["content_psnr"]) for row in rows}

    def view_of(scene: str, name: str, side: int, **options: Any) -> MapView:
        return view_map(*scenes[scene], name, size=side, **options)

    def draw(name: str, **options: Any) -> Shown:
        view = view_of(name=name, **options)
        text = f"<p>This h {view.effect()}.</p>"
        text += stairs_svg(view.histograms(), title="share of values")
        if name in points:
            text += "<br>" + plane_svg(points, marked=name, title="content over leakage", xlabel="leakage")
        return view.pictures(), text

    return several_answering(draw, lambda **values: map_view(view_of(**values), rows), controls)


def walk_pictures(walk: LatentWalk, **options: Any) -> dict[str, Tensor]:
    """Clean image, where the walk stands, and what was added, amplified four times."""
    clean, there = walk.image[0], walk.step(**options)
    added = (0.5 + 4 * (there - clean)).clamp(0, 1)
    return {"x, clean": clean, "degraded, on the way": there, "4 times what was added": added}


def sampling_explorer(model: DeFlow, scenes: Mapping[str, Tensor]) -> Explorer:
    """Draw the degradation again, make it warmer or colder, and walk from the clean latents to the degraded ones.

    ``scenes`` are clean images (3, H, W); their sides are cut to what the flow needs.
    """
    multiple = model.config.side_multiple
    walks: dict[str, LatentWalk] = {}
    controls = {
        "scene": ipywidgets.Dropdown(options=list(scenes), description="image", style=_NARROW),
        "seed": ipywidgets.BoundedIntText(0, min=0, max=9999, description="draw", style=_NARROW),
        "temperature": ipywidgets.FloatSlider(1.0, max=2.0, step=0.1, description="temperature", style=_NARROW),
        "share": ipywidgets.FloatSlider(1.0, min=0.0, max=1.0, step=0.05, description="way gone", style=_NARROW),
        "levels": ipywidgets.Dropdown(options=LEVELS, description="latents", style=_NARROW),
    }

    def pictures_of(scene: str, **options: Any) -> dict[str, Tensor]:
        if scene not in walks:
            walks[scene] = LatentWalk(model, crop_to_multiple(scenes[scene], multiple))
        return walk_pictures(walks[scene], **options)

    def draw(**values: Any) -> Shown:
        pictures = pictures_of(**values)
        clean, there, _ = pictures.values()
        return pictures, f"<p>Deviation of what was added: {255 * (there - clean).std().item():.1f} grey levels.</p>"

    again = ipywidgets.Button(description="draw again", tooltip="Another draw of what chance decides")
    again.on_click(lambda _button: setattr(controls["seed"], "value", (controls["seed"].value + 1) % 10_000))
    page = several_answering(draw, lambda **values: walk_view(pictures_of(**values)), controls)
    page.children = (ipywidgets.HBox([again]), *page.children)
    return page


def mixture_widget(
    first: RRDBNet,
    second: RRDBNet,
    low_resolution: Tensor,
    truth: Tensor,
    *,
    names: tuple[str, str] = ("pixel loss only", "all losses"),
    size: int = 96,
) -> Explorer:
    """Every mixture of two networks of one shape (ESRGAN, section 3.4), on the liveliest crop of an image.

    Parameters
    ----------
    first, second: the networks at 0 and at 1.
    low_resolution, truth: an image (3, H, W) in [0, 1] and its ground truth, ``scale`` times larger.
    names: what the two networks were trained with.
    size: side of the crop in pixels of ``low_resolution``.
    """
    size, scale = min(size, *low_resolution.shape[1:]), first.config.scale
    top, left = busiest_window(low_resolution, size)
    low = low_resolution[:, top : top + size, left : left + size]
    high = truth[:, scale * top : scale * (top + size), scale * left : scale * (left + size)]
    share = ipywidgets.FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, description=f"share of {names[1]}")

    def draw(share: float) -> Figure:
        restored = restore_image(interpolated(first, second, share), low)
        scene = {"input": low, f"{share:.2f} {names[1]}": restored, "ground truth": high}
        return comparison_strip([scene], title=f"Between {names[0]} (0) and {names[1]} (1)")

    share.style.description_width = "initial"
    return answering({"share": share}, draw, kind="jpeg")
