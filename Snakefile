# The course as a graph: one rule a notebook. `make report` runs it; `snakemake --cores 1 --config profile=smoke`
# does too. A notebook is run again when its source, a module it imports, its data, a checkpoint it starts from,
# an earlier notebook's result or a benchmark's table that it shows has changed.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sr_utils.errors import UserError
from sr_utils.dependencies import code_checksum, files_below, modules_used, stamp_of
from sr_utils.graph import read_settings

try:
    settings = read_settings(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

PYTHON = sys.executable
RUN = settings.run_root
EXECUTED = f"{RUN}/notebooks"


def source(name, folder="notebooks"):
    # The file's own time and outputs do not count: opening a notebook, or publishing one, changes neither its
    # code nor its result. What counts is the parameter `code` of its rule.
    return ancient(f"{folder}/{name}.ipynb")


def code(name, folder="notebooks"):
    return code_checksum(Path(f"{folder}/{name}.ipynb"))


def modules(name, folder="notebooks"):
    return modules_used(Path(f"{folder}/{name}.ipynb"), Path("sr_utils"))


def data(*parts):
    return files_below(Path(settings.data_root).expanduser(), *parts)


def data_stamp(*parts):
    return stamp_of(data(*parts))


def checkpoints(pattern):
    return sorted(map(str, Path("checkpoints").glob(pattern)))


def measured(*names):
    # What benchmarks have written so far. Files of other names in the folder are results of a notebook, put there
    # by `publish`, which must not make the run that it publishes out of date. Notebooks 3 to 5 do not ask for the
    # tables that they only show: a training of hours should not be repeated for a number beside it.
    return [path for name in names if Path(path := f"figures/metrics/{name}.json").is_file()]


rule course:
    input:
        f"{EXECUTED}/00_overview.ipynb",
        f"{EXECUTED}/01_flow_theory.ipynb",
        f"{EXECUTED}/02_dataset_creation.ipynb",
        f"{EXECUTED}/06_task1_results.ipynb",
        f"{EXECUTED}/08_classical_baselines.ipynb",
        f"{EXECUTED}/07_task2_h_design.ipynb",
        f"{EXECUTED}/09_hybrid_methods.ipynb",
        f"{EXECUTED}/10_solutions.ipynb",
        f"{EXECUTED}/widgets.ipynb",
        f"{RUN}/metrics/task1.json",


# What the rules below share. It has no output, so it never runs itself.
rule notebook:
    # All of them: Snakemake sets OMP_NUM_THREADS to this, and one thread makes training twice as slow.
    threads: workflow.cores
    params:
        profile=settings.profile,
        seed=settings.seed,
        data_root=settings.data_root,
    shell:
        "{PYTHON:q} -m sr_utils.cli notebook {input.source:q} profile={params.profile:q} seed={params.seed:q} "
        "data_root={params.data_root:q} run_root={RUN:q}"


# First to be read, last to be run: it shows what the others measured.
use rule notebook as overview with:
    input:
        source=source("00_overview"),
        modules=modules("00_overview"),
        measured=measured(
            *("ladder", "peers", "h_design", "classical", "hybrid", "speed", "reproduced", "quick")
        ),
        metrics=[f"{RUN}/metrics/{name}.json" for name in ("task1", "task2", "flow_theory")],
    output:
        executed=f"{EXECUTED}/00_overview.ipynb",
    params:
        code=code("00_overview"),


use rule notebook as flow_theory with:
    input:
        source=source("01_flow_theory"),
        modules=modules("01_flow_theory"),
    output:
        executed=f"{EXECUTED}/01_flow_theory.ipynb",
        metrics=update(f"{RUN}/metrics/flow_theory.json"),
    params:
        code=code("01_flow_theory"),


use rule notebook as dataset_creation with:
    input:
        source=source("02_dataset_creation"),
        modules=modules("02_dataset_creation"),
        data=data("clean", "validation", "task1", "task2"),
    output:
        executed=f"{EXECUTED}/02_dataset_creation.ipynb",
        scales=directory(f"{RUN}/scales"),
    params:
        code=code("02_dataset_creation"),
        data=data_stamp("clean", "validation", "task1", "task2"),


use rule notebook as deflow_training with:
    input:
        source=source("03_deflow_training"),
        modules=modules("03_deflow_training"),
        data=data("clean", "validation", "task1/Input"),
        base=checkpoints("base_deflow.*"),
    output:
        executed=f"{EXECUTED}/03_deflow_training.ipynb",
        weights=update(f"{RUN}/deflow.safetensors"),
        provenance=update(f"{RUN}/deflow.json"),
    params:
        code=code("03_deflow_training"),
        data=data_stamp("clean", "validation", "task1/Input"),


use rule notebook as degradation_sampling with:
    input:
        source=source("04_degradation_sampling"),
        modules=modules("04_degradation_sampling"),
        data=data("clean", "validation", "task1", "task2"),
        weights=f"{RUN}/deflow.safetensors",
    output:
        executed=f"{EXECUTED}/04_degradation_sampling.ipynb",
        pairs=directory(f"{RUN}/pairs"),
    params:
        code=code("04_degradation_sampling"),
        data=data_stamp("clean", "validation", "task1", "task2"),


use rule notebook as esrgan_training with:
    input:
        source=source("05_esrgan_training"),
        modules=modules("05_esrgan_training"),
        deflow=f"{RUN}/deflow.safetensors",
        pairs=f"{RUN}/pairs",
        base=checkpoints("base_esrgan_*") + checkpoints("base_discriminator*"),
    output:
        executed=f"{EXECUTED}/05_esrgan_training.ipynb",
        weights=update(f"{RUN}/esrgan.safetensors"),
        provenance=update(f"{RUN}/esrgan.json"),
    params:
        code=code("05_esrgan_training"),


use rule notebook as task1_results with:
    input:
        source=source("06_task1_results"),
        modules=modules("06_task1_results"),
        measured=measured("ladder", "blind", "peers", "distillation"),
        data=data("task1"),
        base=checkpoints("base_esrgan_*"),
        weights=f"{RUN}/esrgan.safetensors",
    output:
        executed=f"{EXECUTED}/06_task1_results.ipynb",
        metrics=update(f"{RUN}/metrics/task1.json"),
        restored=directory(f"{RUN}/restored"),
    params:
        code=code("06_task1_results"),
        data=data_stamp("task1"),


use rule notebook as task2_h_design with:
    input:
        source=source("07_task2_h_design"),
        modules=modules("07_task2_h_design"),
        measured=measured("h_design"),
        data=data("clean", "validation", "task1", "task2"),
        base=checkpoints("base_*") + checkpoints("map_*"),
    output:
        executed=f"{EXECUTED}/07_task2_h_design.ipynb",
        metrics=update(f"{RUN}/metrics/task2.json"),
        restored=directory(f"{RUN}/task2/restored"),
    params:
        code=code("07_task2_h_design"),
        data=data_stamp("clean", "validation", "task1", "task2"),


use rule notebook as classical_baselines with:
    input:
        source=source("08_classical_baselines"),
        modules=modules("08_classical_baselines"),
        measured=measured("classical"),
        data=data("task1"),
    output:
        executed=f"{EXECUTED}/08_classical_baselines.ipynb",
    params:
        code=code("08_classical_baselines"),
        data=data_stamp("task1"),


use rule notebook as solutions with:
    input:
        source=source("10_solutions"),
        modules=modules("10_solutions"),
        measured=measured("pair_generators"),
        data=data("clean", "validation", "task1", "task2"),
        base=checkpoints("base_esrgan_*") + checkpoints("base_discriminator*"),
        deflow=f"{RUN}/deflow.safetensors",
        weights=f"{RUN}/esrgan.safetensors",
        metrics=f"{RUN}/metrics/task1.json",
    output:
        executed=f"{EXECUTED}/10_solutions.ipynb",
    params:
        code=code("10_solutions"),
        data=data_stamp("clean", "validation", "task1", "task2"),


use rule notebook as hybrid_methods with:
    input:
        source=source("09_hybrid_methods"),
        modules=modules("09_hybrid_methods"),
        measured=measured("hybrid", "pair_generators", "fidelity_floor"),
        data=data("clean", "validation", "task1"),
        base=checkpoints("base_refinement_*") + checkpoints("base_esrgan_*"),
    output:
        executed=f"{EXECUTED}/09_hybrid_methods.ipynb",
    params:
        code=code("09_hybrid_methods"),
        data=data_stamp("clean", "validation", "task1"),


# Nothing is learned there: the widgets are shown with what the run has trained.
use rule notebook as widgets with:
    input:
        source=source("widgets", "app"),
        modules=modules("widgets", "app"),
        data=data("clean", "validation", "task1"),
        deflow=f"{RUN}/deflow.safetensors",
        weights=f"{RUN}/esrgan.safetensors",
    output:
        executed=f"{EXECUTED}/widgets.ipynb",
    params:
        code=code("widgets", "app"),
        data=data_stamp("clean", "validation", "task1"),
