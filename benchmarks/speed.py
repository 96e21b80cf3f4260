"""How fast is the published form beside its plain twin, and how much less memory does it take?

`python -m benchmarks.speed` writes figures/metrics/speed.json: ratios of medians of one process, both forms by turns.
Nothing else should run on the machine meanwhile.

Reference: Wolf et al., "DeFlow", CVPR 2021; the sizes are those of the released AIM-RWSR model, batch 2.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_deflow import PlainDeFlow
from sr_utils.course import describe_machine
from sr_utils.deflow import DeFlow, DeFlowConfig, condition_of
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json
from sr_utils.repository import resolve

FORMS = {"plain": PlainDeFlow, "ours": DeFlow}


@dataclass(frozen=True)
class Speed:
    """Sizes of the comparison; the defaults are the published configuration."""

    steps: int = 16
    """Conditional flow steps of each of three levels (K)."""
    blocks: int = 23
    """RRDBs of the condition encoder."""
    patch: int = 160
    batch: int = 2
    side: int = 512
    """Of the image that is translated."""
    repeats: int = 5
    """Timed runs of each form; the median counts."""
    memory_repeats: int = 3
    """Runs whose peak of memory counts."""
    output: Path = Path("figures/metrics/speed.json")

    def config(self) -> DeFlowConfig:
        """The model: released sizes, its shift away from zero so that the covariance is at work."""
        stacked = tuple(block for block in (1, 8, 15, 22) if block < self.blocks)
        return DeFlowConfig.published(steps=self.steps, blocks=self.blocks, stacked_blocks=stacked, initial_shift=0.1)


def models(speed: Speed) -> dict[str, torch.nn.Module]:
    """Both forms with the same weights, their actnorms set by a first batch."""
    torch.manual_seed(0)
    ours = DeFlow(speed.config()).train()
    images, condition, domain = training_batch(speed)
    with torch.no_grad():
        ours(images, condition, domain)
    plain = PlainDeFlow(speed.config()).train()
    plain.load_state_dict(ours.state_dict())
    return {"plain": plain, "ours": ours}


def training_batch(speed: Speed) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth random images, their condition, and the domains, by turns."""
    images = smooth_images(speed.batch, speed.patch)
    return images, condition_of(images, 8), torch.arange(speed.batch) % 2


def smooth_images(count: int, side: int) -> Tensor:
    """Images (N, 3, side, side) in [0, 1] with something to see at every scale."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, side, side, generator=generator)
    for factor in (4, 16, 64):
        coarse = torch.rand(count, 3, side // factor + 1, side // factor + 1, generator=generator)
        image = image + factor * torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return image / image.amax()


def training_step(model: torch.nn.Module, speed: Speed) -> Callable[[], Any]:
    """One whole step: likelihood with its noise, gradients, and Adam as each form would use it."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5, fused=isinstance(model, DeFlow) or None)
    images, condition, domain = training_batch(speed)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        model(images, condition, domain).mean().backward()
        optimiser.step()

    return step


def translation(model: torch.nn.Module, speed: Speed) -> Callable[[], Any]:
    """Degrade one image of ``side`` x ``side`` pixels."""
    model.eval()
    image = smooth_images(1, speed.side)
    condition = condition_of(image, 8)
    return lambda: model.translate(image, condition, generator=torch.Generator().manual_seed(2))


WORK = {"train_step": training_step, "translate_512": translation}


def seconds_by_turns(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run of each piece of work, after one that is not counted; by turns, so drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in range(repeats + 1):
        for name, function in work.items():
            begun = time.perf_counter()
            function()
            if run:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def multiplications(function: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions and matrix products in one run; two operations each."""
    # Of itself the counter takes products that are added in place to be free.
    in_place = dict.fromkeys((torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), _operations_of_products)
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function()
    return counter.get_total_flops() // 2


def _operations_of_products(total: torch.Size, one: torch.Size, other: torch.Size, **unused: Any) -> int:
    """Operations of matrix products, from the shapes of what they are added to and of the factors."""
    return 2 * math.prod(one) * other[-1]


def peak_multiplications_per_second(*, side: int = 2048, repeats: int = 10) -> float:
    """The machine's measured peak: multiply-adds a second of the fastest product of two square matrices."""
    one, other = torch.rand(2, side, side)
    out = torch.empty(side, side)
    seconds = seconds_by_turns({"product": lambda: torch.mm(one, other, out=out)}, repeats)["product"]
    return side**3 / min(seconds)


def peak_megabytes(function: Callable[..., None], *arguments: Any) -> float:
    """Peak resident memory of a fresh process that does nothing but call ``function`` (Linux)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_this_process, (function, arguments))


def _peak_of_this_process(function: Callable[..., None], arguments: tuple) -> float:
    function(*arguments)
    # Not getrusage: what a process was forked from counts there.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def work_again_and_again(form: str, work: str, speed: Speed) -> None:
    """Build one form and do the work a few times: not all of the memory that one run frees is of use to the next."""
    torch.manual_seed(0)
    function = WORK[work](FORMS[form](speed.config()).train(), speed)
    for _ in range(speed.memory_repeats):
        function()


def compare(work: str, speed: Speed, peak: float) -> dict[str, Any]:
    """The row of one kind of work."""
    functions = {name: WORK[work](model, speed) for name, model in models(speed).items()}
    seconds = {name: statistics.median(runs) for name, runs in seconds_by_turns(functions, speed.repeats).items()}
    counts = {name: multiplications(function) for name, function in functions.items()}
    del functions
    memory = {form: peak_megabytes(work_again_and_again, form, work, speed) for form in FORMS}
    row = {"method": work, "speedup": seconds["plain"] / seconds["ours"]}
    row["peak_memory_ratio"] = memory["ours"] / memory["plain"]
    row["multiplications_ratio"] = counts["ours"] / counts["plain"]
    for form in FORMS:
        row[f"{form}_seconds"] = seconds[form]
        row[f"{form}_peak_megabytes"] = memory[form]
        row[f"{form}_share_of_peak"] = counts[form] / seconds[form] / peak
    return row


def main(speed: Speed) -> None:
    """Measure, print and write."""
    begun = time.monotonic()
    peak = peak_multiplications_per_second()
    rows = []
    for work in WORK:
        row = compare(work, speed, peak)
        rows.append(row)
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if name != "method")
        print(f"{row['method']}: {numbers}", flush=True)
    sizes = {"steps": speed.steps, "blocks": speed.blocks, "patch": speed.patch, "batch": speed.batch}
    provenance = {"profile": "bench", "seed": 0, **describe_machine(), "seconds": round(time.monotonic() - begun, 1)}
    path = resolve(speed.output)
    # `benchmarks.growth` and `benchmarks.stages` add rows of their own, which have a stamp of their own.
    others = [row for row in read_json(path)["rows"] if "measured" in row] if path.is_file() else []
    write_metrics(path, provenance | sizes | {"peak_multiplications_per_second": peak}, rows + others)


if __name__ == "__main__":
    main(tyro.cli(Speed, description=__doc__))
