"""Reading bytes slice by slice: files that change, several files, and copies."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from sharnn import InputError
from sharnn.io import byte_sources
from sharnn.io.byte_sources import FileBytes, _seek_and_read, as_bytes, open_files

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("max_read", [1, 7, 2**30])
@pytest.mark.parametrize("read", [byte_sources._read_at, _seek_and_read])
def test_slices_of_a_file_are_its_bytes(path, monkeypatch, read, max_read):
    monkeypatch.setattr(byte_sources, "_read_at", read)
    monkeypatch.setattr(byte_sources, "MAX_READ", max_read)
    data = FileBytes(path)
    assert len(data) == len(CONTENT)
    for piece in (slice(None), slice(3, 40), slice(-9, None), slice(1000, 2000), slice(5, 2)):
        assert data[piece].dtype == np.uint8
        assert data[piece].tobytes() == CONTENT[piece]


def test_a_read_that_returns_fewer_bytes_is_continued(path, monkeypatch):
    read = byte_sources._read_at
    monkeypatch.setattr(
        byte_sources, "_read_at", lambda file, size, start: read(file, max(1, size // 2), start)
    )
    assert FileBytes(path)[10:500].tobytes() == CONTENT[10:500]


def test_a_file_truncated_while_it_is_read_is_an_error(path):
    """A memory map would end the process with SIGBUS, hence a process of its own."""
    script = f"""
from sharnn import InputError, SHARNN, ModelConfig, load_corpus, bits_per_byte
corpus = load_corpus({str(path)!r}, (512, 256, 256))
open({str(path)!r}, "r+b").truncate(100)
print(corpus.train[:100].tobytes() == bytes(range(100)))
for part in (corpus.train, corpus.test):
    try:
        bits_per_byte(SHARNN(ModelConfig(dim=16, boom_dim=16, memory=16)), part)
    except InputError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    intact, *messages = result.stdout.splitlines()
    assert intact == "True"
    assert len(messages) == 2
    for message in messages:
        assert message.startswith(f"{path} was truncated while it was being read: its 1,024 bytes")


def test_a_disk_that_fails_is_an_error(path, monkeypatch):
    def fail(file, size, start):
        raise OSError(5, "Input/output error")

    data = FileBytes(path)
    monkeypatch.setattr(byte_sources, "_read_at", fail)
    with pytest.raises(InputError, match=r"file can't be read: Input/output error$"):
        data[:3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_file_is_closed_when_it_is_no_longer_used(path):
    before = os.listdir("/proc/self/fd")
    data = open_files([path, path])
    assert len(os.listdir("/proc/self/fd")) == len(before) + 2
    del data
    assert os.listdir("/proc/self/fd") == before


def test_copies_read_the_same_file(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    data = FileBytes("file")
    copies = [copy.deepcopy(data)]
    pickled = pickle.dumps(data)
    monkeypatch.chdir("/")
    copies.append(pickle.loads(pickled))
    del data
    for other in copies:
        assert other[:].tobytes() == CONTENT


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe is not a regular file$"):
        FileBytes(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "{path} does not exist"),
        ("", "{path} is a folder: give files"),
        ("empty", "{path} is empty"),
        ("file/inside", "{path} can't be read: Not a directory"),
        ("\0", "{path} can't be read: embedded null byte"),
    ],
)
def test_a_message_names_the_path_once(path, name, message):
    (path.parent / "empty").write_bytes(b"")
    tried = f"{path.parent}/{name}" if name else str(path.parent)
    with pytest.raises(InputError) as caught:
        open_files([tried])
    assert str(caught.value) == message.format(path=tried)


def test_files_are_joined_in_the_order_given(tmp_path):
    for name, content in (("b", b"12"), ("a", b"34567")):
        (tmp_path / name).write_bytes(content)
    joined = open_files([tmp_path / "b", tmp_path / "a"])
    assert len(joined) == 7
    for start in range(8):
        for stop in range(start, 9):
            assert joined[start:stop].tobytes() == b"1234567"[start:stop]


def test_as_bytes_accepts_bytes_paths_arrays_and_tensors(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    for data in (b"abc", bytearray(b"abc"), path, str(path), np.frombuffer(b"abc", np.uint8)):
        assert as_bytes(data)[:].tobytes() == b"abc"
    assert as_bytes(torch.tensor([97, 98, 99], dtype=torch.uint8))[:].tobytes() == b"abc"
    for data in (torch.tensor([97, 98]), [97, 98], 3, np.zeros((2, 2), np.uint8)):
        with pytest.raises(InputError, match="data must"):
            as_bytes(data)
