"""How much memory does a form of the published model take? A process of its own says so, because a peak is a process's.

`python -m benchmarks.peak_memory --form ours --work train_step` builds one form, does the work a few times (not all of
the memory that one run frees is of use to the next) and prints its peak of resident memory, and what was resident
before the model was built. Nothing but the forms is imported. Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from benchmarks.command import run_benchmark
from benchmarks.published_work import FORMS, WORK, PublishedSizes
from sr_utils.repository import repository_root


@dataclass(frozen=True)
class PeakMemory:
    """What is built and done."""

    form: Literal["plain", "ours"]
    work: Literal["train_step", "translate_512"]
    repeats: int = 3
    sizes: PublishedSizes = field(default_factory=PublishedSizes)


def peak_megabytes(options: PeakMemory) -> dict[str, float]:
    """Resident megabytes of a fresh process: its ``peak``, and those ``before`` the model was built."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", "--form", options.form, "--work", options.work]
    command += ["--repeats", str(options.repeats)]
    command += [word for name, value in asdict(options.sizes).items() for word in (f"--sizes.{name}", str(value))]
    done = subprocess.run(command, cwd=repository_root(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(options: PeakMemory) -> None:
    """Do the work and print both numbers."""
    before = resident_megabytes("VmRSS")
    torch.manual_seed(0)
    function = WORK[options.work](FORMS[options.form](options.sizes.config()).train(), options.sizes)
    for _ in range(options.repeats):
        function()
    print(json.dumps({"peak": resident_megabytes("VmHWM"), "before": before}))


def resident_megabytes(name: Literal["VmHWM", "VmRSS"]) -> float:
    """This process's peak or present resident memory. Not getrusage: what a process was forked from counts there."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    run_benchmark(main, PeakMemory, __doc__)
