"""Runs an exported ONNX model, as any other program can."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.interop.onnx_builder import import_onnx
from sharnn.interop.onnx_graph import METADATA, NEXT
from sharnn.io.checksum import verify_onnx_checksum
from sharnn.io.files import read_file

OnnxState = dict[str, NDArray[np.float32]]


class OnnxModel:
    """An exported model in onnxruntime. As with `SHARNN`, the caller keeps the state.

    Args:
        path: a file that `export` wrote.
        threads: number of CPU threads; None for onnxruntime's choice.

    Raises:
        InputError: the file can't be read or was not written by `export`, or the package
            ``onnxruntime`` is not installed or broken.

    Example:
        >>> import tempfile
        >>> from sharnn import SHARNN, ModelConfig, export
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(SHARNN(ModelConfig(dim=16, boom_dim=64)), f"{folder}/model.onnx")
        ...     model = OnnxModel(f"{folder}/model.onnx", threads=1)
        >>> logits, state = model([list(b"The quick")])
        >>> logits.shape, state["memory.2"].shape
        ((1, 9, 256), (1, 9, 16))
        >>> logits, state = model.step([65], state)
        >>> logits.shape, state["memory.2"].shape
        ((1, 256), (1, 10, 16))
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        runtime = import_onnx("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Converts int8 weights to floats once, not in every step.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        content = read_file(path)
        verify_onnx_checksum(path, content)
        try:
            self.session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            texts = self.session.get_modelmeta().custom_metadata_map
            self.config = ModelConfig.from_dict(json.loads(texts[METADATA])["config"])
        except Exception as error:  # onnxruntime's errors have no common base class
            raise InputError(f"{path} is damaged, or is not an ONNX file of sharnn") from error
        self.outputs = [value.name for value in self.session.get_outputs()]
        _, *self.state_inputs = self.session.get_inputs()

    def start(self, batch_size: int = 1) -> OnnxState:
        """Returns the state at the start of the streams: zeros, and memories of 0 rows."""
        sizes = {"batch": batch_size, "rows": 0}
        return {
            value.name: np.zeros([sizes.get(size, size) for size in value.shape], np.float32)
            for value in self.state_inputs
        }

    def __call__(
        self, x: ArrayLike, state: Mapping[str, NDArray[np.float32]] | None = None
    ) -> tuple[NDArray[np.float32], OnnxState]:
        """Predicts the next symbol at every position of a segment.

        Args:
            x: (batch, time) integers below ``vocab_size``.
            state: the state that the previous call returned; None at the start of a stream.

        Returns:
            Logits (batch, time, vocab_size) and the state for the next call, float32.

        Raises:
            InputError: ``x`` has the wrong shape or dtype or a symbol outside the vocabulary; or
                the state has another number of streams, belongs to another model, or is not made
                of float32 arrays of the right shape.
        """
        symbols = self._symbols(x)
        state = self.start(len(symbols)) if state is None else state
        self._check(state, len(symbols))
        values = self.session.run(self.outputs, {"x": symbols, **state})
        outputs = dict(zip(self.outputs, values, strict=True))
        logits = outputs.pop("logits")
        return logits, {name.removeprefix(NEXT): value for name, value in outputs.items()}

    def step(
        self, x: ArrayLike, state: Mapping[str, NDArray[np.float32]] | None = None
    ) -> tuple[NDArray[np.float32], OnnxState]:
        """Reads one symbol of each stream and predicts the next.

        Args:
            x: (batch,) integers below ``vocab_size``.
            state: the state that the previous call returned; None at the start of a stream.

        Returns:
            Logits (batch, vocab_size) and the next state, float32.

        Raises:
            InputError: as for a call on a segment.
        """
        logits, state = self(_array(x)[..., None], state)
        return logits[:, 0], state

    def _symbols(self, x: ArrayLike) -> NDArray[np.int64]:
        symbols = _array(x)
        if symbols.ndim != 2 or symbols.size == 0 or symbols.dtype.kind not in "iu":
            raise InputError(
                "x must hold integers and have shape (batch, time) with at least one element, "
                f"got {symbols.dtype} of shape {symbols.shape}"
            )
        if symbols.min() < 0 or symbols.max() >= self.config.vocab_size:
            raise InputError(f"x must hold symbols from 0 to {self.config.vocab_size - 1}")
        return symbols.astype(np.int64)

    def _check(self, state: Mapping[str, NDArray[np.float32]], num_streams: int) -> None:
        names = {value.name for value in self.state_inputs}
        if not isinstance(state, Mapping) or state.keys() != names:
            raise InputError(
                "the state belongs to another model: pass the one that the previous call returned"
            )
        row_counts = set()
        for value in self.state_inputs:
            array: Any = state[value.name]
            if not isinstance(array, np.ndarray):
                raise InputError(f"{value.name} must be an array, got {type(array).__name__}")
            if array.dtype != np.float32 or array.ndim != len(value.shape):
                raise InputError(
                    f"{value.name} must be float32 of shape ({', '.join(map(str, value.shape))}), "
                    f"got {array.dtype} of shape {array.shape}"
                )
            batch, *rows, dim = array.shape
            if batch != num_streams or dim != self.config.dim:
                raise InputError(
                    f"{value.name} has {batch} streams and width {dim}, "
                    f"but x has {num_streams} streams and the model width {self.config.dim}"
                )
            row_counts.update(rows)
        if len(row_counts) > 1:
            raise InputError(
                f"all memories must have the same number of rows, got {sorted(row_counts)}"
            )


def _array(x: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(x)
    except ValueError as error:
        raise InputError("x must have the same number of symbols for each stream") from error
