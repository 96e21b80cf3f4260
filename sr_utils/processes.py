"""One training on several processes: each takes a share of every batch, and the result is that of one process.

Hugging Face Accelerate starts the processes and wraps the models, so that gradients are averaged over all of them.
Every process draws the same random numbers for the whole batch and then takes its own part, number ``rank`` of every
``count`` images. So the sequence of batches, and what is drawn for each image, does not depend on how many processes
there are, and a training may be continued with another number of them.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sr_utils.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


def launched() -> Accelerator:
    """The accelerator of this process: of one process, unless ``accelerate launch`` or ``torchrun`` started several."""
    _start_cpu_processes()
    # Here, not above: one process needs none of it, and to import it takes seconds.
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # All processes compute the same buffers, and a share of a batch may hold images of one domain only.
    options = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    # The models choose their precision themselves; Accelerate's would reach into log-determinants.
    return Accelerator(mixed_precision="no", kwargs_handlers=[options])


def _start_cpu_processes() -> None:
    """Start the processes that ``accelerate launch --cpu --num_processes N`` was asked for.

    Without mpirun it starts one process only, whatever N is. Where that happened, this process becomes ``torchrun``
    with N processes of the same command.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in os.environ
    if not asked or "WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ or "OMPI_COMM_WORLD_SIZE" in os.environ:
        return
    import psutil

    found = re.search(r"--num[_-]processes[= ](\d+)", " ".join(psutil.Process().parent().cmdline()))
    if found and int(found[1]) > 1:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", found[1]]
        os.execv(sys.executable, [sys.executable, *command, "-m", "sr_utils.cli", *sys.argv[1:]])


class Processes:
    """What a training loop needs to know of the processes beside it; None for the accelerator means there are none."""

    def __init__(self, accelerator: Accelerator | None):
        self.accelerator = accelerator if accelerator is not None and accelerator.num_processes > 1 else None
        self.count = self.accelerator.num_processes if self.accelerator else 1
        self.rank = self.accelerator.process_index if self.accelerator else 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Refuse a batch that cannot be shared out evenly.

        Raises
        ------
        UserError: ``batch`` is no multiple of the number of processes.
        """
        if batch % self.count:
            raise UserError(
                f"A batch of {batch} images cannot be shared by {self.count} processes: "
                "start as many processes as divide it, or change the batch."
            )

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of what all have drawn alike, along the first dimension."""
        return batch if self.accelerator is None else batch[self.rank :: self.count]

    def share_of_names(self, names: list[str]) -> list[str]:
        """The names that belong to `share`."""
        return names[self.rank :: self.count]

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over all processes; the model itself where there is one."""
        return model if self.accelerator is None else self.accelerator.prepare_model(model)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of ``value`` and over all processes, a scalar; gradients flow into every process's part."""
        if self.accelerator is None:
            return value.mean()
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(value.mean()) / self.count

    def agree(self, condition: bool, device: torch.device) -> bool:
        """Whether ``condition`` holds in every process, so that all of them stop together."""
        if self.accelerator is None:
            return condition
        flag = torch.tensor(float(condition), device=device)
        return bool(self.accelerator.reduce(flag, "sum") == self.count)

    def check_start(self, step: int, origin: int, device: torch.device) -> None:
        """Refuse to train where processes would not go on from one and the same state.

        Raises
        ------
        UserError: the processes found different states, or start from different images or weights.
        """
        if self.accelerator is None:
            return
        found = self.accelerator.gather(torch.tensor([[step, origin]], device=device)).tolist()
        if any(each != found[0] for each in found):
            raise UserError(
                f"The processes start at steps {[each[0] for each in found]}, or from other images: "
                "give all machines one data_root and one run_root, on a disk that they share."
            )

    def gathered(self, share: Tensor) -> Tensor:
        """The whole of which each process holds its `share`, in the order of one process."""
        if self.accelerator is None:
            return share
        parts = self.accelerator.gather(share.detach()).unflatten(0, (self.count, -1))
        return parts.transpose(0, 1).flatten(0, 1)

    def means(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means over all processes of scalars, as numbers."""
        return {name: self.mean(value).item() for name, value in values.items()}


ALONE = Processes(None)
"""One process."""
