"""Pictures beside the tables of notebook 6, from what the benchmarks left behind.

`python -m benchmarks.strips` draws figures/ladder_strip.png: crops of task 1, restored by the networks of
`benchmarks.ladder`; figures/peers_strip.png: the pictures of `benchmarks.peers` beside those of a run; and
figures/readme_strip.png: one image of both. A strip whose pictures are not there yet is left out, and said to be.
The images of the first two are spread over the set and not picked for their looks; each crop is the truth's
liveliest place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.ladder import Ladder, network_path
from sr_utils import report
from sr_utils.checkpoints import load_model
from sr_utils.datasets import DataRoot, open_data_root
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet
from sr_utils.evaluate import bicubic
from sr_utils.figure_style import picture_bytes
from sr_utils.files import atomic_path
from sr_utils.images import load_image
from sr_utils.parameters import refuse_unknown
from sr_utils.repository import resolve
from sr_utils.sampling import restore_image

CROP = 112


@dataclass(frozen=True)
class Strips:
    """Where pictures come from and go."""

    run_root: Path = Path("runs/full")
    """Whose restored images stand for ours beside the peers."""
    peers: Path = Path("runs/peers")
    student: Path = Path("checkpoints/distilled_fine_esrgan_x2.safetensors")
    """Weights of `benchmarks.distillation`."""
    ladder: Path = Path("runs/ladder")
    profile: str = "quick"
    """The ladder's."""
    data_root: Path = Path("data")
    figures: Path = Path("figures")
    scenes: int = 3
    example: str = "085"
    """Name of the pair that README shows; nothing has learned from it."""


def _crop(image: Tensor, top: int, left: int) -> Tensor:
    return image[:, top : top + CROP, left : left + CROP]


def _spread(data: DataRoot, count: int) -> list[tuple[Path, Path]]:
    pairs = data.pairs
    return [pairs[(2 * place + 1) * len(pairs) // (2 * count)] for place in range(count)]


def ladder_scenes(options: Strips, data: DataRoot) -> list[dict[str, Tensor]]:
    """One dictionary a scene: the input enlarged, each rung's restoration, the truth; all cropped alike."""
    ladder = Ladder(states=options.ladder, profile=options.profile)
    networks = {
        source.removeprefix("esrgan_").removeprefix("deflow_").replace("_", " "): load_model(
            network_path(ladder, source, 0), RRDBNet
        )
        for source in ladder.sources
        if source not in ("esrgan_bicubic", "esrgan_white_noise_by_image", "esrgan_noise_model")
    }
    scenes = []
    for input_path, truth_path in _spread(data, options.scenes):
        low, truth = load_image(input_path), load_image(truth_path)
        corner = report.busiest_window(truth, CROP)
        whole = {"input": bicubic(low, data.scale)}
        whole |= {name: restore_image(network, low) for name, network in networks.items()}
        scenes.append({name: _crop(image, *corner) for name, image in (whole | {"truth": truth}).items()})
    return scenes


def peer_scenes(options: Strips, data: DataRoot) -> list[dict[str, Tensor]]:
    """One dictionary a scene: the input enlarged, the restorations of peers, ours, their student, the truth."""
    student = load_model(resolve(options.student), RRDBNet)
    folders = {
        "RealSR": resolve(options.peers) / "realsr_df2k",
        "Real-ESRGAN": resolve(options.peers) / "real_esrgan_x4plus",
        "ours": resolve(options.run_root) / "restored",
    }
    scenes = []
    for input_path, truth_path in _spread(data, options.scenes):
        low, truth = load_image(input_path), load_image(truth_path)
        corner = report.busiest_window(truth, CROP)
        whole = {"bicubic": bicubic(low, data.scale)}
        whole |= {name: load_image(folder / f"{input_path.stem}.png") for name, folder in folders.items()}
        whole["student"] = restore_image(student, low)
        scenes.append({name: _crop(image, *corner) for name, image in (whole | {"truth": truth}).items()})
    return scenes


def readme_scenes(options: Strips, data: DataRoot) -> list[dict[str, Tensor]]:
    """One scene: the input as it is, bicubic, a released network, its student, ours, the truth; all cropped alike."""
    named = {pair[0].stem: pair for pair in data.pairs}
    refuse_unknown(options.example, named, what="name of an input")
    input_path, truth_path = named[options.example]
    low, truth, scale = load_image(input_path), load_image(truth_path), data.scale
    top, left = (scale * (place // scale) for place in report.busiest_window(truth, CROP))
    whole = {
        "bicubic": bicubic(low, scale),
        "Real-ESRGAN": load_image(resolve(options.peers) / "real_esrgan_x4plus" / f"{input_path.stem}.png"),
        "its student": restore_image(load_model(resolve(options.student), RRDBNet), low),
        "DeFlow's": load_image(resolve(options.run_root) / "restored" / f"{input_path.stem}.png"),
        "truth": truth,
    }
    seen = low[:, top // scale : (top + CROP) // scale, left // scale : (left + CROP) // scale]
    return [{"input": seen} | {name: _crop(image, top, left) for name, image in whole.items()}]


def main(options: Strips) -> None:
    """Draw all three."""
    data = open_data_root(resolve(options.data_root))
    for name, title, scenes in (
        ("ladder_strip", "The same network, taught by pairs from different sources", ladder_scenes),
        ("peers_strip", "Ready-made networks and ours", peer_scenes),
        ("readme_strip", "Task 1: one input, with the PSNR of what is shown", readme_scenes),
    ):
        try:
            figure = report.comparison_strip(scenes(options, data), title=title)
        except UserError as error:
            print(f"No {name}: {error}")
            continue
        with atomic_path(resolve(options.figures) / f"{name}.png") as temporary:
            temporary.write_bytes(picture_bytes(figure, "png", trimmed=True))


if __name__ == "__main__":
    run_benchmark(main, Strips, __doc__)
