"""Building an ONNX file operator by operator."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sharnn.errors import InputError
from sharnn.inference.packed import WEIGHTS, require_storage, to_int8

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # the oldest that have LayerNormalization: runtimes since 2022

Described = tuple[str, str, list[str | int]]  # a value's name, type and shape


def needed(package: str) -> Any:
    """Imports a package that only ONNX files need.

    Args:
        package: ``"onnx"``, ``"onnxruntime"`` or a part of them.

    Returns:
        The module.

    Raises:
        InputError: it is not installed, or it is and can't be imported.

    Example:
        >>> needed("json").dumps([1])
        '[1]'
    """
    root = package.partition(".")[0]
    try:
        importlib.import_module(root)  # before its part: the error then tells which is missing
        return importlib.import_module(package)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == root:
            raise InputError(
                f"{root} is not installed, and ONNX files need it: pip install onnx onnxruntime"
            ) from error
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise InputError(
            f"{root} is installed but broken ({reason}): pip install --force-reinstall {root}"
        ) from error


class GraphBuilder:
    """A graph as it grows: operators, weights and constants, which go by name.

    Args:
        storage: how `matrix` stores: ``"float32"``, or ``"int8"``, whole numbers from -127 to 127
            and one scale a row.

    Raises:
        InputError: there is no such storage, or the package ``onnx`` is not installed.

    Example:
        >>> graph = GraphBuilder("float32")
        >>> graph.add("Mul", "x", graph.floats("factor", [2.0]), name="y")
        'y'
        >>> file = graph.proto([("x", "FLOAT", ["n"])], [("y", "FLOAT", ["n"])], {})
        >>> file.graph.node[0].op_type
        'Mul'
    """

    def __init__(self, storage: str) -> None:
        require_storage(storage, WEIGHTS)
        self.storage = storage
        self.helper = needed("onnx.helper")
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, NDArray[Any]] = {}

    def add(
        self, operator: str, *inputs: str, name: str | list[str] = "", **attributes: Any
    ) -> str:
        """Adds one operator.

        Args:
            operator: ONNX's name of it.
            inputs: names of what it takes, in order; an empty one leaves out an optional input.
            name: of its output, or of all its outputs; without it the output gets a number.
            attributes: ONNX's own.

        Returns:
            The name of its first output.
        """
        outputs = [name or f"{operator}.{len(self.nodes)}"] if isinstance(name, str) else name
        self.nodes.append(self.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def matrix(self, name: str, value: Tensor, axis: int = 0) -> str:
        """Adds a matrix of the model, stored as was asked for.

        Args:
            name: its name.
            value: floats of at least 2 axes.
            axis: the axis along which its rows lie; each row has a scale of its own.

        Returns:
            The name.
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
        """Adds a weight of the model as floats.

        Args:
            name: its name.
            value: floats of any shape.

        Returns:
            The name.
        """
        self.tensors[name] = value.detach().float().cpu().contiguous().numpy()
        return name

    def floats(self, name: str, values: list[float]) -> str:
        """Adds a constant; under one name it may be added again.

        Args:
            name: its name.
            values: a list, for a vector.

        Returns:
            The name.
        """
        self.tensors[name] = np.array(values, np.float32)
        return name

    def integers(self, name: str, values: int | list[int]) -> str:
        """Adds a constant of whole numbers; under one name it may be added again.

        Args:
            name: its name.
            values: a number, or a list for a vector.

        Returns:
            The name.
        """
        self.tensors[name] = np.array(values, np.int64)
        return name

    def proto(
        self, inputs: Sequence[Described], outputs: Sequence[Described], says: Mapping[str, str]
    ) -> onnx.ModelProto:
        """The finished file.

        Args:
            inputs, outputs: names, types (as ONNX calls them) and shapes; an axis with a name may
                have any size.
            says: its metadata.

        Returns:
            The model.
        """
        types, numpy_helper = needed("onnx").TensorProto, needed("onnx.numpy_helper")
        described = [
            [
                self.helper.make_tensor_value_info(n, getattr(types, t), shape)
                for n, t, shape in group
            ]
            for group in (inputs, outputs)
        ]
        weights = [numpy_helper.from_array(value, name) for name, value in self.tensors.items()]
        model = self.helper.make_model(
            self.helper.make_graph(self.nodes, "sharnn", *described, weights),
            opset_imports=[self.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="sharnn",
        )
        self.helper.set_model_props(model, dict(says))
        return model
