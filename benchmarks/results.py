"""The results file: parts that are measured at different times join in one JSON file."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sharnn
from sharnn.checkpoint import require_writable, write_atomically

DEFAULT = Path(__file__).resolve().parent / "results.json"
SAME_RUN = ("contender", "preset", "seed", "minutes")


def read_results(path: Path) -> dict[str, Any]:
    """The parts that a results file holds.

    Args:
        path: the file; it need not be there.

    Returns:
        For each part what was measured.

    Raises:
        sharnn.InputError: the file is no results file.
    """
    try:
        return json.loads(path.read_text())["parts"] if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise sharnn.InputError(f"{path} can't be read as benchmark results") from error


def check(path: Path, quick: bool) -> None:
    """Sees to it that a test of the harness does not overwrite measurements, nor join them.

    Args:
        path: where results would go.
        quick: whether everything is small.

    Raises:
        sharnn.InputError: the file holds results of the other kind, or can't be written.
    """
    require_writable(path)
    if any(part["quick"] != quick for part in read_results(path).values()):
        kind = "full" if quick else "--quick"
        raise sharnn.InputError(f"{path} holds a {kind} run: give --out another file")


def add_part(path: Path, name: str, part: dict[str, Any]) -> None:
    """Puts a part into the file, in place of an older one; other parts stay.

    Runs of the part ``"quality"`` are added one by one, in place of an older one of the same
    contender, preset, seed and time. Several processes may write to one file.

    Args:
        path: the file.
        name: of the part.
        part: what was measured.
    """
    with _alone(path):
        parts = read_results(path)
        if name == "quality":
            fresh = {_key(run) for run in part["runs"]}
            before = parts.get(name, {"runs": []})["runs"]
            kept = [run for run in before if _key(run) not in fresh]
            part = {**part, "runs": sorted([*kept, *part["runs"]], key=_key)}
        parts[name] = part
        ordered = {key: parts[key] for key in sorted(parts)}
        write_atomically(path, (json.dumps({"parts": ordered}, indent=1) + "\n").encode())


def _key(run: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(run[name] for name in SAME_RUN)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process is between reading the file and writing it."""
    lock = path.with_name(path.name + ".lock")
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    lock.unlink(missing_ok=True)
