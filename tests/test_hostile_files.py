"""Hostile parameters, checkpoints and settings: each is taken as it is meant or refused in one sentence.

A sample of the generated cases runs here; `make soak` runs hundreds of each test.
"""

import dataclasses
import errno
import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from papermill.parameterize import parameterize_notebook
from safetensors.torch import save
from snakemake.common.configfile import load_configfile

from sr_utils import cli, graph
from sr_utils.checkpoints import load_model, load_pickled_tensors, load_state, save_model, save_state
from sr_utils.course import begin
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.esrgan import Discriminator, DiscriminatorConfig, RRDBNet, RRDBNetConfig
from sr_utils.images import save_image
from sr_utils.parameters import check_types, parse_values, read_parameters
from sr_utils.training_config import DeFlowTraining, ESRGANTraining
from sr_utils.weights import load_deflow, load_esrgan

ROOT = Path(__file__).resolve().parent.parent
ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20) | some.binary(max_size=9),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NUMBERS = some.sampled_from([-(2**70), -1, 0, 1, 2**31, 2**32, 2**70, -0.0, 1e-3, 1e308, float("nan"), float("inf")])


def one_sentence(error: UserError) -> str:
    said = str(error)
    assert said and "\n" not in said and len(said) < 2000
    return said


# Parameters of the notebooks, of the models and of training


def parameters_of(notebook: Path):
    cells = nbformat.read(notebook, as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return read_parameters(source)


NOTEBOOKS = {path.stem: parameters_of(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


@given(some.sampled_from(sorted(NOTEBOOKS)), some.data())
def test_any_value_of_any_notebook_parameter(name, data):
    declared = NOTEBOOKS[name]
    values = {"profile": "smoke", "seed": 0, "data_root": "data", "run_root": "runs/hostile"}
    changed = data.draw(some.sampled_from(sorted(declared)))
    values[changed] = data.draw(ANYTHING | NUMBERS)
    try:
        check_types(values, declared, where=name)  # inside a kernel, `begin` finds the declarations itself
        course = begin(name, **values)
    except UserError as error:
        assert changed in one_sentence(error) or changed == "data_root" or changed == "profile"
    else:
        assert course.seed == values["seed"] and 0 <= course.seed < 2**32
        assert declared[changed].accepts(values[changed])


CONFIGS = [DeFlowConfig, RRDBNetConfig, DiscriminatorConfig, DeFlowTraining, ESRGANTraining]


@given(some.sampled_from(CONFIGS), some.data())
def test_any_value_of_any_setting_of_a_model_or_training(config, data):
    values = {} if "Training" not in config.__name__ else {"steps": 2, "pixel_steps": 2, "gan_steps": 2}
    values = {field.name: values[field.name] for field in dataclasses.fields(config) if field.name in values}
    changed = data.draw(some.sampled_from([field.name for field in dataclasses.fields(config)]))
    values[changed] = data.draw(ANYTHING | NUMBERS)
    try:
        made = config(**values)
    except UserError as error:
        assert changed in one_sentence(error)
    else:
        assert getattr(made, changed) == values[changed] or isinstance(values[changed], list)


SWITCHES = [(config, field.name) for config in CONFIGS for field in dataclasses.fields(config) if "bool" in field.type]


@pytest.mark.parametrize("config, name", SWITCHES)
@pytest.mark.parametrize("value", [math.nan, 1, "false", []])
def test_a_switch_is_true_or_false(config, name, value):
    steps = {"steps": 2} if config is DeFlowTraining else {"pixel_steps": 2, "gan_steps": 2}
    values = steps if "Training" in config.__name__ else {}
    with pytest.raises(UserError, match=f"^{name}=.* must be true or false"):
        config(**values, **{name: value})


@given(some.lists(some.text(max_size=30), max_size=3), some.sampled_from(sorted(NOTEBOOKS)))
def test_any_setting_text(settings, name):
    declared = NOTEBOOKS[name]
    try:
        values = parse_values(settings, declared, where=name)
    except UserError as error:
        one_sentence(error)
    else:
        assert set(values) <= set(declared)


@given(some.sampled_from(sorted(NOTEBOOKS)), some.data())
def test_any_text_for_a_known_name(name, data):
    declared = NOTEBOOKS[name]
    known = data.draw(some.sampled_from(sorted(declared)))
    text = data.draw(some.text(max_size=30) | NUMBERS.map(str))
    try:
        values = parse_values([f"{known}={text}"], declared, where=name)
    except UserError as error:
        assert known in one_sentence(error)
    else:
        assert declared[known].accepts(values[known])


FLAGS = ["--temperature", "--seed", "--tile", "--like"]


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    save_image(torch.rand(3, 16, 16), folder / "in" / "a.png")
    save_model(folder / "flow.safetensors", DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)), {})
    return folder


@given(some.data())
def test_any_option_of_the_command_line(flow, data):
    """Status 0 and an image, 1 and one sentence of ours, or 2 and one of the parser's."""
    flag = data.draw(some.sampled_from(FLAGS))
    value = data.draw(NUMBERS.map(str) | some.text(max_size=12).filter(lambda text: "\0" not in text))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        arguments = ["translate", f"{flow}/flow.safetensors", f"{flow}/in", f"{folder}/out", flag, value]
        patch.setattr(sys, "argv", ["cli", *arguments])
        patch.setattr(sys, "stdout", io.StringIO())
        patch.setattr(sys, "stderr", io.StringIO())
        try:
            cli.main()
        except SystemExit as ended:
            assert ended.code == 2 or str(ended.code).startswith("error: "), ended.code
        else:
            assert Path(folder, "out", "a.png").is_file()


# Injection


NASTY = some.sampled_from(
    [
        '"; open("executed", "w") #', "'; open('executed', 'w') #", "x\nopen('executed', 'w')", '"""\nraise SystemExit',
        "$(touch executed)", "`touch executed`", "; touch executed", "!!python/object/apply:os.system ['touch x']",
        "&a [*a,*a]", "{{config}}", "a: b: c", "- x", "\\", "\\'", "'", '"', "#", "%", "~", "*", "?", " ", "-rf", "|",
        "é照", "\u202e", "yes", "null", "1e3", "0x10", "2020-01-01", "\t", "\r", "a=b", "@file", "!touch executed",
    ]
)  # fmt: skip
TEXTS = some.lists(NASTY | some.text(some.characters(exclude_categories=["Cs"]), max_size=8), max_size=3).map("".join)


@given(TEXTS)
def test_a_text_reaches_a_notebook_as_text(text):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("data_root: str = 'data'")])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["papermill"] = {}
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    made = parameterize_notebook(notebook, {"data_root": text}, kernel_name="python3", language="python")
    with tempfile.TemporaryDirectory() as folder:
        before, found = os.getcwd(), {}
        os.chdir(folder)
        try:
            exec("\n".join(cell.source for cell in made.cells), found)  # what the kernel would do
        finally:
            os.chdir(before)
        assert found["data_root"] == text and not os.listdir(folder)


