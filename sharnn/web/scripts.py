"""The engine's scripts, and a model's weights for it."""

from __future__ import annotations

import base64
from functools import cache

from sharnn.checkpoint import to_bytes
from sharnn.model import SHARNN
from sharnn.web.assembler import assemble
from sharnn.web.page import asset

WORKER = "tensors kernels model reading worker".split()


@cache
def kernels() -> str:
    """Returns the assembled kernels in base64."""
    return base64.b64encode(assemble(asset("kernels.wat"))).decode()


def worker_source() -> str:
    """Returns the script of the worker."""
    parts = [asset(f"{name}.js") for name in WORKER]
    return "\n".join(['"use strict";', *parts, "startWorker();"])


def shared_weights(model: SHARNN) -> str:
    """Returns a script that holds a model's weights as int8, which pages load when asked to."""
    content = base64.b64encode(b"".join(to_bytes(model, "int8"))).decode()
    return f'window.sharnnWeights = "{content}";\n'
