"""The single head: attention over remembered rows with one matrix multiply for the query."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sharnn.layers import Dropout, layer_norm


def visible(time: int, rows: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys each query of a segment may see.

    Keys are the memory's rows, oldest first, then the segment's own positions.

    Args:
        time: positions in the segment.
        rows: rows in the memory before it.
        window: a query sees this many keys at most, its own included; None for no limit.
        device: where the mask is needed.

    Returns:
        (time, rows + time) booleans, True where query i may look at key j.

    Source: paper, simplified attention.

    Example:
        >>> visible(2, 1, None, torch.device("cpu")).int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    query = torch.arange(rows, rows + time, device=device)[:, None]  # (time, 1)
    key = torch.arange(rows + time, device=device)  # (rows + time,)
    distance = query - key  # (time, rows + time) how far back the key lies
    if window is None:
        return distance >= 0
    return (distance >= 0) & (distance < window)


class SingleHeadAttention(nn.Module):
    """One attention head over the remembered rows. Keys and values are those rows, gated.

    Only the query has a matrix. Keys and values are the same rows times a static gate each, so
    the memory is stored once. The gates need not touch the rows at all: the key gate moves into
    the query and the value gate into the output, which is the same sum in another order.

    Args:
        dim: width d of rows, queries and output.
        dropout: probability for queries, values and attention weights.
        collapsed: hold the value gate as one vector instead of the matrix that shapes it.

    Source: paper, simplified attention and over-parameterisation of static vectors.

    Example:
        >>> head = SingleHeadAttention(8, dropout=0.0)
        >>> h = torch.randn(2, 3, 8)
        >>> output, weights = head(h, h, None, visible(3, 0, None, h.device))
        >>> output.shape, weights.shape
        (torch.Size([2, 3, 8]), torch.Size([2, 3, 3]))
    """

    def __init__(self, dim: int, dropout: float, collapsed: bool = False) -> None:
        super().__init__()
        self.dim = dim
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

    def static_value_gate(self) -> Tensor:
        """The gate on the values, a vector that depends on no input.

        Returns:
            (dim,) values between -1 and 1.
        """
        if self.collapsed:
            return self.value_gate
        # (c, f) = W_v sigma(v_s) + b_v;  v_gate = sigma(f) tanh(c)  (paper: over-parameterisation)
        c, f = self.value_shape(torch.sigmoid(self.value_scale)).chunk(2)  # (dim,) each
        return torch.sigmoid(f) * torch.tanh(c)

    def collapse(self) -> None:
        """Stores the value gate as one vector and drops the matrix; outputs stay the same."""
        if self.collapsed:
            return
        with torch.no_grad():
            gate = self.static_value_gate().detach().clone()
        self.value_gate = nn.Parameter(gate)
        del self.value_scale, self.value_shape
        self.collapsed = True

    def forward(
        self, h: Tensor, rows: Tensor, past: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Lets each query read the rows it may see.

        Memory and segment are multiplied apart: no gradient is wanted for the memory's rows, and
        joining the two would compute it.

        Args:
            h: (batch, time, dim) what queries are made from.
            rows: (batch, time, dim) the segment's own rows.
            past: (batch, memory, dim) the remembered rows; None where there are none.
            mask: (time, memory + time) booleans, True where a query may look; None lets it look
                everywhere.

        Returns:
            The output (batch, time, dim) and the attention weights (batch, time, memory + time)
            before dropout; each row of weights sums to 1.
        """
        # q = sigma(q_s) LN_q(W_q h + b_q)                         (paper: simplified attention)
        q = torch.sigmoid(self.query_scale) * self.query_norm(self.query(h))
        q = self.dropout(q)  # (batch, time, dim)
        # q k' = q (sigma(k_s) rows)' = (q sigma(k_s)) rows'
        q = q * (torch.sigmoid(self.key_scale) / math.sqrt(self.dim))
        scores = q @ rows.transpose(1, 2)  # (batch, time, time)
        if past is not None:
            past = past.to(rows.dtype)  # another one only where the precision of a run changed
            scores = torch.cat([q @ past.transpose(1, 2), scores], dim=-1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        weights = torch.softmax(scores, dim=-1)  # (batch, time, memory + time)
        # softmax(..) v = softmax(..) (v_gate rows) = v_gate (softmax(..) rows)
        dropped = self.dropout(weights)
        time = rows.shape[1]
        output = dropped[..., -time:] @ self.dropout(rows)  # (batch, time, dim)
        if past is not None:
            output = output + dropped[..., :-time] @ self.dropout(past)
        return output * self.static_value_gate(), weights
