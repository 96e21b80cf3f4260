"""The command line: `python -m sr_utils.cli <command> --help`.

Each command imports what it needs itself, so that one with nothing to do answers at once.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sr_utils.errors import UserError, told_in_one_sentence

Settings = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=VALUE")]

app = tyro.extras.SubcommandApp()


@app.command
def prepare() -> None:
    """Fetch what LPIPS, the perceptual loss and BRISQUE have learned from other people's data, once."""
    from sr_utils.brisque import regression
    from sr_utils.features import prepare_features

    prepare_features()
    regression()


@app.command
def report(settings: Settings = (), *, profile: str = "quick") -> None:
    """Run the course as far as it is out of date, then print the headline table.

    Parameters
    ----------
    settings
        seed=1, data_root=folder or run_root=folder.
    profile
        smoke, quick, full or gpu.
    """
    from sr_utils.graph import run_course
    from sr_utils.repository import resolve

    run_root, worked = run_course(profile, settings)
    if not worked:
        print(f"Nothing to do: {run_root} is up to date with the notebooks, the code and the data.")
    headline(resolve(run_root))


@app.command
def notebook(source: Annotated[Path, tyro.conf.Positional], settings: Settings = ()) -> None:
    """Run one notebook headlessly and write the executed copy to run_root/notebooks.

    Parameters
    ----------
    source
        the notebook.
    settings
        values for its parameters cell.
    """
    from sr_utils.runner import run_notebook

    run_notebook(source, settings)


@app.command
def headline(run_root: Path = Path("runs/quick")) -> None:
    """Print the headline table of a run and where its executed notebooks are.

    Parameters
    ----------
    run_root
        the run's folder.
    """
    from sr_utils.headline import headline_table
    from sr_utils.repository import resolve

    run_root = resolve(run_root)
    print(f"\n{headline_table(run_root)}\n\nExecuted notebooks: {run_root / 'notebooks'}")


@app.command
def base(
    model: Annotated[
        Literal["deflow", "esrgan", "refinement_bicubic", "refinement_best", "refinement_several"],
        tyro.conf.Positional,
    ],
    *,
    scale: Literal[1, 2, 4] = 2,
    data_root: Path = Path("data"),
    folder: Path = Path("checkpoints"),
    states: Path = Path("runs/base"),
) -> None:
    """Train a base checkpoint on clean photographs and generic degradations; hours, and it can be interrupted.

    Parameters
    ----------
    model
        deflow, esrgan (scale 2 before 1 and 4, which start from it), or a refinement network.
    scale
        of the ESRGAN; a refinement network has 2 only, and a DeFlow none.
    data_root
        folder in the assignment's tree; only clean/ and validation/ are read.
    folder
        where the weights and their provenance go.
    states
        where the resumable training states go.
    """
    from sr_utils.base import train_base_deflow, train_base_esrgan, train_base_refinement
    from sr_utils.course import describe_machine
    from sr_utils.datasets import open_data_root
    from sr_utils.hybrid import REFINEMENTS
    from sr_utils.repository import resolve

    data, about = open_data_root(resolve(data_root)), {"profile": "full", **describe_machine()}
    name = f"base_esrgan_x{scale}" if model == "esrgan" else f"base_{model}"
    options = {"state_path": resolve(states) / f"{name}.safetensors", "about": about}
    if model == "deflow":
        if scale != 2:
            raise UserError(f"scale={scale} of {name} must be left out: a DeFlow enlarges nothing.")
        path = train_base_deflow(data, resolve(folder), **options)
    elif model == "esrgan":
        path = train_base_esrgan(data, resolve(folder), scale=scale, **options)
    else:
        if scale != 2:
            raise UserError(f"scale={scale} of {name} must be 2, because its file would replace that of scale 2.")
        path = train_base_refinement(
            data, resolve(folder), name=model, config=REFINEMENTS[model], scale=scale, **options
        )
    print(f"Wrote {path}")


