"""Drawn targets have the frequencies and edges that they promise, and edges are measured right."""

import pytest
import torch

from sr_utils.targets import bars, overshoot, rise_distance, step_edge, zone_plate


def test_a_zone_plate_has_its_highest_frequency_at_the_sides():
    plate = zone_plate(128, highest=0.25)
    assert plate.shape == (3, 128, 128) and plate.min() >= 0 and plate.max() <= 1
    row = plate[0, 64] - plate[0, 64].mean()

    def frequency(part):
        return torch.fft.rfft(part * torch.hann_window(len(part))).abs()[1:].argmax().item() / len(part)

    assert frequency(row[-32:]) == pytest.approx(0.19, abs=0.06)
    assert frequency(row[64:96]) < 0.1


def test_an_edge_is_measured():
    sharp = step_edge(32)
    assert overshoot(sharp) == pytest.approx(0, abs=1e-6)
    assert rise_distance(sharp) == pytest.approx(0.8)
    ramp = torch.linspace(0.2, 0.8, 11).clamp(0.2, 0.8)
    slow = torch.cat((torch.full((8,), 0.2), ramp, torch.full((8,), 0.8))).expand(3, 8, -1)
    assert rise_distance(slow) == pytest.approx(8.0, abs=1e-3)
    assert overshoot(slow + 0.06) == pytest.approx(0.1)


def test_bars_become_narrower():
    row = bars(96)[0, 48]
    starts = (row.diff() > 0).nonzero().flatten()
    ends = (row.diff() < 0).nonzero().flatten()
    assert (ends - starts).tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
