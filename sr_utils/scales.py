"""The scales step of the published pipeline: both domains at the sizes that DeFlow learns from."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from sr_utils.datasets import DataRoot
from sr_utils.files import read_json, write_json
from sr_utils.images import crop_to_multiple, imresize, load_image, save_image
from sr_utils.progress import progress

# The domain-invariant map h(x) of the published DeFlow is x at an eighth of its size.
CONDITION_FACTOR = 8


@dataclasses.dataclass(frozen=True)
class ScalesReport:
    """What `prepare_scales` did: images written, images left as they were, and the folders by name."""

    made: int
    skipped: int
    folders: dict[str, Path]


def prepare_scales(
    data: DataRoot, run_root: str | os.PathLike, *, workers: int | None = None, scale: int | None = None
) -> ScalesReport:
    """Write the degraded and the clean images at the sizes that DeFlow learns from (the published step).

    Under `run_root/scales`, for super-resolution by s: `input_1x` and `input_8x` (the inputs and their h(x)),
    `clean_1x`, `clean_{s}x` and `clean_{8s}x` (the training photographs, the same at the inputs' scale, and
    their h(x)). Images are cropped to a multiple of the largest factor first, then resized from the original
    by `imresize`. An output has its source's time, and is kept as long as both agree; outputs of sources that are
    gone, or of another data root or scale, are removed.

    Args:
        workers: threads; as many as the processor has cores when None.
        scale: s; inferred from the pairs when None, so inputs without ground truths need it.

    Raises:
        UserError: a part of the data root is missing, an image is unreadable or too small, the disk is full.
    """
    scale = data.scale if scale is None else scale
    folder = Path(run_root) / "scales"
    domains = {
        "input": (data.inputs, (1, CONDITION_FACTOR)),
        "clean": (data.train, tuple(sorted({1, scale, CONDITION_FACTOR * scale}))),
    }
    folders = {
        f"{name}_{factor}x": folder / f"{name}_{factor}x"
        for name, (_, factors) in domains.items()
        for factor in factors
    }
    _forget_other_sources(folder, {"data_root": str(data.root.resolve()), "scale": scale})

    jobs = []
    skipped = 0
    for name, (sources, factors) in domains.items():
        for factor in factors:
            wanted = {folders[f"{name}_{factor}x"] / f"{source.stem}.png" for source in sources}
            for path in folders[f"{name}_{factor}x"].glob("*.png"):
                if path not in wanted:
                    path.unlink()
        for source in sources:
            outputs = {folders[f"{name}_{factor}x"] / f"{source.stem}.png": factor for factor in factors}
            stale = {path: factor for path, factor in outputs.items() if not _is_of(source, path)}
            skipped += len(outputs) - len(stale)
            if stale:
                jobs.append((source, stale, max(factors)))

    # Threads suffice: decoding, matrix products and encoding all release Python's lock.
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            futures = [pool.submit(_write_scales, *job) for job in jobs]
            try:
                for future in progress(futures, label="scales"):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return ScalesReport(sum(len(stale) for _, stale, _ in jobs), skipped, folders)


def _forget_other_sources(folder: Path, sources: dict) -> None:
    """Remove the outputs in `folder` unless they came from `sources`, and note `sources` beside them."""
    note = folder / "sources.json"
    if note.exists() and read_json(note) == sources:
        return
    for path in folder.glob("*_*x/*.png"):
        path.unlink()
    write_json(note, sources)


def _is_of(source: Path, output: Path) -> bool:
    # Some file systems keep every second second only. An older time is another file's, too.
    return output.exists() and abs(output.stat().st_mtime - source.stat().st_mtime) < 2


def _write_scales(source: Path, outputs: dict[Path, int], multiple: int) -> None:
    """Crop one image to a multiple and write it divided by each factor, with the image's time."""
    time = source.stat().st_mtime_ns
    image = crop_to_multiple(load_image(source), multiple, name=str(source))
    for path, factor in outputs.items():
        save_image(image if factor == 1 else imresize(image, 1 / factor), path)
        os.utime(path, ns=(time, time))
