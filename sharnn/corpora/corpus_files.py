"""Files of downloaded corpora: the folders that they are in, and their verification."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sharnn.errors import InputError
from sharnn.io.files import read_file, require_writable, write_atomically
from sharnn.io.lock import locked

MAX_STAMP = 10_000  # bytes
REMEDY = "delete it, and it will be downloaded again"


@dataclass(frozen=True)
class CorpusFile:
    """The file of a corpus, which is unpacked from a downloaded archive.

    Args:
        name: name of the file.
        size: number of bytes.
        sha256: hash of the file.
        archive: name of the archive.
        archive_sha256: hash of the archive.
    """

    name: str
    size: int
    sha256: str
    archive: str
    archive_sha256: str


class DownloadError(InputError):
    """The file is missing and could not be downloaded."""


def data_folders() -> list[Path]:
    """Returns the folders in which corpora are found.

    It is the folder that the environment variable ``SHARNN_DATA`` names; if that is not set,
    ``data/`` if the package is used from a clone, and ``sharnn`` in the user's cache.

    Raises:
        InputError: ``SHARNN_DATA`` names the home folder of an unknown user.
    """
    named = os.environ.get("SHARNN_DATA")
    if named:
        try:
            return [Path(named).expanduser()]
        except RuntimeError:
            raise InputError(
                f"SHARNN_DATA is {named}, but that home folder can't be found: write the full path"
            ) from None
    import pooch

    folders = [Path(pooch.os_cache("sharnn"))]
    clone = Path(__file__).resolve().parents[2]
    if (clone / "pyproject.toml").is_file() and (clone / "data").is_dir():
        folders.insert(0, clone / "data")
    return folders


def data_folder(*names: str) -> Path:
    """Returns the folder of a corpus.

    Args:
        names: its files. The folder is the first one that has any of them. If none has, it is the
            first one that can be written.
    """
    folders = data_folders()
    for folder in folders:
        if any((folder / name).exists() for name in names):
            return folder
    return next((folder for folder in folders if os.access(folder, os.W_OK)), folders[-1])


def corpus_path(file: CorpusFile, obtain: Callable[[Path], None]) -> Path:
    """Returns the path of the verified file of a corpus, which is obtained if it is missing.

    If several processes need a missing file, one of them obtains it and the others wait.

    Args:
        file: the file.
        obtain: places the file in a folder.

    Raises:
        DownloadError: the file is missing and could not be downloaded.
        InputError: the existing file is truncated or damaged, or the folder can't be written.
    """
    folder = data_folder(file.name, file.archive)
    path = folder / file.name
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f".{file.name}.lock", wait=True):
                if not path.exists():
                    require_writable(path)
                    obtain(folder)
        _verify(path, file)
    except OSError as error:
        raise InputError(f"can't use {folder}: {error.strerror or error}") from error
    return path


def _verify(path: Path, file: CorpusFile) -> None:
    """Raises an error if a file has the wrong content. A file verified before is not read again."""
    stat = path.stat()
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; {REMEDY}")
    if stat.st_size != file.size:
        raise InputError(
            f"{path} is damaged: it has {stat.st_size:,} bytes, not {file.size:,}; {REMEDY}"
        )
    seen = {"size": stat.st_size, "modified": stat.st_mtime_ns, "sha256": file.sha256}
    stamp = path.parent / f".{file.name}.verified.json"
    try:
        if json.loads(read_file(stamp, MAX_STAMP)) == seen:
            return
    except (ValueError, RecursionError):
        pass  # not verified yet, or the stamp is unreadable
    if sha256_of(path) != file.sha256:
        raise InputError(f"{path} is damaged: its sha256 is not that of {file.name}; {REMEDY}")
    # In a read-only folder the file is verified each time.
    with contextlib.suppress(InputError):
        write_atomically(stamp, json.dumps(seen).encode())


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal digits."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def short_path(path: Path) -> str:
    """Returns a path as a user would type it: absolute, or relative if that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except (ValueError, OSError):  # it is on another drive, or the current folder was deleted
        return str(path)
