"""The engine in a browser computes what PyTorch computes."""

import base64
import dataclasses
import json

import numpy as np
import pytest
import torch

from browser import needs_browser, open_browser
from sharnn import SHARNN, Stepper, load, save
from sharnn.checkpoint import to_bytes
from sharnn.web.page import asset
from sharnn.web.scripts import WORKER, kernels
from small import OPTIONS, small_model

pytestmark = [pytest.mark.slow, *needs_browser]

SHAPES = [
    {},
    {"attention_layers": ()},
    {"attention_layers": (0, 1, 2)},
    {"memory_window": "sliding"},
    {"collapsed": True},
    {"dim": 10, "boom_dim": 37, "vocab_size": 205},
    {"memory": 1},
    *OPTIONS,
]
TEXT = bytes(range(90)) * 4  # longer than any of these memories
HARNESS = """
const toBase64 = (floats) => {
  const bytes = new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) {
    text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  }
  return btoa(text);
};
function prepare({ content, kernels, limit, longest }) {
  const file = new ModelFile(fromBase64(content));
  const memory = limit ?? file.config.memory;
  const size = file.size() + Reading.size(file.config, memory, longest);
  const workspace = new Workspace(size, kernels && fromBase64(kernels));
  return new Reading(new Model(file, workspace), memory, longest);
}
function readAll(request) {
  const reading = prepare({ longest: 4, ...request });
  const { stream } = reading;
  const symbols = stream.logits.length;
  const all = new Float32Array(request.text.length * symbols);
  request.text.forEach((symbol, i) => all.set(stream.step(symbol), i * symbols));
  const states = stream.states.map(({ hidden, cell, memory }) => ({
    hidden: Array.from(hidden),
    cell: Array.from(cell),
    rows: memory && Array.from({ length: Math.min(memory.count, memory.limit) }, (_, i) =>
      Array.from(memory.rows.row(memory.first(memory.count - 1) + i))),
  }));
  return { logits: toBase64(all), states };
}
"""


@pytest.fixture(scope="module")
def page():
    script = "\n".join([*(asset(f"{name}.js") for name in WORKER), HARNESS])
    with open_browser() as browser:
        page = browser.new_page()
        page.set_content(f"<script>{script}</script>")
        yield page


def engine(page, model, text, storage, binary=True, limit=None):
    """Returns what the engine computes: logits (time, vocab_size), and the states of the blocks."""
    content = base64.b64encode(b"".join(to_bytes(model, storage))).decode()
    request = {"content": content, "text": list(text), "limit": limit}
    request["kernels"] = kernels() if binary else None
    found = page.evaluate(f"readAll({json.dumps(request)})")
    logits = np.frombuffer(base64.b64decode(found["logits"]), np.float32)
    return torch.from_numpy(logits.copy()).view(len(text), -1), found["states"]


def stored(model, storage, path):
    """Returns the model with the weights that a file in this storage represents."""
    save(model, path, storage=storage)
    return load(path)


def stepped(model, text, limit=None):
    stepper = Stepper(model, memory_limit=limit)
    logits = [stepper.step(torch.tensor([symbol])) for symbol in text]
    return torch.cat(logits), stepper.state()


def collapsed(model):
    model.collapse()
    return model


