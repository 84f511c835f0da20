"""Downloads and verifies enwiki2016: 206 pages of the English Wikipedia of 2016.

They are a test file in the wheel of gensim, of which nothing is installed or imported. So a package
index, or a mirror of one, is all that the download needs.
"""

from __future__ import annotations

import bz2
import hashlib
import itertools
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sharnn.corpora.corpus_files import (
    REMEDY,
    CorpusFile,
    DownloadError,
    corpus_path,
    sha256_of,
    short_path,
)
from sharnn.errors import InputError
from sharnn.io.console import is_terminal, notify
from sharnn.io.files import write_atomically

PAGE = b"  <page>\n"


@dataclass(frozen=True)
class WheelFile(CorpusFile):
    """A file that is compressed with bzip2 in a wheel.

    Args:
        requirement: the wheel's package and version.
        tags: options of pip that select the wheel on every machine.
        member: path of the compressed file in the wheel.
        member_size, member_sha256: its number of bytes and its hash.
        split: sizes of the training, validation and test part. A page begins at each cut.
    """

    requirement: str
    tags: tuple[str, ...]
    member: str
    member_size: int
    member_sha256: str
    split: tuple[int, int, int]


ENWIKI2016 = WheelFile(
    name="enwiki2016",
    size=6_089_746,
    sha256="34c1c63050c87cc8477b9ae36b1cb0edf372612c92938b742e579a7109c20fa4",
    archive="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    archive_sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    requirement="gensim==4.4.0",
    tags=(
        *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
        *("--platform", "manylinux_2_28_x86_64"),
    ),
    member="gensim/test/test_data/"
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    member_size=1_695_871,
    member_sha256="a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    # Validation: the 10 pages from "Art" to "AOLamer". Test: "American Revolutionary War",
    # "Ampere" and "Algorithm".
    split=(5_565_906, 250_018, 273_822),
)
ORIGIN = (
    "by the authors of Wikipedia, CC BY-SA 3.0 and GFDL; from the test data of gensim, LGPL-2.1"
)


def enwiki2016_path(download: bool = True, file: WheelFile = ENWIKI2016) -> Path:
    """Returns the path of the verified, unpacked file, which is downloaded if it is missing.

    pip downloads the wheel, with the user's settings. A wheel placed by hand is verified and used.

    Args:
        download: download the wheel if the file is missing.
        file: the file.

    Raises:
        DownloadError: the file is missing, and could not be downloaded or ``download`` is False.
        InputError: the existing file is truncated or damaged, or the folder can't be written.
    """
    return corpus_path(file, lambda folder: _obtain(file, folder, download))


def _obtain(file: WheelFile, folder: Path, download: bool) -> None:
    """Unpacks a wheel that was placed by hand, or downloads one to a temporary folder."""
    wheel, path = folder / file.archive, folder / file.name
    if wheel.exists():
        try:
            text = _read_text(wheel, file)
        except InputError as error:
            raise InputError(f"{error}; {REMEDY}") from error
        write_atomically(path, text)
        return
    by_hand = f"place {file.archive} of the package {file.requirement} in {short_path(folder)}"
    if not download:
        raise DownloadError(f"{file.name} is not in {short_path(folder)}: {by_hand}")
    if is_terminal(sys.stderr):
        notify(f"downloading the package {file.requirement}, which contains {file.name}")
    try:
        with tempfile.TemporaryDirectory(prefix="sharnn-", ignore_cleanup_errors=True) as temporary:
            _fetch(file, Path(temporary))
            write_atomically(path, _read_text(Path(temporary, file.archive), file))
    except (OSError, InputError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DownloadError(f"{file.name} could not be downloaded ({reason}): {by_hand}") from error


def _fetch(file: WheelFile, folder: Path) -> None:
    """Downloads the wheel to a folder.

    Raises:
        InputError: pip is missing or failed.
        OSError: pip can't be started.
    """
    # -P: no file in the current folder can take the place of a module.
    command = [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check"]
    command += ["--no-color", "--retries", "1", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", *file.tags, "--dest", str(folder), file.requirement]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if last.endswith("No module named pip"):
            raise InputError("pip is missing: python -m ensurepip installs it")
        raise InputError(last.removeprefix("ERROR: ") or f"pip exited with {done.returncode}")


def _read_text(wheel: Path, file: WheelFile) -> bytes:
    """Returns the text in a wheel. Nothing is imported or unpacked before its hash is verified.

    Raises:
        InputError: the wheel, its member or the text is not the expected one.
    """
    if not wheel.is_file():
        raise InputError(f"there is no file {wheel.name}")
    if sha256_of(wheel) != file.archive_sha256:
        raise InputError(f"{wheel.name} is damaged: its sha256 is wrong")
    with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as member:
        packed = member.read(file.member_size + 1)
    if hashlib.sha256(packed).hexdigest() != file.member_sha256:
        raise InputError(f"{file.member} in {wheel.name} is damaged: its sha256 is wrong")
    text = bz2.BZ2Decompressor().decompress(packed, file.size + 1)
    if hashlib.sha256(text).hexdigest() != file.sha256:
        raise InputError(f"{file.name} in {wheel.name} is damaged: its sha256 is wrong")
    for cut in itertools.accumulate(file.split[:-1]):
        if not text.startswith(PAGE, cut):
            raise InputError(f"{file.name} can't be split: no page begins at byte {cut:,}")
    return text
