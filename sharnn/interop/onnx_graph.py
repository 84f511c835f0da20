"""The model as a graph of standard ONNX operators, which programs without PyTorch can run."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sharnn.attention import SingleHeadAttention
from sharnn.interop.onnx_builder import Described, GraphBuilder
from sharnn.layers import LAYER_NORM_EPS
from sharnn.model import SHARNN, Block, in_float32

if TYPE_CHECKING:
    import onnx

FORMAT = 1
METADATA = "sharnn"  # the key under which a file says what it holds
NEXT = "next."  # prefix of the outputs that the next call takes as inputs
END = 2**63 - 1  # as the end of a slice: the axis's own


def model_graph(model: SHARNN, weights: str = "float32") -> onnx.ModelProto:
    """A model as one ONNX graph, which reads segments of any length, single bytes included.

    Inputs are ``x`` (batch, time) int64 and the state under the names of `State.to_tensors`:
    ``lstm.N.hidden`` and ``lstm.N.cell`` (batch, dim) and, where block N has the head, ``memory.N``
    (batch, rows, dim), oldest row first. Where a stream starts they are zeros and 0 rows. Outputs
    are ``logits`` (batch, time, vocab_size) and the next state, each tensor under its name with
    ``next.`` before it. The graph trims the memory itself, by the model's own rule.

    Args:
        model: the model; it is not changed. The graph has no dropout.
        weights: ``"float32"``, or ``"int8"``: each row of a matrix as whole numbers times a scale,
            which a runtime turns into floats. The products are float32 either way: integers with
            a scale for a whole segment would let a byte see what comes after it.

    Returns:
        The graph. Its metadata hold, under ``sharnn``, JSON with the model's ``config`` and its
        ``state``: for each input the output that it takes next. Weights have the model's own
        names and lie as the operators want them.

    Raises:
        InputError: there is no such storage, or the package ``onnx`` is not installed.

    Source: paper, model architecture; the operators are those of ONNX's opset 17.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> config = ModelConfig(dim=16, boom_dim=64, layers=1, attention_layers=(0,))
        >>> [value.name for value in model_graph(SHARNN(config)).graph.input]
        ['x', 'lstm.0.hidden', 'lstm.0.cell', 'memory.0']
    """
    with torch.no_grad():
        return _Graph(in_float32(model), weights).finished()  # gates are computed here


class _Graph(GraphBuilder):
    """The model's graph. Values go by name: a method adds operators and returns their output's."""

    def __init__(self, model: SHARNN, storage: str) -> None:
        super().__init__(storage)
        self.config = model.config
        self.state: dict[str, str] = {}  # the input's name to the output's
        embedding = self.matrix("embedding.weight", model.embedding.weight)
        if self.config.head_count:
            self._look_back(f"memory.{self.config.attention_layers[0]}")
        h = self.add("Gather", embedding, "x")  # (batch, time, dim)
        for i, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            h = self._block(i, block, h)
        # logits = h E' + b, with the embedding's own matrix E
        columns = self.add("Transpose", embedding, perm=[1, 0])  # (dim, vocab_size)
        bias = self.weight("output_bias", model.output_bias)
        self.add("Add", self.add("MatMul", h, columns), bias, name="logits")

    def _look_back(self, memory: str) -> None:
        """How much of a memory the segment may see, and who sees what; every head does alike."""
        limit, zero = self.integers("limit", [self.config.memory]), self.integers("zero", [0])
        time = self.add("Shape", "x", start=1, end=2)  # (1,)
        rows = self.add("Shape", memory, start=1, end=2)  # (1,)
        # Before the segment the newest M - L rows are kept; sliding: M - 1.
        used = self.integers("one", [1]) if self.config.memory_window == "sliding" else time
        kept = self.add("Max", self.add("Sub", limit, used), zero)
        self.first = self.add("Max", self.add("Sub", rows, kept), zero)  # oldest row that is kept
        past = self.add("Sub", rows, self.first)
        total = self.add("Add", past, time)
        # After it the newest M rows of [memory ; segment] are the next memory.
        self.first_next = self.add("Max", self.add("Sub", total, limit), zero)
        # A query sees itself and what is less than M rows back.
        keys = self._range(total)  # (memory + time,)
        queries = self.add("Add", self._range(time), past)  # (time,)
        distance = self.add("Sub", self.add("Unsqueeze", queries, self.integers("one", [1])), keys)
        near = self.add("Less", distance, limit)
        visible = self.add("And", near, self.add("GreaterOrEqual", distance, zero))
        yes, no = self.floats("seen", [0.0]), self.floats("unseen", [-math.inf])
        self.mask = self.add("Where", visible, yes, no)  # (time, memory + time), added to scores

    def _range(self, count: str) -> str:
        """0, 1, ... below a number of shape (1,)."""
        start, step = self.integers("start", 0), self.integers("step", 1)
        return self.add("Range", start, self.add("Squeeze", count), step)

    def _block(self, i: int, block: Block, h: str) -> str:
        """One block: takes and returns (batch, time, dim)."""
        prefix = f"blocks.{i}"
        # h = LSTM(LN_start(h))
        h = self._norm(f"{prefix}.start_norm", block.start_norm, h)
        h = self._lstm(f"{prefix}.lstm", i, block.lstm, h)
        if block.head is not None:
            # m = LN_mem(h);  h = LN_mid(h);  h = h + head(h, [memory ; m])
            rows = self._norm(f"{prefix}.memory_norm", block.memory_norm, h)
            h = self._norm(f"{prefix}.middle_norm", block.middle_norm, h)
            h = self.add("Add", h, self._head(f"{prefix}.head", i, block.head, h, rows))
        # h = LN_ff(h) + Boom(LN_xff(h))
        skip = self._norm(f"{prefix}.skip_norm", block.skip_norm, h)
        h = self._norm(f"{prefix}.boom_norm", block.boom_norm, h)
        return self.add("Add", skip, self._boom(f"{prefix}.boom", block.boom.expand, h))

    def _lstm(self, prefix: str, i: int, lstm: nn.LSTM, h: str) -> str:
        """The LSTM: takes and returns (batch, time, dim)."""
        w, u, b, b_hidden = (
            _in_onnx_order(lstm.get_parameter(f"{name}_l0"))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        axis = self.integers("zero", [0])  # of directions, of which there is one
        before = [
            self.add("Unsqueeze", self._carried(f"lstm.{i}.{part}"), axis)  # (1, batch, dim)
            for part in ("hidden", "cell")
        ]
        over_time, hidden, cell = (f"{prefix}.{part}" for part in ("output", "hidden", "cell"))
        self.add(
            "LSTM",
            self.add("Transpose", h, perm=[1, 0, 2]),  # (time, batch, dim)
            self.matrix(f"{prefix}.weight_ih_l0", w[None], axis=1),  # (1, 4 dim, dim)
            self.matrix(f"{prefix}.weight_hh_l0", u[None], axis=1),  # (1, 4 dim, dim)
            self.weight(f"{prefix}.bias", torch.cat([b, b_hidden])[None]),  # (1, 8 dim)
            "",  # lengths: all streams are equally long
            *before,
            name=[over_time, hidden, cell],
            hidden_size=lstm.hidden_size,
        )
        self.add("Squeeze", hidden, axis, name=f"{NEXT}lstm.{i}.hidden")  # (batch, dim)
        self.add("Squeeze", cell, axis, name=f"{NEXT}lstm.{i}.cell")
        h = self.add("Squeeze", over_time, self.integers("one", [1]))  # (time, batch, dim)
        return self.add("Transpose", h, perm=[1, 0, 2])

    def _head(self, prefix: str, i: int, head: SingleHeadAttention, h: str, rows: str) -> str:
        """The head: h and rows (batch, time, dim) to what is read (batch, time, dim)."""
        end, axis = self.integers("end", [END]), self.integers("one", [1])
        past = self.add("Slice", self._carried(f"memory.{i}"), self.first, end, axis)
        keys = self.add("Concat", past, rows, axis=1)  # (batch, memory + time, dim)
        self.add("Slice", keys, self.first_next, end, axis, name=f"{NEXT}memory.{i}")
        # q = sigma(q_s) LN_q(W_q h + b_q), times sigma(k_s) / sqrt(d), the gate of the keys: both
        # go into LN_q's gain and bias.
        gate = torch.sigmoid(head.query_scale) * torch.sigmoid(head.key_scale) / math.sqrt(head.dim)
        q = self._linear(f"{prefix}.query", head.query.weight, head.query.bias, h)
        q = self._norm(f"{prefix}.query_norm", head.query_norm, q, gate)  # (batch, time, dim)
        scores = self.add("MatMul", q, self.add("Transpose", keys, perm=[0, 2, 1]))
        seen = self.add("Softmax", self.add("Add", scores, self.mask), axis=-1)
        # softmax(..) v = v_gate (softmax(..) rows)
        gate_name = self.weight(f"{prefix}.value_gate", head.static_value_gate())
        return self.add("Mul", self.add("MatMul", seen, keys), gate_name)

    def _boom(self, prefix: str, expand: nn.Linear, h: str) -> str:
        """The Boom layer: takes and returns (batch, time, dim)."""
        # u = gelu(W h + b);  Boom(h) = u_1 + ... + u_n. What would be cut off is never computed.
        dim = self.config.dim
        chunks = expand.out_features // dim
        kept = slice(chunks * dim)
        u = self._linear(f"{prefix}.expand", expand.weight[kept], expand.bias[kept], h)
        # gelu(x) = x sigma(1.702 x)
        scaled = self.add("Mul", u, self.floats("gelu", [1.702]))
        u = self.add("Mul", u, self.add("Sigmoid", scaled))
        # In a shape 0 stands for the axis as it is.
        u = self.add("Reshape", u, self.integers("chunks", [0, 0, chunks, dim]))
        return self.add("ReduceSum", u, self.integers("two", [2]), keepdims=0)

    def _linear(self, prefix: str, weight: Tensor, bias: Tensor, h: str) -> str:
        """W h + b at each position."""
        product = self.add("MatMul", h, self.matrix(f"{prefix}.weight", weight.t(), axis=1))
        return self.add("Add", product, self.weight(f"{prefix}.bias", bias))

    def _norm(self, prefix: str, norm: nn.LayerNorm, h: str, gate: Tensor | None = None) -> str:
        """A LayerNorm, its output times a static gate where there is one."""
        factor = torch.ones_like(norm.weight) if gate is None else gate
        gain = self.weight(f"{prefix}.weight", norm.weight * factor)
        bias = self.weight(f"{prefix}.bias", norm.bias * factor)
        return self.add("LayerNormalization", h, gain, bias, axis=-1, epsilon=LAYER_NORM_EPS)

    def _carried(self, name: str) -> str:
        """An input that is part of the state."""
        self.state[name] = NEXT + name
        return name

    def finished(self) -> onnx.ModelProto:
        """The graph with its inputs, outputs and metadata."""
        dim = self.config.dim
        inputs: list[Described] = [("x", "INT64", ["batch", "time"])]
        outputs: list[Described] = [("logits", "FLOAT", ["batch", "time", self.config.vocab_size])]
        for before, after in self.state.items():
            axes = 1 if before.startswith("memory.") else 0
            inputs.append((before, "FLOAT", ["batch", *["rows"] * axes, dim]))
            outputs.append((after, "FLOAT", ["batch", *["next_rows"] * axes, dim]))
        says = {"format": FORMAT, "config": self.config.to_dict(), "state": self.state}
        return self.proto(inputs, outputs, {METADATA: json.dumps(says)})


def _in_onnx_order(weight: Tensor) -> Tensor:
    """A weight of an LSTM with its rows as ONNX has them: i o f c instead of i f c o."""
    i, f, c, o = weight.chunk(4)
    return torch.cat([i, o, f, c])
