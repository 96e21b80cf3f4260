import errno
import json
import os
import stat

import pytest

from sr_utils.errors import UserError
from sr_utils.files import atomic_path, checksum, read_json, write_json


def test_atomic_path_renames_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "deep" / "ä b.png"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_file(tmp_path, failure):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(failure), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_names_the_file_and_keeps_the_old_one(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(UserError, match=r"disk is full.*a\.json.*free some space"), atomic_path(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot be written"), atomic_path(tmp_path / "runs" / "a.json"):
        pass


@pytest.mark.parametrize("path", ["", ".", "/", "a/.."])
def test_a_folder_is_no_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a folder, so no file can be written there"), atomic_path(path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["x" * 300, "x" * 300 + "/a.json", "a." + "x" * 300, "x/" * 3000 + "a.json"])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="x is too long for this disk|x/a.json is too long for this disk"):
        write_json(path, 1)


def test_a_file_system_that_holds_no_files_of_ours_is_one_sentence():
    with pytest.raises(UserError, match="The folder /proc/sr_utils/x cannot be made there"):
        write_json("/proc/sr_utils/x/a.json", 1)


def test_finished_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_bytes(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_round_trip(tmp_path):
    value = {"rows": [{"method": "bicubic", "psnr": 27.5}], "name": "Zürich"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Zürich" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == 1


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_read_json_missing_or_corrupt(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(path)


def test_checksum(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            (tmp_path / folder / name).write_text(name)
    first = checksum([tmp_path / "one" / "a", tmp_path / "one" / "b"])
    assert first == checksum([tmp_path / "two" / "b", tmp_path / "two" / "a"])
    (tmp_path / "two" / "b").write_text("c")
    assert first != checksum([tmp_path / "two" / "a", tmp_path / "two" / "b"])
    with pytest.raises(UserError, match="missing"):
        checksum([tmp_path / "missing"])


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    target, link = tmp_path / "kept" / "a.json", tmp_path / "link.json"
    write_json(target, 1)
    link.symlink_to(target)
    write_json(link, 2)
    assert link.is_symlink() and read_json(target) == 2


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is a device or a pipe"):
        write_json(pipe, 1)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]
