"""What a reader must know of the machine, and nothing that tells whose it is."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import sharnn


def machine() -> dict[str, Any]:
    """The facts that go with every measurement.

    Returns:
        Names and values that JSON can hold.
    """
    can_tell = hasattr(torch.cpu, "get_capabilities")
    capabilities = dict(torch.cpu.get_capabilities()) if can_tell else {}
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": capabilities.get("avx512_bf16"),  # None: this torch can't tell
        "amx_bf16": capabilities.get("amx_bf16"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sharnn": sharnn.__version__,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _commit() -> str:
    """The commit that was measured, marked where files have changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return said.stdout.strip()


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_bytes() -> int:
    """The most memory this process has held so far.

    Linux hands the parent's peak down to a new process in ``ru_maxrss``; VmHWM is the process's
    own, so it goes first where there is one.

    Returns:
        The bytes.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
