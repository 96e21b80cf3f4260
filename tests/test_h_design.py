import json
from dataclasses import replace

import pytest
import torch
import tyro

from benchmarks import h_design
from benchmarks.comparison import keep
from sr_utils.checkpoints import load_model
from sr_utils.deflow import DeFlow
from sr_utils.errors import UserError
from sr_utils.repository import resolve


def test_what_reads_h_is_forgotten_and_nothing_else():
    base = load_model(resolve("checkpoints/base_deflow.safetensors"), DeFlow)
    model = h_design.forget_condition(base, base.config, seed=0)
    for name, value in model.state_dict().items():
        same = torch.equal(value, base.state_dict()[name])
        assert same == (not name.startswith("encoder.")) or value.numel() < 2, name
    again = h_design.forget_condition(base, base.config, seed=0)
    assert torch.equal(model.encoder.first.weight, again.encoder.first.weight)


@pytest.mark.parametrize(("scale", "sides"), [(1, (256, 256)), (2, (512, 512)), (2, (80, 112))])
def test_central_crops_of_input_and_truth_show_the_same(scale, sides):
    truth = torch.rand(3, *sides)
    low = truth[:, ::scale, ::scale]
    assert torch.equal(h_design.middle(truth, scale)[:, ::scale, ::scale], h_design.middle(low))
    assert h_design.middle(low).shape[1] % 8 == 0


def test_finished_runs_become_rows_and_the_others_are_not_needed(tmp_path):
    options = h_design.Design(states=tmp_path, output=tmp_path / "h.json", maps=("bicubic_noise", "median_filter"))
    base = {"akld": 0.3, "restoration_psnr": 20.0, "cpu_seconds": 1.0}
    for name, seed, value in (("bicubic_noise", 0, 0.5), ("bicubic_noise", 1, 0.6), ("median_filter", 0, 0.45)):
        path = h_design.known_path(tmp_path, name, seed, options)
        keep(path, h_design.about_runs(options), base | {"restoration_lpips": value})
    h_design.write(options)
    rows = {row["method"]: row for row in json.loads((tmp_path / "h.json").read_text())["rows"]}
    assert rows["bicubic_noise"]["restoration_lpips"] == pytest.approx(0.55)
    assert rows["bicubic_noise"]["restoration_lpips_std"] == pytest.approx(0.0707, abs=1e-3)
    # Against the published map of the same seed, not against its mean.
    assert rows["median_filter"]["restoration_lpips_gain"] == pytest.approx(0.05)
    assert rows["median_filter"]["seeds"] == 1 and "restoration_lpips_std" not in rows["median_filter"]


@pytest.mark.parametrize(("option", "value"), [("every", 5), ("inputs", 31)])
def test_runs_of_another_budget_are_not_taken(tmp_path, option, value):
    options = h_design.Design(states=tmp_path, output=tmp_path / "h.json", maps=("median_filter",), seeds=(0,))
    path = h_design.known_path(tmp_path, "median_filter", 0, options)
    keep(path, h_design.about_runs(options), {"restoration_lpips": 0.4, "cpu_seconds": 1.0})
    h_design.main(options)
    for use in (h_design.main, h_design.collect):
        with pytest.raises(UserError, match=f"not the same: {option}"):
            use(replace(options, **{option: value}))


def test_options_of_the_command_line_can_be_a_key():
    """What all maps share is made once for each set of options."""
    options = tyro.cli(h_design.Design, args=["--seeds", "0", "--maps", "bicubic_noise", "mean_filter"])
    assert hash(options) is not None and options.maps == ("bicubic_noise", "mean_filter")
