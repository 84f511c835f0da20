"""The download of enwiki2016, tested with a small wheel and a program in place of pip."""

import bz2
import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import sharnn.corpora.enwiki2016
from sharnn import InputError, load_corpus
from sharnn.cli import main
from sharnn.corpora.corpus_files import DownloadError, data_folder, short_path
from sharnn.corpora.enwiki2016 import ENWIKI2016, WheelFile, _fetch, enwiki2016_path
from sharnn.corpora.wiki_pages import page_titles
from sharnn.data import CORPORA
from sharnn.io.byte_sources import FileBytes

ROOT = Path(__file__).parent.parent
PAGES = [f"  <page>\n    <title>{title}</title>\n  </page>\n".encode() for title in "ABC"]
CONTENT = b"<mediawiki>\n" + b"".join(PAGES) + b"</mediawiki>\n"


def compressed(content=CONTENT) -> bytes:
    return bz2.compress(content)


def packed(member=None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("package/__init__.py", "raise SystemExit('nothing may be imported')")
        archive.writestr("package/pages.bz2", compressed() if member is None else member)
    return buffer.getvalue()


def sha256(content) -> str:
    return hashlib.sha256(content).hexdigest()


WHEEL = packed()
FILE = WheelFile(
    name="pages",
    size=len(CONTENT),
    sha256=sha256(CONTENT),
    archive="package-1.0-py3-none-any.whl",
    archive_sha256=sha256(WHEEL),
    requirement="package==1.0",
    tags=("--platform", "any"),
    member="package/pages.bz2",
    member_size=len(compressed()),
    member_sha256=sha256(compressed()),
    split=(len(CONTENT) - 2 * len(PAGES[0]) - 13, len(PAGES[1]), len(PAGES[2]) + 13),
)

# Logs its arguments, then does what the test has written to the file `plan`.
PIP = """
import os, shutil, sys, time
from pathlib import Path
here = Path(__file__).parent
with open(here / "log", "a") as log:
    print(*sys.argv[1:], file=log)
def deliver(name="{archive}"):
    shutil.copy(here / "wheel", Path(sys.argv[sys.argv.index("--dest") + 1], name))
exec((here / "plan").read_text())
"""


class Index:
    """A package index, and a pip that downloads from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "pip.py").write_text(PIP.format(archive=FILE.archive))
        (folder / "log").touch()
        self.serve(WHEEL)

    def serve(self, wheel: bytes) -> None:
        (self.folder / "wheel").write_bytes(wheel)
        self.plan("deliver()")

    def plan(self, code: str) -> None:
        (self.folder / "plan").write_text(code)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Replaces pip in this process and in those that it starts; temporary files are in tmp/."""
    monkeypatch.setattr(sharnn.corpora.enwiki2016, "_fetch", _fetch)
    folder = tmp_path / "index"
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    return Index(folder)


def left_behind(tmp_path) -> list[str]:
    """Returns the names of files in the data folder and in the folder of temporary files."""
    folders = [data_folder(), tmp_path / "tmp"]
    return [path.name for folder in folders for path in folder.rglob("*")]


def test_the_sizes_and_hashes_of_enwiki2016():
    assert ENWIKI2016.size == sum(ENWIKI2016.split) == 6_089_746
    assert ENWIKI2016.archive_sha256.startswith("91a7fa5e814e")
    assert ENWIKI2016.member_sha256.startswith("a53f4648dec4")
    assert ENWIKI2016.sha256.startswith("34c1c63050c8")


def test_the_file_is_downloaded_once_verified_and_kept(index, tmp_path):
    path = enwiki2016_path(file=FILE)
    assert path == data_folder() / "pages"
    assert path.read_bytes() == CONTENT
    index.plan("sys.exit('offline')")
    assert enwiki2016_path(file=FILE) == path
    assert len(index.calls) == 1
    assert sorted(left_behind(tmp_path)) == [".pages.lock", ".pages.verified.json", "pages"]


@pytest.mark.parametrize("on_terminal", [True, False])
def test_on_a_terminal_a_line_announces_the_download(index, monkeypatch, on_terminal):
    stream = io.StringIO()
    stream.isatty = lambda: on_terminal
    monkeypatch.setattr("sys.stderr", stream)
    for _ in range(2):
        enwiki2016_path(file=FILE)
    line = "sharnn: downloading the package package==1.0, which contains pages\n"
    assert stream.getvalue() == (line if on_terminal else "")


def test_pip_downloads_the_same_wheel_on_every_machine_and_installs_nothing(index):
    enwiki2016_path(file=FILE)
    words = index.calls[0].split()
    assert "download" in words
    assert "install" not in words
    assert {"--no-deps", "--only-binary=:all:", "--no-input"} <= set(words)
    assert words[-1] == "package==1.0"
    assert words[words.index("--platform") + 1] == "any"


def test_a_file_in_the_current_folder_does_not_replace_pip(index, tmp_path):
    (tmp_path / "pip.py").write_text("raise SystemExit('not pip')")
    assert enwiki2016_path(file=FILE).read_bytes() == CONTENT


def test_without_an_index_the_error_has_pips_last_line_and_the_remedy(index, tmp_path):
    # Jupyter's kernels set FORCE_COLOR, which pip obeys unless an option forbids it.
    index.plan(
        "red = '' if '--no-color' in sys.argv else '\\033[31m'\n"
        r"sys.exit(f'WARNING: no route\nERROR: No matching distribution for package{red}')"
    )
    with pytest.raises(DownloadError) as caught:
        enwiki2016_path(file=FILE)
    assert str(caught.value) == (
        "pages could not be downloaded (No matching distribution for package): "
        f"place {FILE.archive} of the package package==1.0 in {short_path(data_folder())}"
    )
    assert left_behind(tmp_path) == [".pages.lock"]


def test_a_pip_that_prints_nothing_is_an_error_with_its_exit_code(index):
    index.plan("sys.exit(3)")
    with pytest.raises(DownloadError, match=r"pip exited with 3\)"):
        enwiki2016_path(file=FILE)


@pytest.mark.parametrize("plan", ["pass", "deliver('package-1.0-1-py3-none-any.whl')"])
def test_without_the_expected_wheel_the_error_names_it(index, plan):
    index.plan(plan)
    with pytest.raises(DownloadError, match=rf"there is no file {FILE.archive}\)"):
        enwiki2016_path(file=FILE)


def test_a_missing_pip_is_an_error_with_a_remedy(index, tmp_path, monkeypatch):
    command = [sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"]
    subprocess.run(command, check=True)
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    with pytest.raises(DownloadError, match="pip is missing: python -m ensurepip installs it"):
        enwiki2016_path(file=FILE)


def test_without_a_python_that_can_be_started_there_is_an_error(index, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DownloadError, match=r"could not be downloaded \(No such file"):
        enwiki2016_path(file=FILE)


ALTERED = b"?" + CONTENT[1:]
DAMAGED = {
    "wheel": (packed() + b"?", {}),
    "member": (packed(compressed(ALTERED)), {"archive": packed(compressed(ALTERED))}),
    "text": (
        packed(compressed(ALTERED)),
        {"archive": packed(compressed(ALTERED)), "member": compressed(ALTERED)},
    ),
    "longer text": (
        packed(compressed(CONTENT * 9)),
        {"archive": packed(compressed(CONTENT * 9)), "member": compressed(CONTENT * 9)},
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_each_wrong_hash_is_an_error_and_leaves_nothing(index, tmp_path, name):
    wheel, accepted = DAMAGED[name]
    file = replace(FILE, **{f"{part}_sha256": sha256(accepted[part]) for part in accepted})
    index.serve(wheel)
    with pytest.raises(DownloadError, match=r"is damaged: its sha256 is wrong\)"):
        enwiki2016_path(file=file)
    assert left_behind(tmp_path) == [".pages.lock"]


def test_no_more_than_the_expected_size_is_unpacked(index):
    member = compressed(bytes(20_000_000))
    wheel = packed(member)
    index.serve(wheel)
    hashes = {"archive_sha256": sha256(wheel), "member_sha256": sha256(member)}
    tracemalloc.start()
    with pytest.raises(DownloadError, match="damaged"):
        enwiki2016_path(file=replace(FILE, **hashes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_cut_inside_a_page_is_an_error(index, tmp_path):
    train, valid, test = FILE.split
    with pytest.raises(DownloadError, match=f"no page begins at byte {train + valid + 1}"):
        enwiki2016_path(file=replace(FILE, split=(train, valid + 1, test - 1)))
    assert left_behind(tmp_path) == [".pages.lock"]


def test_a_full_disk_is_named_in_the_error_and_leaves_nothing(index, tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("os.fsync", fsync)
        with pytest.raises(DownloadError, match=r"could not be downloaded.*No space left"):
            enwiki2016_path(file=FILE)
    assert left_behind(tmp_path) == [".pages.lock"]
    assert enwiki2016_path(file=FILE).read_bytes() == CONTENT


def test_an_interruption_leaves_nothing(index, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(sharnn.corpora.enwiki2016, "_read_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            enwiki2016_path(file=FILE)
    assert left_behind(tmp_path) == [".pages.lock"]
    assert enwiki2016_path(file=FILE).read_bytes() == CONTENT


# Calls enwiki2016_path for FILE in another process.
SCRIPT = """
import sys, tempfile
from pathlib import Path
from sharnn.corpora.enwiki2016 import WheelFile, enwiki2016_path
tempfile.tempdir = sys.argv[1]
Path(sys.argv[2]).touch()
enwiki2016_path(file={file!r})
"""


def start(tmp_path, mark) -> subprocess.Popen:
    """Starts a process that creates the file ``mark`` before it needs the corpus."""
    script = [sys.executable, "-c", SCRIPT.format(file=FILE)]
    environment = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}"}
    return subprocess.Popen([*script, tmp_path / "tmp", tmp_path / mark], env=environment)


def test_after_a_killed_download_the_next_one_works(index, tmp_path):
    index.plan("(here / 'pid').write_text(str(os.getpid())); (here / 'on').touch(); time.sleep(99)")
    process = start(tmp_path, "mark")
    while not (index.folder / "on").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    os.kill(int((index.folder / "pid").read_text()), signal.SIGKILL)
    assert [path.name for path in data_folder().iterdir()] == [".pages.lock"]
    index.plan("deliver()")
    assert enwiki2016_path(file=FILE).read_bytes() == CONTENT


def test_of_two_processes_that_need_the_file_one_downloads_it(index, tmp_path):
    index.plan(
        "while len(list(here.parent.glob('mark*'))) < 2 and os.getppid() > 1: time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "deliver()"
    )
    processes = [start(tmp_path, f"mark{number}") for number in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (data_folder() / "pages").read_bytes() == CONTENT
    assert len(index.calls) == 1


def test_a_change_after_the_verification_is_detected(index):
    path = enwiki2016_path(file=FILE)
    verified = path.stat().st_mtime_ns
    path.write_bytes(ALTERED)
    # The file system's clock may tick too slowly to distinguish the two writes.
    os.utime(path, ns=(verified + 10**9, verified + 10**9))
    with pytest.raises(InputError, match=r"damaged.*delete it, and it will be downloaded again"):
        enwiki2016_path(file=FILE)
    path.unlink()
    assert enwiki2016_path(file=FILE).read_bytes() == CONTENT


def test_a_wheel_placed_by_hand_is_used(index):
    index.plan("sys.exit('offline')")
    data_folder().mkdir()
    wheel = data_folder() / FILE.archive
    wheel.write_bytes(WHEEL)
    assert enwiki2016_path(file=FILE).read_bytes() == CONTENT
    assert wheel.exists()
    assert not index.calls


@pytest.mark.parametrize("content", [WHEEL[:-1], b""])
def test_a_damaged_wheel_placed_by_hand_is_an_error_and_is_kept(index, content):
    data_folder().mkdir()
    wheel = data_folder() / FILE.archive
    wheel.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged.*delete it") as caught:
        enwiki2016_path(file=FILE)
    assert not isinstance(caught.value, DownloadError), "nothing may replace the corpus"
    assert wheel.read_bytes() == content
    assert not index.calls


def test_without_a_download_the_error_explains_how_to_place_the_file(index):
    with pytest.raises(DownloadError, match=f"pages is not in .*: place {FILE.archive}"):
        enwiki2016_path(download=False, file=FILE)
    assert not index.calls


def test_the_command_fetches_the_corpus_and_then_only_verifies_it(index, monkeypatch, capsys):
    small = replace(
        CORPORA["enwiki2016"],
        open=lambda sample_size, download: FileBytes(enwiki2016_path(download, FILE)),
        split=FILE.split,
    )
    monkeypatch.setitem(CORPORA, "enwiki2016", small)
    for _ in range(2):
        assert main(["data", "enwiki2016"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        train, valid, test = FILE.split
        assert f"train {train} bytes, valid {valid}, test {test}" in out
        assert out.endswith("CC BY-SA 3.0 and GFDL; from the test data of gensim, LGPL-2.1\n")
    assert len(index.calls) == 1
    corpus = load_corpus("enwiki2016")
    assert [page_titles(part) for part in (corpus.valid, corpus.test)] == [["B"], ["C"]]


def test_the_command_fails_with_one_line_if_there_is_no_index(index, capsys):
    index.plan("sys.exit('ERROR: no index')")
    assert main(["data", "enwiki2016"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sharnn: enwiki2016 could not be downloaded (no index): place gensim")
    assert err.endswith(
        "to use the built-in sample (generated, not enwik8) instead, write sample\n"
    )
    assert err.count("\n") == 1


REAL = Path(os.environ.get("SHARNN_DATA") or ROOT / "data")


@pytest.mark.skipif(not (REAL / "enwiki2016").exists(), reason="run sharnn data enwiki2016")
def test_the_parts_of_enwiki2016_are_whole_pages(monkeypatch):
    monkeypatch.setenv("SHARNN_DATA", str(REAL))
    corpus = load_corpus("enwiki2016", stand_in=False)
    parts = (corpus.train, corpus.valid, corpus.test)
    train, valid, test = map(page_titles, parts)
    assert (len(train), len(valid)) == (193, 10)
    assert (valid[0], valid[-1]) == ("Art", "AOLamer")
    assert test == ["American Revolutionary War", "Ampere", "Algorithm"]
    assert not set(train) & {*valid, *test}
    for part in parts[1:]:
        assert bytes(part[:9]) == b"  <page>\n"