@app.command
def train_deflow(settings: Settings = ()) -> None:
    """Train the DeFlow of a run as notebook 3 does, under `accelerate launch` on many processes or machines.

    Parameters
    ----------
    settings
        profile=full, seed=0, data_root=folder, run_root=folder, domain_normalisation=true.
    """
    from sr_utils.fine_tuning import fine_tune_deflow

    _train("train_deflow", settings, fine_tune_deflow, "notebooks/03_deflow_training.ipynb")


@app.command
def train_esrgan(settings: Settings = ()) -> None:
    """Train the ESRGAN of a run as notebook 5 does, under `accelerate launch` on many processes or machines.

    Parameters
    ----------
    settings
        profile=full, seed=0, data_root=folder, run_root=folder.
    """
    from sr_utils.fine_tuning import fine_tune_esrgan

    _train("train_esrgan", settings, fine_tune_esrgan, "notebooks/05_esrgan_training.ipynb")


def _train(command: str, settings: tuple[str, ...], train: Callable[..., Path], notebook: str) -> None:
    """Check a training's settings, train, and say where it can be gone on with."""
    from sr_utils.course import begin
    from sr_utils.parameters import parse_values, read_parameters
    from sr_utils.processes import launched

    declared = "profile: str = 'quick'\nseed: int = 0\ndata_root: str = 'data'\nrun_root: str = ''"
    if command == "train_deflow":
        declared += "\ndomain_normalisation: bool = False"
    parameters = read_parameters(declared)
    values = {name: parameter.default for name, parameter in parameters.items()}
    values |= parse_values(settings, parameters, where=command)
    values["run_root"] = values["run_root"] or f"runs/{values['profile']}"
    core = {name: values.pop(name) for name in ("profile", "seed", "data_root", "run_root")}
    accelerator = launched()
    state = train(begin(command, **core), accelerator, **values)
    if accelerator.is_main_process:
        print(f"Trained on {accelerator.num_processes} processes: {state}.")
        print(f"Go on with {notebook} or make report, at the same settings.")


@app.command
def translate(
    weights: Annotated[Path, tyro.conf.Positional],
    images: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    *,
    like: Path | None = None,
    sensor: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    tile: int = 768,
    first: int = 0,
    count: int | None = None,
    device: str = "cpu",
) -> None:
    """Degrade every image of a folder as a DeFlow learned it.

    Parameters
    ----------
    weights
        of a DeFlow: a run's deflow.safetensors, or a released .pth.
    images
        folder of clean images, at the size of the degraded ones.
    output
        folder for the results, as 8-bit RGB PNG of the same names; transparency and further pages are dropped.
    like
        folder of real degraded images: the results are compressed as those show that they were.
    sensor
        draw the noise on the mosaic of the sensor that the images of like show, instead of the flow's own. They must
        be of one camera and never have been resized, nor turned but by a note in the file.
    temperature
        scales the noise that is drawn.
    seed
        of the noise; the first image is drawn with it, the next with seed + 1, and so on.
    tile
        side in pixels of what is degraded at once: less takes less memory.
    first
        number of the image to begin with, from 0, in the order of their names.
    count
        how many images to do; all of the rest unless given.
    device
        where to compute: cpu, cuda for a GPU, or cuda:1 for the second one.
    """
    from sr_utils.compression import estimate_qualities
    from sr_utils.images import list_images, load_image
    from sr_utils.sampling import translate_folder
    from sr_utils.sensor_calibration import sensor_of
    from sr_utils.shards import part_of
    from sr_utils.weights import load_deflow

    if sensor and like is None:
        raise UserError("--sensor reads a camera off real degraded images: give their folder with --like.")
    model, paths = load_deflow(weights, device=device), part_of(images, first, count)
    likes = list_images(like) if like else []
    # Mosaic and blocks lie as the sensor had them.
    real = (load_image(path, upright=False) for path in likes)
    options = {"temperature": temperature, "seed": seed + first, "tile": tile, "device": device, "kept": likes}
    if sensor:
        found = sensor_of(real, name=str(like))
        written = translate_folder(model, paths, output, sensor=found, **options)
        how = f"their first red pixel is in row {found.phase[0]}, column {found.phase[1]}"
        told = f"{len(found.log_strengths)} images of {like} show their sensor: {how}."
    else:
        qualities = estimate_qualities(real)
        written = translate_folder(model, paths, output, qualities=qualities, **options)
        what = "the results are compressed likewise" if qualities else "the results are not compressed"
        told = f"{len(qualities)} images of {like} show a JPEG quality: {what}."
    print(f"Wrote {len(written)} images to {output}")
    if like:
        print(told)


