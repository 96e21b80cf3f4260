"""A large folder of images in shards: what one job does, and the settings of all of them; the graph is folder.smk."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_utils.errors import UserError
from sr_utils.files import read_json, write_json
from sr_utils.images import images_by_stem, list_images
from sr_utils.parameters import check_range, check_types, read_parameters, refuse_unknown
from sr_utils.repository import expand_home

_OPTIONS = {
    "translate": ("seed", "temperature", "like", "sensor", "tile", "device"),
    "restore": ("consistency", "tile", "device"),
    "score": (),
}
"""The tasks, and the settings that each hands on to the command of its name."""
_DECLARED = read_parameters(
    "task: str\nimages: str\noutput: str\nweights: str = ''\ntruths: str = ''\n"
    "shard: int = 16\nseed: int = 0\ntemperature: float = 1.0\nlike: str = ''\nsensor: bool = False\n"
    "consistency: float | None = None\ntile: int | None = None\ndevice: str = ''"
)


def part_of(folder: Path, first: int, count: int | None) -> list[Path]:
    """The images of a folder from number ``first`` on, ``count`` of them or all that are left.

    Raises
    ------
    UserError: the folder has no such image, or two of one name.
    """
    paths = list(images_by_stem(folder).values())
    check_range(f"{folder}, which holds {len(paths)} images,", least=0, largest=len(paths) - 1, first=first)
    check_range("a part of a folder", least=1, count=len(paths) if count is None else count)
    return paths[first:] if count is None else paths[first : first + count]


def score_folder(images: Sequence[Path], truths: Path, output: Path) -> list[dict[str, Any]]:
    """Score images against the ground truths of the same names, and write ``{"images": rows}`` to ``output``.

    Raises
    ------
    UserError: a truth is missing, or an image cannot be compared with it; or ``output`` is one of the images.
    """
    from sr_utils.evaluate import score_named
    from sr_utils.images import load_image

    known, rows = images_by_stem(truths), []
    if os.path.realpath(output) in map(os.path.realpath, (*images, *known.values())):
        raise UserError(
            f"{output} is an image, and the scores would overwrite it: name another file, such as scores.json."
        )
    for path in images:
        if path.stem not in known:
            raise UserError(f"{path} has no ground truth called {path.stem}.* in {truths}: add it or remove the image.")
        names = {"name": str(path), "truth_name": str(known[path.stem])}
        rows.append({"name": path.stem, **score_named(load_image(path), load_image(known[path.stem]), **names)})
    write_json(output, {"images": rows})
    return rows


def gather_scores(parts: Sequence[Path], output: Path, *, method: str) -> None:
    """Put the files of `score_folder` together: every image's scores, and a row with their means."""
    from sr_utils.evaluate import summarise

    images = [row for part in parts for row in read_json(part)["images"]]
    write_json(output, {"rows": [{"method": method, **summarise(images)}], "images": images})