@pytest.mark.parametrize(
    ("storage", "binary"), [("float16", True), ("int8", True), ("float32", False), ("int8", False)]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_and_state_are_those_of_pytorch(page, tmp_path, shape, storage, binary):
    model = collapsed(small_model(**shape))
    logits, states = engine(page, model, TEXT, storage, binary)
    expected, state = stepped(stored(model, storage, tmp_path / "m.safetensors"), TEXT)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    for found, (hidden, cell), memory in zip(states, state.lstm, state.memory, strict=True):
        torch.testing.assert_close(torch.tensor(found["hidden"]), hidden[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.tensor(found["cell"]), cell[0], rtol=1e-4, atol=1e-4)
        assert (memory is None) == (found["rows"] is None)
        if memory is not None:
            rows = torch.tensor(found["rows"])
            torch.testing.assert_close(rows, memory.rows[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_a_smaller_or_larger_memory(page, tmp_path, limit):
    for options in ({}, {"shifted_keys": True}):
        model = collapsed(small_model(**options))
        logits, _ = engine(page, model, TEXT, "float32", limit=limit)
        expected, _ = stepped(stored(model, "float32", tmp_path / "m.safetensors"), TEXT, limit)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def in_float64(model, text):
    """Returns the logits of steps that are computed in float64: in segments, which is faster."""
    config = dataclasses.replace(model.config, memory_window="sliding")
    exact, state, logits = SHARNN(config).double().eval(), None, []
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        for segment in torch.tensor(list(text))[None].split(250, dim=1):  # (1, time)
            y, state = exact(segment, state)
            logits.append(y[0])
    return torch.cat(logits)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_wiki_small_over_more_bytes_than_it_remembers(page, tmp_path, storage, corpus):
    model = collapsed(load("wiki-small"))
    text = corpus.train[:3000].tobytes()
    logits, _ = engine(page, model, text, storage)
    rounded, _ = stepped(stored(model, storage, tmp_path / "m.safetensors"), text)
    expected = in_float64(load(tmp_path / "m.safetensors"), text)
    ours, theirs = ((each - expected).abs() for each in (logits, rounded))
    # The sharp head of this model enlarges the rounding of float32, in PyTorch as in the page.
    assert ours.mean() < 4 * theirs.mean() < 4e-4
    assert ours.max() < 10 * theirs.max() < 0.1


PRODUCT = """
({ rows, columns, integers, scales, x, y, kernels }) => {
  const workspace = new Workspace(65536 * 100, kernels && fromBase64(kernels));
  const matrix = new Int8Matrix(workspace, rows, columns);
  for (let r = 0; r < rows; r++) {
    matrix.row(r).set(integers.slice(r * columns, (r + 1) * columns));
  }
  matrix.scales.set(scales);
  const [input, output, next] = [columns, rows, 8].map((length) => workspace.array(length));
  input.set(x);
  output.set(y);
  matrix.addProduct(input, output, rows);
  return { output: Array.from(output), next: Array.from(next) };
}
"""


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 10), (16, 256), (8, 5000)])
@pytest.mark.parametrize("case", ["random", "small and large", "all at the limit", "zeros"])
def test_a_product_with_int8_weights(page, rows, columns, case, binary):
    random = np.random.default_rng(0)
    integers = random.integers(-127, 128, (rows, columns))
    scales = random.uniform(0.001, 0.1, rows).astype(np.float32)
    x = random.standard_normal(columns).astype(np.float32)
    y = random.standard_normal(rows).astype(np.float32)
    if case == "small and large":
        x[1:] /= 3000
    elif case == "all at the limit":
        integers[:], x[:] = -127, 1.37
    elif case == "zeros":
        x[:] = 0
    arrays = {"integers": integers, "scales": scales, "x": x, "y": y}
    request = {name: array.ravel().tolist() for name, array in arrays.items()}
    request |= {"rows": rows, "columns": columns, "kernels": kernels() if binary else None}
    found = page.evaluate(PRODUCT, request)
    x, y, scales = x.astype(np.float64), y.astype(np.float64), scales.astype(np.float64)
    expected = y + scales * (integers @ x)
    # Sums of floats, which have 24 bits, and x as integers with at least 27 bits.
    sizes = 2**-22 * np.abs(x) + 2**-27 * np.abs(x).max()
    bound = 2**-22 * np.abs(y) + scales * (np.abs(integers) @ sizes)
    assert (np.abs(np.array(found["output"]) - expected) <= bound).all()
    assert found["next"] == [0] * 8, "it writes only the output"


FUNCTIONS = """
({ name, x, kernels }) => {
  const workspace = new Workspace(65536, kernels && fromBase64(kernels));
  const array = workspace.array(x.length + 4).fill(3);
  array.set(x);
  workspace[name](array.subarray(0, x.length));
  return toBase64(array);
}
"""
EXPECTED = {
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", EXPECTED)
def test_functions_of_vectors(page, name, binary):
    usual = [np.linspace(-60, 60, length) for length in (1, 4, 7, 1001)]
    extreme = np.array([-300, -100, -65, *([] if name == "exp" else [65, 100, 300])])
    for x in (*usual, extreme):
        x = x.astype(np.float32).astype(np.float64)
        request = {"name": name, "x": x.tolist(), "kernels": kernels() if binary else None}
        found = np.frombuffer(base64.b64decode(page.evaluate(FUNCTIONS, request)), np.float32)
        rtol = 3e-6 if name == "exp" else 3e-7  # e^60 has a larger error than e^1
        np.testing.assert_allclose(found[:-4], EXPECTED[name](x), rtol, atol=3e-7)
        assert found[-4:].tolist() == [3] * 4, "it changes no other number"


@pytest.mark.parametrize("binary", [True, False])
def test_the_weight_of_a_removed_row_is_zero(page, binary):
    request = {
        "name": "exp",
        "x": [float("-inf"), 0, 1, 2],
        "kernels": kernels() if binary else None,
    }
    found = np.frombuffer(base64.b64decode(page.evaluate(FUNCTIONS, request)), np.float32)
    assert found[0] == 0


REWIND = """
(request) => {
  const { text } = request;
  const reading = prepare({ longest: text.length, ...request });
  const wrong = [];
  const costs = [reading.cost];
  for (const symbol of text) {
    reading.read(symbol);
    costs.push(reading.cost);
  }
  const check = (length, what) => {
    if (!reading.cost.every((value, i) => value === costs[length][i])) wrong.push([length, what]);
  };
  for (const length of [299, 256, 255, 65, 64, 33, 32, 31, 1, 0]) {
    reading.rewind(length);
    check(length, "rewind");
  }
  for (const length of [200, 150, 64, 3]) {
    for (let i = reading.length; i < text.length; i++) {
      reading.read(text[i]);
      check(i + 1, "read");
    }
    const { first, weights } = reading.weights(length, 0);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    if (Math.abs(total - 1) > 1e-5) wrong.push([length, "weights", total]);
    if (first !== Math.max(0, length - 24) || weights.length !== Math.min(length, 24)) {
      wrong.push([length, "visible", first, weights.length]);
    }
    const [nothing, one] = reading.costsWithout(length, 0, [[], [length - 1]]);
    if (!nothing.every((value, i) => value === costs[length][i])) wrong.push([length, "without"]);
    if (nothing[0] === one[0]) wrong.push([length, "the row was not removed"]);
    check(text.length, "the present after the past");
    reading.rewind(length);
  }
  return wrong;
}
"""


def test_a_reading_returns_to_any_point_of_its_text(page):
    model = collapsed(small_model(attention_layers=(0, 1)))
    content = base64.b64encode(b"".join(to_bytes(model, "int8"))).decode()
    request = {"content": content, "text": list(TEXT[:300]), "kernels": kernels()}
    assert page.evaluate(REWIND, request) == []
