"""The layers of a block other than the head: LayerNorm, dropout, LSTM and Boom."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-12
GELU_SCALE = 1.702  # gelu(x) = x sigma(1.702 x)


def layer_norm(dim: int) -> nn.LayerNorm:
    """Returns a LayerNorm over the last axis with the author's epsilon.

    Args:
        dim: width of the last axis.

    Example:
        >>> layer_norm(8).eps
        1e-12
    """
    return nn.LayerNorm(dim, eps=LAYER_NORM_EPS)


def gelu(x: Tensor) -> Tensor:
    """Applies the sigmoid approximation of the GELU, x * sigma(1.702 x), to each element.

    Source: paper, Boom layer; Hendrycks and Gimpel 2016.

    Example:
        >>> gelu(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8458])
    """
    return x * torch.sigmoid(GELU_SCALE * x)


class Dropout(nn.Module):
    """Sets each element to zero with probability p in training mode, and scales the others.

    On the CPU `torch.nn.Dropout` spends most of its time drawing one random number per element.
    Here one 64-bit random number serves four elements, so p is rounded to a multiple of 1/65536.

    Args:
        p: probability, at least 0 and below 1.

    Example:
        >>> Dropout(0.5).eval()(torch.ones(2))
        tensor([1., 1.])
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Applies dropout to floats of any shape."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = round(self.p * 65536)
        numbers = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = numbers.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
        return x * kept * (65536 / (65536 - dropped))

    def extra_repr(self) -> str:
        """Returns the settings that `print` shows."""
        return f"p={self.p}"


class LSTM(nn.LSTM):
    """One LSTM layer with equal input and hidden width, and states of shape (batch, dim).

    Args:
        dim: width of the input, the hidden vector and the cell.

    Source: paper, model architecture; names and initialisation are those of `torch.nn.LSTM`.

    Example:
        >>> output, (hidden, cell) = LSTM(8)(torch.zeros(2, 5, 8), None)
        >>> output.shape, hidden.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 8]))
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, batch_first=True)

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Reads a segment.

        Args:
            x: (batch, time, dim).
            state: (hidden, cell) before the first position, (batch, dim) each; None for zeros.

        Returns:
            The hidden vectors (batch, time, dim), and (hidden, cell) after the last position.
        """
        if state is None:
            zeros = x.new_zeros(x.shape[0], self.hidden_size)  # (batch, dim)
            state = (zeros, zeros)
        hidden, cell = state[0].to(x.dtype), state[1].to(x.dtype)
        if x.shape[1] == 1 and not torch.is_grad_enabled():
            hidden, cell = self._one_position(x[:, 0], hidden, cell)
            return hidden[:, None], (hidden, cell)
        output, (hidden, cell) = super().forward(x, (hidden[None], cell[None]))
        return output, (hidden[0], cell[0])

    def _one_position(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Computes one position; twice as fast as `torch.nn.LSTM` on a sequence of length 1."""
        w, u = self.get_parameter("weight_ih_l0"), self.get_parameter("weight_hh_l0")
        b, b_hidden = self.get_parameter("bias_ih_l0"), self.get_parameter("bias_hh_l0")
        # [i f g o] = W x + b + U h + b'
        gates = F.linear(x, w, b) + F.linear(hidden, u, b_hidden)  # (batch, 4 dim)
        i, f, g, o = gates.chunk(4, dim=-1)  # (batch, dim) each
        # c' = sigma(f) c + sigma(i) tanh(g);  h' = sigma(o) tanh(c')
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class Boom(nn.Module):
    """A feed-forward layer without a second matrix: expand, apply GELU, sum chunks of width d.

    Args:
        dim: width d of input and output.
        boom_dim: inner width; units beyond the last whole chunk are dropped.

    Source: paper, Boom layer.

    Example:
        >>> Boom(8, 35)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, boom_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.expand = nn.Linear(dim, boom_dim)

    def forward(self, h: Tensor) -> Tensor:
        """Maps (batch, time, dim) to (batch, time, dim)."""
        # u = gelu(W h + b);  Boom(h) = u_1 + ... + u_n, chunks of width d  (paper: Boom layer)
        if h.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # gelu(x) = silu(1.702 x) / 1.702 takes one pass over u instead of three: the factor is
            # applied to W, b and the sum, which are smaller. Float32 keeps the author's rounding.
            weight, bias = GELU_SCALE * self.expand.weight, GELU_SCALE * self.expand.bias
            return self._sum_chunks(F.silu(F.linear(h, weight, bias))) / GELU_SCALE
        return self._sum_chunks(gelu(self.expand(h)))

    def _sum_chunks(self, u: Tensor) -> Tensor:
        """Maps (batch, time, boom_dim) to (batch, time, dim)."""
        chunks = u.shape[-1] // self.dim
        return u[..., : chunks * self.dim].unflatten(-1, (chunks, self.dim)).sum(dim=-2)
