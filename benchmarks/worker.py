"""A process of its own for each thing that is measured.

The speed of one then can't depend on what another left behind, such as settings of the C library,
and each has a peak of memory of its own. `Worker` is the parent's end; ``python -m
benchmarks.worker`` is the child's, which measures once for each line that it reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Worker:
    """A child that has prepared one case of `benchmarks.cases` and measures it when asked.

    Args:
        case: the case's name.
        threads: threads it may use.
        settings: the case's arguments.

    Attributes:
        facts: what the case says of itself.

    Raises:
        RuntimeError: the child failed; its own words are on the standard error stream.
    """

    def __init__(self, case: str, threads: int, **settings: Any) -> None:
        self.name = " ".join([case, *(v for v in settings.values() if isinstance(v, str))])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads),
            start_new_session=True,  # Ctrl-C is for the parent; the child sees its orders end
        )
        self.facts = self._ask({"case": case, "threads": threads, "settings": settings})

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()  # the child ends where its orders end
        self.process.stdout.close()
        self.process.wait()

    def measure(self) -> float:
        """Measures once.

        Returns:
            The case's number.
        """
        return self._ask("measure")["value"]

    def peak(self) -> dict[str, int]:
        """Bytes held at most so far.

        Returns:
            ``"bytes"``, and ``"before"``: what the imports alone had taken.
        """
        return self._ask("peak")

    def _ask(self, order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the process that measures {self.name!r} failed")
        return json.loads(answer)


def environment(threads: int) -> dict[str, str]:
    """The environment of a child.

    Args:
        threads: threads it may use.

    Returns:
        Names and values.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _serve() -> None:
    import torch

    from benchmarks.cases import CASES
    from benchmarks.machine import peak_bytes

    first = json.loads(sys.stdin.readline())
    torch.set_num_threads(first["threads"])
    torch.manual_seed(0)
    before = peak_bytes()
    case = CASES[first["case"]](**first["settings"])
    print(json.dumps(case.facts), flush=True)
    for line in sys.stdin:
        if json.loads(line) == "peak":
            answer: dict[str, Any] = {"bytes": peak_bytes(), "before": before}
        else:
            answer = {"value": case.measure()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
