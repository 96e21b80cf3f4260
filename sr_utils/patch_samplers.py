"""Random patches of images, and aligned ones of pairs, as training takes them."""

from collections.abc import Sequence

import torch

from sr_utils.errors import UserError


class PatchSampler:
    """Random square patches of a list of images, flipped and turned at random.

    An image is drawn with a probability proportional to its area, so every place is about equally likely.
    The sequence of patches follows from `seed` alone, and continues from a saved `state`.

    Args:
        images: tensors (3, H, W).
        patch: the patch's side in pixels.
        grid: with a grid above 1, corners lie on its multiples and patches keep their orientation, so that what
            repeats with it in an image, such as a colour filter or JPEG's blocks, repeats in the patches.
        names: what errors call the images; by default their numbers.

    Raises:
        UserError: there is no image, or one is smaller than the patch.
    """

    def __init__(
        self, images: Sequence[torch.Tensor], patch: int, *, seed: int, grid: int = 1, names: Sequence[str] = ()
    ) -> None:
        self.names = _named(names, len(images))
        _check_images(images, patch, self.names)
        self.chosen: list[int] = []
        self.grid = grid
        self.images = list(images)
        self.patch = patch
        self.areas = torch.tensor([image.shape[1] * image.shape[2] for image in images], dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(seed)

    def next(self, batch: int) -> torch.Tensor:
        """A new batch (batch, 3, patch, patch)."""
        patches = []
        for index in self._choose(batch):
            image = self.images[index]
            places = (self._integer((side - self.patch) // self.grid + 1) for side in image.shape[1:])
            top, left = (self.grid * place for place in places)
            patch = _crop(image, top, left, self.patch)
            patches.append(patch if self.grid > 1 else _turn(patch, self._integer(8)))
        return torch.stack(patches)

    def sources(self) -> list[torch.Tensor]:
        """All images that patches are taken from."""
        return self.images

    def state(self) -> torch.Tensor:
        """Where the sequence stands (a uint8 tensor), for `load_state` of a sampler of the same images."""
        return self.generator.get_state()

    def load_state(self, state: torch.Tensor) -> None:
        """Continue where `state` was taken."""
        self.generator.set_state(state)

    def _choose(self, batch: int) -> list[int]:
        """Which images the next patches come from."""
        self.chosen = torch.multinomial(self.areas, batch, replacement=True, generator=self.generator).tolist()
        return self.chosen

    def files(self) -> list[str]:
        """The names of the images that the last batch was cut from."""
        return [self.names[index] for index in self.chosen]

    def _integer(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self.generator))


class PairSampler(PatchSampler):
    """Aligned random patches of degraded images and their truths, flipped and turned together.

    Args:
        inputs: for each truth, a list of degraded images (3, H, W) of it; one of them is drawn each time.
        truths: tensors (3, scale * H, scale * W).
        patch: the side of the low-resolution patch in pixels.
        names: as for `PatchSampler`, of the truths.

    Raises:
        UserError: there is no pair, an input is smaller than the patch, or a truth is not `scale` times its
            input.
    """

    def __init__(
        self,
        inputs: Sequence[Sequence[torch.Tensor]],
        truths: Sequence[torch.Tensor],
        patch: int,
        scale: int,
        *,
        seed: int,
        names: Sequence[str] = (),
    ) -> None:
        if len(inputs) != len(truths) or not all(inputs):
            raise UserError(f"{len(inputs)} inputs and {len(truths)} truths are no pairs: give each truth an input.")
        names = _named(names, len(truths))
        for name, draws, truth in zip(names, inputs, truths, strict=True):
            for draw in draws:
                if (draw.shape[1] * scale, draw.shape[2] * scale) != tuple(truth.shape[1:]):
                    raise UserError(
                        f"An input of {name} is {_size(draw)} and the truth {_size(truth)}: "
                        f"the truth must be exactly {scale} times as large."
                    )
        super().__init__([draws[0] for draws in inputs], patch, seed=seed, names=names)
        self.inputs = [list(draws) for draws in inputs]
        self.truths = list(truths)
        self.scale = scale

    def sources(self) -> list[torch.Tensor]:
        """All inputs and all truths."""
        return [*(draw for draws in self.inputs for draw in draws), *self.truths]

    def next(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """New batches (batch, 3, patch, patch) and (batch, 3, scale * patch, scale * patch)."""
        low, high = [], []
        for index in self._choose(batch):
            draw = self.inputs[index][self._integer(len(self.inputs[index]))]
            top, left = (self._integer(side - self.patch + 1) for side in draw.shape[1:])
            turn = self._integer(8)
            low.append(_turn(_crop(draw, top, left, self.patch), turn))
            truth = _crop(self.truths[index], *(self.scale * place for place in (top, left, self.patch)))
            high.append(_turn(truth, turn))
        return torch.stack(low), torch.stack(high)


def _named(names: Sequence[str], count: int) -> list[str]:
    """The names that were given, or numbers in their place."""
    return list(names) or [f"image {index}" for index in range(count)]


def _check_images(images: Sequence[torch.Tensor], patch: int, names: Sequence[str]) -> None:
    if not images:
        raise UserError("There are no images to take patches from: give at least one.")
    for name, image in zip(names, images, strict=True):
        if min(image.shape[1:]) < patch:
            raise UserError(
                f"The patch of {patch}x{patch} is larger than {name}, which is {_size(image)}: "
                "choose a smaller patch or remove the image."
            )


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def _crop(image: torch.Tensor, top: int, left: int, side: int) -> torch.Tensor:
    return image[:, top : top + side, left : left + side]


def _turn(image: torch.Tensor, which: int) -> torch.Tensor:
    """One of the eight symmetries of the square: `which` // 4 flips, `which` % 4 quarter turns."""
    if which >= 4:
        image = image.flip(-1)
    return image.rot90(which % 4, (-2, -1))
