"""The model as a graph of standard ONNX operators, for programs without PyTorch."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sharnn.attention import SingleHeadAttention
from sharnn.interop.onnx_builder import GraphBuilder, ValueInfo
from sharnn.io.checksum import BLANK, KEY
from sharnn.layers import GELU_SCALE, LAYER_NORM_EPS
from sharnn.model import SHARNN, Block, in_float32
from sharnn.weights import usable

if TYPE_CHECKING:
    import onnx

FORMAT = 1
METADATA = "sharnn"  # key of the file's metadata
NEXT = "next."  # prefix of the outputs that are inputs of the next call
END = 2**63 - 1  # end of a slice: up to the end of the axis


def model_graph(model: SHARNN, storage: str = "float32") -> onnx.ModelProto:
    """Returns a model as one ONNX graph, which reads segments of any length, also single bytes.

    The inputs are ``x`` (batch, time) int64 and the state under the names of `State.to_tensors`:
    ``lstm.N.hidden`` and ``lstm.N.cell`` (batch, dim) and, if block N has the head, ``memory.N``
    (batch, rows, dim), oldest row first. At the start of a stream they are zeros, and memories of
    0 rows. The outputs are ``logits`` (batch, time, vocab_size) and the next state, under the
    names of the inputs with the prefix ``next.``. The graph trims the memory by the model's rule.

    Args:
        model: the model; it is not changed. The graph has no dropout.
        storage: ``"float32"``, or ``"int8"``: each row of a matrix as integers times a scale,
            which the runtime converts to floats. The products are float32 in both cases: integer
            products scale a whole segment at once, so a byte would influence those before it.

    Returns:
        The graph. Its metadata contain, under the key ``sharnn``, JSON with the model's
        ``config`` and its ``state``: a mapping from each state input to the output that replaces
        it in the next call. Weights have the names of the model's parameters and the layout that
        the operators need.

    Raises:
        InputError: the storage is unknown, or the package ``onnx`` is not installed.

    Source: paper, model architecture; the operators are those of ONNX's opset 17.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> config = ModelConfig(dim=16, boom_dim=64, layers=1, attention_layers=(0,))
        >>> [value.name for value in model_graph(SHARNN(config)).graph.input]
        ['x', 'lstm.0.hidden', 'lstm.0.cell', 'memory.0']
    """
    with torch.no_grad():  # the static gates are computed here
        return _Graph(in_float32(usable(model)), storage).to_proto()


class _Graph(GraphBuilder):
    """The model's graph. Each method adds operators and returns the name of their output."""

    def __init__(self, model: SHARNN, storage: str) -> None:
        super().__init__(storage)
        self.config = model.config
        self.state: dict[str, str] = {}  # name of the input: name of the output
        embedding = self.matrix("embedding.weight", model.embedding.weight)
        if self.config.head_count:
            self._add_mask(f"memory.{self.config.attention_layers[0]}")
        h = self.add("Gather", embedding, "x")  # (batch, time, dim)
        for i, block in enumerate(model.blocks):
            h = self._block(i, block, h)
        # logits = h E' + b, with the embedding's own matrix E
        columns = self.add("Transpose", embedding, perm=[1, 0])  # (dim, vocab_size)
        bias = self.weight("output_bias", model.output_bias)
        self.add("Add", self.add("MatMul", h, columns), bias, name="logits")

    def _add_mask(self, memory: str) -> None:
        """Computes how much of the memory is kept, and the causal mask; all heads share them."""
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
        # A query can attend to itself and to rows less than M positions back.
        keys = self._range(total)  # (memory + time,)
        queries = self.add("Add", self._range(time), past)  # (time,)
        distance = self.add("Sub", self.add("Unsqueeze", queries, self.integers("one", [1])), keys)
        near = self.add("Less", distance, limit)
        causal_mask = self.add("And", near, self.add("GreaterOrEqual", distance, zero))
        zeros, minus_inf = self.floats("zeros", [0.0]), self.floats("minus_inf", [-math.inf])
        # (time, memory + time), added to the scores
        self.mask = self.add("Where", causal_mask, zeros, minus_inf)
        if self.config.shifted_keys:
            # A row has a key if a query can attend to the row before it, too.
            oldest = self.integers("oldest", [self.config.memory - 1])
            nearer = self.add("Less", distance, oldest)
            self.has_key = self.add("And", nearer, self.add("Greater", keys, zero))

    def _range(self, count: str) -> str:
        """Returns the integers from 0 to ``count`` - 1; ``count`` has shape (1,)."""
        start, step = self.integers("start", 0), self.integers("step", 1)
        return self.add("Range", start, self.add("Squeeze", count), step)

    def _block(self, i: int, block: Block, h: str) -> str:
        """Adds one block: takes and returns (batch, time, dim)."""
        prefix = f"blocks.{i}"
        # h = LSTM(LN_start(h))
        start = self._norm(f"{prefix}.start_norm", block.start_norm, h)
        h = self._lstm(f"{prefix}.lstm", i, block.lstm, start)
        if block.lstm_skip is not None:
            # h = LSTM(LN_start(h)) + g LN_start(h)
            skip = self.add("Mul", start, self.weight(f"{prefix}.lstm_skip", block.lstm_skip))
            h = self.add("Add", h, skip)
        if block.head is not None:
            # m = LN_mem(h);  h = LN_mid(h);  h = h + head(h, [memory ; m])
            m = self._norm(f"{prefix}.memory_norm", block.memory_norm, h)
            h = self._norm(f"{prefix}.middle_norm", block.middle_norm, h)
            h = self.add("Add", h, self._head(f"{prefix}.head", i, block.head, h, m))
        # h = LN_ff(h) + Boom(LN_xff(h))
        skip = self._norm(f"{prefix}.skip_norm", block.skip_norm, h)
        h = self._norm(f"{prefix}.boom_norm", block.boom_norm, h)
        return self.add("Add", skip, self._boom(f"{prefix}.boom", block.boom.expand, h))

    def _lstm(self, prefix: str, i: int, lstm: nn.LSTM, h: str) -> str:
        """Adds an LSTM: takes and returns (batch, time, dim)."""
        w, u, b, b_hidden = (
            _to_onnx_order(lstm.get_parameter(f"{name}_l0"))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        axis = self.integers("zero", [0])  # the axis of directions, of size 1
        before = [
            self.add("Unsqueeze", self._state_input(f"lstm.{i}.{part}"), axis)  # (1, batch, dim)
            for part in ("hidden", "cell")
        ]
        over_time, hidden, cell = (f"{prefix}.{part}" for part in ("output", "hidden", "cell"))
        self.add(
            "LSTM",
            self.add("Transpose", h, perm=[1, 0, 2]),  # (time, batch, dim)
            self.matrix(f"{prefix}.weight_ih_l0", w[None], axis=1),  # (1, 4 dim, dim)
            self.matrix(f"{prefix}.weight_hh_l0", u[None], axis=1),  # (1, 4 dim, dim)
            self.weight(f"{prefix}.bias", torch.cat([b, b_hidden])[None]),  # (1, 8 dim)
            "",  # sequence lengths: all streams have the same
            *before,
            name=[over_time, hidden, cell],
            hidden_size=lstm.hidden_size,
        )
        self.add("Squeeze", hidden, axis, name=f"{NEXT}lstm.{i}.hidden")  # (batch, dim)
        self.add("Squeeze", cell, axis, name=f"{NEXT}lstm.{i}.cell")
        h = self.add("Squeeze", over_time, self.integers("one", [1]))  # (time, batch, dim)
        return self.add("Transpose", h, perm=[1, 0, 2])

    def _head(self, prefix: str, i: int, head: SingleHeadAttention, h: str, m: str) -> str:
        """Adds a head: takes h and m and returns the head's output, (batch, time, dim) each."""
        end, axis = self.integers("end", [END]), self.integers("one", [1])
        past = self.add("Slice", self._state_input(f"memory.{i}"), self.first, end, axis)
        keys = self.add("Concat", past, m, axis=1)  # (batch, memory + time, dim)
        self.add("Slice", keys, self.first_next, end, axis, name=f"{NEXT}memory.{i}")
        # q = sigma(q_s) LN_q(W_q h + b_q), times the keys' gate sigma(k_s) / sqrt(d): both are
        # multiplied into LN_q's gain and bias.
        gate = torch.sigmoid(head.query_scale) * torch.sigmoid(head.key_scale) / math.sqrt(head.dim)
        q = self._linear(f"{prefix}.query", head.query.weight, head.query.bias, h)
        q = self._norm(f"{prefix}.query_norm", head.query_norm, q, gate)  # (batch, time, dim)
        scores = self.add("MatMul", q, self.add("Transpose", keys, perm=[0, 2, 1]))
        if head.shifted_keys:
            # Row j gets the score of row j - 1; a row without a key gets 0.
            shifted = self.add("Pad", scores, self.integers("shift", [0, 0, 1, 0, 0, -1]))
            scores = self.add("Where", self.has_key, shifted, self.floats("zeros", [0.0]))
        attention = self.add("Softmax", self.add("Add", scores, self.mask), axis=-1)
        # softmax(..) v = v_gate (softmax(..) kv)  with kv = [memory ; m]
        gate_name = self.weight(f"{prefix}.value_gate", head.static_value_gate())
        return self.add("Mul", self.add("MatMul", attention, keys), gate_name)

    def _boom(self, prefix: str, expand: nn.Linear, h: str) -> str:
        """Adds a Boom layer: takes and returns (batch, time, dim)."""
        # u = gelu(W h + b);  Boom(h) = u_1 + ... + u_n. Units beyond the last whole chunk, which
        # the model drops, are not computed.
        dim = self.config.dim
        chunks = expand.out_features // dim
        kept = slice(chunks * dim)
        u = self._linear(f"{prefix}.expand", expand.weight[kept], expand.bias[kept], h)
        # gelu(x) = x sigma(1.702 x)
        scaled = self.add("Mul", u, self.floats("gelu", [GELU_SCALE]))
        u = self.add("Mul", u, self.add("Sigmoid", scaled))
        # In a Reshape, 0 leaves that dimension unchanged.
        u = self.add("Reshape", u, self.integers("chunks", [0, 0, chunks, dim]))
        return self.add("ReduceSum", u, self.integers("two", [2]), keepdims=0)

    def _linear(self, prefix: str, weight: Tensor, bias: Tensor, h: str) -> str:
        """Adds a linear layer, W h + b at each position."""
        product = self.add("MatMul", h, self.matrix(f"{prefix}.weight", weight.t(), axis=1))
        return self.add("Add", product, self.weight(f"{prefix}.bias", bias))

    def _norm(self, prefix: str, norm: nn.LayerNorm, h: str, gate: Tensor | None = None) -> str:
        """Adds a LayerNorm, its output multiplied by a static gate if one is given."""
        factor = torch.ones_like(norm.weight) if gate is None else gate
        gain = self.weight(f"{prefix}.weight", norm.weight * factor)
        bias = self.weight(f"{prefix}.bias", norm.bias * factor)
        return self.add("LayerNormalization", h, gain, bias, axis=-1, epsilon=LAYER_NORM_EPS)

    def _state_input(self, name: str) -> str:
        """Declares an input that is part of the state."""
        self.state[name] = NEXT + name
        return name

    def to_proto(self) -> onnx.ModelProto:
        """Returns the graph with its inputs, outputs and metadata."""
        dim = self.config.dim
        inputs: list[ValueInfo] = [("x", "INT64", ["batch", "time"])]
        outputs: list[ValueInfo] = [("logits", "FLOAT", ["batch", "time", self.config.vocab_size])]
        for before, after in self.state.items():
            axes = 1 if before.startswith("memory.") else 0
            inputs.append((before, "FLOAT", ["batch", *["rows"] * axes, dim]))
            outputs.append((after, "FLOAT", ["batch", *["next_rows"] * axes, dim]))
        metadata = {"format": FORMAT, "config": self.config.to_dict(), "state": self.state}
        return self.proto(inputs, outputs, {METADATA: json.dumps(metadata), KEY: BLANK})


def _to_onnx_order(weight: Tensor) -> Tensor:
    """Reorders the gates of an LSTM's weight from PyTorch's i f c o to ONNX's i o f c."""
    i, f, c, o = weight.chunk(4)
    return torch.cat([i, o, f, c])
