"""A separate process for each case that is measured.

So one case can't affect the speed of another, for example by settings of the C library, and each
process has its own peak of memory. `Worker` is the parent's side. ``python -m benchmarks.worker``
is the child's: it answers each line that it reads with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.cases import CASES
from benchmarks.machine import peak_bytes

ROOT = Path(__file__).resolve().parent.parent


class LocalWorker:
    """A prepared case of `benchmarks.cases` in this process.

    Args:
        case: name of the case.
        threads: number of threads.
        settings: arguments of the case.

    Attributes:
        facts: the facts of the case; see `benchmarks.cases.Case`.
    """

    def __init__(self, case: str, threads: int, **settings: Any) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.peak_before = peak_bytes()
        self.case = CASES[case](**settings)
        self.facts = self.case.facts

    def measure(self) -> float:
        """Measures once and returns the rate per second."""
        return self.case.measure()

    def peak(self) -> dict[str, int]:
        """Returns the peak memory of this process so far, in bytes.

        Returns:
            ``"bytes"``, and ``"before"``, the peak before the case was prepared.
        """
        return {"bytes": peak_bytes(), "before": self.peak_before}


class Worker:
    """A `LocalWorker` in a child process.

    Args:
        case, threads, settings: see `LocalWorker`.

    Attributes:
        facts: the facts of the case; see `benchmarks.cases.Case`.

    Raises:
        RuntimeError: the child failed; its error message is on the standard error stream.
    """

    def __init__(self, case: str, threads: int, **settings: Any) -> None:
        self.name = " ".join([case, *(v for v in settings.values() if isinstance(v, str))])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads),
            start_new_session=True,  # Ctrl-C stops the parent; the child ends when its input does
        )
        self.facts = self._request({"case": case, "threads": threads, "settings": settings})

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child and waits until it has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # the child ends with its input
        self.process.stdout.close()
        self.process.wait()

    def measure(self) -> float:
        """Measures once and returns the rate per second."""
        return self._request("measure")["value"]

    def peak(self) -> dict[str, int]:
        """Returns the child's peak memory; see `LocalWorker.peak`."""
        return self._request("peak")

    def _request(self, message: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            raise RuntimeError(
                f"the process that measures {self.name!r} failed: see the message above"
            )
        return json.loads(answer)


def environment(threads: int) -> dict[str, str]:
    """Returns the environment variables of a child with a number of threads."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _serve() -> None:
    """Prepares the case of the first line of the input, then answers the other lines."""
    first = json.loads(sys.stdin.readline())
    worker = LocalWorker(first["case"], first["threads"], **first["settings"])
    print(json.dumps(worker.facts), flush=True)
    for line in sys.stdin:
        is_peak = json.loads(line) == "peak"
        answer = worker.peak() if is_peak else {"value": worker.measure()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
