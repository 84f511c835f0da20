"""Files: outputs are complete or unchanged, writers don't meet, leftovers go, and inputs end."""

import os
import sys
import threading

import pytest

import sharnn.io.files
from sharnn import InputError, load, save
from sharnn.io.files import (
    partial_path,
    read_file,
    remove_leftovers,
    require_folder,
    require_writable,
    write_atomically,
)
from small import small_model

DAY = 24 * 3600


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), (InputError, "No space left")),
        (KeyboardInterrupt("now"), (KeyboardInterrupt, "now")),
    ],
)
def test_a_failed_write_leaves_the_old_file_unchanged(tmp_path, monkeypatch, error, expected):
    path = tmp_path / "m.safetensors"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected[0], match=expected[1]):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_share_a_partial_file(tmp_path, monkeypatch):
    path, both = tmp_path / "file", threading.Barrier(2)
    fsync = os.fsync

    def wait_for_the_other(descriptor):
        both.wait(60)  # both have written their content, and neither has renamed it
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", wait_for_the_other)
    contents = [b"a" * 5000, b"b" * 3000]
    failures = []

    def write(content):
        try:
            write_atomically(path, content)
        except InputError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file", "x" * 230, "é" * 120, "[a]*"])
def test_old_leftovers_of_killed_writers_are_removed(tmp_path, name):
    path, other = tmp_path / name, tmp_path / f"{name[:50]}.other"
    old, new = partial_path(path), partial_path(path)
    unrelated = partial_path(other)
    for leftover in (old, new, unrelated):
        leftover.write_bytes(b"half of a fi")
    for leftover in (old, unrelated):
        before = leftover.stat().st_mtime - 2 * DAY
        os.utime(leftover, (before, before))
    write_atomically(path, b"whole")
    expected = {path, new}
    if name == "file":  # the names of other partial files are too long to keep them apart
        expected.add(unrelated)
    assert set(tmp_path.iterdir()) >= expected
    assert not old.exists()
    remove_leftovers(path, age=0)
    assert not new.exists()
    assert path.read_bytes() == b"whole"


def test_a_written_file_has_the_permissions_of_a_new_file(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "theirs").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_an_output_is_checked_by_creating_a_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "out"
    assert require_writable(str(path)) == path
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    require_writable(path)
    assert path.read_bytes() == b"old"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="write-protected"):
        require_writable(path)


@pytest.mark.parametrize("check", [require_writable, require_folder])
def test_a_folder_that_refuses_files_is_noticed(tmp_path, monkeypatch, check):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sharnn.io.files, "_create_and_remove", refuse)
    with pytest.raises(InputError, match=r"can't write (to )?.*Permission denied"):
        check(tmp_path / "out")


def test_impossible_paths_are_errors(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in ("a\0b", tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="can't"):
            require_writable(path)
    for path in ("a\0b", tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="can't"):
            require_folder(path)
    require_folder(tmp_path / "new" / "folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="not a regular file"):
            read_file(path)


def test_a_file_is_read_up_to_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file") == read_file(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(InputError, match="more than 4 bytes"):
        read_file(tmp_path / "file", limit=4)
    with pytest.raises(InputError, match="directory"):
        read_file(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on other systems")
def test_a_model_can_have_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    model = small_model()
    save(model, path)
    assert load(path).config == model.config