@app.command
def restore(
    weights: Annotated[Path, tyro.conf.Positional],
    images: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    *,
    consistency: float | None = None,
    tile: int = 256,
    first: int = 0,
    count: int | None = None,
    device: str = "cpu",
) -> None:
    """Restore and enlarge every image of a folder.

    Parameters
    ----------
    weights
        of an ESRGAN: a run's esrgan.safetensors, a base checkpoint, or a released .pth.
    images
        folder of degraded images.
    output
        folder for the results, as 8-bit RGB PNG of the same names; transparency and further pages are dropped.
    consistency
        how closely the result follows the input: the width in pixels over which the two agree. Unless given, the one
        of the weights, 6 as a rule, which keeps brightness and colour; 0.4 keeps all that an image with little noise
        shows.
    tile
        side in pixels of what is restored at once: less takes less memory.
    first
        number of the image to begin with, from 0, in the order of their names.
    count
        how many images to do; all of the rest unless given.
    device
        where to compute: cpu, cuda for a GPU, or cuda:1 for the second one.
    """
    from sr_utils.esrgan import with_consistency
    from sr_utils.sampling import restore_folder
    from sr_utils.shards import part_of
    from sr_utils.weights import load_esrgan

    network = load_esrgan(weights, device=device)
    if consistency is not None:
        network = with_consistency(network, consistency)
    written = restore_folder(network, part_of(images, first, count), output, device=device, tile=tile)
    print(f"Wrote {len(written)} images to {output}")


@app.command
def score(
    images: Annotated[Path, tyro.conf.Positional],
    truths: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    *,
    first: int = 0,
    count: int | None = None,
) -> None:
    """Score every image of a folder against the ground truth of the same name, into a JSON file.

    Parameters
    ----------
    images
        folder of restored images.
    truths
        folder of ground truths of the same names and sizes.
    output
        file for the scores.
    first
        number of the image to begin with, from 0, in the order of their names.
    count
        how many images to do; all of the rest unless given.
    """
    from sr_utils.shards import part_of, score_folder

    rows = score_folder(part_of(images, first, count), truths, output)
    print(f"Wrote the scores of {len(rows)} images to {output}")


@app.command
def publish(run_root: Path | None = None, *, profile: str = "full") -> None:
    """Put a finished run into notebooks/, figures/ and the table of README.md.

    Parameters
    ----------
    run_root
        the run's folder; runs/<profile> unless given.
    profile
        smoke, quick, full or gpu.
    """
    from sr_utils.publish import publish as publish_run
    from sr_utils.repository import repository_root, resolve

    written = publish_run(resolve(run_root or f"runs/{profile}"), repository_root())
    print(f"Published {len(written)} files.")


def main() -> None:
    """Run the command line; a mistake of the user's ends it with one sentence and status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without Unicode must not end in an error what has been done.
        sys.stdout.reconfigure(errors="backslashreplace")
    with told_in_one_sentence():
        # As an unset variable of a shell is; of a path it would mean the working folder.
        if "" in sys.argv[1:]:
            raise UserError("An argument is empty: give its value, or leave it out.")
        app.cli(description=__doc__, use_underscores=True)


if __name__ == "__main__":
    main()
