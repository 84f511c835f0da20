"""Builds an ONNX file operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sharnn.checkpoint import to_int8
from sharnn.errors import require_choice
from sharnn.optional import import_optional

if TYPE_CHECKING:
    import onnx

# The oldest versions with LayerNormalization, which runtimes since 2022 support.
OPSET, IR_VERSION = 17, 8
STORAGES = ("float32", "int8")

ValueInfo = tuple[str, str, list[str | int]]  # name, type and shape of an input or output


def import_onnx(module: str) -> Any:
    """Imports and returns a module of the packages for ONNX.

    Args:
        module: ``"onnx"``, ``"onnxruntime"`` or a submodule of them.

    Raises:
        InputError: the package is not installed, or is installed but can't be imported.

    Example:
        >>> import_onnx("json").dumps([1])
        '[1]'
    """
    return import_optional(module, "ONNX files", "onnx onnxruntime")


class GraphBuilder:
    """A graph under construction: operators, weights and constants, each identified by its name.

    Args:
        storage: storage of matrices: ``"float32"``, or ``"int8"``, integers from -127 to 127 with
            one scale per row.

    Raises:
        InputError: the storage is unknown, or the package ``onnx`` is not installed.

    Example:
        >>> graph = GraphBuilder("float32")
        >>> graph.add("Mul", "x", graph.floats("factor", [2.0]), name="y")
        'y'
        >>> file = graph.proto([("x", "FLOAT", ["n"])], [("y", "FLOAT", ["n"])], {})
        >>> file.graph.node[0].op_type
        'Mul'
    """

    def __init__(self, storage: str) -> None:
        require_choice("storage", storage, STORAGES)
        self.storage = storage
        self.helper = import_onnx("onnx.helper")
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, NDArray[Any]] = {}

    def add(
        self, operator: str, *inputs: str, name: str | list[str] = "", **attributes: Any
    ) -> str:
        """Adds an operator and returns the name of its first output.

        Args:
            operator: ONNX's name of the operator.
            inputs: names of the inputs, in order; an empty name omits an optional input.
            name: name of the output, or a list with the names of all outputs; a numbered name if
                empty.
            attributes: the operator's attributes.
        """
        outputs = [name or f"{operator}.{len(self.nodes)}"] if isinstance(name, str) else name
        self.nodes.append(self.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def matrix(self, name: str, value: Tensor, axis: int = 0) -> str:
        """Adds a matrix of the model in the graph's storage, and returns its name.

        Args:
            name: name of the matrix.
            value: floats with at least 2 axes.
            axis: the axis that counts the rows; each row has its own scale.
        """
        if self.storage == "float32":
            return self.weight(name, value)
        rows_first = value.detach().float().cpu().transpose(0, axis)
        numbers, scales = to_int8(rows_first.flatten(1))
        numbers = numbers.view(rows_first.shape).transpose(0, axis)
        self.tensors[f"{name}.int8"] = numbers.contiguous().numpy()
        scale = self.weight(f"{name}.scale", scales[:, 0])
        return self.add("DequantizeLinear", f"{name}.int8", scale, name=name, axis=axis)

    def weight(self, name: str, value: Tensor) -> str:
        """Adds a weight of the model, floats of any shape, as float32, and returns its name."""
        self.tensors[name] = value.detach().float().cpu().contiguous().numpy()
        return name

    def floats(self, name: str, values: list[float]) -> str:
        """Adds a constant vector of floats, and returns its name.

        The same constant may be added more than once.
        """
        self.tensors[name] = np.array(values, np.float32)
        return name

    def integers(self, name: str, values: int | list[int]) -> str:
        """Adds a constant integer, or a vector of integers, and returns its name.

        The same constant may be added more than once.
        """
        self.tensors[name] = np.array(values, np.int64)
        return name

    def proto(
        self,
        inputs: Sequence[ValueInfo],
        outputs: Sequence[ValueInfo],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """Returns the complete ONNX model.

        Args:
            inputs, outputs: names, ONNX types and shapes; an axis given by a name can have any
                size.
            metadata: the file's metadata.
        """
        types, numpy_helper = import_onnx("onnx").TensorProto, import_onnx("onnx.numpy_helper")
        values = [
            [
                self.helper.make_tensor_value_info(n, getattr(types, t), shape)
                for n, t, shape in group
            ]
            for group in (inputs, outputs)
        ]
        weights = [numpy_helper.from_array(value, name) for name, value in self.tensors.items()]
        model = self.helper.make_model(
            self.helper.make_graph(self.nodes, "sharnn", *values, weights),
            opset_imports=[self.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="sharnn",
        )
        self.helper.set_model_props(model, dict(metadata))
        return model
