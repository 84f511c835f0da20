"""The results file of the race: one JSON object per line, appended when it is known.

The first line is the track. A line of kind ``reference`` or ``timing`` is a measurement of the
duration of a step, a line of kind ``run`` is a finished run. A line that was cut off when its
process was killed is ignored, and removed by the next one that is appended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sharnn
from benchmarks.race_settings import Race
from sharnn.io.files import require_writable
from sharnn.io.lock import LockedError, locked

DEFAULT = Path(__file__).resolve().parent / "race.jsonl"
Row = dict[str, Any]


def read_rows(path: Path, kind: str | None = None) -> list[Row]:
    """Returns the lines of a results file, in the order in which they were written.

    Args:
        path: the file; it may be missing.
        kind: return only lines of this kind; None for all.

    Raises:
        sharnn.InputError: the file can't be read, or a complete line of it is invalid.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [row for row in rows if kind is None or row["kind"] == kind]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise sharnn.InputError(f"{path} can't be read as results of the race") from error


def append_row(path: Path, row: Row) -> None:
    """Appends a line to a results file; several processes may do so at the same time.

    Raises:
        sharnn.InputError: the file can't be written.
    """
    line = json.dumps(row).encode() + b"\n"
    with locked(_lock(path, "append"), wait=True):
        try:
            with open(path, "ab+") as file:
                file.seek(0)
                content = file.read()
                file.truncate(content.rfind(b"\n") + 1)  # what a killed process began
                file.write(line)
        except OSError as error:
            raise sharnn.InputError(f"can't write {path}: {error.strerror or error}") from error


def start_file(path: Path, race: Race, corpus: sharnn.Corpus) -> None:
    """Writes the track to a new results file, or checks that a file is of the same track.

    Raises:
        sharnn.InputError: the file is of another track or other data, or can't be written.
    """
    require_writable(path)
    track = {
        "kind": "track",
        "quick": race.quick,
        **json.loads(json.dumps(dataclasses.asdict(race.track))),
        "data": Path(corpus.name).name,  # without its folder, which is private
        "fingerprint": corpus.fingerprint,
    }
    with locked(_lock(path, "start"), wait=True):
        rows = read_rows(path)
        if not rows:
            append_row(path, track)
            return
    names = [name for name in track if name != "data" and rows[0].get(name) != track[name]]
    if names:
        name = names[0]
        found = rows[0].get(name)
        what = "other data" if name == "fingerprint" else f"another track: {name} is {found}"
        raise sharnn.InputError(f"{path} has runs of {what}; choose another file with --out")


@contextlib.contextmanager
def claim(path: Path, name: str) -> Iterator[bool]:
    """Context manager: True if no other process works on the named run, and keeps others out.

    The lock ends with the process, so that a run that was killed can be started again.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(_lock(path, name), wait=False))
            free = True
        except LockedError:
            free = False
        yield free


def _lock(path: Path, name: str) -> Path:
    """Returns the path of a lock, in a folder next to the results file."""
    folder = path.with_name(f".{path.name}.locks")
    with contextlib.suppress(OSError):  # then nothing is locked, and appending reports the reason
        folder.mkdir(exist_ok=True)
    return folder / re.sub(r"[^A-Za-z0-9.]+", "-", name)