@given(TEXTS)
def test_a_folder_name_reaches_the_graph_as_it_is(text):
    try:
        settings = graph.read_settings({"data_root": text, "run_root": f"r{text}"})
    except UserError as error:
        one_sentence(error)
        return
    with tempfile.TemporaryDirectory() as folder:
        given = load_configfile(graph.write_settings(settings, Path(folder) / "course.json"))
    assert graph.read_settings(given) == settings


def test_settings_that_could_not_be_written_leave_the_earlier_ones_whole(tmp_path, monkeypatch):
    path = graph.write_settings(graph.read_settings({"seed": 1}), tmp_path / "course.json")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"disk is full, so .*course\.json was not written"):
        graph.write_settings(graph.read_settings({"seed": 2}), path)
    assert load_configfile(path)["seed"] == 1 and list(tmp_path.iterdir()) == [path]


def test_a_configuration_file_that_would_execute_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"profile: !!python/object/apply:os.system ['touch {tmp_path}/executed']\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--nolock", "--configfile", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / "executed").exists()


# Checkpoints


MODELS = [
    DeFlow(DeFlowConfig(levels=2, steps=1, hidden=4, features=4, encoder_blocks=1)),
    RRDBNet(RRDBNetConfig(features=4, growth=2, blocks=1)),
    Discriminator(DiscriminatorConfig(features=2)),
]


def refused(load, path, *arguments):
    """Whether loading ends in one sentence that names the file; a model that is loaded has finite sizes."""
    try:
        load(path, *arguments)
    except UserError as error:
        assert str(path) in one_sentence(error) or "weights" in str(error)
        return True
    return False


