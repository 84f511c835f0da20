"""Backs up a run to a folder that outlives the machine, such as a mounted drive."""

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

FILES = (SETTINGS, METRICS, BEST, LAST)
SLOTS = ("a", "b")
CONTENTS = "contents.json"  # written last: a slot without valid contents is incomplete
CHUNK = 2**22  # bytes


class RunBackup:
    """Backs up a run folder at intervals, and restores it if it was lost.

    Two slots are overwritten in turn, so that one of them is always complete. Their files are
    overwritten in place: a mounted Google Drive moves deleted or replaced files to its bin, which
    counts towards the quota.

    Args:
        run: the run folder, on a disk that may be lost.
        folder: the folder of the backup; `save` creates it.
        minutes: minimum time between two copies made by `save_if_due`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     RunBackup(f"{place}/run", f"{place}/drive").restore()
        False
    """

    def __init__(
        self, run: str | os.PathLike[str], folder: str | os.PathLike[str], minutes: float = 20
    ) -> None:
        self.run, self.folder = Path(run), Path(folder)
        self.minutes = minutes
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Returns True if ``minutes`` have passed since the last copy, or since the start."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save_if_due(self) -> None:
        """Copies the run if the last copy is old enough; see `is_due` and `save`."""
        if self.is_due():
            self.save()

    def save(self) -> None:
        """Copies the run over the older of the two copies.

        Raises:
            InputError: the backup's folder can't be written.
        """
        slots = self._complete_slots()
        newest = max(slots, key=lambda slot: slots[slot]["number"], default=None)
        target = SLOTS[1] if newest == SLOTS[0] else SLOTS[0]
        number = slots[newest]["number"] + 1 if newest is not None else 1
        place = self.folder / target
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / CONTENTS).write_bytes(b"")
            files = {
                name: _copy(self.run / name, place / name)
                for name in FILES
                if (self.run / name).is_file()
            }
            (place / CONTENTS).write_text(json.dumps({"number": number, "files": files}) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"can't back up {self.run} to {place}: {reason}") from error
        self._saved = time.monotonic()

    def restore(self) -> bool:
        """Restores the run from the newest intact copy, unless the run folder still has it.

        Returns:
            True if the run was restored; False if the folder has a run, or there is no copy.

        Raises:
            InputError: no copy is intact, the backup's folder is not a folder, or the run's
                folder can't be written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder: give a folder for the backup")
        if (self.run / LAST).exists():
            return False
        slots = self._complete_slots()
        for slot in sorted(slots, key=lambda slot: -slots[slot]["number"]):
            files, place = slots[slot]["files"], self.folder / slot
            try:
                self.run.mkdir(parents=True, exist_ok=True)
                hashes = {name: _copy(place / name, self.run / _partial(name)) for name in files}
                if hashes != files:
                    continue
                # The checkpoint comes last: a folder without it is not a run.
                for name in sorted(files, key=FILES.index):
                    os.replace(self.run / _partial(name), self.run / name)
                return True
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(f"can't restore {self.run}: {error.strerror or error}") from error
        if slots:
            raise InputError(
                f"no copy in {self.folder} is intact: remove the folder to start a new run"
            )
        return False

    def _complete_slots(self) -> dict[str, dict[str, Any]]:
        """Returns the contents of each slot whose copy was completed."""
        found = {}
        for slot in SLOTS:
            try:
                contents = json.loads((self.folder / slot / CONTENTS).read_text())
                found[slot] = {"number": int(contents["number"]), "files": contents["files"]}
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found


def _partial(name: str) -> str:
    """Returns the name of a file while it is being restored."""
    return f".{name}.partial"


def _copy(source: Path, target: Path) -> str:
    """Copies a file over another in place, and returns the SHA-256 hash of the content."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()
