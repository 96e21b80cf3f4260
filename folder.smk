# A large folder through one model, in shards of images: on a cluster,
#
#   snakemake --snakefile folder.smk --profile cluster/slurm --config task=translate weights=WEIGHTS images=FOLDER output=FOLDER
#
# or here, with `--cores 2` in place of `--profile cluster/slurm`. Tasks are translate, restore, and score with
# truths= in place of weights=. What the commands of these names offer, seed, temperature, like, sensor=True,
# consistency, tile and device, can be added; of several devices, device=cuda:0,cuda:1, shards take one each in turn.
# The same line goes on where an earlier one was interrupted, and redoes what has changed or is missing. Another
# executor (Kubernetes, say) is one flag: install its plugin and name it with --executor.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sr_utils.dependencies import stamp_of
from sr_utils.errors import UserError
from sr_utils.shards import gather_scores, read_job

try:
    job = read_job(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

PYTHON = sys.executable
PARTS = f"{job.output}/.parts"
FIRSTS = job.firsts()
# Not within a part's own process: its machine may not see yet what another has written.
if workflow.is_main_process:
    job.forget_incomplete()


localrules:
    whole,
    table,


rule whole:
    input:
        f"{job.output}/scores.json" if job.task == "score" else expand(f"{PARTS}/{{first}}.done", first=FIRSTS),


# Images are written whole or not at all; a shard counts once its last image is written.
rule part:
    input:
        images=lambda wildcards: job.part(int(wildcards.first)),
        weights=job.weights or [],
        like=job.likes(),
    output:
        touch(f"{PARTS}/{{first}}.done"),
    params:
        options=lambda wildcards: job.options(int(wildcards.first)),
        files=lambda wildcards, input: stamp_of(input),
    threads: 1
    shell:
        "{PYTHON:q} -m sr_utils.cli {job.task} {job.weights:q} {job.images:q} {job.output:q} "
        "--first {wildcards.first} --count {job.shard} {params.options:q}"


rule scores:
    input:
        images=lambda wildcards: job.part(int(wildcards.first)),
        truths=lambda wildcards: job.truths_of(int(wildcards.first)),
    output:
        f"{PARTS}/{{first}}.json",
    params:
        files=lambda wildcards, input: stamp_of(input),
    threads: 1
    shell:
        "{PYTHON:q} -m sr_utils.cli score {job.images:q} {job.truths:q} {output:q} "
        "--first {wildcards.first} --count {job.shard}"


rule table:
    input:
        expand(f"{PARTS}/{{first}}.json", first=FIRSTS),
    output:
        f"{job.output}/scores.json",
    run:
        gather_scores([Path(part) for part in input], Path(output[0]), method=Path(job.images).name)
