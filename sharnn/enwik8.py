"""Downloads and verifies enwik8: the first 100,000,000 bytes of the English Wikipedia of 2006."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sharnn.errors import InputError
from sharnn.io.console import shows_bars
from sharnn.io.files import open_atomically, read_file, require_writable, write_atomically
from sharnn.io.lock import locked

SEEN = ".enwik8.verified.json"
MAX_STAMP = 10_000  # bytes
REMEDY = "delete it, and it will be downloaded again"


@dataclass(frozen=True)
class Download:
    """A file to download: its address, size and hashes.

    Args:
        url: address of the zip file.
        name: name of the file in the zip and in the data folder.
        size: number of bytes, unpacked.
        zip_sha256, sha256: hashes of the zip and of the unpacked file.
    """

    url: str
    name: str
    size: int
    zip_sha256: str
    sha256: str


ENWIK8 = Download(
    url="https://mattmahoney.net/dc/enwik8.zip",
    name="enwik8",
    size=100_000_000,
    zip_sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    sha256="2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
)


class DownloadError(InputError):
    """The file is missing and could not be downloaded."""


def data_folder() -> Path:
    """Returns the folder for downloads.

    It is the folder that the environment variable ``SHARNN_DATA`` names; if that is not set,
    ``data/`` if the package is used from a clone, else ``sharnn`` in the user's cache.

    Raises:
        InputError: ``SHARNN_DATA`` names the home folder of an unknown user.
    """
    named = os.environ.get("SHARNN_DATA")
    if named:
        try:
            return Path(named).expanduser()
        except RuntimeError:
            raise InputError(
                f"SHARNN_DATA is {named}, but that home folder can't be found: write the full path"
            ) from None
    clone = Path(__file__).resolve().parent.parent
    if (clone / "pyproject.toml").is_file() and (clone / "data").is_dir():
        return clone / "data"
    import pooch

    return Path(pooch.os_cache("sharnn"))


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
    folder = data_folder()
    path, packed = folder / file.name, folder / f"{file.name}.zip"
    try:
        if path.exists():
            _verify(path, file)
            return path
        folder.mkdir(parents=True, exist_ok=True)
        # If several processes need the file at once, one downloads it and the others wait.
        with locked(folder / f".{file.name}.lock", wait=True):
            if path.exists():
                _verify(path, file)
                return path
            require_writable(path)
            if packed.exists():
                _unpack(packed, path, file)
            else:
                _obtain(file, packed, path, download)
    except OSError as error:
        raise InputError(f"can't use {folder}: {error.strerror or error}") from error
    return path


def _short(path: Path) -> str:
    """Returns a path as a user would type it: absolute, or relative if that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except (ValueError, OSError):  # it is on another drive, or the current folder was deleted
        return str(path)


def _obtain(file: Download, packed: Path, path: Path, download: bool) -> None:
    """Downloads, verifies and unpacks the file, and deletes the zip."""
    by_hand = (
        f"download {file.url} by hand and place it as {_short(packed)}, "
        f"or unpacked as {_short(path)}"
    )
    if not download:
        raise DownloadError(f"{file.name} is not in {_short(path.parent)}: {by_hand}")
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
            file.url, file.zip_sha256, fname=target.name, path=target.parent, downloader=downloader
        )
    finally:
        pooch.get_logger().setLevel(level)


def _unpack(packed: Path, path: Path, file: Download) -> None:
    """Verifies and unpacks the zip; the unpacked file appears complete or not at all."""
    if not packed.is_file() or _sha256(packed) != file.zip_sha256:
        raise InputError(f"{packed} is damaged: its sha256 is not that of {file.name}; {REMEDY}")
    with (
        zipfile.ZipFile(packed) as archive,
        archive.open(file.name) as source,
        open_atomically(path) as target,
    ):
        shutil.copyfileobj(source, target)
    _verify(path, file)


def _verify(path: Path, file: Download) -> None:
    """Raises an error if a file has the wrong content. A file verified before is not read again."""
    stat = path.stat()
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; {REMEDY}")
    if stat.st_size != file.size:
        raise InputError(
            f"{path} is damaged: it has {stat.st_size:,} bytes, not {file.size:,}; {REMEDY}"
        )
    seen = {"size": stat.st_size, "modified": stat.st_mtime_ns, "sha256": file.sha256}
    stamp = path.parent / SEEN
    try:
        if json.loads(read_file(stamp, MAX_STAMP)) == seen:
            return
    except (ValueError, RecursionError):
        pass  # not verified yet, or the stamp is unreadable
    if _sha256(path) != file.sha256:
        raise InputError(f"{path} is damaged: its sha256 is not that of {file.name}; {REMEDY}")
    # In a read-only folder the file is verified each time.
    with contextlib.suppress(InputError):
        write_atomically(stamp, json.dumps(seen).encode())


def _sha256(path: Path) -> str:
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
