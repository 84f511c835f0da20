"""Commands of sharnn in processes of their own that start fast.

They are forked from a server process that has loaded torch, which takes seconds in a new process.
"""

import multiprocessing
import os

CONTEXT = multiprocessing.get_context("forkserver")
# Creating an optimiser loads torch._dynamo.
CONTEXT.set_forkserver_preload(["sharnn.cli.app", "sharnn.trainer", "torch._dynamo"])


class Command:
    """A running ``sharnn`` command whose standard error goes to a file."""

    def __init__(self, errors, *arguments):
        self.errors = errors
        self.process = CONTEXT.Process(target=_run, args=(errors, list(map(str, arguments))))
        self.process.start()

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process.is_alive()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def finish(self, timeout=600):
        """Waits for the end; returns the exit code and the text on standard error."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"the command still ran after {timeout} seconds")
        code = self.process.exitcode
        self.process.close()
        return code, self.errors.read_text()


def _run(errors, arguments):
    from sharnn.cli import main

    with open(errors, "wb") as file:
        os.dup2(file.fileno(), 2)
    raise SystemExit(main(arguments))
