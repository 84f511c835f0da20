"""Downloads and verifies enwik8: the first 100,000,000 bytes of the English Wikipedia of 2006."""

from __future__ import annotations

import shutil
import sys
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
from sharnn.io.console import shows_bars
from sharnn.io.files import open_atomically


@dataclass(frozen=True)
class Download(CorpusFile):
    """A file in a zip file that has an address.

    Args:
        url: address of the zip file.
    """

    url: str


ENWIK8 = Download(
    url="https://mattmahoney.net/dc/enwik8.zip",
    name="enwik8",
    size=100_000_000,
    sha256="2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    archive="enwik8.zip",
    archive_sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
)
ORIGIN = "by the authors of Wikipedia, CC BY-SA 3.0 and GFDL"


def enwik8_path(download: bool = True, file: Download = ENWIK8) -> Path:
    """Returns the path of the verified, unpacked file, which is downloaded if it is missing.

    A file placed by hand, unpacked or as the zip, is verified and used.

    Args:
        download: download the file if it is missing.
        file: the file.

    Raises:
        DownloadError: the file is missing, and could not be downloaded or ``download`` is False.
        InputError: the existing file is truncated or damaged, or the folder can't be written.
    """
    return corpus_path(file, lambda folder: _obtain(file, folder, download))


def _obtain(file: Download, folder: Path, download: bool) -> None:
    """Unpacks a zip that was placed by hand, or downloads, unpacks and deletes it."""
    packed, path = folder / file.archive, folder / file.name
    if packed.exists():
        _unpack(packed, path, file)
        return
    by_hand = (
        f"download {file.url} by hand and place it as {short_path(packed)}, "
        f"or unpacked as {short_path(path)}"
    )
    if not download:
        raise DownloadError(f"{file.name} is not in {short_path(folder)}: {by_hand}")
    try:
        _fetch(file, packed)
    except Exception as error:  # any failure of the download has the same remedy
        reason = getattr(error, "strerror", None)  # of a full disk, but not of a missing network
        failed = "could not be downloaded" + (f" ({reason})" if reason else "")
        raise DownloadError(f"{file.name} {failed}: {by_hand}") from error
    _unpack(packed, path, file)
    packed.unlink()


def _fetch(file: Download, target: Path) -> None:
    """Downloads the zip, on a terminal with a progress bar; fails if its hash is wrong."""
    import pooch

    level = pooch.get_logger().level
    pooch.get_logger().setLevel("CRITICAL")
    try:
        downloader = pooch.HTTPDownloader(progressbar=shows_bars(sys.stderr), timeout=10)
        pooch.retrieve(
            file.url,
            file.archive_sha256,
            fname=target.name,
            path=target.parent,
            downloader=downloader,
        )
    finally:
        pooch.get_logger().setLevel(level)


def _unpack(packed: Path, path: Path, file: Download) -> None:
    """Verifies and unpacks the zip; the unpacked file appears complete or not at all."""
    if not packed.is_file() or sha256_of(packed) != file.archive_sha256:
        raise InputError(f"{packed} is damaged: its sha256 is not that of {file.name}; {REMEDY}")
    with (
        zipfile.ZipFile(packed) as archive,
        archive.open(file.name) as source,
        open_atomically(path) as target,
    ):
        shutil.copyfileobj(source, target)
