"""The model straight from its equations: what the library's faster arrangement is measured against.

The memory and the segment are joined, keys and values are gated one by one, and a byte is written
by a whole pass of `Plain.forward`. The parameters have the library's names, so its weights load.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sharnn.optim.factory import make_optimizer
from torch import Tensor, nn

import sharnn
from sharnn.data import Streams

# For each block (hidden, cell), each (1, batch, dim), and its memory (batch, rows, dim) or None.
PlainState = list[tuple[tuple[Tensor, Tensor], Tensor | None]]


class PlainHead(nn.Module):
    """The single head, with keys and values made before they are used."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.query_norm = nn.LayerNorm(dim, eps=1e-12)
        self.query_scale = nn.Parameter(torch.zeros(dim))
        self.key_scale = nn.Parameter(torch.zeros(dim))
        self.value_scale = nn.Parameter(torch.zeros(dim))
        self.value_shape = nn.Linear(dim, 2 * dim)

    def forward(self, h: Tensor, kv: Tensor, dropout: float) -> Tensor:
        """Reads rows ``kv`` (batch, rows, dim) for ``h`` (batch, time, dim), their newest."""
        # q = sigma(q_s) LN_q(W_q h + b_q);  k = sigma(k_s) kv;  v = v_gate kv
        q = torch.sigmoid(self.query_scale) * self.query_norm(self.query(h))  # (batch, time, dim)
        c, f = self.value_shape(torch.sigmoid(self.value_scale)).chunk(2)  # (dim,) each
        k = torch.sigmoid(self.key_scale) * kv  # (batch, rows, dim)
        v = torch.sigmoid(f) * torch.tanh(c) * kv  # (batch, rows, dim)
        q, v = F.dropout(q, dropout, self.training), F.dropout(v, dropout, self.training)
        scores = q @ k.transpose(1, 2) / math.sqrt(h.shape[-1])  # (batch, time, rows)
        time, rows = scores.shape[1:]
        later = torch.ones(time, rows, dtype=torch.bool, device=h.device).triu(rows - time + 1)
        weights = torch.softmax(scores.masked_fill(later, -math.inf), dim=-1)
        return F.dropout(weights, dropout, self.training) @ v  # (batch, time, dim)