@dataclass(frozen=True)
class FolderJob:
    """The settings of folder.smk, checked."""

    task: str
    images: str
    output: str
    weights: str
    truths: str
    shard: int
    """Images of one job."""
    seed: int
    temperature: float
    like: str
    sensor: bool
    consistency: float | None
    tile: int | None
    device: str
    """Where to compute; of several, with commas between them, shards take one each in turn."""

    def names(self) -> list[str]:
        """The images, sorted by name."""
        return self._names

    @functools.cached_property
    def _names(self) -> list[str]:
        # Once: the graph asks for every shard, and a large folder takes seconds to list.
        return [str(path) for path in images_by_stem(self.images).values()]

    @functools.cached_property
    def _truths(self) -> dict[str, Path]:
        return images_by_stem(self.truths)

    def firsts(self) -> list[int]:
        """Number of the first image of every shard."""
        return list(range(0, len(self.names()), self.shard))

    def part(self, first: int) -> list[str]:
        """The images of one shard."""
        return self.names()[first : first + self.shard]

    def likes(self) -> list[str]:
        """The images that show the compression, and the sensor, that the results are to have; none unless asked for."""
        return [str(path) for path in list_images(self.like)] if self.like else []

    def options(self, first: int) -> list[str]:
        """The options of the task's command for the shard that begins with this image, as far as they have a value."""
        values = {name: getattr(self, name) for name in _OPTIONS[self.task]}
        if "device" in values:
            devices = self.device.split(",")
            values["device"] = devices[first // self.shard % len(devices)]
        # A number that is 0 is one all the same.
        given = {name: value for name, value in values.items() if value not in (None, "") and value is not False}
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]

    def forget_incomplete(self) -> None:
        """Remove the mark of every finished shard of which a result is missing, so that it is done again.

        Scores have no marks.
        """
        if self.task == "score" or not os.path.isdir(self.output):
            return
        names, present = self.names(), set(os.listdir(self.output))
        for first in range(0, len(names), self.shard):
            results = {f"{Path(name).stem}.png" for name in names[first : first + self.shard]}
            if not results <= present:
                (Path(self.output) / ".parts" / f"{first}.done").unlink(missing_ok=True)

    def truths_of(self, first: int) -> list[str]:
        """The ground truths of one shard, as far as they exist; `score_folder` says which do not."""
        known = self._truths
        return [str(known[stem]) for name in self.part(first) if (stem := Path(name).stem) in known]


def read_job(config: Mapping[str, Any]) -> FolderJob:
    """Check the settings of folder.smk.

    Raises
    ------
    UserError: a setting is unknown, missing, mistyped, out of range or not for this task; a folder has braces in
        its name.
    """
    for name in config:
        refuse_unknown(name, _DECLARED, what="setting of folder.smk")
    texts = {name for name, parameter in _DECLARED.items() if parameter.kinds == ("str",)}
    # What is empty reaches us as None, and of what looks like a number nobody knows how it was written.
    given = {name: "" if name in texts and value is None else value for name, value in config.items()}
    for name in texts:
        if isinstance(given.get(name), int | float) and not isinstance(given[name], bool):
            raise UserError(f"{name} of folder.smk looks like a number, {given[name]}: write it as ./{given[name]}.")
    check_types(given, _DECLARED, where="folder.smk")
    values = {name: parameter.default for name, parameter in _DECLARED.items()} | given
    for name in ("images", "output", "weights", "truths", "like"):
        # Neither a shell nor Snakemake would do it behind an equals sign.
        values[name] = str(expand_home(values[name], name=name)) if values[name].startswith("~") else values[name]
    needed = ("task", "images", "output", "truths" if values["task"] == "score" else "weights")
    for name in needed:
        if not values[name]:
            raise UserError(f"folder.smk needs {name}: add {name}=... behind --config.")
    refuse_unknown(values["task"], _OPTIONS, what="task")
    for name in given:
        takers = [task for task, options in _OPTIONS.items() if name in options]
        if takers and values["task"] not in takers:
            tasks = " and ".join(takers)
            raise UserError(f"{name} of folder.smk is for {tasks}, not for {values['task']}: leave it out.")
    if values["sensor"] and not values["like"]:
        raise UserError("sensor of folder.smk reads a camera off real degraded images: give their folder with like=...")
    if values["device"] and not all(values["device"].split(",")):
        raise UserError(f"device={values['device']} of folder.smk has a comma too many: write it as in cuda:0,cuda:1.")
    check_range("folder.smk", least=1, shard=values["shard"])
    job = FolderJob(**values)
    _refuse_braces([*(values[name] for name in needed), *job.names(), *job.likes()])
    return job


def _refuse_braces(names: Sequence[str]) -> None:
    for name in names:
        if set("{}") & set(name):
            raise UserError(f"{name} has braces in its name, which the graph cannot take: rename it.")