@given(some.sampled_from(range(3)), some.data())
def test_a_checkpoint_whose_header_lies(number, data):
    model = MODELS[number]
    config = dataclasses.asdict(model.config)
    changed = data.draw(some.sampled_from(sorted(config)))
    config[changed] = data.draw(ANYTHING.filter(lambda value: not isinstance(value, bytes)) | NUMBERS)
    header = {"architecture": type(model).__name__, "config": json.dumps(config, default=str)}
    header = data.draw(some.sampled_from([header, header, header, {}, header | {"config": "[" * 5000}]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(save({key: value.contiguous() for key, value in model.state_dict().items()}, header))
        refused(load_model, path, type(model))


@given(some.sampled_from(range(3)), some.data())
def test_a_checkpoint_with_other_tensors(number, data):
    model = MODELS[number]
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    for name in data.draw(some.lists(some.sampled_from(sorted(tensors)), min_size=1, max_size=3, unique=True)):
        way = data.draw(some.sampled_from(["gone", "shape", "type", "named"]))
        value = tensors.pop(name)
        if way == "shape":
            tensors[name] = torch.zeros(data.draw(some.lists(some.integers(0, 5), max_size=4)))
        elif way == "type":
            tensors[name] = value.to(data.draw(some.sampled_from([torch.float16, torch.int64, torch.complex64])))
        elif way == "named":
            tensors[data.draw(some.text(max_size=9))] = value
    header = {"architecture": type(model).__name__, "config": json.dumps(dataclasses.asdict(model.config))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(save(tensors, header))
        refused(load_model, path, type(model))
        refused(load_deflow, path)
        refused(load_esrgan, path)


@given(some.sampled_from(["model", "state"]), some.data())
def test_a_checkpoint_whose_bytes_are_changed(kind, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        if kind == "model":
            save_model(path, MODELS[1], {})
        else:
            save_state(path, {"step": 3, "parts": {"model": MODELS[1].state_dict()}, "list": [1, None, "x"]})
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(some.integers(1, 4))):
            way, place = data.draw(some.sampled_from(["bit", "header", "cut"])), data.draw(some.floats(0, 1))
            where = min(int(place * (len(content) if way != "header" else 4000)), len(content) - 1)
            if way == "cut":
                del content[where + 1 :]
            else:
                content[where] ^= 1 << data.draw(some.integers(0, 7))
        path.write_bytes(content)
        refused(load_model, path, RRDBNet)
        refused(load_state, path)


CALLS = [
    (os.system, "touch executed"), (eval, "open('executed', 'w')"), (exec, "open('executed', 'w')"),
    (open, "executed", "w"), (subprocess.Popen, ["touch", "executed"]), (os.mkdir, "executed"),
    (__import__, "antigravity"), (torch.save, 1, "executed"), (torch.hub.load, "a/b", "c"),
    (io.FileIO, "executed", "w"), (Path.touch, Path("executed")),
]  # fmt: skip


class Payload:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call[0], tuple(self.call[1:])


@given(
    some.sampled_from(CALLS),
    some.integers(0, pickle.HIGHEST_PROTOCOL),
    some.sampled_from(["raw", "saved", "legacy", "nested", "swapped"]),
    some.sampled_from([".pth", ".safetensors", ".pt", ""]),
)
def test_a_pickle_that_would_execute_is_refused(call, protocol, way, suffix):
    content, payload = io.BytesIO(), Payload(call)
    if way == "raw":
        content.write(pickle.dumps(payload, protocol))
    elif way == "legacy":
        torch.save({"a": torch.zeros(2), "b": payload}, content, _use_new_zipfile_serialization=False)
    elif way == "nested":
        torch.save({"state_dict": {"a": torch.zeros(2), "b": [{"c": payload}]}}, content)
    elif way == "saved":
        torch.save(payload, content)
    else:
        whole = io.BytesIO()
        torch.save({"a": torch.zeros(2)}, whole)
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(content, "w") as target:
            for name in source.namelist():
                payload_here = name.endswith("data.pkl")
                target.writestr(name, pickle.dumps(payload, protocol) if payload_here else source.read(name))
    with tempfile.TemporaryDirectory() as folder:
        path, before = Path(folder) / f"weights{suffix}", os.getcwd()
        path.write_bytes(content.getvalue())
        os.chdir(folder)
        try:
            for load in (load_pickled_tensors, load_deflow, load_esrgan):
                assert refused(load, path)
            assert refused(load_model, path, RRDBNet) and refused(load_state, path)
        finally:
            os.chdir(before)
        assert os.listdir(folder) == [path.name]