class PlainBlock(nn.Module):
    """One block: LSTM, the head where it has one, Boom."""

    def __init__(self, config: sharnn.ModelConfig, has_head: bool) -> None:
        super().__init__()
        dim = config.dim
        self.dropout, self.memory = config.dropout, config.memory
        self.start_norm = nn.LayerNorm(dim, eps=1e-12)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.head: PlainHead | None = None
        if has_head:
            self.memory_norm = nn.LayerNorm(dim, eps=1e-12)
            self.middle_norm = nn.LayerNorm(dim, eps=1e-12)
            self.head = PlainHead(dim)
        self.skip_norm = nn.LayerNorm(dim, eps=1e-12)
        self.boom_norm = nn.LayerNorm(dim, eps=1e-12)
        self.boom = nn.ModuleDict({"expand": nn.Linear(dim, config.boom_dim)})

    def forward(
        self, h: Tensor, lstm_state: tuple[Tensor, Tensor] | None, memory: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """Takes a segment (batch, time, dim) through the block, and returns what it carries on."""
        time, dim = h.shape[1:]
        # h = drop(LSTM(LN_start(h)))
        h, (hidden, cell) = self.lstm(self.start_norm(h), lstm_state)
        h = self._drop(h)
        if self.head is not None:
            # m = LN_mem(h);  h = LN_mid(h);  kv = [memory ; m]
            kv = self.memory_norm(h)
            h = self.middle_norm(h)
            if memory is not None:
                kept = min(memory.shape[1], self.memory - time)
                kv = torch.cat([memory[:, memory.shape[1] - kept :], kv], dim=1)
            h = h + self._drop(self.head(h, kv, self.dropout))
            memory = kv[:, -self.memory :].detach()
        # u = gelu(W LN_xff(h) + b), cut into chunks of d, summed;  h = LN_ff(h) + drop(...)
        u = self.boom["expand"](self.boom_norm(h))
        u = u * torch.sigmoid(1.702 * u)  # (batch, time, boom_dim)
        boom = sum(u.split(dim, dim=-1)[: u.shape[-1] // dim])
        h = self.skip_norm(h) + self._drop(boom)
        return h, (hidden.detach(), cell.detach()), memory

    def _drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.dropout, self.training)


class Plain(nn.Module):
    """The whole model.

    Args:
        config: its shape. The paper's memory window, and segments no longer than the memory.

    Raises:
        sharnn.InputError: the shape is one that this model does not have.
    """

    def __init__(self, config: sharnn.ModelConfig) -> None:
        super().__init__()
        if config.memory_window != "segment" or config.collapsed:
            raise sharnn.InputError("the plain model has the paper's window and its value matrix")
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        heads = config.attention_layers
        self.blocks = nn.ModuleList(PlainBlock(config, i in heads) for i in range(config.layers))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, state: PlainState | None = None) -> tuple[Tensor, PlainState]:
        """Predicts the next byte at each position of x (batch, time).

        Args:
            x: (batch, time) integers.
            state: what the call before returned.

        Returns:
            Logits (batch, time, vocab_size) and the next state.

        Raises:
            sharnn.InputError: the segment is longer than the memory.
        """
        if x.shape[1] > self.config.memory:
            raise sharnn.InputError(f"a segment has at most {self.config.memory} bytes here")
        dropout = self.config.dropout
        h = F.dropout(self.embedding(x), dropout, self.training)  # (batch, time, dim)
        carried: PlainState = []
        for i, block in enumerate(self.blocks):
            lstm_state, memory = state[i] if state else (None, None)
            h, lstm_state, memory = block(h, lstm_state, memory)
            carried.append((lstm_state, memory))
        h = F.dropout(h, dropout, self.training)
        return F.linear(h, self.embedding.weight, self.output_bias), carried


def plain_from(model: sharnn.SHARNN) -> Plain:
    """The plain model with the weights and the training mode of a model of the library.

    Args:
        model: not collapsed.

    Returns:
        The plain model; it shares no tensors with the other.
    """
    plain = Plain(model.config)
    plain.load_state_dict(model.state_dict())
    return plain.train(model.training)


def plain_state(state: sharnn.State) -> PlainState:
    """The same past for the plain model.

    Args:
        state: a state of the library.

    Returns:
        The state.
    """
    pairs = zip(state.lstm, state.memory, strict=True)
    return [
        ((hidden[None], cell[None]), None if memory is None else memory.rows.clone())
        for (hidden, cell), memory in pairs
    ]


class PlainTrainer:
    """A loop as short as can be, with the library's optimiser and the recipe's settings.

    Args:
        model: the model.
        corpus: what it learns from.
        recipe: batch size, segments, optimiser, learning rate, clipping, and the precision of
            the forward pass: ``"float32"`` or ``"bfloat16"``.
    """

    def __init__(self, model: Plain, corpus: sharnn.Corpus, recipe: sharnn.Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.streams = Streams(corpus.train, recipe.batch_size)
        self.optimizer = make_optimizer(
            model,
            recipe.optimizer,
            recipe.lr,
            (recipe.beta1, recipe.beta2),
            recipe.eps,
            recipe.weight_decay,
            recipe.min_trust,
        )
        self.state: PlainState | None = None
        self.offset = self.step_count = 0

    def step(self) -> float:
        """Reads the next segment of every stream, moves the weights, returns the loss in nats."""
        length = self.recipe.segment(self.step_count)
        if self.streams.length - self.offset < length:
            self.offset, self.state = 0, None
        x, y = self.streams.segment(self.offset, length)  # (batch, time) both
        self.offset += length
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.step_count, 0.0)
        self.step_count += 1
        self.model.train()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits, self.state = self.model(x, self.state)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.item()


@torch.no_grad()
def plain_bits_per_byte(model: Plain, data: bytes, segment_length: int) -> float:
    """Bits per byte of one stream, read segment by segment with the state carried.

    Args:
        model: the model.
        data: the bytes; the first is not predicted.
        segment_length: bytes read at a time.

    Returns:
        Bits per byte.
    """
    model.eval()
    symbols = torch.tensor(list(data))[None]  # (1, bytes)
    nats, state = 0.0, None
    for start in range(0, len(data) - 1, segment_length):
        piece = symbols[:, start : start + segment_length + 1]
        logits, state = model(piece[:, :-1], state)
        nats += F.cross_entropy(logits[0], piece[0, 1:], reduction="sum").item()
    return nats / (len(data) - 1) / math.log(2)
