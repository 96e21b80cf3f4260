"""Released ESRGAN checkpoints in all three layouts, held to what the authors' code answered (tests/parity)."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig, load_official
from sr_utils.published_keys import deflow_tensors

PARITY = Path(__file__).parent / "parity" / "esrgan"
NUMBERS = {"conv_first": "0", "upconv1": "3", "upconv2": "6", "HRconv": "8", "conv_last": "10"}
BASICSR = {
    "conv_first": "conv_first",
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
    "conv_last": "conv_last",
}


@pytest.fixture(scope="module")
def reference():
    weights = {name: value.float() for name, value in load_file(PARITY / "state_dict.safetensors").items()}
    return weights, load_file(PARITY / "io.safetensors"), json.loads((PARITY / "config.json").read_text())


def numbered(name, blocks):
    """A name of the second release as the first release wrote it."""
    found = re.match(r"RRDB_trunk\.(\d+)\.(RDB\d)\.(conv\d)\.(\w+)", name)
    if found:
        return "model.1.sub.{}.{}.{}.0.{}".format(*found.groups())
    head, kind = name.split(".")
    return f"model.1.sub.{blocks}.{kind}" if head == "trunk_conv" else f"model.{NUMBERS[head]}.{kind}"


def basicsr(name, blocks):
    """The same as BasicSR writes it."""
    if name.startswith("RRDB_trunk."):
        return name.replace("RRDB_trunk", "body").replace("RDB", "rdb")
    head, kind = name.split(".")
    return f"{BASICSR[head]}.{kind}"


@pytest.mark.parametrize("layout", [lambda name, blocks: name, numbered, basicsr], ids=["named", "numbered", "basicsr"])
def test_every_layout_answers_as_the_released_code(reference, layout):
    weights, io, config = reference
    network = load_official({layout(name, config["nb"]): value for name, value in weights.items()})
    assert network.config == RRDBNetConfig(4, config["nf"], config["gc"], config["nb"], consistency=0.0)
    with torch.no_grad():
        # Values are below 1, where single precision has steps of up to 6e-8: processors differ by two of them.
        torch.testing.assert_close(network(io["lr"]), io["sr"], rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("scale", [1, 2])
def test_the_scale_follows_from_the_first_convolution(scale):
    torch.manual_seed(0)
    own = RRDBNet(RRDBNetConfig(scale=scale, features=8, growth=4, blocks=1, consistency=0.0))
    known = {"first": "conv_first", "after_trunk": "conv_body", "upsampled.0": "conv_up1", "upsampled.1": "conv_up2"}
    known |= {"high_resolution": "conv_hr", "last": "conv_last"}
    released = {}
    for name, value in own.state_dict().items():
        found = re.match(r"trunk\.(\d+)\.blocks\.(\d)\.convs\.(\d)\.(\w+)", name)
        if found:
            block, dense, conv, kind = found.groups()
            released[f"body.{block}.rdb{int(dense) + 1}.conv{int(conv) + 1}.{kind}"] = value
        else:
            head, kind = name.rsplit(".", 1)
            released[f"{known[head]}.{kind}"] = value
    network = load_official(released)
    assert network.config == own.config
    image = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(network(image), own.eval()(image))


def test_other_weights_are_one_sentence(reference):
    weights, _, _ = reference
    with pytest.raises(UserError, match="The tensor fc.weight is not of a released RRDBNet"):
        load_official({"fc.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="not of a released RRDBNet"):
        load_official({name: value for name, value in weights.items() if name != "HRconv.bias"})


@pytest.mark.parametrize(
    "name", ["RRDB.upconvX.weight", "RRDB.upconv.weight", "flowUpsamplerNet.layers.x.actnorm.bias"]
)
def test_a_number_that_is_none_is_one_sentence(name):
    with pytest.raises(UserError, match=f"The tensor {name} is not of a released DeFlow"):
        deflow_tensors({name: torch.zeros(2)}, steps=[2, 2], splits=1)
