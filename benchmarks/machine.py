"""Facts about the machine that affect the results, and none that identify its owner."""

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
    """Returns the facts recorded with every measurement, as values that JSON can represent."""
    has_capabilities = hasattr(torch.cpu, "get_capabilities")
    capabilities = dict(torch.cpu.get_capabilities()) if has_capabilities else {}
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": capabilities.get("avx512_bf16"),  # None: torch is too old to report it
        "amx_bf16": capabilities.get("amx_bf16"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sharnn": sharnn.__version__,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _commit() -> str:
    """Returns the commit that is checked out, with a ``+`` if code has been changed since.

    The files of results are tracked too, and benchmarks change them.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = subprocess.run(
            [*git, "describe", "--always"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", ":(top)*.py"], capture_output=True, check=False
        )
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return name.stdout.strip() + ("+" if changed.returncode else "")


def _processor() -> str:
    """Returns the processor's name, or its architecture if the system doesn't report the name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_bytes() -> int:
    """Returns the peak memory of this process so far, in bytes.

    On Linux a new process inherits its parent's ``ru_maxrss``. VmHWM is the process's own, so it
    is used if available.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
