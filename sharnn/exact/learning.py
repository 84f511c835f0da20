"""Learning in exact arithmetic: gradient descent that takes the same steps on every machine."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sharnn.exact.arithmetic import EXP, SIGMOID, Array, normalise, normalise_backward, quantise
from sharnn.exact.products import LARGEST, IntegerMatrix, multiply, storage
from sharnn.exact.stepper import BlockStep, ExactBlock, ExactStepper, matrices_of, to_array
from sharnn.layers import GELU_SCALE
from sharnn.model import SHARNN, in_float32
from sharnn.weights import usable

# The squares of up to 2^23 numbers of this size have a sum below 2^53.
LARGEST_IN_GRADIENT = 2.0**15
Gradients = dict[str, Array]


class LearningStepper(ExactStepper):
    """An exact stepper whose matrices learn from what it has read.

    `learn` takes one step of gradient descent on the symbols that were read since the last one. The
    gradient is that of back-propagation through these steps, with two simplifications: what a head
    returns counts as constant, and rounding to 8 bits as no change. Its products are sums of
    integers too.

    Args:
        model, num_streams, memory_limit: as in `ExactStepper`.
        learning_rate: length of a step relative to the gradient of the mean loss in nats.
        max_norm: maximum norm of the gradient; a longer one is shortened.

    Source: Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models".

    Example:
        >>> from sharnn.config import ModelConfig
        >>> stepper = LearningStepper(SHARNN(ModelConfig(dim=8, boom_dim=32)))
        >>> for _ in range(10):
        ...     for _ in range(8):
        ...         logits = stepper.step(np.array([97]))
        ...     stepper.learn(np.array([97]))
        >>> chr(int(stepper.step(np.array([97])).argmax()))
        'a'
    """

    def __init__(
        self,
        model: SHARNN,
        num_streams: int = 1,
        memory_limit: int | None = None,
        *,
        learning_rate: float = 1.0,
        max_norm: float = 1.0,
    ) -> None:
        model = in_float32(usable(model))
        super().__init__(model, num_streams, memory_limit)
        self.learning_rate, self.max_norm = learning_rate, max_norm
        self.matrices: dict[str, IntegerMatrix] = {}
        self.weights: dict[str, Array] = {}

        def add(name: str, matrix: IntegerMatrix, weight: Tensor) -> None:
            # Rounded to 8 bits, small steps would be lost: the weights add them up.
            self.matrices[name], self.weights[name] = matrix, to_array(weight)

        add("embedding", self.embedding, model.embedding.weight)
        for number, (block, original) in enumerate(zip(self.blocks, model.blocks, strict=True)):
            block.record = []
            for name, weight in matrices_of(original).items():
                add(f"{number}.{name}", getattr(block, name), weight)
        self.inputs: list[npt.NDArray[np.int64]] = []  # (streams,) each
        self.outputs: list[tuple[Array, Array]] = []  # h and logits, (streams, ...) each

    def step(self, x: npt.NDArray[np.int64]) -> Array:
        """Reads one more symbol of each stream and predicts the next, see `ExactStepper.step`."""
        h = self._read(x)
        logits = self._predict(h)
        self.inputs.append(x)
        self.outputs.append((h, logits))
        return logits

    def learn(self, following: npt.NDArray[np.int64]) -> None:
        """Takes one step of gradient descent on the symbols since the last one.

        Args:
            following: (streams,) the symbols that come next.
        """
        gradients = self.gradients(following)
        norm = math.sqrt(sum(norm_of(gradient) ** 2 for gradient in gradients.values()))
        scale = self.learning_rate * min(1.0, self.max_norm / norm)
        for name, gradient in gradients.items():
            self.weights[name] -= scale * gradient
            self.matrices[name].replace(self.weights[name])

    def gradients(self, following: npt.NDArray[np.int64]) -> Gradients:
        """Returns the gradient of the mean loss in nats for each matrix, and forgets the steps.

        Args:
            following: (streams,) the symbols that come after those that were read.
        """
        inputs = np.concatenate(self.inputs)  # (time streams,)
        targets = np.concatenate([*self.inputs[1:], following])
        h, logits = (np.concatenate(part) for part in zip(*self.outputs, strict=True))
        self.inputs, self.outputs = [], []
        # d loss / d logits = (softmax(logits) - [y]) / n
        grad = softmax(logits)  # (time streams, vocab_size)
        grad[np.arange(len(targets)), targets] -= 1
        grad /= len(targets)
        output = sum_of_products(grad, h)
        grad = self.embedding.transposed(grad)  # of h
        found: Gradients = {}
        for number, block in reversed(list(enumerate(self.blocks))):
            grad, of_block = block_backward(block, grad)
            found |= {f"{number}.{name}": gradient for name, gradient in of_block.items()}
        chosen = np.zeros_like(logits)  # (time streams, vocab_size)
        chosen[np.arange(len(inputs)), inputs] = 1
        found["embedding"] = output + sum_of_products(chosen, grad)
        return found


def block_backward(block: ExactBlock, grad: Array) -> tuple[Array, Gradients]:
    """Returns the gradients of a block's input and of its matrices, and forgets its steps.

    Args:
        block: the block, with the recorded steps.
        grad: (time streams, dim) gradient of the block's output.
    """
    steps, block.record = block.record or [], []
    recorded = BlockStep(*(np.concatenate(part) for part in zip(*steps, strict=True)))
    # h = LN_ff(h) + u_1 + ... + u_n,  u = gelu(W LN_xff(h) + b),  gelu(u) = u s, s = sigma(1.702 u)
    n = normalise(recorded.before_boom)
    s = SIGMOID(GELU_SCALE * recorded.u)
    slope = s + GELU_SCALE * (recorded.u * (s * (1 - s)))
    grad_u = np.concatenate([grad] * block.chunks, axis=1) * slope
    found = {"expand": sum_of_products(grad_u, block.boom_norm(n))}
    grad_n = block.expand.transposed(grad_u) * block.boom_norm.gain + grad * block.skip_norm.gain
    grad = normalise_backward(recorded.before_boom, grad_n)
    if block.head is not None:
        # h = LN_mid(h) + a constant
        grad = normalise_backward(recorded.before_head, grad * block.head.middle_norm.gain)
    start = block.start(normalise(recorded.h))
    grad_gates = lstm_backward(block, recorded, grad)
    found["input"] = sum_of_products(grad_gates, start)
    found["recurrent"] = sum_of_products(grad_gates, recorded.hidden)
    grad_start = block.input.transposed(grad_gates)
    if block.lstm_skip is not None:
        grad_start += grad * block.lstm_skip
    return normalise_backward(recorded.h, grad_start * block.start.gain), found


def lstm_backward(block: ExactBlock, recorded: BlockStep, grad: Array) -> Array:
    """Returns the gradient of the gates before sigma and tanh, back-propagated through time.

    Args:
        block: the block.
        recorded: its steps, (time streams, ...) each.
        grad: (time streams, dim) gradient of the hidden vectors.

    Returns:
        (time streams, 4 dim).
    """
    dim, num_streams = block.dim, len(block.hidden)
    i, f, s, o = (recorded.gates[:, k * dim : (k + 1) * dim] for k in range(4))
    g, c = 2 * s - 1, 2 * SIGMOID(2 * recorded.new_cell) - 1  # after tanh
    # d sigma(x) = sigma (1 - sigma) dx;  d tanh(x) = (1 - tanh^2) dx
    slopes = [g * (i * (1 - i)), recorded.cell * (f * (1 - f)), i * (1 - g * g)]
    of_cell, of_output = o * (1 - c * c), c * (o * (1 - o))
    grad_gates = np.empty_like(recorded.gates)
    grad_cell = grad_hidden = np.zeros((num_streams, dim))
    for start in range(len(grad) - num_streams, -1, -num_streams):
        now = slice(start, start + num_streams)
        # h' = o tanh(c');  c' = f c + i g
        grad_hidden = grad_hidden + grad[now]
        grad_cell = grad_cell + grad_hidden * of_cell[now]
        parts = [grad_cell * slope[now] for slope in slopes]
        grad_gates[now] = np.concatenate([*parts, grad_hidden * of_output[now]], axis=1)
        grad_cell = grad_cell * f[now]
        grad_hidden = block.recurrent.transposed(grad_gates[now])
    return grad_gates


def sum_of_products(a: Array, b: Array) -> Array:
    """Returns a' b, the sum of the outer products of rows, rounded to 8 bits.

    Args:
        a: (rows, m).
        b: (rows, n).

    Returns:
        (m, n).
    """
    # Each column has a scale of its own: a' b = s t (p' q)
    (p, s), (q, t) = quantise(a.T, LARGEST), quantise(b.T, LARGEST)
    kind = storage()
    return multiply(p.astype(kind), q.astype(kind).T) * s * t[:, 0]


def softmax(logits: Array) -> Array:
    """Returns the probabilities, (rows, vocab_size)."""
    e = EXP(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def norm_of(matrix: Array) -> float:
    """Returns the norm of all elements together, from squares of rounded numbers."""
    p, a = quantise(matrix.reshape(1, -1), LARGEST_IN_GRADIENT)
    return math.sqrt((p * p).sum()) * float(a.item())
