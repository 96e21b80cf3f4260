"""Training pairs on disk: made once, continued, and known again."""

from dataclasses import replace

import torch

from sr_utils import training_pairs
from sr_utils.checkpoints import save_model
from sr_utils.files import read_json
from sr_utils.images import save_image
from sr_utils.sensor import LEVELS, Sensor
from sr_utils.training_pairs import make_pairs, sensor_of_pairs


def test_pairs_are_made_once_and_continue(flow, tmp_path):
    paths = [tmp_path / "clean" / f"{name}.png" for name in "ab"]
    for path in paths:
        save_image(torch.rand(3, 35, 42), path)
    weights = save_model(tmp_path / "flow.safetensors", flow, {})

    def make():
        return make_pairs(flow, paths, tmp_path / "run", scale=2, temperatures=[1.0, 2.0], seed=0, model_path=weights)

    first = make()
    inputs, truths = first.load()
    assert first.made == 4 and make().made == 0
    assert [tuple(truth.shape) for truth in truths] == [(3, 34, 42)] * 2
    assert tuple(inputs[0][1].shape) == (3, 17, 21) and not torch.equal(inputs[0][0], inputs[0][1])
    (first.truth / "000_a.png").unlink()
    again = make()
    assert again.made == 2 and torch.equal(again.load()[0][0][0], inputs[0][0])


def test_more_than_a_thousand_photographs_keep_their_order(flow, tmp_path, monkeypatch):
    paths = [tmp_path / "a.png"] * 1001
    save_image(torch.rand(3, 8, 8), paths[0])
    written = []
    monkeypatch.setattr(training_pairs, "save_image", lambda image, path: written.append(path.name))
    monkeypatch.setattr(training_pairs, "degrade_image", lambda model, image, **options: image)
    make_pairs(flow, paths, tmp_path / "run", scale=2, temperatures=[1.0], seed=0)
    assert len(set(written)) == 1001 and written == sorted(written)


def test_pairs_of_a_sensor_are_known_again_and_those_of_another_are_not(flow, tmp_path):
    save_image(torch.rand(3, 48, 64), tmp_path / "a.png")
    sensor = Sensor((0, 1), "bilinear", (0.004 * LEVELS).log(), torch.ones(3), torch.zeros(2), [None, 85])
    options = {"scale": 2, "temperatures": [1.0], "model_path": save_model(tmp_path / "flow.safetensors", flow, {})}

    def made(taken_by):
        pairs = make_pairs(flow, [tmp_path / "a.png"], tmp_path / "run", sensor=taken_by, **options)
        settings = read_json(tmp_path / "run" / "pairs" / "settings.json")
        known = sensor_of_pairs(settings)
        assert (known and known.numbers()) == (taken_by and taken_by.numbers())
        return pairs.made

    assert [made(each) for each in (None, sensor, sensor, replace(sensor, phase=(1, 0)), None)] == [1, 1, 0, 1, 1]
