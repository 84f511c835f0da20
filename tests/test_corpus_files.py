"""Folders of downloaded corpora, and the corpus that replaces a missing one."""

import os
from dataclasses import replace

import numpy as np
import pytest

import sharnn.corpora.corpus_files
from sharnn import InputError, load_corpus
from sharnn.corpora.corpus_files import (
    CorpusFile,
    DownloadError,
    corpus_path,
    data_folder,
    short_path,
)
from sharnn.data import CORPORA

FILE = CorpusFile("small", 3, "a hash", "small.zip", "a hash")


def test_the_home_folder_of_an_unknown_user_is_an_error(monkeypatch):
    monkeypatch.setenv("SHARNN_DATA", "~nosuchuser/data")
    with pytest.raises(InputError, match="SHARNN_DATA is ~nosuchuser/data, but"):
        data_folder()


def test_an_environment_variable_sets_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path))
    assert data_folder() == tmp_path


@pytest.fixture
def clone(monkeypatch, tmp_path):
    """A clone that the package is used from; returns its data folder and the user's cache."""
    data, cache = tmp_path / "clone" / "data", tmp_path / "cache"
    data.mkdir(parents=True)
    cache.mkdir()
    (tmp_path / "clone" / "pyproject.toml").touch()
    monkeypatch.delenv("SHARNN_DATA")
    monkeypatch.setattr("pooch.os_cache", lambda name: str(cache))
    module = str(tmp_path / "clone" / "sharnn" / "corpora" / "corpus_files.py")
    monkeypatch.setattr(sharnn.corpora.corpus_files, "__file__", module)
    return data, cache


def make_read_only(monkeypatch, folder):
    """Makes a folder read-only, also for root, who can write to any folder."""
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: path != folder and access(path, mode))


def test_a_file_is_placed_in_a_clone_or_else_in_the_users_cache(clone, monkeypatch):
    data, cache = clone
    assert data_folder() == data
    make_read_only(monkeypatch, data)
    assert data_folder() == cache


def test_outside_a_clone_a_file_is_placed_in_the_users_cache(clone):
    data, cache = clone
    (data.parent / "pyproject.toml").unlink()
    assert data_folder(FILE.name) == cache


def test_a_file_is_found_in_every_folder(clone, monkeypatch):
    data, cache = clone
    (cache / "small.zip").touch()
    assert data_folder(FILE.name, FILE.archive) == cache
    (data / "small").touch()
    make_read_only(monkeypatch, data)
    assert data_folder(FILE.name, FILE.archive) == data


def test_with_a_read_only_clone_a_file_is_obtained_in_the_cache(clone, monkeypatch):
    data, cache = clone
    make_read_only(monkeypatch, data)
    with pytest.raises(InputError, match="damaged"):  # its hash is wrong
        corpus_path(FILE, lambda folder: (folder / "small").write_bytes(b"new") and None)
    assert (cache / "small").read_bytes() == b"new"
    assert list(data.iterdir()) == []


def test_an_unwritable_folder_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path / "file" / "inside"))
    with pytest.raises(InputError, match="can't use"):
        corpus_path(FILE, lambda folder: None)


# The corpus that replaces a missing one


@pytest.fixture
def offline(monkeypatch):
    """Makes the download of enwik8 fail; conftest.py does so for the others."""

    def fetch(file, target):
        raise OSError("no route to host")

    monkeypatch.setattr("sharnn.corpora.enwik8._fetch", fetch)


@pytest.fixture
def has_pages(monkeypatch):
    """Makes enwiki2016 available, as 300 bytes."""

    def open_pages(sample_size, download):
        return np.full(300, 7, np.uint8)

    small = replace(CORPORA["enwiki2016"], open=open_pages, split=(100, 100, 100))
    monkeypatch.setitem(CORPORA, "enwiki2016", small)


def one_line(capsys):
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    return shown


def test_without_enwik8_real_text_of_2016_replaces_it(offline, has_pages, capsys):
    corpus = load_corpus("enwik8", (20, 20, 20))
    assert (corpus.name, corpus.is_sample) == (CORPORA["enwiki2016"].title, False)
    assert len(corpus.train) == 100, "a split for enwik8 is not used"
    assert "CC BY-SA" in corpus.describe()
    line = one_line(capsys)
    assert line == f"sharnn: {corpus.notice}\n"
    assert f"place it as {short_path(data_folder() / 'enwik8.zip')}, or unpacked as" in line
    start = "sharnn: using the English Wikipedia of 2016 (enwiki2016, 206 pages) instead: "
    assert line.startswith(f"{start}enwik8 could not be downloaded")


def test_without_any_real_text_the_sample_replaces_it(offline, capsys):
    corpus = load_corpus("enwik8", sample_size=20_000)
    assert corpus.is_sample
    assert corpus.origin is None
    line = one_line(capsys)
    assert "mattmahoney.net" in line
    assert "enwiki2016 could not be downloaded (no package index): place gensim-4.4.0-cp311" in line
    assert line.startswith("sharnn: using the built-in sample (generated, not enwik8) instead: ")


def test_the_sample_replaces_the_text_of_2016(capsys):
    assert load_corpus("enwiki2016", sample_size=20_000).is_sample
    assert "instead: enwiki2016 could not be downloaded" in one_line(capsys)


def test_without_a_download_nothing_is_fetched(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("sharnn.corpora.enwik8._fetch", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(
        "sharnn.corpora.enwiki2016._fetch", lambda *arguments: calls.append(arguments)
    )
    assert load_corpus("enwik8", sample_size=20_000, download=False).is_sample
    assert not calls
    assert one_line(capsys).count("is not in") == 2


def test_a_corpus_that_is_there_replaces_nothing(offline, has_pages, capsys):
    assert load_corpus("enwiki2016").notice is None
    assert load_corpus("sample", sample_size=20_000).notice is None
    assert capsys.readouterr().err == ""


def test_without_a_stand_in_the_error_names_it(offline, has_pages, capsys):
    with pytest.raises(DownloadError, match=r"could not be downloaded.*write enwiki2016$"):
        load_corpus("enwik8", stand_in=False)
    assert capsys.readouterr().err == ""
