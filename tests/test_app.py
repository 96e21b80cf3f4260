"""The widgets in a real browser: every control of every one is moved, and its picture must answer.

Voila shows all of them, JupyterLab one; both listen on the loopback interface only. Screenshots are kept in
build/screenshots.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from playwright.sync_api import Locator, Page

from sr_utils import widgets
from sr_utils.checkpoints import load_model, save_model
from sr_utils.esrgan import RRDBNet

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app" / "widgets.ipynb"
SHOTS = ROOT / "build" / "screenshots"
NAME = r"[a-z_]+_(?:widget|explorer)"
WIDGETS = [
    name for name, each in vars(widgets).items() if re.fullmatch(NAME, name) and each.__module__ == widgets.__name__
]
SHOWN = re.compile(rf"display\(widgets\.({NAME})\(")
STARTING, ANSWERING = 180, 60
"""Seconds that a server, or a picture, may take on a busy machine."""


def test_the_app_shows_every_widget():
    cells = nbformat.read(APP, as_version=4).cells
    assert all(cell.source.count("\n") < 30 for cell in cells)
    shown = [name for cell in cells for name in SHOWN.findall(cell.source)]
    assert sorted(shown) == sorted(WIDGETS), "app/widgets.ipynb must display each widget of sr_utils/widgets.py once"


def test_the_app_as_committed_has_a_still_of_every_widget():
    for cell in nbformat.read(APP, as_version=4).cells:
        if SHOWN.search(cell.source):
            kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
            assert kinds & {"image/png", "image/jpeg"}, f"no still yet, run and publish the course: {cell.source}"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The app, told to show a run in which two networks were trained."""
    run = tmp_path_factory.mktemp("a run")
    network = load_model(ROOT / "checkpoints" / "base_esrgan_x2.safetensors", RRDBNet)
    save_model(run / "esrgan_pixels.safetensors", network, {})
    with torch.no_grad():
        network.last.weight.mul_(0.8)
    save_model(run / "esrgan.safetensors", network, {})
    content = nbformat.read(APP, as_version=4)
    parameters = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\nrun_root = {str(run)!r}"
    return content


@pytest.fixture
def serve(tmp_path):
    """Starts a Jupyter server beside a notebook and gives its address; ends it afterwards."""
    running = []

    def start(module: str, content: nbformat.NotebookNode, *options: str) -> str:
        nbformat.write(content, tmp_path / "widgets.ipynb")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"http://127.0.0.1:{port}/"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(tmp_path / "settings")}
        command = [sys.executable, "-m", module, "--no-browser", f"--port={port}", *options]
        with (tmp_path / "log.txt").open("wb") as log:
            running.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
        for _ in range(2 * STARTING):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return address
            assert running[-1].poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.5)
        raise AssertionError((tmp_path / "log.txt").read_text())

    yield start
    for process in running:
        process.terminate()
        process.wait(30)


def open_page(chromium, address: str, path: str = "") -> Page:
    """A page of a server here, that may reach this server and nothing else."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(1000 * STARTING)
    page.route(lambda url: not url.startswith(address), lambda route: route.abort())
    page.goto(address + path)
    return page


PICTURES = """root => {
  const drawn = image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
  };
  const images = [...root.querySelectorAll("img")];
  if (!images.length || !images.every(image => image.complete && image.naturalWidth)) return "";
  return [...images.map(drawn), ...[...root.querySelectorAll("svg")].map(drawing => drawing.outerHTML)].join();
}"""
"""The pixels of a widget's pictures, as text; empty as long as one is not there."""


def picture(root: Locator, *, other_than: str = "") -> str:
    """The picture of a widget once it is there and not ``other_than``; that again when time is up."""
    for _ in range(5 * ANSWERING):
        found = root.evaluate(PICTURES)
        if found and found != other_than:
            return found
        time.sleep(0.2)
    return other_than


def move(control: Locator) -> None:
    """Set a control to another value, as a reader's hand or keyboard would."""
    kinds = control.get_attribute("class").split()
    if "widget-slider" in kinds:
        handle = control.locator(".noUi-handle").last
        handle.focus()
        highest = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.press("PageDown" if highest else "End")
    elif "widget-dropdown" in kinds:
        choice = control.locator("select")
        count = choice.locator("option").count()
        choice.select_option(index=(choice.evaluate("choice => choice.selectedIndex") + 1) % count)
    elif "widget-checkbox" in kinds:
        control.locator("input").click()
    elif "widget-toggle-buttons" in kinds:
        control.locator("button:not(.mod-active)").first.click()
    elif "widget-radio" in kinds:
        control.locator("input:not(:checked)").first.click()
    elif "widget-text" in kinds:
        field = control.locator("input[type=number]")
        field.fill(str(int(field.input_value()) + 1))
        field.press("Enter")
    elif "widget-button" in kinds or "widget-toggle-button" in kinds:
        control.click()
    else:
        raise AssertionError(f"How is a control of this kind moved? {kinds}")


def controls(root: Locator) -> Iterator[Locator]:
    """What can be moved in a widget."""
    passive = ("container", "image", "label", "html", "html-math", "output")
    found = root.locator(".jupyter-widgets" + "".join(f":not(.widget-{kind})" for kind in passive))
    for index in range(found.count()):
        yield found.nth(index)


def assert_it_answers(root: Locator, name: str) -> None:
    """Move every control of a widget, one after the other; each must change the picture."""
    before = picture(root)
    assert before, f"{name} shows no picture"
    moved = 0
    for control in controls(root):
        move(control)
        after = picture(root, other_than=before)
        assert after != before, f"{name} does not answer to {control.inner_text()!r}"
        before, moved = after, moved + 1
    assert moved, f"{name} has no control"


def test_every_control_of_every_widget_moves_its_picture_without_code(notebook, serve, chromium):
    page = open_page(chromium, serve("voila", notebook, "widgets.ipynb", "--Voila.ip=127.0.0.1"))
    names = [name for cell in notebook.cells for name in SHOWN.findall(cell.source)]
    roots = page.locator(".widget-container:not(.widget-container .widget-container)")
    roots.nth(len(names) - 1).wait_for()
    assert roots.count() == len(names)
    assert page.locator(".jp-CodeMirrorEditor, .jp-InputArea-editor, .highlight").count() == 0, "code is shown"
    SHOTS.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        assert_it_answers(roots.nth(index), name)
        roots.nth(index).screenshot(path=SHOTS / f"{name}.png")
    page.close()


def test_a_widget_answers_in_jupyterlab(notebook, serve, chromium):
    first = next(index for index, cell in enumerate(notebook.cells) if SHOWN.search(cell.source))
    short = nbformat.from_dict(notebook | {"cells": notebook.cells[: first + 1]})
    options = ("--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", "--allow-root")
    address = serve("jupyterlab", short, *options)
    page = open_page(chromium, address, "lab/tree/widgets.ipynb")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.get_by_text("| Idle").wait_for()  # the kernel is there, so cells are not run in vain
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells").first.click()
    root = page.locator(".jp-OutputArea-output .widget-container").first
    root.wait_for()
    name = SHOWN.search(short.cells[-1].source)[1]
    assert_it_answers(root, name)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "jupyterlab.png")
    page.close()
