"""Tests of sr_utils.camera: the hidden camera of task 1."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_utils.camera import (
    CameraParameters,
    add_sensor_noise,
    bayer_mosaic,
    demosaic,
    inverse_tone_curve,
    linear_to_srgb,
    sample_parameters,
    simulate_camera,
    srgb_to_linear,
    tone_curve,
)
from sr_utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = CameraParameters(
    shot=0.005, read=1e-5, red_gain=1.8, blue_gain=1.6, contrast=0.3, blur=0.5, jpeg_quality=90
)
QUIET = replace(PARAMETERS, shot=0.0, read=0.0, jpeg_quality=100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(level: float, side: int = 128) -> torch.Tensor:
    return torch.full((3, side, side), level)


def residual(level: float, parameters: CameraParameters = PARAMETERS) -> np.ndarray:
    """Simulated minus clean on a flat patch, without the border, in double precision."""
    seen = simulate_camera(flat(level), parameters, seeded())
    return (seen - level).double().numpy()[:, 8:-8, 8:-8]


def test_same_seed_same_picture():
    image = torch.rand(3, 32, 48, generator=seeded(1))
    first = simulate_camera(image, PARAMETERS, seeded(7))
    assert torch.equal(first, simulate_camera(image, PARAMETERS, seeded(7)))
    assert not torch.equal(first, simulate_camera(image, PARAMETERS, seeded(8)))


def test_parameters_follow_the_generator_and_vary():
    draws = [sample_parameters(generator) for generator in [seeded(3)] for _ in range(50)]
    assert draws[0] == sample_parameters(seeded(3))
    assert len(set(draws)) == 50
    levels = [draw.shot for draw in draws]
    assert max(levels) > 3 * min(levels)
    assert all(70 <= draw.jpeg_quality <= 95 and 0.3 <= draw.blur <= 0.7 for draw in draws)


def test_output_is_an_8_bit_picture_in_range():
    image = torch.rand(3, 34, 66, generator=seeded(1))
    seen = simulate_camera(image, replace(PARAMETERS, shot=0.05), seeded())
    assert seen.shape == image.shape and seen.dtype == torch.float32
    assert seen.min() >= 0 and seen.max() <= 1
    assert torch.allclose(seen * 255, (seen * 255).round(), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 33, 32), (3, 8, 8), (1, 3, 32, 32)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(UserError, match="even sides"):
        simulate_camera(torch.zeros(shape), PARAMETERS, seeded())


def test_curves_are_inverse_pairs():
    x = np.linspace(0, 1, 1001)
    assert np.abs(srgb_to_linear(linear_to_srgb(x)) - x).max() < 1e-9
    assert np.abs(inverse_tone_curve(tone_curve(x, 0.5), 0.5) - x).max() < 1e-6


def test_mosaic_keeps_one_colour_a_pixel_and_demosaic_restores_a_flat_picture():
    colours = np.broadcast_to([0.2, 0.5, 0.7], (16, 16, 3))
    mosaic = bayer_mosaic(colours)
    assert mosaic[0, 0] == 0.2 and mosaic[0, 1] == mosaic[1, 0] == 0.5 and mosaic[1, 1] == 0.7
    assert np.abs(demosaic(mosaic) - colours).max() < 1e-4


def test_raw_variance_is_a_straight_line_in_the_signal():
    levels = np.array([0.0, 0.1, 0.3, 0.6, 0.9])
    raw = np.repeat(levels[:, None], 200_000, axis=1)
    noise = add_sensor_noise(raw, 0.01, 2e-4, seeded()) - raw
    assert np.allclose(noise.var(axis=1), 0.01 * levels + 2e-4, rtol=0.03)
    assert np.abs(noise.mean(axis=1)).max() < 1e-3


def test_without_noise_the_picture_comes_back():
    ramp = torch.linspace(0.1, 0.9, 64).expand(3, 64, 64)
    error = simulate_camera(ramp, QUIET, seeded()) - ramp
    # The mirror at the border bends the ramp there.
    assert error[:, :, 2:-2].abs().max() < 2 / 255


@pytest.mark.parametrize("level", [0.3, 0.5, 0.8])
def test_mean_of_every_channel_is_preserved(level):
    # The curvature of the display gamma leaves about one grey level (Jensen's inequality).
    assert np.abs(residual(level).mean(axis=(1, 2))).max() < 2 / 255


def test_noise_depends_on_the_signal():
    spread = [residual(level).std() for level in (0.05, 0.25, 0.5, 0.9)]
    # The display gamma turns the rising noise of the sensor into noise that falls towards white.
    assert spread[1] > 1.3 * spread[3] and min(spread) > 2 / 255


def test_noise_is_spatially_correlated_and_differs_between_channels():
    noise = residual(0.5)
    noise = noise - noise.mean(axis=(1, 2), keepdims=True)
    power = (noise**2).mean(axis=(1, 2))
    for shifted in (noise[:, :, 1:] * noise[:, :, :-1], noise[:, 1:] * noise[:, :-1]):
        # White noise would stay within 0.03 on a patch of this size.
        assert (shifted.mean(axis=(1, 2)) / power).min() > 0.2
    correlation = np.corrcoef(noise.reshape(3, -1))
    assert correlation[0, 2] < 0.95 and max(power) > 1.1 * min(power)


def imported_modules(source: str) -> set[str]:
    """Dotted names of all that a piece of Python source imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = "sr_utils" if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def notebook_source(path: Path) -> str:
    """The code cells of a notebook without their magics."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = "\n".join(code).splitlines()
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def test_import_walk_sees_every_spelling():
    for line in (
        "import sr_utils.camera",
        "from sr_utils import camera",
        "from sr_utils.camera import simulate_camera",
        "from .camera import simulate_camera",
        "from . import camera",
    ):
        assert "sr_utils.camera" in imported_modules(f"def late():\n    {line}")


def test_the_learner_never_sees_the_camera():
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "sr_utils").rglob("*.py")}
    sources |= {path: notebook_source(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
    guilty = [path.name for path, source in sources.items() if "sr_utils.camera" in imported_modules(source)]
    assert not guilty
