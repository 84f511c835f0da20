"""The results file of the steps: one JSON object, written anew whenever a step ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sharnn
from benchmarks.page_blocks import ROOT
from sharnn.io.files import require_writable, write_atomically

DEFAULT = ROOT / "benchmarks" / "gpu.json"
TRIAL = ROOT / "_build" / "gpu-trial.json"


def read_results(path: Path) -> dict[str, Any]:
    """Returns the content of a results file; empty if it doesn't exist.

    Raises:
        sharnn.InputError: it is not a results file.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        if not isinstance(content["steps"], dict) or not isinstance(content["tiny"], bool):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise sharnn.InputError(f"{path} can't be read as results of the GPU steps") from error
    return content


def start_file(path: Path, tiny: bool, machine: dict[str, Any]) -> None:
    """Starts a results file, or continues one of the same kind from the same machine.

    Raises:
        sharnn.InputError: the file can't be written, or is of another kind.
    """
    require_writable(path)
    content = read_results(path)
    if content and tiny and not content["tiny"]:
        raise sharnn.InputError(
            f"{path} has results of a GPU, and a trial would replace them: give another --out"
        )
    same = content.get("machine", {}).get("device") == machine["device"]
    steps = content["steps"] if content and content["tiny"] == tiny and same else {}
    _write(path, {"tiny": tiny, "machine": machine, "steps": steps})


def add_step(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Adds a step that has ended; an older entry of that name is replaced."""
    content = read_results(path)
    content["steps"][name] = entry
    _write(path, content)


def result_of(path: Path, name: str) -> dict[str, Any] | None:
    """Returns the result of a step; None if it has not run or has failed."""
    return read_results(path).get("steps", {}).get(name, {}).get("result")


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
