"""Folders in shards: the cluster's line on a local executor, resumed after a kill, and what is refused."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from sr_utils.checkpoints import save_model
from sr_utils.deflow import DeFlow, DeFlowConfig
from sr_utils.errors import UserError
from sr_utils.files import read_json
from sr_utils.images import load_image, save_image
from sr_utils.sampling import translate_folder
from sr_utils.shards import FolderJob, gather_scores, part_of, read_job, score_folder
from sr_utils.weights import load_deflow

ROOT = Path(__file__).resolve().parent.parent
LINE = next(line[2:].strip() for line in (ROOT / "folder.smk").read_text().splitlines() if "--profile" in line)


@pytest.fixture
def images(tmp_path):
    """Eight small images with a space in their folder's name, and a small DeFlow."""
    generator = torch.Generator().manual_seed(0)
    for index in range(8):
        save_image(torch.rand(3, 16, 16, generator=generator), tmp_path / "my photos" / f"{index}.png")
    torch.manual_seed(0)
    save_model(tmp_path / "w.safetensors", DeFlow(DeFlowConfig(steps=1, hidden=4, features=4, encoder_blocks=1)), {})
    return tmp_path / "my photos"


def command(images, output, *settings):
    """The line as folder.smk and README.md give it, with these folders and the local executor."""
    words = shlex.split(LINE)
    given = {"weights": images.parent / "w.safetensors", "images": images, "output": output}
    at = words.index("--config") + 1
    pairs = dict(word.split("=", 1) for word in words[at:])
    assert set(given) < set(pairs)
    words = [*words[1:at], *(f"{name}={given.get(name, value)}" for name, value in pairs.items()), *settings]
    return [sys.executable, "-m", "snakemake", "--executor", "local", "--cores", "2", "--nolock", *words]


