"""The command line: `python -m sr_utils.cli <command> --help`.

Each command imports what it needs itself, so that one with nothing to do answers at once.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sr_utils import folder_commands
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


for command in (folder_commands.translate, folder_commands.restore, folder_commands.score):
    app.command(command)


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
