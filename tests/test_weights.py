"""Weights before they are used: wrappers, NaN, and layouts that round differently."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

import sharnn
from sharnn import InputError, OnnxModel, Stepper, load, save
from sharnn.analysis.explorer import Explorer
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import trace_segments
from sharnn.cli import main
from sharnn.weights import canonical_copy, fingerprint, named_weights, unwrap, usable
from small import small_config, small_model, small_recipe

TEXT = b"to be or not to be, that is the question " * 3


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_inside(model):
    for block in model.blocks:
        block.boom = compiled(block.boom)
    return model


WRAPPERS = {
    "nothing": lambda model: model,
    "compile": compiled,
    "data parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(compiled(model)),
    "average": AveragedModel,
    "parts": compiled_inside,
}


def exported(model, path):
    sharnn.export(model, path / "m.onnx")
    return OnnxModel(path / "m.onnx", threads=1)([list(TEXT)])[0].tobytes()


def saved(model, path):
    save(model, path / "m.safetensors")
    return load(path / "m.safetensors")(torch.tensor([list(TEXT)]))[0].detach().numpy().tobytes()


def exported_smaller(model, path):
    sharnn.export(model, path / "m.safetensors", storage="int8")
    return (path / "m.safetensors").read_bytes()


USES = {
    "eval": lambda model, path: sharnn.bits_per_byte(model, TEXT),
    "generate": lambda model, path: sharnn.generate(model, b"a", 9, seed=1),
    "generate several": lambda model, path: sharnn.generate_batch(model, [b"a", b"b"], 3, seed=1),
    "step": lambda model, path: Stepper(model).step(torch.tensor([65])).tolist(),
    "compress": lambda model, path: sharnn.compress(model, TEXT),
    "learn": lambda model, path: sharnn.compress(model, TEXT, learn=True),
    "onnx": exported,
    "int8": exported_smaller,
    "explore": lambda model, path: sharnn.explore(model, TEXT, targets=9).page(),
    "trace": lambda model, path: sharnn.trace_attention(model, TEXT).bits.nan_to_num().tolist(),
    "segments": lambda model, path: [s.bits.tolist() for s in trace_segments(model, TEXT)],
    "statistics": lambda model, path: sharnn.attention_statistics(model, TEXT).bits.value.item(),
}


@pytest.mark.parametrize("use", USES)
def test_wrappers_change_no_result(use, tmp_path):
    expected = USES[use](small_model(), tmp_path)
    for name, wrap in WRAPPERS.items():
        assert USES[use](wrap(small_model()), tmp_path) == expected, name


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_is_saved_under_the_models_own_names(wrap, tmp_path):
    model = small_model()
    save(model, tmp_path / "plain.safetensors")
    save(wrap(copy.deepcopy(model)), tmp_path / "wrapped.safetensors")
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("plain", "wrapped")]
    assert files[0] == files[1]


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_archives_of_a_wrapped_model_are_those_of_the_model(wrap):
    model = small_model()
    wrapped = wrap(copy.deepcopy(model))
    assert fingerprint(wrapped) == fingerprint(model)
    assert sharnn.decompress(model, sharnn.compress(wrapped, TEXT)) == TEXT
    assert sharnn.decompress(wrapped, sharnn.compress(model, TEXT)) == TEXT


def test_training_starts_from_a_wrapped_model(corpus):
    initial = small_model()
    result = sharnn.train(
        small_config(), corpus, small_recipe(steps=1, lr=1e-9), initial=compiled(initial),
        progress_bar=False,
    )  # fmt: skip
    for name, weight in result.model.state_dict().items():
        torch.testing.assert_close(weight, initial.state_dict()[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("other", [nn.Linear(2, 2), nn.DataParallel(nn.Linear(2, 2)), None, "m"])
def test_other_objects_are_not_models(other):
    with pytest.raises(InputError, match="model must be a SHARNN, got"):
        unwrap(other)


def test_pruned_weights_are_reported(tmp_path):
    model = small_model()
    prune.l1_unstructured(model.blocks[0].boom.expand, "weight", 0.5)
    for use in (lambda: save(model, tmp_path / "m.safetensors"), lambda: fingerprint(model)):
        with pytest.raises(InputError, match=r"blocks.0.boom.expand.weight has shape None.*prun"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_changed_configuration_is_reported():
    model = small_model()
    model.config = small_config(vocab_size=100)
    with pytest.raises(InputError, match=r"embedding.weight has shape \(256, 16\) instead of"):
        named_weights(model)


def damaged(value=math.nan):
    model = small_model()
    with torch.no_grad():
        model.blocks[0].lstm.weight_ih_l0[3, 2] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("use", USES)
def test_every_use_reports_weights_that_are_not_finite(use, value, tmp_path):
    with pytest.raises(InputError, match=r"damaged: blocks.0.lstm.weight_ih_l0 contains NaN"):
        USES[use](damaged(value), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", USES)
def test_every_prediction_reports_outputs_that_are_not_finite(use, tmp_path):
    model = small_model()
    for weight in (model.embedding.weight, model.output_bias):
        nn.init.constant_(weight, 3e38)  # finite, but no sum of them is
    if use in ("onnx", "int8", "step", "compress", "learn"):
        # The first three return what they compute; the sums of the others don't overflow.
        USES[use](model, tmp_path)
        return
    with pytest.raises(InputError, match="damaged: its output contains NaN or Inf"):
        USES[use](model, tmp_path)


def test_large_finite_weights_are_accepted():
    model = small_model()
    nn.init.constant_(model.embedding.weight, 3e38)  # their sum overflows
    assert usable(model) is model


def test_a_replay_and_a_new_run_report_weights_that_are_not_finite(corpus):
    trace = sharnn.trace_attention(small_model(), TEXT)
    for use in (
        lambda: Replay(damaged(), trace),
        lambda: Explorer(damaged(), trace),
        lambda: sharnn.decompress(damaged(), sharnn.compress(small_model(), TEXT)),
        lambda: sharnn.train(small_config(), corpus, small_recipe(), initial=damaged()),
    ):
        with pytest.raises(InputError, match="contains NaN or Inf"):
            use()


@pytest.mark.parametrize(
    "arguments",
    [
        "eval MODEL --data text",
        "eval MODEL --data text --json",
        "generate MODEL --length 3",
        "compress MODEL text out",
        "export MODEL out.onnx",
        "export MODEL out.safetensors --weights float16",
        "attention MODEL --data text --watched 9 --out out.html",
        "attention MODEL --data text --watched 9 --out out.html --survey out.png",
    ],
)
def test_every_command_reports_weights_that_are_not_finite(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    save(damaged(), "nan.safetensors")
    (tmp_path / "text").write_bytes(TEXT)
    assert main(arguments.replace("MODEL", "nan.safetensors").split()) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("sharnn: the model is damaged: blocks.0.lstm.weight_ih_l0")
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def by_columns(weight):
    return weight.t().contiguous().t() if weight.dim() == 2 else weight


def unaligned(weight):
    buffer = torch.zeros(weight.numel() + 1)
    return buffer[1:].view(weight.shape).copy_(weight)


def with_layout(model, layout):
    """Returns a copy of a model whose weights have the same values in another layout."""
    model = copy.deepcopy(model)
    weights = {name: layout(weight) for name, weight in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    return model


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("layout", [by_columns, unaligned, torch.Tensor.double])
def test_archives_do_not_depend_on_the_layout_of_weights(layout, learn):
    """With width 256, products of matrices that are stored by columns round differently."""
    model, text = load("wiki-small"), b"[[London]] is the capital of England. " * 2
    other = with_layout(model, layout)
    archive = sharnn.compress(model, text, learn=learn)
    assert fingerprint(other) == fingerprint(model)
    assert sharnn.compress(other, text, learn=learn) == archive
    assert sharnn.decompress(other, archive) == text


@pytest.mark.parametrize("layout", [by_columns, unaligned, torch.Tensor.double])
def test_a_canonical_copy_has_the_layout_of_a_loaded_model(layout):
    model = small_model()
    copied = canonical_copy(with_layout(model, layout))
    weights = copied.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weights[name], weight)
        assert weights[name].dtype == torch.float32
        assert weights[name].is_contiguous()
        assert weights[name].data_ptr() % 64 == 0
        assert weights[name].untyped_storage().nbytes() == 4 * weight.numel()
        assert weights[name].data_ptr() != weight.data_ptr()
