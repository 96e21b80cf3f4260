"""Training pairs on disk: clean photographs, and degraded versions of them that a DeFlow or a sensor has drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sr_utils.deflow import DeFlow
from sr_utils.files import checksum, read_json, write_json
from sr_utils.images import crop_to_multiple, imresize, load_image, quantize, save_image
from sr_utils.progress import progress
from sr_utils.sampling import beside_sensor, degrade_image
from sr_utils.sensor import Sensor


@dataclass(frozen=True)
class PairFolders:
    """Generated pairs on disk: a folder of truths and one of degraded images for every draw, same names."""

    truth: Path
    draws: list[Path]
    made: int
    """Degraded images written by this call; 0 when everything was there already."""

    def load(self) -> tuple[list[list[Tensor]], list[Tensor]]:
        """All draws of each image, and the truths, in the order of their names, as `PairSampler` wants them."""
        names = sorted(path.name for path in self.truth.glob("*.png"))
        truths = [load_image(self.truth / name) for name in names]
        return [[load_image(draw / name) for draw in self.draws] for name in names], truths


def make_pairs(
    model: DeFlow,
    paths: list[Path],
    run_root: str | Path,
    *,
    scale: int,
    temperatures: list[float],
    qualities: Sequence[int] = (),
    sensor: Sensor | None = None,
    seed: int = 0,
    model_path: Path | None = None,
) -> PairFolders:
    """Write training pairs: each clean photograph, and a degraded version of it at 1/scale for each temperature.

    Each is compressed at one of ``qualities``, or photographed by a ``sensor``, as in `degrade_image`. Images go to
    ``run_root/pairs/truth`` and ``run_root/pairs/draw_0``... as PNG. What an earlier call with the same model file,
    photographs and settings wrote is kept, so an interrupted call continues.
    """
    folder = Path(run_root) / "pairs"
    settings = {"scale": scale, "temperatures": list(temperatures), "qualities": list(qualities), "seed": seed}
    settings |= {"photographs": checksum(paths), "model": checksum([model_path]) if model_path else ""}
    settings |= {"sensor": sensor.numbers()} if sensor else {}
    stamp = folder / "settings.json"
    unchanged = bool(model_path) and stamp.is_file() and read_json(stamp) == settings
    if not unchanged:
        for stale in folder.glob("*/*.png"):
            stale.unlink()
        write_json(stamp, settings)
    result = PairFolders(folder / "truth", [folder / f"draw_{draw}" for draw in range(len(temperatures))], 0)
    made, model, digits = 0, beside_sensor(model, sensor), max(3, len(str(len(paths) - 1)))
    for index, path in enumerate(progress(paths, label="Pairs", total=len(paths))):
        # The number keeps photographs of the same name from different folders apart, and all in their order.
        name = f"{index:0{digits}d}_{path.stem}.png"
        targets = [*(draw / name for draw in result.draws), result.truth / name]
        if all(target.is_file() for target in targets):
            continue
        truth = quantize(crop_to_multiple(load_image(path), scale, name=str(path)))
        clean = quantize(imresize(truth, 1 / scale))
        for draw, target in enumerate(targets[:-1]):
            image_seed = seed + draw * len(paths) + index
            options = {"qualities": qualities, "temperature": temperatures[draw], "seed": image_seed}
            save_image(degrade_image(model, clean, sensor=sensor, **options), target)
            made += 1
        save_image(truth, targets[-1])
    return PairFolders(result.truth, result.draws, made)


def sensor_of_pairs(settings: Mapping[str, Any]) -> Sensor | None:
    """The sensor that photographed a folder of pairs, of what `make_pairs` wrote beside it; None if the flow did."""
    return Sensor.from_numbers(settings["sensor"]) if "sensor" in settings else None
