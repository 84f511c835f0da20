"""The results file: one JSON file whose parts can be measured at different times."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sharnn
from sharnn.io.files import require_writable, write_atomically

DEFAULT = Path(__file__).resolve().parent / "results.json"
RUN_KEY = ("contender", "preset", "seed", "minutes")


def read_results(path: Path) -> dict[str, Any]:
    """Returns the parts of a results file by name; none if the file doesn't exist.

    Raises:
        sharnn.InputError: the file can't be read, or it is not a results file.
    """
    try:
        return json.loads(path.read_text())["parts"] if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise sharnn.InputError(f"{path} can't be read as benchmark results") from error


def require_same_kind(path: Path, quick: bool) -> None:
    """Checks that results can be written to a file without mixing quick and full runs.

    Args:
        path: the results file; it may not exist yet.
        quick: True for a quick run, which only tests the harness.

    Raises:
        sharnn.InputError: the file has results of the other kind, or can't be written.
    """
    require_writable(path)
    if any(part["quick"] != quick for part in read_results(path).values()):
        kind = "full" if quick else "--quick"
        raise sharnn.InputError(
            f"{path} has results of a {kind} run: choose another file with --out"
        )


def add_part(path: Path, name: str, part: dict[str, Any]) -> None:
    """Adds a part to a results file, or replaces it; other parts stay.

    In the part ``"quality"``, a run replaces only an older run of the same contender, preset, seed
    and training time. Several processes may write to one file at the same time.

    Args:
        path: the results file.
        name: name of the part.
        part: the measurements.
    """
    with _locked(path):
        parts = read_results(path)
        if name == "quality":
            new = {_key(run) for run in part["runs"]}
            old_runs = parts.get(name, {"runs": []})["runs"]
            kept = [run for run in old_runs if _key(run) not in new]
            part = {**part, "runs": sorted([*kept, *part["runs"]], key=_key)}
        parts[name] = part
        ordered = {key: parts[key] for key in sorted(parts)}
        write_atomically(path, (json.dumps({"parts": ordered}, indent=1) + "\n").encode())


def _key(run: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(run[name] for name in RUN_KEY)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process is updating the file, and keeps others waiting."""
    lock = path.with_name(path.name + ".lock")
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    lock.unlink(missing_ok=True)
