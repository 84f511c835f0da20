"""The ONNX file reproduces the model's numbers without PyTorch."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sharnn import InputError, OnnxModel, export, generate, load, load_corpus
from sharnn.cli import main
from sharnn.interop.onnx_graph import METADATA, NEXT, model_graph
from small import OPTIONS, small_model

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

SHAPES = [
    {},
    {"attention_layers": ()},
    {"attention_layers": (0, 1, 2)},
    {"memory_window": "sliding"},
    {"memory": 1},
    {"memory": 1, "memory_window": "sliding"},
    {"boom_dim": 16},
    {"dim": 10, "boom_dim": 25, "dropout": 0.3},
    *OPTIONS,
    *({"memory": 1, "memory_window": "sliding", **options} for options in OPTIONS),
    *({"attention_layers": (0, 2), "memory_window": "sliding", **options} for options in OPTIONS),
]
STEPS = [1] * 60
SEGMENTS = [5, 1, 1, 30, 3, 24, 7, 23, 1, 60, 25]  # the small model's memory has 24 rows


def exported(model, tmp_path, storage="float32") -> OnnxModel:
    export(model, tmp_path / "model.onnx", storage=storage)
    return OnnxModel(tmp_path / "model.onnx", threads=1)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("lengths", [STEPS, SEGMENTS], ids=["steps", "segments"])
def test_logits_and_state_equal_the_models_beyond_a_full_memory(tmp_path, shape, batch, lengths):
    model = small_model(**shape)
    graph = exported(model, tmp_path)
    ours, theirs = None, None
    for length in lengths:
        x = torch.randint(256, (batch, length))
        with torch.no_grad():
            expected, theirs = model(x, theirs)
        logits, ours = graph(x.numpy(), ours)
        assert_close(logits, expected)
        tensors = theirs.to_tensors()
        assert ours.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert_close(ours[name], tensor)


def test_a_step_is_a_segment_of_one(tmp_path):
    graph = exported(small_model(), tmp_path)
    x = np.array([3, 200])
    logits, state = graph.step(x)
    whole, after = graph(x[:, None])
    np.testing.assert_array_equal(logits, whole[:, 0])
    assert all(np.array_equal(state[name], after[name]) for name in after)


def test_a_model_in_training_or_collapsed_is_exported_unchanged(tmp_path):
    model = small_model(dropout=0.5).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = exported(model, tmp_path)
    assert model.training
    assert not model.config.collapsed
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval().collapse()
    x = torch.randint(256, (2, 30))
    assert_close(graph(x.numpy())[0], model(x)[0])
    assert_close(exported(model, tmp_path)(x.numpy())[0], model(x)[0])


@pytest.mark.parametrize("storage", ["float32", "int8"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_of_another_precision_is_exported_like_its_float32_copy(tmp_path, dtype, storage):
    model = small_model(dropout=0.5).to(dtype)
    x = torch.randint(256, (2, 30))
    logits = exported(model.train(), tmp_path, storage)(x.numpy())[0]
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    expected = exported(model.float(), tmp_path, storage)(x.numpy())[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def continued(graph: OnnxModel, prompt: bytes, length: int) -> bytes:
    """Generates the likeliest bytes after a prompt, as any program would."""
    logits, state = graph([list(prompt)])
    generated = [int(logits[0, -1].argmax())]
    while len(generated) < length:
        logits, state = graph.step(generated[-1:], state)
        generated.append(int(logits[0].argmax()))
    return bytes(generated)


@pytest.mark.parametrize("memory_window", ["segment", "sliding"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_a_generation_loop_gives_the_models_text(tmp_path, memory_window, options):
    model = small_model(memory_window=memory_window, **options)
    generated = continued(exported(model, tmp_path), b"The quick", 60)
    assert generated == generate(model, b"The quick", 60, temperature=0)


@pytest.mark.slow
def test_the_shipped_model_generates_the_same_text(tmp_path):
    model = load("wiki-small")
    generated = continued(exported(model, tmp_path), b"[[Albert Einstein]] was ", 100)
    assert generated == generate(model, b"[[Albert Einstein]] was ", 100, temperature=0)


def bits(graph: OnnxModel, text: np.ndarray) -> float:
    logits, _ = graph(text[None, :-1])
    return F.cross_entropy(torch.from_numpy(logits[0]), torch.from_numpy(text[1:])).item() / np.log(
        2
    )


@pytest.mark.slow
def test_int8_takes_a_quarter_of_the_size_and_changes_the_score_by_less_than_0_005(tmp_path):
    model = load("wiki-small")
    text = load_corpus("sample").test[:3000].astype(np.int64)
    bits_float32 = bits(exported(model, tmp_path), text)
    size = (tmp_path / "model.onnx").stat().st_size
    bits_int8 = bits(exported(model, tmp_path, "int8"), text)
    assert (tmp_path / "model.onnx").stat().st_size < 0.27 * size
    assert abs(bits_int8 - bits_float32) < 0.005
    assert bits_int8 != bits_float32


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_int8_weights_equal_those_of_an_int8_safetensors_file(tmp_path, shape):
    model = small_model(**shape)
    model.collapse()
    export(model, tmp_path / "model.safetensors", storage="int8")
    x = torch.randint(256, (2, 30))
    expected = load(tmp_path / "model.safetensors")(x)[0]
    assert_close(exported(model, tmp_path, "int8")(x.numpy())[0], expected)


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_a_byte_does_not_change_the_predictions_before_it(tmp_path, options):
    for storage in ("float32", "int8"):
        graph = exported(small_model(**options), tmp_path, storage)
        x = np.array([[1, 2, 3, 4, 5]])
        logits, _ = graph(x)
        x[0, -1] = 250
        np.testing.assert_allclose(graph(x)[0][:, :4], logits[:, :4], atol=1e-5)


@pytest.mark.parametrize("storage", ["float32", "int8"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_the_file_is_standard_onnx_and_describes_its_state(tmp_path, storage, options):
    model = small_model(attention_layers=(0, 2), **options)
    export(model, tmp_path / "model.onnx", storage=storage)
    file = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(file, full_check=True)
    assert [opset.domain for opset in file.opset_import] == [""]
    assert all(node.domain == "" for node in file.graph.node)
    metadata = json.loads({entry.key: entry.value for entry in file.metadata_props}[METADATA])
    assert metadata["config"] == model.config.to_dict()
    inputs = [value.name for value in file.graph.input]
    outputs = [value.name for value in file.graph.output]
    assert inputs == ["x", *metadata["state"]]
    assert outputs == ["logits", *metadata["state"].values()]
    assert all(after == NEXT + before for before, after in metadata["state"].items())
    assert {name for name in inputs if name.startswith("memory")} == {"memory.0", "memory.2"}


def test_the_tied_embedding_is_stored_once(tmp_path):
    model = small_model()
    model.collapse()
    export(model, tmp_path / "model.onnx")
    size = 4 * model.parameter_count()
    assert 0.95 * size < (tmp_path / "model.onnx").stat().st_size < size + 20_000


def without_package(monkeypatch, package):
    """Makes imports of a package fail as if it were not installed."""
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_reported_in_one_line(tmp_path, monkeypatch, package):
    export(small_model(), tmp_path / "model.onnx")
    without_package(monkeypatch, package)
    with pytest.raises(InputError, match=r"not installed.*pip install onnx onnxruntime"):
        exported(small_model(), tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import onnx_needs_this", "No module named 'onnx_needs_this'"),
        ("from onnx import _missing", "_missing"),
        ("raise ImportError('a library\\nis too old')", "a library is too old"),
        ("", "No module named 'onnx.helper'"),
    ],
)
def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch, content, reason):
    without_package(monkeypatch, "onnx")
    monkeypatch.delitem(sys.modules, "onnx")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/__init__.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"onnx is installed but broken .*{reason}") as caught:
        export(small_model(), tmp_path / "model.onnx")
    assert "pip install --force-reinstall onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "storage", "message"),
    [
        ("model.pt", "float32", "must end in .onnx or .safetensors, got 'model.pt'"),
        ("model", "float32", "must end in .onnx or .safetensors"),
        ("model.onnx", "float16", "storage must be one of float32, int8, got 'float16'"),
        ("model.safetensors", "int4", "storage must be one of float32, float16, int8"),
        ("nowhere/model.onnx", "float32", "can't write .*nowhere/model.onnx"),
        ("nowhere/model.safetensors", "float32", "can't write"),
    ],
)
def test_a_failed_export_leaves_no_file(tmp_path, name, storage, message):
    with pytest.raises(InputError, match=message):
        export(small_model(), tmp_path / name, storage=storage)
    assert list(tmp_path.iterdir()) == []


def test_a_model_larger_than_an_onnx_file_can_be_is_refused(tmp_path, monkeypatch):
    model = small_model()
    limit = 2 * model.parameter_count()
    monkeypatch.setattr("sharnn.interop.exporter.MAX_ONNX_BYTES", limit)
    with pytest.raises(InputError, match="too large for an ONNX file"):
        export(model, tmp_path / "model.onnx")
    export(model, tmp_path / "model.onnx", storage="int8")


def foreign(path):
    file = model_graph(small_model())
    del file.metadata_props[:]
    path.write_bytes(file.SerializeToString())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no graph"),
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        foreign,
    ],
    ids=["missing", "empty", "text", "cut", "foreign"],
)
def test_a_damaged_or_foreign_file_is_reported_in_one_line(tmp_path, damage, capfd):
    path = tmp_path / "model.onnx"
    export(small_model(), path)
    damage(path)
    with pytest.raises(InputError, match=r"model\.onnx") as caught:
        OnnxModel(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1, 2], "shape"),
        (np.zeros((1, 0), np.int64), "shape"),
        ([[1.0]], "integers"),
        ([[256]], "symbols from 0 to 255"),
        ([[-1]], "symbols from 0 to 255"),
        ([[1], [2]], "1 streams"),
        ([[1], [2, 3]], "same number of symbols"),
        ([[True]], "integers"),
    ],
)
def test_invalid_symbols_are_reported(tmp_path, x, message):
    graph = exported(small_model(), tmp_path)
    with pytest.raises(InputError, match=message):
        graph(x, graph.start(1))


def test_a_step_with_streams_of_unequal_length_is_refused(tmp_path):
    with pytest.raises(InputError, match="same number of symbols"):
        exported(small_model(), tmp_path).step([[1], [2, 3]])


def test_the_state_of_another_model_is_refused(tmp_path):
    graph = exported(small_model(), tmp_path)
    other, wide = small_model(attention_layers=(0,)), small_model(dim=20)
    with pytest.raises(InputError, match="another model"):
        graph.step([1], exported(other, tmp_path).start())
    with pytest.raises(InputError, match="width 20"):
        graph.step([1], exported(wide, tmp_path).start())


def change(name, changed):
    return lambda state: {**state, name: changed(state[name])}


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda state: list(state.values()), "another model"),
        (change("memory.0", np.ndarray.tolist), "memory.0 must be an array, got list"),
        (change("memory.0", torch.from_numpy), "memory.0 must be an array, got Tensor"),
        (change("memory.2", np.float64), r"memory.2 must be float32 of .*rows, 16\), got float64"),
        (change("memory.2", np.int64), "got int64"),
        (change("memory.0", lambda a: a[0]), r"\(batch, rows, 16\), got .* shape \(3, 16\)"),
        (change("memory.0", lambda a: a[None]), r"got float32 of shape \(1, 1, 3, 16\)"),
        (change("lstm.1.cell", lambda a: a[0]), r"lstm.1.cell .*\(batch, 16\), got .* \(16,\)"),
        (change("lstm.1.cell", lambda a: a[None]), r"got float32 of shape \(1, 1, 16\)"),
        (change("lstm.2.hidden", lambda a: a.repeat(2, 0)), "lstm.2.hidden has 2 streams"),
        (change("memory.2", lambda a: a.repeat(2, 0)), "memory.2 has 2 streams"),
        (change("memory.2", lambda a: a[:, 1:]), r"same number of rows, got \[2, 3\]"),
        (change("memory.0", lambda a: a[:, :0]), r"same number of rows, got \[0, 3\]"),
    ],
)
def test_a_corrupted_state_is_reported_in_one_line(tmp_path, capfd, corrupt, message):
    graph = exported(small_model(attention_layers=(0, 2)), tmp_path)
    _, state = graph([[1, 2, 3]])
    with pytest.raises(InputError, match=message) as caught:
        graph.step([1], corrupt(state))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # the state never reached onnxruntime


@pytest.fixture
def model_file(tmp_path):
    """The path of a model's file, as an argument of the command line."""
    export(small_model(), tmp_path / "small.safetensors")
    return str(tmp_path / "small.safetensors")


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_the_command_describes_the_inputs_and_outputs_of_the_file(
    tmp_path, model_file, capfd, storage
):
    out = tmp_path / "model.onnx"
    assert main(["export", model_file, str(out), "--weights", storage]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    size = out.stat().st_size / 1e6
    assert printed.out == (
        f"{out}: {size:.1f} MB, {storage}; maps x (batch, time) and 7 tensors of state to logits "
        "(batch, time, 256) and the next state\n"
    )
    assert OnnxModel(out).config == small_model().config


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_the_command_also_writes_safetensors_files(tmp_path, model_file, capfd, storage):
    out = tmp_path / "model.safetensors"
    assert main(["export", model_file, str(out), "--weights", storage]) == 0
    assert capfd.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.1f} MB, {storage}\n"
    assert load(out).config == small_model().config
