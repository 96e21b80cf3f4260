"""Sliders beside the course's pictures: one thin function a widget, each over pure functions of another module.

Every function returns an ipywidgets container, and every notebook also draws what the widget shows at first, so that a
page without a running kernel loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import ipywidgets as ipw
import numpy as np
from torch import Tensor

from sr_utils.ablations import LEVELS, LatentWalk, view_map
from sr_utils.deflow import DeFlow
from sr_utils.domain_maps import DOMAIN_MAPS
from sr_utils.images import crop_to_multiple, to_bytes
from sr_utils.small_plots import plane_svg, stairs_svg

_NARROW = {"description_width": "90px"}
Shown = tuple[Mapping[str, Tensor], str]
"""Pictures (3, H, W) under their labels, and a piece of HTML beside them."""


def picture_bytes(image: Tensor) -> bytes:
    """An image (3, H, W) in [0, 1] as JPEG, for an `ipywidgets.Image`; as PNG, noise makes saved notebooks heavy."""
    array = to_bytes(image).permute(1, 2, 0).numpy()[..., ::-1]
    return cv2.imencode(".jpg", np.ascontiguousarray(array), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def explorer(draw: Callable[..., Shown], controls: Mapping[str, ipw.Widget], *, side: str = "256px") -> ipw.VBox:
    """Controls above pictures that are drawn again, as ``draw(**values)``, whenever one of them changes."""
    pictures: dict[str, ipw.Image] = {}
    beside = ipw.HTML()

    def redraw(_change: object = None) -> None:
        images, text = draw(**{name: control.value for name, control in controls.items()})
        for label, image in images.items():
            picture = pictures.setdefault(label, ipw.Image(format="jpeg", layout=ipw.Layout(width=side)))
            picture.value = picture_bytes(image)
        beside.value = text

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    cards = [ipw.VBox([ipw.Label(label), picture]) for label, picture in pictures.items()]
    wrapped = ipw.Layout(flex_flow="row wrap")
    return ipw.VBox([ipw.HBox(list(controls.values()), layout=wrapped), ipw.HBox([*cards, beside], layout=wrapped)])


def map_explorer(
    scenes: Mapping[str, tuple[Tensor, Tensor]],
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    domain_map: str = "bicubic_noise",
    size: int = 256,
) -> ipw.VBox:
    """Choose h, its strength, an image and a crop; see what `ablations.view_map` sees.

    ``scenes`` are pairs of a clean and a degraded image (3, H, W) of one place; ``rows`` those of h_design.json.
    """
    reach = max(max(clean.shape[1:]) for clean, _ in scenes.values())
    start = min(size, reach)
    controls = {
        "scene": ipw.Dropdown(options=list(scenes), description="image", style=_NARROW),
        "name": ipw.Dropdown(options=list(DOMAIN_MAPS), value=domain_map, description="map h", style=_NARROW),
        "strength": ipw.FloatSlider(1.0, min=0.0, max=3.0, step=0.25, description="strength", style=_NARROW),
        "side": ipw.IntSlider(start, min=min(64, start), max=start, step=16, description="crop, side", style=_NARROW),
        "top": ipw.IntSlider(0, min=0, max=reach, step=8, description="crop, top", style=_NARROW),
        "left": ipw.IntSlider(0, min=0, max=reach, step=8, description="crop, left", style=_NARROW),
    }

    points = {row["method"]: (row["leakage_auc"], row["content_psnr"]) for row in rows}

    def draw(scene: str, name: str, strength: float, side: int, top: int, left: int) -> Shown:
        view = view_map(*scenes[scene], name, strength=strength, size=side, top=top, left=left)
        text = f"<p>This h hides {100 * view.hidden:.1f} % of the degradation.</p>"
        text += stairs_svg(view.histograms(), title="share of values")
        if name in points:
            text += "<br>" + plane_svg(points, marked=name, title="content over leakage", xlabel="leakage")
        return view.pictures(), text

    return explorer(draw, controls)


def walk_pictures(walk: LatentWalk, **options: Any) -> dict[str, Tensor]:
    """Clean image, where the walk stands, and what was added, four times enlarged."""
    clean, there = walk.image[0], walk.step(**options)
    return {"x, clean": clean, "on the walk": there, "4 times what was added": (0.5 + 4 * (there - clean)).clamp(0, 1)}


def sampling_explorer(model: DeFlow, scenes: Mapping[str, Tensor]) -> ipw.VBox:
    """Draw the degradation again, make it warmer or colder, and walk from the clean latents to the degraded ones.

    ``scenes`` are clean images (3, H, W); their sides are cut to what the flow needs.
    """
    multiple = model.config.side_multiple
    walks: dict[str, LatentWalk] = {}
    controls = {
        "scene": ipw.Dropdown(options=list(scenes), description="image", style=_NARROW),
        "seed": ipw.BoundedIntText(0, min=0, max=9999, description="draw", style=_NARROW),
        "temperature": ipw.FloatSlider(1.0, min=0.0, max=2.0, step=0.1, description="temperature", style=_NARROW),
        "share": ipw.FloatSlider(1.0, min=0.0, max=1.0, step=0.05, description="way gone", style=_NARROW),
        "levels": ipw.Dropdown(options=LEVELS, description="latents", style=_NARROW),
    }

    def draw(scene: str, **options: Any) -> Shown:
        if scene not in walks:
            walks[scene] = LatentWalk(model, crop_to_multiple(scenes[scene], multiple))
        pictures = walk_pictures(walks[scene], **options)
        clean, there, _ = pictures.values()
        return pictures, f"<p>Deviation of what was added: {255 * (there - clean).std().item():.1f} grey levels.</p>"

    again = ipw.Button(description="draw again", tooltip="Another draw of what chance decides")
    again.on_click(lambda _button: setattr(controls["seed"], "value", (controls["seed"].value + 1) % 10_000))
    page = explorer(draw, controls)
    page.children = (ipw.HBox([again]), *page.children)
    return page
