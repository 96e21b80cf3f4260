"""Released RRDBNets in the format of ncnn, read into our own network.

An ncnn model is two files: ``.param`` lists the layers in the order in which they are computed, ``.bin`` holds the
convolutions' weights and biases in that order. A weight begins with a tag; `HALF` says that it is in half precision,
padded to a multiple of four bytes. Biases are in single precision and have no tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig

HALF = 0x01306B47


def _convolutions(network: RRDBNet) -> Iterator[nn.Conv2d]:
    """The network's convolutions as `RRDBNet.forward` uses them."""
    yield network.first
    for block in network.trunk:
        for dense in block.blocks:
            yield from dense.convs
    yield network.after_trunk
    yield from network.upsampled
    yield network.high_resolution
    yield network.last


def read_rrdbnet(path: Path, config: RRDBNetConfig) -> RRDBNet:
    """An RRDBNet of these sizes with the weights of ``path`` (.bin) and of the .param file beside it, in eval mode.

    Raises
    ------
    UserError: a file is missing, or the layers are not those of such a network.
    """
    try:
        layers, content = path.with_suffix(".param").read_text().splitlines()[2:], path.read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: install the extra 'peers' again.") from error
    listed = [dict(part.split("=") for part in line.split()[6:]) for line in layers if line.startswith("Convolution")]
    network, offset = RRDBNet(config), 0
    wrong = UserError(f"{path} does not hold an RRDBNet of these sizes: install the extra 'peers' again.")
    convolutions = list(_convolutions(network))
    if [(int(each["0"]), int(each["6"])) for each in listed] != [
        (conv.out_channels, conv.weight.numel()) for conv in convolutions
    ]:
        raise wrong
    for conv in convolutions:
        count, biases = conv.weight.numel(), conv.out_channels
        end = offset + 4 + (2 * count + 3) // 4 * 4 + 4 * biases
        if len(content) < end or int.from_bytes(content[offset : offset + 4], "little") != HALF:
            raise wrong
        weight = np.frombuffer(content, "<f2", count, offset + 4).astype(np.float32)
        conv.weight.data = torch.from_numpy(weight).view_as(conv.weight)
        conv.bias.data = torch.from_numpy(np.frombuffer(content, "<f4", biases, end - 4 * biases).copy())
        offset = end
    if offset != len(content):
        raise wrong
    return network.eval()
