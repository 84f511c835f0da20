"""Copies of a run in a folder that outlives this machine, such as a mounted drive."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from sharnn.checkpoint import BEST, LAST
from sharnn.errors import InputError
from sharnn.run import METRICS, SETTINGS

KEPT = (SETTINGS, METRICS, BEST, LAST)
SLOTS = ("a", "b")
CONTENTS = "contents.json"  # of a slot: written last, so that a slot without it is half a copy
CHUNK = 2**22


class Keeper:
    """Copies a run to a second folder now and then, and brings it back where the first is gone.

    Two copies are overwritten in turn, so that one is always whole. Their files are overwritten in
    place: a mounted Google Drive moves what is deleted or replaced to its bin, which counts
    against the quota.

    Args:
        run: the run's folder, on a disk that may be lost.
        folder: where the copies go; made when the first is written.
        minutes: least time between two copies that nobody asked for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     Keeper(f"{place}/run", f"{place}/drive").restore()
        False
    """

    def __init__(
        self, run: str | os.PathLike[str], folder: str | os.PathLike[str], minutes: float = 20
    ) -> None:
        self.run, self.folder = Path(run), Path(folder)
        self.minutes = minutes
        self._copied = time.monotonic()

    def due(self) -> bool:
        """Whether the last copy is old enough for the next.

        Returns:
            True once ``minutes`` have gone by since the last copy, or since the start.
        """
        return time.monotonic() - self._copied >= 60 * self.minutes

    def save(self) -> None:
        """Copies the run over the older of the two copies.

        Raises:
            InputError: the folder can't be written.
        """
        kept = self._slots()
        newest = max(kept, key=lambda slot: kept[slot]["number"], default=None)
        slot = SLOTS[1] if newest == SLOTS[0] else SLOTS[0]
        number = kept[newest]["number"] + 1 if newest is not None else 1
        place = self.folder / slot
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / CONTENTS).write_bytes(b"")
            files = {
                name: _copy(self.run / name, place / name)
                for name in KEPT
                if (self.run / name).is_file()
            }
            (place / CONTENTS).write_text(json.dumps({"number": number, "files": files}) + "\n")
        except OSError as error:
            raise InputError(f"can't keep a copy in {place}: {error.strerror or error}") from error
        self._copied = time.monotonic()

    def restore(self) -> bool:
        """Brings the newest whole copy back, where the run itself is gone.

        Returns:
            Whether a copy was brought back. A run that is still there stays as it is.

        Raises:
            InputError: there are copies, but none is whole; where they go is no folder; or the
                run's folder can't be written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder: copies can't be kept there")
        if (self.run / LAST).exists():
            return False
        kept = self._slots()
        for slot in sorted(kept, key=lambda slot: -kept[slot]["number"]):
            files, place = kept[slot]["files"], self.folder / slot
            try:
                self.run.mkdir(parents=True, exist_ok=True)
                whole = [_copy(place / n, self.run / _partial(n)) == files[n] for n in files]
                if not all(whole):
                    continue
                # The checkpoint comes last: without it the folder is no run.
                for name in sorted(files, key=KEPT.index):
                    os.replace(self.run / _partial(name), self.run / name)
                return True
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(f"can't restore {self.run}: {error.strerror or error}") from error
        if kept:
            raise InputError(f"no copy in {self.folder} is whole: remove it to start anew")
        return False

    def _slots(self) -> dict[str, dict[str, Any]]:
        """What the two copies say they hold; half a copy says nothing."""
        found = {}
        for slot in SLOTS:
            try:
                contents = json.loads((self.folder / slot / CONTENTS).read_text())
                found[slot] = {"number": int(contents["number"]), "files": contents["files"]}
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found


def _partial(name: str) -> str:
    """What a file of the run is called until it is whole."""
    return f".{name}.partial"


def _copy(source: Path, target: Path) -> str:
    """Copies a file over another, in place, and returns the sha256 of what it copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as written:
        while chunk := read.read(CHUNK):
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    return digest.hexdigest()
