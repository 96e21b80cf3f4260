"""Counted cost: held to closed forms on small networks, and to a step at the size that is asked for."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import cost
from benchmarks.cost import AVERAGED, IDLE, TRAINED, StepCost, counted, deflow_step_cost, esrgan_step_cost, extrapolated
from sr_utils.deflow import DeFlowConfig
from sr_utils.esrgan import Discriminator, RRDBNet
from sr_utils.profiles import PROFILES
from sr_utils.training_config import DeFlowTraining

FLOW = DeFlowConfig(levels=2, steps=1, hidden=8, features=8, encoder_blocks=1)


def test_a_chain_of_two_convolutions_costs_what_the_formulas_say():
    first, second = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 4, 1, bias=False)
    image = torch.rand(2, 3, 10, 12)
    with counted({first: AVERAGED, second: IDLE}) as found:
        second(torch.sigmoid(first(image))).sum().backward()
    positions = 2 * 10 * 12
    # Forward, and backward to the weights; backward to the input for the second alone.
    expected = 2 * positions * (2 * 8 * 3 * 9 + 3 * 4 * 8)
    assert found[0].operations == expected
    # The image, and the sigmoid's result, which both it and the second convolution keep.
    assert found[0].activations == 4 * positions * (3 + 8)
    assert found[0].fixed == 4 * (5 * 8 * 3 * 9 + 4 * 8)


def test_what_is_let_go_between_two_passes_does_not_add_up():
    layer = nn.Linear(16, 16, bias=False)
    image = torch.rand(100, 16)
    with counted({layer: TRAINED}) as found:
        for _ in range(3):
            torch.sigmoid(layer(image)).sum().backward()
    assert found[0].activations == 4 * 100 * 32


def test_a_line_through_two_costs():
    found = extrapolated([StepCost(10.0, 6.0, 7.0), StepCost(16.0, 7.0, 7.0)], [2, 4], 12)
    assert found == StepCost(40.0, 11.0, 7.0)


def test_the_extrapolated_cost_of_a_flow_is_that_of_a_step_at_that_size():
    training = DeFlowTraining(steps=9, patch=32, batch=2)
    same = deflow_step_cost(FLOW, training)
    four = deflow_step_cost(FLOW, replace(training, batch=8))
    assert four.fixed == same.fixed and four.operations / same.operations == pytest.approx(4, rel=0.02)
    assert 3 < four.activations / same.activations <= 4


def test_the_second_stage_costs_more():
    profile = PROFILES["smoke"]
    first, second = (esrgan_step_cost(profile, second_stage=stage) for stage in (False, True))
    assert second.operations > 2 * first.operations and second.activations > first.activations


def test_the_discriminator_has_no_average_and_waits_in_the_first_stage():
    profile = PROFILES["smoke"]
    network, judge = (
        4 * sum(parameter.numel() for parameter in module.parameters())
        for module in (RRDBNet(profile.esrgan), Discriminator(profile.discriminator))
    )
    first, second = (esrgan_step_cost(profile, second_stage=stage).fixed for stage in (False, True))
    assert (first, second) == (5 * network + judge, 5 * network + 4 * judge)


def test_which_two_sizes_tell_the_cost_does_not_matter(monkeypatch):
    usual = esrgan_step_cost(PROFILES["smoke"], second_stage=False)
    monkeypatch.setattr(cost, "PATCHES", (16, 48))
    other = esrgan_step_cost(PROFILES["smoke"], second_stage=False)
    assert other.operations == pytest.approx(usual.operations, rel=0.01)
    assert other.activations == pytest.approx(usual.activations, rel=0.01)
