"""Plain cards translated together are those that `degrade_image` makes one by one, seen through any filter."""

import pytest
import torch

from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.fidelity import to_patches
from sr_utils.plain_cards import BATCH, plain_cards
from sr_utils.sampling import degrade_image


@pytest.fixture(params=[{}, {"domain_normalisation": True}, {"blur": 0.7}, {"levels": 3, "condition_factor": 8}])
def model(request):
    torch.manual_seed(0)
    model = DeFlow(DeFlowConfig(steps=1, shift="gain", initial_shift=0.05, **request.param)).eval()
    model.set_domain_statistics([torch.rand(3, 32, 32)], [0.8 * torch.rand(3, 32, 32)])
    return model


@pytest.mark.parametrize("qualities", [(), (60, 95)])
def test_cards_are_those_that_are_degraded_one_by_one(model, qualities):
    colours = torch.rand(BATCH + 2, 3) * 0.4 + 0.3
    cards = plain_cards(model, colours, seed=5)
    model.grain.mixing.mul_(torch.linspace(0.5, 2, len(model.grain.mixing))[:, None, None])
    together = cards.patches(model, qualities=qualities).unflatten(0, (len(colours), -1))
    for index in (0, 1, BATCH, BATCH + 1):
        card = model.normalised(colours[index, None, :, None, None])[0].clamp(0, 1).expand(3, 64, 64).contiguous()
        alone = degrade_image(model, card, qualities=qualities, seed=5 + index)
        difference = (to_patches([alone[:, 8:-8, 8:-8]], 16) - together[index]).abs()
        # A value halfway between two of 8 bits may be rounded either way.
        assert alone.std() > 2 / 255 and (difference > 0.5 / 255).float().mean() < 0.002
        assert difference.max() < (4 if qualities else 1.01) / 255
