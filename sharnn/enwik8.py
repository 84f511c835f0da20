"""enwik8, the first 100,000,000 bytes of the English Wikipedia of 2006: fetched and verified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sharnn.errors import InputError

SEEN = ".enwik8.verified.json"


@dataclass(frozen=True)
class Download:
    """Where a file comes from and what it must be.

    Args:
        url: address of the zip file.
        name: the file's name, inside the zip and in the data folder.
        size: bytes, unpacked.
        zip_sha256, sha256: of the zip and of the file.
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
    """The file is not here and could not be fetched."""


def data_folder() -> Path:
    """Where downloads are kept.

    Returns:
        The folder that the environment variable ``SHARNN_DATA`` names; without it ``data/`` where
        the package is used from a clone, else ``sharnn`` in the user's cache.
    """
    named = os.environ.get("SHARNN_DATA")
    if named:
        return Path(named).expanduser()
    clone = Path(__file__).resolve().parent.parent
    if (clone / "pyproject.toml").is_file() and (clone / "data").is_dir():
        return clone / "data"
    import pooch

    return Path(pooch.os_cache("sharnn"))


def enwik8_path(download: bool = True, file: Download = ENWIK8) -> Path:
    """The verified file, fetched if it is not here yet.

    A file placed by hand, unpacked or as the zip, is verified and used.

    Args:
        download: fetch it where it is missing.
        file: what to fetch.

    Returns:
        The path of the unpacked file.

    Raises:
        DownloadError: it is missing and could not be, or was not to be, fetched.
        InputError: the file that is there is truncated or damaged, or the folder can't be written.
    """
    from filelock import FileLock

    folder = data_folder()
    path, packed = folder / file.name, folder / f"{file.name}.zip"
    try:
        if path.exists():
            _verify(path, file)
            return path
        folder.mkdir(parents=True, exist_ok=True)
        # Of several processes that need it at once, one fetches it and the others wait.
        with FileLock(folder / f".{file.name}.lock"):
            if path.exists():
                _verify(path, file)
            elif packed.exists():
                _unpack(packed, path, file)
            else:
                _obtain(file, packed, path, download)
    except OSError as error:
        raise InputError(f"can't use {folder}: {error.strerror or error}") from error
    return path


def _short(path: Path) -> str:
    """The path as a person would type it here: absolute, or relative where that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except ValueError:  # it lies on another drive
        return str(path)


def _obtain(file: Download, packed: Path, path: Path, download: bool) -> None:
    """Downloads, verifies and unpacks the file; the zip is not kept."""
    by_hand = (
        f"download {file.url} by hand and place it as {_short(packed)}, "
        f"or unpacked as {_short(path)}"
    )
    if not download:
        raise DownloadError(f"{file.name} is not in {_short(path.parent)}: {by_hand}")
    try:
        _fetch(file, packed)
    except Exception as error:  # whatever goes wrong on the way, the answer is the same
        raise DownloadError(f"{file.name} could not be downloaded: {by_hand}") from error
    _unpack(packed, path, file)
    packed.unlink()


def _fetch(file: Download, target: Path) -> None:
    """Downloads the zip with a progress bar; a file that doesn't match its hash is refused."""
    import pooch

    level = pooch.get_logger().level
    pooch.get_logger().setLevel("CRITICAL")
    try:
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=10)
        pooch.retrieve(
            file.url, file.zip_sha256, fname=target.name, path=target.parent, downloader=downloader
        )
    finally:
        pooch.get_logger().setLevel(level)


def _unpack(packed: Path, path: Path, file: Download) -> None:
    """Verifies and unpacks the zip; the file appears whole or not at all."""
    if _sha256(packed) != file.zip_sha256:
        raise InputError(f"{packed} is damaged: its sha256 is not that of {file.name}; delete it")
    partial = path.with_name(f".{path.name}.partial")
    with (
        zipfile.ZipFile(packed) as archive,
        archive.open(file.name) as source,
        open(partial, "wb") as target,
    ):
        shutil.copyfileobj(source, target)
    os.replace(partial, path)
    _verify(path, file)


def _verify(path: Path, file: Download) -> None:
    """Refuses a file that is not exactly the one meant; a file seen before is not read again."""
    stat = path.stat()
    if stat.st_size != file.size:
        raise InputError(
            f"{path} is damaged: it has {stat.st_size:,} bytes, not {file.size:,}; delete it"
        )
    seen = {"size": stat.st_size, "modified": stat.st_mtime_ns, "sha256": file.sha256}
    stamp = path.parent / SEEN
    try:
        if json.loads(stamp.read_text()) == seen:
            return
    except (OSError, ValueError):
        pass  # never verified, or the stamp is unreadable: verify now
    if _sha256(path) != file.sha256:
        raise InputError(f"{path} is damaged: its sha256 is not that of {file.name}; delete it")
    # A read-only folder only costs another verification.
    with contextlib.suppress(OSError):
        stamp.write_text(json.dumps(seen))


def _sha256(path: Path) -> str:
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
