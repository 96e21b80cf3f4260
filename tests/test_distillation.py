"""Distillation: the lessons are a teacher's pictures, no ground truth takes part, and known weights stay."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import distillation, peers
from benchmarks.distillation import FINE, STUDENT, TEACHER, Budget, Distillation
from sr_utils.checkpoints import save_model
from sr_utils.datasets import open_data_root
from sr_utils.errors import UserError
from sr_utils.esrgan import RRDBNet, RRDBNetConfig
from sr_utils.evaluate import parameter_count
from sr_utils.images import imresize, load_image, save_image

SMALL = {"features": 8, "growth": 4, "blocks": 1}


@pytest.fixture
def options(root, tmp_path, monkeypatch):
    """Four pairs, of which three are learned from, a small teacher and small students."""
    torch.manual_seed(0)
    save_image(torch.rand(3, 48, 48), root / "task1/Input/003.png")
    save_image(torch.rand(3, 96, 96), root / "task1/GroundTruth/003.png")
    teacher = RRDBNet(RRDBNetConfig(scale=4, consistency=0.0, **SMALL)).eval()
    monkeypatch.setattr(peers, "released_network", lambda method, options: teacher)
    base = tmp_path / "base.safetensors"
    save_model(base, RRDBNet(RRDBNetConfig(scale=2, **SMALL)), {})
    names = {"states": "states", "peers": "peers", "output": "rows.json"}
    paths = {option: tmp_path / name for option, name in names.items()}
    small, fine = (Budget(2, 16, 2, 1e-3, tmp_path / f"{name}.safetensors") for name in ("small", "fine"))
    return Distillation(small, fine, inputs=3, timed_images=1, data_root=root, base=base, **paths)


def test_rows_are_of_the_teacher_of_what_is_taught_and_of_the_students(options):
    distillation.main(options)
    written = json.loads(options.output.read_text())
    rows = {row["method"]: row for row in written["rows"]}
    students = [STUDENT, FINE, f"{STUDENT}_grain", f"{FINE}_grain"]
    assert list(rows) == [TEACHER, "real_esrgan_agreeing", *students, "real_esrgan_grain"]
    assert {method for method, row in rows.items() if row.get("times_as_fast", 0) > 0} == {STUDENT, FINE}
    assert len({row["lpips"] for row in rows.values()}) == len(rows)
    assert {"profile", "seed", "commit", "device", "seconds", "pairs"} <= written["provenance"].keys()
    for row in written["rows"]:
        assert row["count"] == 4 and row["psnr"] > 0 and row["parameters"] > 0 and row["psnr_unseen"] > 0
    weights = options.small.weights, options.fine.weights
    for path in weights:
        about = json.loads(path.with_suffix(".json").read_text())
        assert about["teacher"] == TEACHER and about["inputs"] == 3 and about["steps"] == 2
    assert not list(options.states.glob("*"))
    before = [path.read_bytes() for path in weights]
    distillation.main(options)
    assert [path.read_bytes() for path in weights] == before
    with pytest.raises(UserError, match=r"small\.safetensors is of other data .*not the same: inputs and lessons"):
        distillation.main(replace(options, inputs=2))
    for kind in ("small", "fine"):
        changed = {kind: replace(getattr(options, kind), learning_rate=2e-3)}
        with pytest.raises(UserError, match=rf"{kind}\.safetensors is of other data .*not the same: learning_rate"):
            distillation.main(replace(options, **changed))


def test_what_is_taught_is_the_teachers_picture_with_the_inputs_coarse_brightness(options):
    low = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(1)) / 4 + 0.4
    path = options.data_root / "task1/Input/004.png"
    save_image(low, path)
    # A teacher that shifts the brightness: the shift is not taught, the fine detail is.
    picture = imresize(low, 2).clamp(0, 1) - 0.2
    save_image(picture, options.peers / TEACHER / "004.png")
    lesson = distillation.taught(path, options)
    assert lesson.shape == (3, 192, 192) and lesson.min() >= 0 and lesson.max() <= 1
    assert abs((lesson.mean() - low.mean()).item()) < 0.01
    difference = lesson - load_image(options.peers / TEACHER / "004.png")
    assert difference.std() < 0.02 and difference.mean() == pytest.approx(0.2, abs=0.01)


def test_the_student_is_trained_on_as_many_threads_as_asked_for(options, monkeypatch):
    seen = []
    monkeypatch.setattr(distillation, "train_student", lambda *args: seen.append(torch.get_num_threads()) or 1 / 0)
    before = torch.get_num_threads()
    try:
        with pytest.raises(ZeroDivisionError):
            distillation.main(replace(options, threads=2))
    finally:
        torch.set_num_threads(before)
    assert seen == [2]
    with pytest.raises(UserError, match="threads=0 of Distillation must be a whole number from 1"):
        replace(options, threads=0)


def test_grain_is_grey_as_strong_as_it_says_and_another_for_every_picture(options):
    paths = [options.data_root / f"task1/Input/{name}.png" for name in ("003", "003")]
    grained = distillation.with_grain(lambda path: torch.full((3, 200, 200), 0.5), seed=0)
    first, second = (grained(path) - 0.5 for path in paths)
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    assert first.std().item() == pytest.approx(distillation.GRAIN, rel=0.02)
    assert abs((first * second).mean().item()) < 0.03 * distillation.GRAIN**2
    again = distillation.with_grain(lambda path: torch.full((3, 200, 200), 0.5), seed=0)
    assert torch.equal(again(paths[0]) - 0.5, first)


def test_the_student_learns_without_ground_truth_and_from_the_first_inputs_only(options):
    data = open_data_root(options.data_root)
    for path in data.inputs[: options.inputs]:
        save_image(
            torch.rand(3, *(2 * side for side in load_image(path).shape[1:])), options.peers / TEACHER / path.name
        )
    shutil.rmtree(options.data_root / "task1/GroundTruth")
    for method in (STUDENT, FINE):
        start = distillation.start_of(method, options)
        student = distillation.train_student(method, data.inputs[: options.inputs], options)
        assert student.config == start.config and student.config.consistency == distillation.CONSISTENCY
        assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), student.parameters(), strict=True))


def test_a_teacher_cut_short_keeps_its_ends():
    teacher = RRDBNet(RRDBNetConfig(scale=4, features=8, growth=4, blocks=5, consistency=0.0))
    student = distillation.cut_short(teacher, 2)
    assert student(torch.rand(1, 3, 9, 7)).shape == (1, 3, 18, 14)
    assert len(student.trunk) == 2 and student.unshuffle == 1 and len(student.upsampled) == 1
    for ours, theirs in ((student.trunk[0], teacher.trunk[0]), (student.trunk[1], teacher.trunk[4])):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert torch.equal(student.first.weight, teacher.first.weight)
    assert torch.equal(student.upsampled[0].weight, teacher.upsampled[0].weight[:6])
    assert torch.equal(student.last.weight, teacher.last.weight[:, :6])


def test_the_fine_student_has_a_tenth_of_the_teachers_weights_and_of_its_products():
    teacher = RRDBNet(peers.RELEASED).eval()
    student = distillation.cut_short(teacher, 2).eval()
    assert parameter_count(student) < parameter_count(teacher) / 10
    products = []
    for network in (teacher, student):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.rand(1, 3, 32, 32))
        products.append(counter.get_total_flops())
    assert products[0] > 10 * products[1]
