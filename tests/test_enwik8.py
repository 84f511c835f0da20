"""The download of enwik8, tested without a network on a small file in its place."""

import errno
import hashlib
import io
import os
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import sharnn.corpora.enwik8
from sharnn import InputError, load_corpus
from sharnn.corpora.corpus_files import DownloadError, data_folder
from sharnn.corpora.enwik8 import ENWIK8, Download, enwik8_path

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
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    archive="small.zip",
    archive_sha256=hashlib.sha256(ZIP).hexdigest(),
)


@pytest.fixture
def online(monkeypatch):
    """Replaces the download, and lists the addresses downloaded."""
    downloaded = []

    def fetch(file, target):
        downloaded.append(file.url)
        target.write_bytes(ZIP)

    monkeypatch.setattr(sharnn.corpora.enwik8, "_fetch", fetch)
    return downloaded


@pytest.fixture
def offline(monkeypatch):
    """Makes every download fail."""

    def fetch(file, target):
        raise OSError("no route to host")

    monkeypatch.setattr(sharnn.corpora.enwik8, "_fetch", fetch)


@pytest.fixture(autouse=True)
def _current_folder(tmp_path, monkeypatch):
    """Starts each test in a new folder: messages name paths relative to it, if that is shorter."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder():
    """Creates the data folder."""
    data_folder().mkdir()
    return data_folder()


def test_the_size_and_hashes_of_enwik8():
    assert ENWIK8.size == 10**8
    assert ENWIK8.archive_sha256.startswith("547994d9980e")
    assert ENWIK8.sha256.startswith("2b49720ec4d7")


def test_the_file_is_downloaded_once_verified_and_kept(online):
    path = enwik8_path(file=FILE)
    assert path.read_bytes() == CONTENT
    assert path.parent == data_folder()
    assert not (data_folder() / "small.zip").exists()
    assert enwik8_path(file=FILE) == path
    assert len(online) == 1


def test_of_several_threads_that_need_the_file_one_downloads_it(online, monkeypatch):
    fetch, barrier = sharnn.corpora.enwik8._fetch, threading.Barrier(3)

    def slow(file, target):
        time.sleep(0.2)
        fetch(file, target)

    def read(_):
        barrier.wait()
        return enwik8_path(file=FILE).read_bytes()

    monkeypatch.setattr(sharnn.corpora.enwik8, "_fetch", slow)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(read, range(3))) == [CONTENT] * 3
    assert len(online) == 1


@pytest.mark.parametrize("name", ["small", "small.zip"])
def test_a_file_placed_by_hand_is_used(offline, folder, name):
    (folder / name).write_bytes(CONTENT if name == "small" else ZIP)
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
def test_a_truncated_or_altered_file_is_an_error_and_is_kept(online, folder, name, content):
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged.*delete it"):
        enwik8_path(file=FILE)
    assert path.read_bytes() == content
    assert not online


def test_a_change_after_the_verification_is_detected(online):
    path = enwik8_path(file=FILE)
    assert (path.parent / ".small.verified.json").exists()
    verified = path.stat().st_mtime_ns
    path.write_bytes(b"?" + CONTENT[1:])
    # The file system's clock may tick too slowly to distinguish the two writes.
    os.utime(path, ns=(verified + 10**9, verified + 10**9))
    with pytest.raises(InputError, match="damaged"):
        enwik8_path(file=FILE)


def test_offline_the_error_explains_how_to_place_the_file(offline):
    with pytest.raises(DownloadError, match=r"nowhere\.invalid.*unpacked as"):
        enwik8_path(file=FILE)
    with pytest.raises(DownloadError, match="is not in"):
        enwik8_path(download=False, file=FILE)


@pytest.mark.parametrize("place", [".", "..", "/", "far/away/from/there"])
def test_the_message_names_a_path_that_exists_from_the_current_folder(
    tmp_path, monkeypatch, offline, place
):
    (tmp_path / "far/away/from/there").mkdir(parents=True)
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(place)
    with pytest.raises(DownloadError) as caught:
        enwik8_path(file=FILE)
    zipped, unpacked = re.search(
        "place it as (.*), or unpacked as (.*)$", str(caught.value)
    ).groups()
    assert os.path.abspath(zipped) == str(tmp_path / "data" / "small.zip")
    assert os.path.abspath(unpacked) == str(tmp_path / "data" / "small")


def test_the_message_needs_no_current_folder(tmp_path, monkeypatch, offline):
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    with pytest.raises(DownloadError, match=f"place it as {data_folder()}"):
        enwik8_path(file=FILE)


def test_a_file_with_the_name_of_the_corpus_is_pointed_out(tmp_path, offline, capsys):
    (tmp_path / "enwik8").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="could not be downloaded"):
        load_corpus("enwik8", stand_in=False)
    assert "write ./enwik8 for the file" in capsys.readouterr().err
    assert load_corpus("./enwik8").train[:].tobytes() == CONTENT[:990]


def test_a_full_disk_is_named_in_the_error(monkeypatch):
    def fetch(file, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sharnn.corpora.enwik8, "_fetch", fetch)
    with pytest.raises(DownloadError, match=r"could not be downloaded \(No space left on device\)"):
        enwik8_path(file=FILE)


@pytest.mark.parametrize("closed", [True, False])
def test_without_a_terminal_a_download_shows_no_bar(monkeypatch, folder, closed):
    """A bar would fill a log file with one long line, and can't be written if stderr is closed."""
    bars = []

    def retrieve(url, known_hash, fname, path, downloader):
        bars.append(downloader.progressbar)
        (folder / fname).write_bytes(ZIP)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setattr("sys.stderr", None if closed else io.StringIO())
    assert enwik8_path(file=FILE).read_bytes() == CONTENT
    assert bars == [False]