def run(images, output, *settings):
    done = subprocess.run(command(images, output, *settings), cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def parts(output):
    return {path.name: path.stat().st_mtime_ns for path in sorted((output / ".parts").iterdir())}


def test_readme_has_the_same_line():
    found = re.findall(r"snakemake --snakefile folder\.smk .*", (ROOT / "README.md").read_text())
    assert found == [LINE]


def test_the_line_of_the_cluster_does_the_folder_and_then_nothing(tmp_path, images):
    output, settings = tmp_path / "out", ("shard=4", "tile=256", f"like={images}")
    status, said = run(images, output, *settings)
    assert status == 0, said
    whole = translate_folder(load_deflow(tmp_path / "w.safetensors"), sorted(images.iterdir()), tmp_path / "whole")
    for path in whole:
        assert torch.equal(load_image(output / path.name), load_image(path))
    before = parts(output)
    assert list(before) == ["0.done", "4.done"]
    status, said = run(images, output, *settings)
    assert status == 0 and "Nothing to be done" in said and parts(output) == before
    (output / "5.png").unlink()
    status, said = run(images, output, *settings)
    after = parts(output)
    assert status == 0 and (output / "5.png").is_file(), said
    assert after["0.done"] == before["0.done"] and after["4.done"] > before["4.done"]


def test_a_part_is_forgotten_if_one_of_its_results_is_missing(tmp_path, images):
    output, given = tmp_path / "out", {"task": "restore", "images": str(images), "weights": "w", "shard": 3}
    job = read_job(given | {"output": str(output)})
    job.forget_incomplete()
    assert not output.exists()
    (output / ".parts").mkdir(parents=True)
    for first in (0, 3, 6):
        (output / ".parts" / f"{first}.done").touch()
    for index in (0, 1, 2, 3, 5, 6, 7):
        (output / f"{index}.png").touch()
    job.forget_incomplete()
    assert list(parts(output)) == ["0.done", "6.done"]
    scored = {"task": "score", "truths": str(images), "weights": ""}
    (output / "0.png").unlink()
    read_job(given | scored | {"output": str(output)}).forget_incomplete()
    assert list(parts(output)) == ["0.done", "6.done"]


@pytest.mark.soak
def test_a_sweep_of_eight_with_one_killed_redoes_that_one_only(tmp_path, images):
    output = tmp_path / "out"
    process = subprocess.Popen(command(images, output, "shard=1", "--retries", "0"), cwd=ROOT, start_new_session=True)
    killed = False
    while not killed and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            words = child.cmdline() if child.is_running() else []
            if "sr_utils.cli" in words and words[words.index("--first") + 1] == "3":
                child.send_signal(signal.SIGKILL)
                killed = True
        time.sleep(0.05)
    assert killed and process.wait() != 0
    before = parts(output)
    assert len(before) == 7 and "3.done" not in before
    status, said = run(images, output, "shard=1")
    after = parts(output)
    assert status == 0 and after.pop("3.done") and after == before, said


def test_scores_of_parts_are_gathered(tmp_path, images, monkeypatch):
    monkeypatch.setattr("sr_utils.evaluate.score", lambda image, truth: {"psnr": float((image - truth).abs().mean())})
    for first in (0, 5):
        score_folder(part_of(images, first, 5), images, tmp_path / f"{first}.json")
    gather_scores([tmp_path / "0.json", tmp_path / "5.json"], tmp_path / "all.json", method="mine")
    found = read_json(tmp_path / "all.json")
    assert [row["name"] for row in found["images"]] == [str(index) for index in range(8)]
    assert found["rows"][0]["method"] == "mine" and found["rows"][0]["count"] == 8
    before = (images / "3.png").read_bytes()
    with pytest.raises(UserError, match=r"3\.png is an image, .* overwrite"):
        score_folder(part_of(images, 0, 5), images, images / "3.png")
    assert (images / "3.png").read_bytes() == before
    (images / "7.png").rename(tmp_path / "7.png")
    with pytest.raises(UserError, match="has no ground truth called 7"):
        score_folder([tmp_path / "7.png"], images, tmp_path / "x.json")


def test_an_image_that_does_not_fit_its_truth_is_named(tmp_path, images):
    save_image(torch.rand(3, 8, 16), tmp_path / "restored" / "3.png")
    said = r"restored/3\.png cannot be compared with .*my photos/3\.png: .*one shape.*: crop or resize one of them"
    with pytest.raises(UserError, match=said):
        score_folder(part_of(tmp_path / "restored", 0, 1), images, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_a_shard_knows_the_truths_it_is_scored_against(images, tmp_path):
    (images / "1.png").rename(tmp_path / "1.png")
    given = {"task": "score", "images": str(tmp_path), "output": "out", "truths": str(images), "shard": 4}
    assert read_job(given).truths_of(0) == []
    (tmp_path / "1.png").rename(images / "1.png")
    job = read_job(given | {"images": str(images)})
    assert job.truths_of(4) == [str(images / f"{index}.png") for index in range(4, 8)]


def test_the_settings_of_a_command_are_handed_on(images):
    given = {"images": str(images), "output": "out", "weights": "w"}
    translate, restore = given | {"task": "translate"}, given | {"task": "restore"}
    assert read_job(translate).options(0) == ["--seed=0", "--temperature=1.0"]
    assert read_job(translate).likes() == []
    job = read_job(translate | {"seed": 3, "like": str(images), "tile": 512, "device": "cuda"})
    assert job.options(0) == ["--seed=3", "--temperature=1.0", f"--like={images}", "--tile=512", "--device=cuda"]
    assert job.likes() == job.names()
    job = read_job(translate | {"temperature": 0.0, "like": str(images), "sensor": True})
    assert job.options(0) == ["--seed=0", "--temperature=0.0", f"--like={images}", "--sensor"]
    assert read_job(restore).options(0) == []
    several = read_job(restore | {"device": "cuda:0,cuda:1", "shard": 5})
    assert [several.options(first) for first in (0, 5, 10)] == [[f"--device=cuda:{index}"] for index in (0, 1, 0)]
    with pytest.raises(UserError, match="device=cuda:0, of folder.smk has a comma too many"):
        read_job(restore | {"device": "cuda:0,"})
    assert read_job(restore | {"consistency": 0, "tile": 64}).options(0) == ["--consistency=0", "--tile=64"]
    for wrong, said in (
        (restore | {"like": str(images)}, "like of folder.smk is for translate, not for restore: leave it out"),
        (translate | {"consistency": 6}, "consistency of folder.smk is for restore, not for translate"),
        (given | {"task": "score", "truths": "t", "tile": 64}, "tile of folder.smk is for translate and restore, not"),
        (restore | {"consistency": "near"}, "consistency of folder.smk must be a number"),
        (translate | {"like": "nowhere"}, "nowhere"),
        (translate | {"sensor": True}, "sensor of folder.smk reads a camera off real degraded images: give"),
        (translate | {"sensor": 2}, "sensor"),
    ):
        with pytest.raises(UserError, match=said):
            read_job(wrong)


def test_settings_are_checked(images):
    good = {"task": "restore", "images": str(images), "output": "out", "weights": "w"}
    assert read_job(good | {"output": "./2024"}).output == "./2024"
    assert read_job(good | {"shard": 3}).firsts() == [0, 3, 6]
    assert isinstance(read_job(good), FolderJob)
    for changed, said in (
        ({"task": "translat"}, "did you mean 'translate'"),
        ({"wieghts": "w"}, "did you mean 'weights'"),
        ({"weights": ""}, "needs weights"),
        ({"task": "score"}, "needs truths"),
        ({"shard": 0}, "shard=0"),
        ({"shard": "many"}, "shard of folder.smk must be a whole number"),
        ({"output": "{x}"}, "braces"),
        ({"images": "nowhere"}, "nowhere"),
    ):
        with pytest.raises(UserError, match=said):
            read_job(good | changed)
    with pytest.raises(UserError, match="first=8 of .*my photos, which holds 8 images, must be"):
        part_of(images, 8, None)
    os.rename(images / "1.png", images / "0.jpg")
    with pytest.raises(UserError, match="have one name"):
        part_of(images, 0, None)


def test_what_the_graph_cannot_tell_from_a_number_is_refused(images):
    given = {"task": "restore", "images": str(images), "weights": "w", "output": "out"}
    for value in (None, ""):
        with pytest.raises(UserError, match="folder.smk needs output"):
            read_job(given | {"output": value})
    with pytest.raises(UserError, match=r"output of folder.smk looks like a number, 202401: write it as \./202401"):
        read_job(given | {"output": 202401})


def test_scores_do_not_overwrite_a_truth(images, tmp_path):
    truth = tmp_path / "truths" / "0.png"
    truth.parent.mkdir()
    truth.write_bytes((images / "0.png").read_bytes())
    with pytest.raises(UserError, match="is an image, and the scores would overwrite it"):
        score_folder([images / "0.png"], truth.parent, truth)
