"""A literal implementation of the model's equations, the baseline for the library's faster one.

It concatenates the memory and the segment, computes all keys and values before it uses them, and
writes a byte with a full pass of `Plain.forward`. Its parameters have the library's names, so it
can load the library's parameters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sharnn
from sharnn.optim import make_optimizer
from sharnn.streams import Streams

# For each block: (hidden, cell), each (1, batch, dim), and its memory (batch, rows, dim) or None.
PlainState = list[tuple[tuple[Tensor, Tensor], Tensor | None]]
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # dtype by precision


class PlainHead(nn.Module):
    """Single-headed attention that computes all keys and values before it uses them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.query_norm = nn.LayerNorm(dim, eps=1e-12)
        self.query_scale = nn.Parameter(torch.zeros(dim))
        self.key_scale = nn.Parameter(torch.zeros(dim))
        self.value_scale = nn.Parameter(torch.zeros(dim))
        self.value_shape = nn.Linear(dim, 2 * dim)

    def forward(self, h: Tensor, kv: Tensor, dropout: float) -> Tensor:
        """Attends from ``h`` (batch, time, dim) to ``kv`` (batch, rows, dim).

        The last ``time`` rows of ``kv`` belong to the positions of ``h``.
        """
        # q = sigma(q_s) LN_q(W_q h + b_q);  k = sigma(k_s) kv;  v = v_gate kv
        q = torch.sigmoid(self.query_scale) * self.query_norm(self.query(h))  # (batch, time, dim)
        c, f = self.value_shape(torch.sigmoid(self.value_scale)).chunk(2)  # (dim,) each
        k = torch.sigmoid(self.key_scale) * kv  # (batch, rows, dim)
        v = torch.sigmoid(f) * torch.tanh(c) * kv  # (batch, rows, dim)
        q, v = F.dropout(q, dropout, self.training), F.dropout(v, dropout, self.training)
        scores = q @ k.transpose(1, 2) / math.sqrt(h.shape[-1])  # (batch, time, rows)
        time, rows = scores.shape[1:]
        future = torch.ones(time, rows, dtype=torch.bool, device=h.device).triu(rows - time + 1)
        attention = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
        return F.dropout(attention, dropout, self.training) @ v  # (batch, time, dim)


class PlainBlock(nn.Module):
    """One block: LSTM, attention if it has a head, and Boom."""

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
        """Returns the block's output (batch, time, dim), its LSTM state and its memory."""
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
    """The complete model.

    Args:
        config: the configuration, with the paper's memory window, not collapsed, and without
            options beyond the paper.

    Raises:
        sharnn.InputError: the configuration is another one.
    """

    def __init__(self, config: sharnn.ModelConfig) -> None:
        super().__init__()
        options = config.shifted_keys or config.lstm_skip is not None
        if config.memory_window != "segment" or config.collapsed or options:
            raise sharnn.InputError(
                "the plain model needs memory_window 'segment' and a model that is not collapsed "
                "and has no options beyond the paper"
            )
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        heads = config.attention_layers
        self.blocks = nn.ModuleList(PlainBlock(config, i in heads) for i in range(config.layers))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, state: PlainState | None = None) -> tuple[Tensor, PlainState]:
        """Predicts the next byte at each position of x (batch, time).

        Args:
            x: (batch, time) integers, at most as long as the memory.
            state: returned by the previous call; None at the start.

        Returns:
            Logits (batch, time, vocab_size) and the new state.

        Raises:
            sharnn.InputError: the segment is longer than the memory.
        """
        if x.shape[1] > self.config.memory:
            raise sharnn.InputError(
                f"the plain model reads at most {self.config.memory} bytes at a time, "
                f"got {x.shape[1]}"
            )
        dropout = self.config.dropout
        h = F.dropout(self.embedding(x), dropout, self.training)  # (batch, time, dim)
        new_state: PlainState = []
        for i, block in enumerate(self.blocks):
            lstm_state, memory = state[i] if state else (None, None)
            h, lstm_state, memory = block(h, lstm_state, memory)
            new_state.append((lstm_state, memory))
        h = F.dropout(h, dropout, self.training)
        return F.linear(h, self.embedding.weight, self.output_bias), new_state


def plain_from(model: sharnn.SHARNN) -> Plain:
    """Returns a plain model with a copy of the parameters of a library model that isn't collapsed.

    It is in the same mode, training or evaluation.
    """
    plain = Plain(model.config)
    plain.load_state_dict(model.state_dict())
    return plain.train(model.training)


def to_plain_state(state: sharnn.State) -> PlainState:
    """Converts a state of the library to one of the plain model."""
    pairs = zip(state.lstm, state.memory, strict=True)
    return [
        ((hidden[None], cell[None]), None if memory is None else memory.rows.clone())
        for (hidden, cell), memory in pairs
    ]


class PlainTrainer:
    """A minimal training loop with the library's optimiser.

    Args:
        model: the model.
        corpus: the training data.
        recipe: batch size, segment lengths, optimiser, learning rate, clipping, and the precision
            of the forward pass: ``"float32"``, ``"bfloat16"``, or ``"float16"`` on a GPU, with
            loss scaling.
    """

    def __init__(self, model: Plain, corpus: sharnn.Corpus, recipe: sharnn.Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.streams = Streams(corpus.train, recipe.batch_size)
        self.optimizer = make_optimizer(model, recipe)
        self.device = model.output_bias.device
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=recipe.precision == "float16" and self.device.type == "cuda"
        )
        self.state: PlainState | None = None
        self.offset = self.step_count = 0

    def step(self) -> float:
        """Trains on the next segment of every stream and returns the loss in nats per byte."""
        length = self.recipe.segment_length_at(self.step_count)
        if self.streams.length - self.offset < length:
            self.offset, self.state = 0, None
        x, y = self.streams.segment(self.offset, length)  # (batch, time) both
        x, y = x.to(self.device), y.to(self.device)
        self.offset += length
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.step_count, 0.0)
        self.step_count += 1
        self.model.train()
        self.optimizer.zero_grad()
        dtype = AUTOCAST.get(self.recipe.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            logits, self.state = self.model(x, self.state)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()


@torch.no_grad()
def plain_bits_per_byte(model: Plain, data: bytes, segment_length: int) -> float:
    """Returns the bits per byte of one stream, read in segments with carried state.

    Args:
        model: the model; it is left in evaluation mode.
        data: the bytes; the first is not predicted.
        segment_length: number of bytes read at a time.
    """
    model.eval()
    symbols = torch.tensor(list(data))[None]  # (1, bytes)
    nats, state = 0.0, None
    for start in range(0, len(data) - 1, segment_length):
        piece = symbols[:, start : start + segment_length + 1]
        logits, state = model(piece[:, :-1], state)
        nats += F.cross_entropy(logits[0], piece[0, 1:], reduction="sum").item()
    return nats / (len(data) - 1) / math.log(2)
