"""Training pairs whose degraded side is drawn anew while training goes on.

A folder of pairs holds a few draws of the random degradation, and a network that sees them again and again learns them
by heart, noise and all. Here a photograph is degraded anew as soon as all of it has been seen once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sr_utils.deflow import DeFlow
from sr_utils.images import imresize, quantize
from sr_utils.patch_samplers import PairSampler
from sr_utils.sampling import beside_sensor, degrade_image
from sr_utils.training_pairs import sensor_of_pairs

Draw = Callable[[int, int], Tensor]
"""Degraded version of a photograph: its index, and the number of the draw, to an input (3, H, W) in [0, 1]."""


class RedrawnPairs(PairSampler):
    """Aligned random patches as `PairSampler` gives them, of inputs that are drawn again after each full use.

    Args:
        draw: must give the same input for the same two numbers, so that a training can be continued.
        truths, patch, scale, seed, names: as for `PairSampler`.
        drawn: draw 0 of every photograph, if it is there already.

    Raises:
        UserError: as `PairSampler`.
    """

    def __init__(
        self,
        draw: Draw,
        truths: Sequence[Tensor],
        patch: int,
        scale: int,
        *,
        seed: int,
        names: Sequence[str] = (),
        drawn: Sequence[Tensor] | None = None,
    ) -> None:
        # Files, where there are any: what a run starts from must not depend on how this machine rounds a draw.
        first = [[image] for image in drawn or (draw(index, 0) for index in range(len(truths)))]
        super().__init__(first, truths, patch, scale, seed=seed, names=names)
        self.draw = draw
        self.numbers = torch.zeros(len(truths), dtype=torch.int64)
        self.seen = torch.zeros(len(truths), dtype=torch.float64)
        # What a run starts from stays the first draws, whatever has been drawn since.
        self.first = [draws[0] for draws in self.inputs]

    def sources(self) -> list[Tensor]:
        """The first draw of every input, and all truths."""
        return [*self.first, *self.truths]

    def state(self) -> dict[str, Tensor]:
        """Where the sequence stands, and which draw of every image is in use."""
        return {"generator": super().state(), "numbers": self.numbers.clone(), "seen": self.seen.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue where `state` was taken."""
        super().load_state(state["generator"])
        for index, number in enumerate(state["numbers"].tolist()):
            if number != self.numbers[index]:
                self._redraw(index, number)
        self.seen = state["seen"].clone()

    def _choose(self, batch: int) -> list[int]:
        chosen = super()._choose(batch)
        for index in chosen:
            if self.seen[index] >= self.areas[index]:
                self._redraw(index, int(self.numbers[index]) + 1)
                self.seen[index] = 0.0
            self.seen[index] += self.patch**2
        return chosen

    def _redraw(self, index: int, number: int) -> None:
        self.inputs[index] = [self.draw(index, number) if number else self.first[index]]
        self.numbers[index] = number


def draws_of(
    model: DeFlow, truths: Sequence[Tensor], settings: Mapping[str, Any], *, scale: int, device: str = "cpu"
) -> Draw:
    """Draws that go on where a folder of pairs ends: the first ones are its files, but for rounding.

    What chance decides is drawn on the CPU, so a draw is the same on every device; the last digits of what the flow
    makes of it depend on device and threads.

    Parameters
    ----------
    model: the flow that drew the folder; it is moved to ``device``, where the draws are made.
    truths: the photographs (3, H, W) of the folder, in its order, with sides that ``scale`` divides.
    settings: what `training_pairs.make_pairs` wrote beside the folder.
    """
    clean = [quantize(imresize(truth, 1 / scale)) for truth in truths]
    temperatures, qualities, sensor = settings["temperatures"], settings["qualities"], sensor_of_pairs(settings)
    model = beside_sensor(model, sensor).to(device)

    def draw(index: int, number: int) -> Tensor:
        temperature = temperatures[number % len(temperatures)]
        seed = settings["seed"] + number * len(clean) + index
        options = {"qualities": qualities, "sensor": sensor, "temperature": temperature, "seed": seed}
        options["device"] = device
        return degrade_image(model, clean[index], **options)

    return draw
