"""Corpora: splits, streams, several files, low memory use, and invalid input."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sharnn.data
from sharnn import InputError, load_corpus
from sharnn.corpora.sample import sample_bytes
from sharnn.data import corpus_name, parse_split
from sharnn.io.byte_sources import as_bytes
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


@pytest.fixture
def small_blocks(monkeypatch):
    """Makes a fingerprint read 8 blocks of 16 bytes at most."""
    monkeypatch.setattr(sharnn.data, "BLOCK", 16)
    monkeypatch.setattr(sharnn.data, "HASHED_BLOCKS", 8)


def fingerprint(content):
    return sharnn.data._fingerprint(as_bytes(content), [len(content)])


@pytest.mark.parametrize("size", [1, 6, 16, 17, 40, 127, 128])
def test_every_byte_of_a_corpus_changes_its_fingerprint(small_blocks, size):
    content = bytes(size)
    fingerprints = {fingerprint(content[:i] + b"?" + content[i + 1 :]) for i in range(size)}
    assert len(fingerprints | {fingerprint(content)}) == size + 1


def test_of_a_large_corpus_evenly_spaced_blocks_are_hashed(small_blocks):
    content = bytes(1000)
    fingerprints = {fingerprint(content[:i] + b"?" + content[i + 1 :]) for i in range(1000)}
    assert len(fingerprints) == 8 * 16 + 1, "each hashed byte, or none of them"
    # Between two blocks there are at most 125 bytes.
    for i in range(875):
        assert fingerprint(content[:i] + b"?" * 126 + content[i + 126 :]) != fingerprint(content)


def test_the_middle_of_a_corpus_is_in_its_fingerprint(tmp_path):
    content = sample_bytes(600_000)
    changed = content[:100_000] + b"x" * 300_000 + content[400_000:]
    fingerprints = [
        load_corpus(write(tmp_path / "f", content)).fingerprint for content in (content, changed)
    ]
    assert fingerprints[0] != fingerprints[1]


def test_a_name_means_the_corpus_and_a_path_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sample", b"a file, not the sample" * 10)
    assert load_corpus("sample", sample_size=1000).is_sample
    line = "sharnn: sample is the named corpus, not the file in this folder: write ./sample"
    shown = capsys.readouterr().err
    assert shown.startswith(line)
    assert shown.count("\n") == 1
    for source in ("./sample", Path("sample"), [Path("sample")], str(tmp_path / "sample")):
        assert load_corpus(source).train[:6].tobytes() == b"a file"
    assert capsys.readouterr().err == ""


def test_the_file_of_a_corpus_itself_is_not_pointed_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sample", b"x")
    load_corpus("sample", sample_size=1000)
    assert capsys.readouterr().err == ""


def test_a_named_corpus_cant_be_joined_with_files(tmp_path):
    with pytest.raises(InputError, match=r"enwik8 is the name of a corpus.*write \./enwik8"):
        corpus_name(["text", "enwik8"])
    assert corpus_name(["./enwik8", "sample.txt"]) is None


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
from sharnn.corpora.sample import sample_bytes
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
