"""A page for blind comparison: pairs of pictures in random places, a click for the better one, the tally at the end.

The page is one HTML file with its pictures inside. It needs no server and no network, and which method stands left is
decided while it is written and not shown before the last click.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sr_utils.files import atomic_path
from sr_utils.images import to_bytes

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>@TITLE@</title>
<style>
 body { font: 17px/1.5 system-ui, sans-serif; margin: 1.5em auto; max-width: 66em; padding: 0 1em;
        color-scheme: light dark; }
 .pair { display: flex; gap: 1em; }
 button.picture { flex: 1; padding: 0; border: 3px solid transparent; background: none; cursor: pointer; }
 button.picture:hover, button.picture:focus { border-color: #0072B2; }
 img { width: 100%; display: block; image-rendering: pixelated; }
 td, th { padding: .2em 1em; text-align: left; }
</style>
<h1>@TITLE@</h1>
<p id="task">Which of the two looks better? Click it, or press the left or right arrow key.
 <span id="count"></span></p>
<div class="pair" id="pair"></div>
<div id="result" hidden></div>
<script>
const pairs = @PAIRS@;
let at = 0;
const votes = {};
function show() {
  const box = document.getElementById("pair");
  box.replaceChildren();
  if (at === pairs.length) { return finish(); }
  document.getElementById("count").textContent = "Pair " + (at + 1) + " of " + pairs.length + ".";
  pairs[at].forEach((entry, side) => {
    const button = document.createElement("button"), picture = document.createElement("img");
    button.className = "picture";
    button.setAttribute("aria-label", side ? "right picture" : "left picture");
    picture.src = entry.picture; picture.alt = "";
    button.append(picture);
    button.onclick = () => vote(side);
    box.append(button);
  });
}
function vote(side) {
  const [first, second] = pairs[at].map(entry => entry.method);
  const key = [first, second].sort().join(" or ");
  votes[key] = votes[key] || {[first]: 0, [second]: 0};
  votes[key][pairs[at][side].method] += 1;
  at += 1;
  show();
}
function finish() {
  document.getElementById("task").textContent = "That was the last pair. Your votes:";
  const rows = Object.entries(votes).map(([key, found]) => "<tr><td>" + key + "</td><td>" +
    Object.entries(found).map(([name, count]) => name + ": " + count).join(", ") + "</td></tr>");
  const result = document.getElementById("result");
  result.innerHTML = "<table>" + rows.join("") + "</table>";
  result.hidden = false;
}
document.addEventListener("keydown", event => {
  const side = {ArrowLeft: 0, ArrowRight: 1}[event.key];
  if (side !== undefined && at < pairs.length) { vote(side); }
});
show();
</script></html>
"""


def write_ab_page(
    path: str | Path, pairs: Sequence[Mapping[str, Tensor]], *, title: str, seed: int = 0, quality: int = 92
) -> Path:
    """Write the page. Every pair maps two methods' names to pictures (3, H, W) in [0, 1] of the same place.

    ``seed`` decides the order of the pairs and which picture stands left.

    Raises
    ------
    ValueError: a pair has not exactly two pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    entries = []
    for index in torch.randperm(len(pairs), generator=generator).tolist():
        if len(pairs[index]) != 2:
            raise ValueError(f"Pair {index} has {len(pairs[index])} pictures, not two.")
        sides = [{"method": name, "picture": _data_url(image, quality)} for name, image in pairs[index].items()]
        entries.append(sides[:: 1 if torch.rand((), generator=generator) < 0.5 else -1])
    # A closing tag inside the texts would end the script.
    content = _PAGE.replace("@TITLE@", escape(title)).replace("@PAIRS@", json.dumps(entries).replace("</", "<\\/"))
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return path


def _data_url(image: Tensor, quality: int) -> str:
    array = to_bytes(image).permute(1, 2, 0).numpy()[..., ::-1]
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(array), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
