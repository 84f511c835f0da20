"""The single head: attention over the memory, in which only the query is projected."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.layers import Dropout, layer_norm


def causal_mask(time: int, rows: int, window: int | None, device: torch.device) -> Tensor:
    """Returns the mask of keys that each query of a segment can attend to.

    The keys are the rows of the memory, oldest first, followed by the segment's own positions.

    Args:
        time: number of positions in the segment.
        rows: number of rows in the memory before it.
        window: maximum number of keys per query, its own included; None for no limit.
        device: device of the mask.

    Returns:
        (time, rows + time) booleans, True if query i can attend to key j.

    Source: paper, simplified attention.

    Example:
        >>> causal_mask(2, 1, None, torch.device("cpu")).int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    query = torch.arange(rows, rows + time, device=device)[:, None]  # (time, 1)
    key = torch.arange(rows + time, device=device)  # (rows + time,)
    distance = query - key  # (time, rows + time)
    if window is None:
        return distance >= 0
    return (distance >= 0) & (distance < window)


def has_key(mask: Tensor) -> Tensor:
    """Returns the mask of rows whose key, the row before, is also in the mask (shifted keys).

    Args:
        mask: (..., keys) booleans; the rows that a query can attend to are consecutive.

    Returns:
        (..., keys) booleans: the mask without the oldest row of each query.

    Example:
        >>> has_key(torch.tensor([False, True, True, True, False])).int()
        tensor([0, 0, 1, 1, 0], dtype=torch.int32)
    """
    return mask & F.pad(mask[..., :-1], (1, 0))


class SingleHeadAttention(nn.Module):
    """One attention head. Keys and values are the remembered rows, each times a static gate.

    Of queries, keys and values, only the query is projected (W_v only produces the constant value
    gate). Because keys and values are the same rows up to a gate, the memory is stored once. The
    gates are not applied to the rows: the key gate is multiplied into the query and the value
    gate into the output, which gives the same result for less work.

    Args:
        dim: width d of rows, queries and output.
        dropout: probability of dropout on queries, values and attention weights.
        collapsed: store the value gate as one vector instead of the matrix W_v that produces it.
        shifted_keys: the key of each row is the row before it. The oldest row that a query can
            attend to has no key: its score is 0.

    Source: paper, simplified attention and over-parameterisation of static vectors. Shifted keys
    are not in the paper, see `ModelConfig`.

    Example:
        >>> head = SingleHeadAttention(8, dropout=0.0)
        >>> h = torch.randn(2, 3, 8)
        >>> output, weights = head(h, h, None, causal_mask(3, 0, None, h.device))
        >>> output.shape, weights.shape
        (torch.Size([2, 3, 8]), torch.Size([2, 3, 3]))
    """

    def __init__(
        self, dim: int, dropout: float, collapsed: bool = False, shifted_keys: bool = False
    ) -> None:
        super().__init__()
        self.dim = dim
        self.shifted_keys = shifted_keys
        self.query = nn.Linear(dim, dim)  # W_q, b_q
        self.query_norm = layer_norm(dim)  # LN_q
        self.query_scale = nn.Parameter(torch.zeros(dim))  # q_s
        self.key_scale = nn.Parameter(torch.zeros(dim))  # k_s
        self.collapsed = collapsed
        if collapsed:
            self.value_gate = nn.Parameter(torch.zeros(dim))  # v_gate
        else:
            self.value_scale = nn.Parameter(torch.zeros(dim))  # v_s
            self.value_shape = nn.Linear(dim, 2 * dim)  # W_v, b_v
        self.dropout = Dropout(dropout)

    def init_query(self, gain: float) -> None:
        """Makes each query resemble its own row: W_q = gain I, b_q = 0, LN_q with this gain."""
        with torch.no_grad():
            nn.init.eye_(self.query.weight).mul_(gain)
        nn.init.zeros_(self.query.bias)
        nn.init.constant_(self.query_norm.weight, gain)

    def static_value_gate(self) -> Tensor:
        """Returns the gate on the values, (dim,), between -1 and 1; it depends on no input."""
        if self.collapsed:
            return self.value_gate
        # (c, f) = W_v sigma(v_s) + b_v;  v_gate = sigma(f) tanh(c)  (paper: over-parameterisation)
        c, f = self.value_shape(torch.sigmoid(self.value_scale)).chunk(2)  # (dim,) each
        return torch.sigmoid(f) * torch.tanh(c)

    def collapse(self) -> None:
        """Replaces W_v with the one vector it produces. Outputs stay the same."""
        if self.collapsed:
            return
        with torch.no_grad():
            gate = self.static_value_gate().detach().clone()
        self.value_gate = nn.Parameter(gate)
        del self.value_scale, self.value_shape
        self.collapsed = True

    def forward(
        self, h: Tensor, m: Tensor, past: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attends from each position of a segment to the memory and the segment.

        Memory and segment are multiplied separately: the memory needs no gradient, and
        the backward pass through a concatenated [past ; m] would compute one.

        Args:
            h: (batch, time, dim) the input of the queries.
            m: (batch, time, dim) the segment's own rows.
            past: (batch, memory, dim) the remembered rows; None if the memory is empty.
            mask: (time, memory + time) booleans from `causal_mask`; None for no mask.

        Returns:
            The output (batch, time, dim), and the attention weights (batch, time, memory + time)
            before dropout, which sum to 1 for each query.
        """
        q = self.scaled_query(h)  # (batch, time, dim)
        scores = q @ m.transpose(1, 2)  # (batch, time, time)
        parts = [scores]
        if past is not None:
            past = past.to(m.dtype)  # differs only if the run's precision was changed
            if m.shape[1] > 1 and m.device.type == "cpu" and m.dtype == torch.bfloat16:
                # The rows are a part of a larger tensor, whose products PyTorch computes in
                # bfloat16 five times slower than those of a copy.
                past = past.contiguous()
            parts = [q @ past.transpose(1, 2), scores]
        if self.shifted_keys:
            # q_i k_(j-1) is the score of row j. The first row has no key.
            parts = [torch.zeros_like(scores[..., :1]), *parts[:-1], scores[..., :-1]]
        if len(parts) > 1:
            scores = torch.cat(parts, dim=-1)  # (batch, time, memory + time)
        if mask is not None:
            scores = self._mask_scores(scores, mask)
        weights = torch.softmax(scores, dim=-1)  # (batch, time, memory + time)
        # softmax(..) v = softmax(..) (v_gate kv) = v_gate (softmax(..) kv)
        dropped = self.dropout(weights)
        time = m.shape[1]
        output = dropped[..., -time:] @ self.dropout(m)  # (batch, time, dim)
        if past is not None:
            output = output + dropped[..., :-time] @ self.dropout(past)
        return output * self.static_value_gate(), weights

    def scaled_query(self, h: Tensor) -> Tensor:
        """Returns the queries (..., dim) of h (..., dim); their products with rows are scores."""
        # q = sigma(q_s) LN_q(W_q h + b_q)                         (paper: simplified attention)
        q = torch.sigmoid(self.query_scale) * self.query_norm(self.query(h))
        q = self.dropout(q)
        # q k' / sqrt(d) = (q sigma(k_s) / sqrt(d)) kv'  with k = sigma(k_s) kv, kv = [past ; m]
        return q * (torch.sigmoid(self.key_scale) / math.sqrt(self.dim))

    def _mask_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Returns the scores (batch, time, keys) with -inf where the mask (time, keys) is False."""
        if not self.shifted_keys:
            return scores.masked_fill(~mask, -math.inf)
        others = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
        return torch.where(has_key(mask), scores, others)
