"""Corpora: splits, streams, several files, low memory use, and invalid input."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sharnn import InputError, load_corpus
from sharnn.data import as_bytes, open_files, parse_split
from sharnn.streams import Streams, cut_streams


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_file_is_split_in_order(tmp_path):
    content = bytes(range(250)) * 4
    corpus = load_corpus(write(tmp_path / "f", content))
    parts = [part[:].tobytes() for part in (corpus.train, corpus.valid, corpus.test)]
    assert b"".join(parts) == content
    assert [len(part) for part in parts] == [900, 50, 50]
    assert not corpus.is_sample


def test_a_split_can_be_given_in_bytes(tmp_path):
    corpus = load_corpus(write(tmp_path / "f", bytes(range(100))), (50, 20, 10))
    assert corpus.test[:].tolist() == list(range(70, 80))


def test_files_are_joined_in_the_order_given(tmp_path):
    paths = [write(tmp_path / name, content) for name, content in (("b", b"12"), ("a", b"34567"))]
    joined = open_files(paths)
    assert len(joined) == 7
    for start in range(8):
        for stop in range(start, 9):
            assert joined[start:stop].tobytes() == b"1234567"[start:stop]


def test_streams_cover_the_text_in_order_with_the_next_byte_as_target():
    text = np.arange(100, dtype=np.uint8)
    streams = Streams(text, batch_size=4)
    position, inputs = 0, []
    while position < streams.length:
        x, y = streams.segment(position, 7)
        assert torch.equal(y, x + 1)
        inputs.append(x)
        position += x.shape[1]
    assert torch.equal(torch.cat(inputs, dim=1), torch.arange(96).reshape(4, 24))


@pytest.mark.parametrize(("size", "count"), [(96, 4), (99, 4), (5, 3), (3, 3)])
def test_streams_cover_the_text_and_differ_by_at_most_one_byte(size, count):
    starts, lengths = cut_streams(size, count)
    assert starts[0] == 0
    assert ((starts + lengths)[:-1] == starts[1:]).all()
    assert lengths.sum() == size
    assert lengths.max() - lengths.min() <= 1
    assert (np.diff(lengths) <= 0).all()
    text = np.arange(size + 1, dtype=np.uint8)
    streams = Streams(text, count, drop_remainder=False)
    assert streams.starts.tolist() == starts.tolist()
    targets = torch.cat([y for _, y in streams.all_segments(2, slice(None))], dim=1)
    for stream, start, length in zip(targets, starts, lengths, strict=True):
        assert stream[stream >= 0].tolist() == list(range(start + 1, start + length + 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "missing", "does not exist"),
        (lambda d: d, "is a folder"),
        (lambda d: write(d / "f", b""), "is empty"),
        (lambda d: write(d / "f", b"short"), "too short"),
        (lambda d: "/dev/zero", "not a regular file"),
        (lambda d: [], "at least one file"),
    ],
)
def test_a_corpus_that_cant_be_read_is_an_error(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        load_corpus(make(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_an_unreadable_file_is_an_error(tmp_path):
    path = write(tmp_path / "f", b"x" * 100)
    path.chmod(0)
    with pytest.raises(InputError, match="can't be read"):
        load_corpus(path)


def test_a_split_larger_than_the_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has 100 bytes, but the split needs 150"):
        load_corpus(write(tmp_path / "f", b"x" * 100), (50, 50, 50))


@pytest.mark.parametrize("text", ["", "1", "a,b,c", "0.5,0.5", "0.9,0.9,0.9", "1,1,-1", "1,0,1"])
def test_an_invalid_split_is_an_error(text):
    with pytest.raises(InputError, match="split"):
        parse_split(text)


def test_as_bytes_accepts_bytes_paths_arrays_and_tensors(tmp_path):
    path = write(tmp_path / "f", b"abc")
    for data in (b"abc", bytearray(b"abc"), path, str(path), np.frombuffer(b"abc", np.uint8)):
        assert as_bytes(data)[:].tobytes() == b"abc"
    assert as_bytes(torch.tensor([97, 98, 99], dtype=torch.uint8))[:].tobytes() == b"abc"
    for data in (torch.tensor([97, 98]), [97, 98], 3, np.zeros((2, 2), np.uint8)):
        with pytest.raises(InputError, match="data must"):
            as_bytes(data)


def test_fingerprints_distinguish_corpora_and_splits(tmp_path):
    one = write(tmp_path / "one", b"x" * 1000)
    other = write(tmp_path / "other", b"x" * 999 + b"y")
    fingerprints = [
        load_corpus(one).fingerprint,
        load_corpus(other).fingerprint,
        load_corpus(one, (0.8, 0.1, 0.1)).fingerprint,
    ]
    assert len(set(fingerprints)) == 3
    assert load_corpus(one).fingerprint == fingerprints[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reading_a_large_file_uses_little_memory(tmp_path):
    """Reads batches from a sparse file of 1 GB, which must not be loaded whole.

    Only anonymous memory is measured: the system can reclaim the cached pages of the file.
    """
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(10**9)
    script = f"""
from sharnn.data import load_corpus
from sharnn.streams import Streams
def anonymous_memory():  # KiB
    return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0])
before = anonymous_memory()
streams = Streams(load_corpus({str(path)!r}).train, 16)
for step in range(200):
    streams.segment(step * 250_000, 1024)
print(anonymous_memory() - before)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(result.stdout) < 5000
