"""What several test files share."""

import os
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from playwright.sync_api import sync_playwright

from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.images import save_image

# Beside other test processes, one thread each, in what they start too: more would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# A repeatable sample of the generated cases; `make soak` chooses the other profile.
settings.register_profile(
    "sample",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.register_profile("soak", settings.get_profile("sample"), max_examples=400, derandomize=False, print_blob=True)
settings.load_profile("sample")


def pytest_collection_modifyitems(items):
    """The file that takes longest begins first, so that the others run beside it."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


def write(path, width, height, seed=0):
    save_image(torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)), path)


@pytest.fixture
def noisy_camera():
    """Makes a gain shift of a configuration, with noise that differs from direction to direction and gains below 1."""

    def make(config):
        torch.manual_seed(0)
        model = DeFlow(config).eval()
        for shift in model.shifts:
            shift.log_noise.data = -6.5 + 0.5 * torch.randn_like(shift.log_noise)
            shift.log_gain.data -= 0.3
        return model

    return make


@pytest.fixture
def quiet_camera():
    """A small gain shift at its start, with little noise that is the same in every direction."""
    torch.manual_seed(0)
    model = DeFlow(DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1, levels=2, shift="gain")).eval()
    for shift in model.shifts:
        shift.log_noise.data.fill_(-6.0)
    return model


@pytest.fixture
def root(tmp_path):
    """Three pairs of scale 2, eleven clean images, two frames."""
    for index, (width, height) in enumerate(((24, 20), (17, 30), (16, 16))):
        write(tmp_path / "data/task1/Input" / f"{index:03}.png", width, height)
        write(tmp_path / "data/task1/GroundTruth" / f"{index:03}.png", 2 * width, 2 * height)
        write(tmp_path / "data/task2" / f"frame{index}.png", 16, 16)
    for index in range(11):
        write(tmp_path / "data/clean" / f"{index:02}.png", 40, 35, seed=index)
    return tmp_path / "data"


# For a module and not for the session: while Playwright runs, no other event loop may, and notebooks need theirs.
@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium without a window, driven by Playwright."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("NOTHING WAS TESTED IN A BROWSER: install Chromium (Debian: apt install chromium)")
    # Root, as in a container, may not use Chromium's sandbox.
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def flow():
    """A flow of the smallest size, with random weights."""
    torch.manual_seed(0)
    return DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)).eval()


@pytest.fixture
def picture():
    """8-bit RGB (20, 32, 3), smooth, a different colour in each corner."""
    rows, columns = np.mgrid[0:20, 0:32]
    return np.stack((rows * 12, columns * 8, 255 - rows * 6 - columns * 3), -1).astype(np.uint8)
