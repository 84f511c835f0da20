"""Runs one step in a process of its own: ``python -m benchmarks.gpu.child``.

A fault of a device can leave a process unable to use it, so no step shares one with another. The
settings arrive as JSON on the standard input, and the result leaves on the standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.gpu.plan import Plan
from benchmarks.gpu.steps import STEPS


def main() -> None:
    """Runs the step that the input names."""
    settings = json.load(sys.stdin)
    name = settings.pop("step")
    plan = Plan(**{**settings, "earlier": Path(settings["earlier"])})
    print(json.dumps(STEPS[name].run(plan)), flush=True)
    os._exit(0)  # libraries of a device can fail or hang at the end of a process


if __name__ == "__main__":
    main()
