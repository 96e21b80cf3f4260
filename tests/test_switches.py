"""The benchmark of switches: its rows beside others, and what the committed ones must say."""

from pathlib import Path

from benchmarks import switches
from sr_utils.evaluate import write_metrics
from sr_utils.files import read_json

ROOT = Path(__file__).resolve().parent.parent


def test_every_switch_gets_a_row_beside_others(tmp_path, monkeypatch):
    path = tmp_path / "speed.json"
    write_metrics(path, {"profile": "bench"}, [{"method": "train_step", "speedup": 2.0}])
    same = {"switch_nothing": lambda model: model}
    few = {name: switched for name, switched in switches.SWITCHES.items() if name == "switch_mixed_precision"}
    monkeypatch.setattr(switches, "SWITCHES", same | few)
    switches.main(switches.Switches(side=16, output=path))
    rows = {row["method"]: row for row in read_json(path)["rows"]}
    assert list(rows) == ["train_step", "switch_nothing", "switch_mixed_precision"]
    assert rows["switch_nothing"]["bits_difference"] == 0
    assert 0 < rows["switch_mixed_precision"]["bits_difference"] < 0.05


def test_committed_switches_change_the_likelihood_by_less_than_a_hundredth_of_a_bit():
    rows = {row["method"]: row for row in read_json(ROOT / "figures" / "metrics" / "speed.json")["rows"]}
    assert all(rows[name]["bits_difference"] <= 0.01 for name in switches.SWITCHES)
