"""Backs up a run to a folder that outlives the machine, such as a mounted drive."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sharnn.checkpoint import LAST
from sharnn.errors import InputError
from sharnn.io.files import is_same_file, partial_path, read_file, require_folder
from sharnn.run_folder import RUN_FILES as FILES
from sharnn.run_folder import create_folder, require_resumable

SLOTS = ("a", "b")
CONTENTS = "contents.json"  # written last: a slot without valid contents is incomplete
CHUNK = 2**22  # bytes
MAX_CONTENTS = 100_000  # bytes
RUN_ID = ".backup-id"  # in the run folder: identifies the run in its backups
BACKUP_MINUTES = 20  # default time between backups


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
        self,
        run: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        minutes: float = BACKUP_MINUTES,
    ) -> None:
        self.run, self.folder = Path(run), Path(folder)
        if not 0 <= minutes < math.inf:
            raise InputError(f"minutes (--keep-minutes) must be at least 0, got {minutes}")
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
        self.check()
        slots = self._complete_slots()
        newest = max(slots, key=lambda slot: slots[slot]["number"], default=None)
        others = [slot for slot in SLOTS if slot != newest]
        # Files of a slot without valid contents are overwritten last: they may be intact.
        target = min(others, key=lambda slot: slot not in slots and self._has_files(slot))
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
            contents = {"number": number, "files": files, "run": self._run_id(create=True)}
            (place / CONTENTS).write_text(json.dumps(contents) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"can't back up {self.run} to {place}: {reason}") from error
        self._saved = time.monotonic()

    def restore(self) -> bool:
        """Restores the run from the newest intact copy, unless the run folder still has it.

        Returns:
            True if the run was restored; False if the folder has a run, or there is no copy.

        Raises:
            InputError: no copy is intact, the folders can't be used, or the run folder has other
                files, which would be overwritten.
        """
        self.check()
        if (self.run / LAST).exists():
            return False
        slots = self._complete_slots()
        for slot in sorted(slots, key=lambda slot: -slots[slot]["number"]):
            try:
                if self._restore_slot(self.folder / slot, slots[slot]["files"]):
                    if slots[slot]["run"] is not None:
                        (self.run / RUN_ID).write_text(slots[slot]["run"])
                    return True
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(f"can't restore {self.run}: {error.strerror or error}") from error
        if any(self._has_files(slot) for slot in SLOTS):
            raise InputError(self._no_intact_copy())
        return False

    def _restore_slot(self, place: Path, files: dict[str, str]) -> bool:
        """Copies one slot to the run folder; returns False if the copy is damaged."""
        self._require_no_other_files(files)
        create_folder(self.run)
        partials = {name: partial_path(self.run / name) for name in files}
        try:
            if {name: _copy(place / name, partials[name]) for name in files} != files:
                return False
            # The checkpoint comes last: a folder without it is not a run.
            for name in sorted(files, key=FILES.index):
                os.replace(partials[name], self.run / name)
            return True
        finally:
            for partial in partials.values():
                partial.unlink(missing_ok=True)

    def _require_no_other_files(self, files: dict[str, str]) -> None:
        """Raises an error if the run folder has files other than those of a copy."""
        for path in sorted(self.run.iterdir()) if self.run.exists() else []:
            if path.name.startswith("."):
                continue
            if not path.is_file() or files.get(path.name) != _sha256(path):
                raise InputError(
                    f"{self.run} has no {LAST}, but {path.name}, which is not that of the backup "
                    f"in {self.folder}: name another run folder to restore the run there"
                )

    def check(self, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
        """Checks that the backup can be written, before the run that it is for.

        Args:
            inputs: the files that the run reads.

        Raises:
            InputError: the backup's folder can't be written, its two copies have no valid
                contents or are those of another run, or the run folder or an input is one of them.
        """
        require_folder(self.folder)
        for place in (self.folder / slot for slot in SLOTS):
            if is_same_file(place, self.run):
                raise InputError(
                    f"{self.run} is a copy in the backup {self.folder}: name another folder"
                )
            require_resumable(place, inputs)
        if not self.has_copy() and all(self._has_files(slot) for slot in SLOTS):
            raise InputError(self._no_intact_copy())
        runs = {contents["run"] for contents in self._complete_slots().values()} - {None}
        if runs and (self.run / LAST).exists() and self._run_id() not in runs:
            raise InputError(
                f"{self.folder} is the backup of another run than {self.run}: name another folder"
            )

    def _run_id(self, create: bool = False) -> str | None:
        """Returns what identifies the run in its backups; None if it was never backed up.

        Args:
            create: give the run an identifier if it has none.
        """
        path = self.run / RUN_ID
        if path.exists():
            return read_file(path, MAX_CONTENTS).decode(errors="replace")
        if not create:
            return None
        path.write_text(secrets.token_hex(8))
        return self._run_id()

    def _no_intact_copy(self) -> str:
        return (
            f"no copy in {self.folder} is intact: name another folder to start a new run, or copy "
            f"the files of {self.folder / SLOTS[0]} or {SLOTS[1]} to {self.run} to try them"
        )

    def has_copy(self) -> bool:
        """Returns True if the backup has a completed copy."""
        return bool(self._complete_slots())

    def _has_files(self, slot: str) -> bool:
        """Returns True if a slot has a checkpoint, which may be incomplete."""
        return (self.folder / slot / LAST).exists()

    def _complete_slots(self) -> dict[str, dict[str, Any]]:
        """Returns the contents of each slot whose copy was completed."""
        found = {}
        for slot in SLOTS:
            try:
                contents = json.loads(read_file(self.folder / slot / CONTENTS, MAX_CONTENTS))
                files = {name: str(digest) for name, digest in contents["files"].items()}
                if LAST in files and files.keys() <= set(FILES):
                    run = contents.get("run")  # versions before 0.2 did not write it
                    found[slot] = {
                        "number": int(contents["number"]),
                        "files": files,
                        "run": run if run is None else str(run),
                    }
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # read_file raises an InputError, which is a ValueError
        return found


def _copy(source: Path, target: Path) -> str:
    """Copies a file over another in place, and returns the SHA-256 hash of the content."""
    if not source.is_file():
        raise FileNotFoundError(f"{source} is missing")
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
