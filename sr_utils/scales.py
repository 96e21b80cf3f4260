"""The scales step of the published pipeline: both domains at the sizes that DeFlow learns from."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from sr_utils.datasets import DataRoot
from sr_utils.files import checksum, read_json, write_json
from sr_utils.images import crop_to_multiple, imresize, load_image, save_image
from sr_utils.parameters import check_range
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
    by `imresize`. An output is kept as long as its source holds what it was made of; outputs of sources that are
    gone, or of another data root or scale, are removed.

    Args:
        workers: threads; as many as the processor has cores when None.
        scale: s; inferred from the pairs when None, so inputs without ground truths need it.

    Raises:
        UserError: a part of the data root is missing, an image is unreadable or too small, the disk is full.
    """
    scale = data.scale if scale is None else scale
    check_range("prepare_scales", least=1, largest=64, scale=scale)
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
    _forget_other_sources(folder, {"data_root": str(data.root.resolve()), "scale": scale}, domains)

    jobs = []
    skipped = 0
    for name, (sources, factors) in domains.items():
        for source in sources:
            outputs = {folders[f"{name}_{factor}x"] / f"{source.stem}.png": factor for factor in factors}
            missing = {path: factor for path, factor in outputs.items() if not path.exists()}
            skipped += len(outputs) - len(missing)
            if missing:
                jobs.append((source, missing, max(factors)))

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
    return ScalesReport(sum(len(missing) for _, missing, _ in jobs), skipped, folders)


def _forget_other_sources(folder: Path, about: dict, domains: dict[str, tuple[list[Path], tuple[int, ...]]]) -> None:
    """Remove the outputs in `folder` that are not of these sources and `about`, and note both beside them."""
    note = folder / "sources.json"
    contents = {name: {path.stem: checksum([path]) for path in sources} for name, (sources, _) in domains.items()}
    known = read_json(note) if note.exists() else {}
    known = known if isinstance(known, dict) and isinstance(known.get("contents"), dict) else {}
    same = known.get("about") == about
    for path in folder.glob("*_*x/*.png"):
        domain = path.parent.name.partition("_")[0]
        before = known["contents"].get(domain, {}).get(path.stem) if same else None
        if before is None or before != contents.get(domain, {}).get(path.stem):
            path.unlink()
    # After the removal: an interrupted call must not leave old outputs beside a new note.
    write_json(note, {"about": about, "contents": contents})


def _write_scales(source: Path, outputs: dict[Path, int], multiple: int) -> None:
    """Crop one image to a multiple and write it divided by each factor."""
    image = crop_to_multiple(load_image(source), multiple, name=str(source))
    for path, factor in outputs.items():
        save_image(image if factor == 1 else imresize(image, 1 / factor), path)
