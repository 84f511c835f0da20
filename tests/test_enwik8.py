"""The download of enwik8, tried on a small file that stands for it. No network is used."""

import hashlib
import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import sharnn.enwik8
from sharnn import InputError, load_corpus
from sharnn.enwik8 import ENWIK8, SEEN, Download, DownloadError, data_folder, enwik8_path

CONTENT = b"<mediawiki>" * 100


def packed(content=CONTENT) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("small", content)
    return buffer.getvalue()


ZIP = packed()
FILE = Download(
    url="https://nowhere.invalid/small.zip",
    name="small",
    size=len(CONTENT),
    zip_sha256=hashlib.sha256(ZIP).hexdigest(),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def online(monkeypatch):
    """Downloads come from here; the count says how many there were."""
    fetched = []

    def fetch(file, target):
        fetched.append(file.url)
        target.write_bytes(ZIP)

    monkeypatch.setattr(sharnn.enwik8, "_fetch", fetch)
    return fetched


@pytest.fixture
def offline(monkeypatch):
    def fetch(file, target):
        raise OSError("no route to host")

    monkeypatch.setattr(sharnn.enwik8, "_fetch", fetch)


def test_the_figures_of_enwik8():
    assert ENWIK8.size == 10**8
    assert ENWIK8.zip_sha256.startswith("547994d9980e")
    assert ENWIK8.sha256.startswith("2b49720ec4d7")


def test_it_is_fetched_once_verified_and_kept(online):
    path = enwik8_path(file=FILE)
    assert path.read_bytes() == CONTENT
    assert path.parent == data_folder()
    assert not (data_folder() / "small.zip").exists()
    assert enwik8_path(file=FILE) == path
    assert len(online) == 1


def test_of_several_that_need_it_at_once_one_fetches_it(online, monkeypatch):
    fetch, together = sharnn.enwik8._fetch, threading.Barrier(3)

    def slow(file, target):
        time.sleep(0.2)
        fetch(file, target)

    def need(_):
        together.wait()
        return enwik8_path(file=FILE).read_bytes()

    monkeypatch.setattr(sharnn.enwik8, "_fetch", slow)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(need, range(3))) == [CONTENT] * 3
    assert len(online) == 1


@pytest.mark.parametrize("name", ["small", "small.zip"])
def test_a_file_placed_by_hand_is_used(offline, name):
    (data_folder() / name).write_bytes(CONTENT if name == "small" else ZIP)
    assert enwik8_path(file=FILE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("small", CONTENT[:-1]),
        ("small", b"?" + CONTENT[1:]),
        ("small.zip", ZIP[:-1]),
        ("small.zip", packed(b"?" + CONTENT[1:])),
        ("small.zip", b""),
    ],
)
def test_a_truncated_or_altered_file_is_refused_and_kept(online, name, content):
    path = data_folder() / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged.*delete it"):
        enwik8_path(file=FILE)
    assert path.read_bytes() == content
    assert not online


def test_a_file_altered_after_it_was_verified_is_noticed(online):
    path = enwik8_path(file=FILE)
    assert (path.parent / SEEN).exists()
    path.write_bytes(b"?" + CONTENT[1:])
    with pytest.raises(InputError, match="damaged"):
        enwik8_path(file=FILE)


def test_offline_it_says_how_to_place_the_file(offline):
    with pytest.raises(DownloadError, match=r"nowhere\.invalid.*unpacked as"):
        enwik8_path(file=FILE)
    with pytest.raises(DownloadError, match="is not in"):
        enwik8_path(download=False, file=FILE)


def test_offline_the_sample_takes_over_in_one_visible_line(offline, capsys):
    corpus = load_corpus("enwik8", sample_size=20_000)
    assert corpus.is_sample
    assert "not enwik8" in corpus.name
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "mattmahoney.net" in shown
    assert "built-in sample" in shown
    assert str(data_folder()) in shown


def test_the_data_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("SHARNN_DATA")
    assert data_folder().name == "data", "in a clone"


def test_outside_a_clone_the_users_cache_is_used(monkeypatch, tmp_path):
    monkeypatch.delenv("SHARNN_DATA")
    monkeypatch.setattr(sharnn.enwik8, "__file__", str(tmp_path / "sharnn" / "enwik8.py"))
    assert data_folder().name == "sharnn"
    assert tmp_path not in data_folder().parents


def test_a_folder_that_can_not_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path / "file" / "inside"))
    with pytest.raises(InputError, match="can't use"):
        enwik8_path(file=FILE)
