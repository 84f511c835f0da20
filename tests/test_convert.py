"""Checkpoints with the author's names are converted; their code is never run."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from safetensors.torch import save_file

from sharnn import SHARNN, InputError, ModelConfig, convert, from_reference, load
from sharnn.cli import main
from sharnn.interop.converter import MIN_TORCH, infer_config
from small import small_config, small_model

GOLDEN = Path(__file__).parent / "reference" / "golden_single.npz"
SIZE = {"vocab_size": 64, "dim": 32, "boom_dim": 128, "layers": 4, "attention_layers": (2,)}


@pytest.fixture(autouse=True)
def _reads_pickles(monkeypatch):
    """Lets a version of torch that is too old to be safe read the pickles of these tests."""
    if Version(torch.__version__) < Version(MIN_TORCH):
        monkeypatch.setattr(torch, "__version__", f"{MIN_TORCH}.0")  # as safetensors parses it


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def parameters(golden):
    return {
        name.removeprefix("param/"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("param/")
    }


def write(path, parameters):
    """Writes the parameters in the format that the path's ending names."""
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in parameters.items()})
    elif path.suffix == ".safetensors":
        save_file(parameters, path)
    else:
        torch.save(parameters, path)
    return path


def check_logits(model, golden):
    state = None
    for segment in range(5):
        x, logits = (
            torch.from_numpy(golden[f"seg{segment}/{name}"]).transpose(0, 1)
            for name in ("x", "logits")
        )
        ours, state = model(x, state)
        torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)


def test_the_golden_parameters_give_the_authors_logits(golden):
    model = convert(GOLDEN, memory=40, dropout=0.0)
    assert model.config == ModelConfig(**SIZE, memory=40, dropout=0.0)
    assert not model.training
    check_logits(model, golden)


@pytest.mark.parametrize("name", ["state.pt", "state", "state.safetensors", "state.npz"])
def test_every_format_gives_the_same_model(tmp_path, parameters, name):
    model = convert(write(tmp_path / name, parameters))
    assert model.config == ModelConfig(**SIZE, memory=5000, dropout=0.1)
    expected = from_reference(parameters)
    assert all(torch.equal(tensor, expected[n]) for n, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["state.pt", "state.safetensors", "state.npz"])
def test_every_weight_has_the_layout_of_a_new_tensor(tmp_path, parameters, name):
    if name != "state.safetensors":  # which has neither strides nor shared storage
        matrix, bias = (f"blocks.1.rnn.{n}" for n in ("weight_ih_l0", "bias_ih_l0"))
        parameters = {
            **parameters,
            matrix: parameters[matrix].t().contiguous().t(),
            "blocks.1.rnn.bias_hh_l0": parameters[bias],
        }
    weights = list(convert(write(tmp_path / name, parameters)).parameters())
    assert all(weight.is_contiguous() for weight in weights)
    assert all(weight.data_ptr() % 64 == 0 for weight in weights)  # as torch's allocator puts them
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)


def test_half_precision_and_collapsed_heads_are_converted(tmp_path, parameters):
    collapsed = {name: t.half() for name, t in parameters.items() if ".vq." not in name}
    model = convert(write(tmp_path / "state.pt", collapsed))
    assert model.config.collapsed
    assert model.embedding.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"collapsed": True},
        {"attention_layers": ()},
        {"attention_layers": (0, 2), "collapsed": True},
        {"boom_dim": 16},
        {"lstm_skip": 0.5},
    ],
)
def test_the_configuration_is_inferred_from_the_tensors(shape):
    config = small_config(**shape)
    assert infer_config(SHARNN(config).state_dict(), memory=24, dropout=0.0) == config


def test_the_command_writes_a_model_that_loads(tmp_path, golden, capsys):
    out = tmp_path / "model.safetensors"
    arguments = ["convert", str(GOLDEN), str(out), "--memory", "40", "--dropout", "0"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(str(out))
    assert printed.count("\n") == 1
    assert load(out).config == ModelConfig(**SIZE, memory=40, dropout=0.0)
    check_logits(load(out), golden)


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder / "boom"),))


@pytest.mark.parametrize("old", [False, True])
def test_pickled_objects_are_refused_and_their_code_is_not_run(tmp_path, old):
    path = tmp_path / "ENWIK8.pt"
    objects = [small_model(), torch.nn.CrossEntropyLoss(), Bomb(tmp_path)]
    torch.save(objects, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=r"torch\.save\(model\.state_dict\(\), 'state\.pt'\)"):
        convert(path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("version", ["2.4.0", "2.5.1+cu124", "2.6.0a0"])
def test_old_versions_of_torch_do_not_read_pickles(tmp_path, parameters, monkeypatch, version):
    files = [write(tmp_path / name, parameters) for name in ("a.safetensors", "a.npz", "a.pt")]
    monkeypatch.setattr(torch, "__version__", version)
    assert convert(files[0]).config == convert(files[1]).config
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(InputError, match=r"might run code.*update torch.*\.safetensors") as caught:
        convert(files[2])
    assert version in str(caught.value)


@pytest.mark.parametrize("version", ["2.6.0+cu124", "2.10", "2.13.0+cpu", "3.0.0.dev2030"])
def test_later_versions_of_torch_read_pickles(tmp_path, parameters, monkeypatch, version):
    path = write(tmp_path / "state.pt", parameters)
    monkeypatch.setattr(torch, "__version__", version)
    assert convert(path).config.dim == SIZE["dim"]


def test_arrays_of_objects_are_refused_and_their_code_is_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Bomb(tmp_path)], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        convert(tmp_path / "a.npz")
    assert not (tmp_path / "boom").exists()


def remove(*names):
    return lambda parameters: {n: t for n, t in parameters.items() if n not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("encoder.weight"), "'encoder.weight' is missing"),
        (remove("blocks.0.ff.linear1.weight"), "boom.expand.weight is missing"),
        (remove("blocks.1.rnn.weight_ih_l0"), "lstm.weight_ih_l0"),
        (remove("blocks.2.attn.vq.l1.bias"), "value_shape.bias"),
        (lambda p: p | {"blocks.0.wheel.weight": torch.zeros(1)}, "wheel"),
        (lambda p: p | {"blocks.3.rnn.bias_hh_l0": torch.zeros(5)}, "bias_hh_l0"),
        (lambda p: p | {f"blocks.{'9' * 30}.lnff.bias": torch.zeros(5)}, "Unexpected key.*9999"),
        (lambda p: p | {f"blocks.{'9' * 5000}.lnff.bias": torch.zeros(5)}, "Unexpected key"),
        (
            lambda p: p | {"decoder.bias": torch.zeros(1).expand(10**15)},
            "not enough memory",
        ),
        (lambda p: p | {"blocks.99999999.lnff.bias": torch.zeros(5)}, "layers (but|must)"),
        (lambda p: small_model().state_dict(), "'encoder.weight' is missing"),
        (
            lambda p: p | {"encoder.weight": torch.zeros(5), "decoder.weight": torch.zeros(5)},
            "not a SHA-RNN: embedding.weight is missing or is not a matrix",
        ),
        (lambda p: {"model": p}, "it is not a state dict"),
        (lambda p: list(p.values()), "it is not a state dict"),
        (lambda p: p | {"epoch": 7}, "it is not a state dict"),
    ],
)
def test_wrong_parameters_are_reported_in_one_line(tmp_path, parameters, change, message):
    path = tmp_path / "state.pt"
    torch.save(change(parameters), path)
    with pytest.raises(InputError, match=message) as caught:
        convert(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["encoder.weight", "blocks.1.rnn.weight_ih_l0"])
@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.to_sparse,
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.complex64),
        torch.Tensor.bool,
        torch.Tensor.long,
        torch.Tensor.char,
    ],
    ids=["sparse", "meta", "complex", "bool", "int64", "int8"],
)
def test_tensors_that_are_not_dense_floats_are_named(tmp_path, parameters, name, change):
    torch.save(parameters | {name: change(parameters[name])}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=f"'{name}' must be a dense tensor of floats") as caught:
        convert(tmp_path / "state.pt")
    assert "\n" not in str(caught.value)


def test_arrays_larger_than_memory_are_reported(tmp_path):
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(InputError, match="don't fit into memory"):
        convert(tmp_path / "a.npz")


@pytest.mark.parametrize("ending", ["pt", "npz", "safetensors"])
def test_a_file_without_read_permission_is_not_called_damaged(
    tmp_path, parameters, monkeypatch, ending
):
    path = write(tmp_path / f"state.{ending}", parameters)

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"can't be opened: Permission denied$"):
        convert(path)


@pytest.mark.parametrize("name", ["", "nowhere/state.pt", "n" * 5000])
def test_a_path_without_a_file_is_reported(tmp_path, name):
    with pytest.raises(InputError, match=r"does not exist|not a regular file|opened: .* too long"):
        convert(tmp_path / name)


def damaged(kind):
    """Returns a function that damages a file's content in one of several ways."""

    def damage(whole):
        return {
            "empty": b"",
            "text": b"It is a truth universally acknowledged\n" * 20,
            "random": np.random.default_rng(1).bytes(3000),
            "cut": whole[:-300],
            "bent": whole[:200] + b"bent!" + whole[205:],
            "pickle": pickle.dumps({"weight": [1.0, 2.0]}),
        }[kind]

    return damage


@pytest.mark.parametrize("ending", ["pt", "npz", "safetensors"])
@pytest.mark.parametrize("kind", ["empty", "text", "random", "cut", "bent", "pickle"])
def test_damaged_files_are_reported_in_one_line(tmp_path, parameters, capfd, ending, kind):
    path = write(tmp_path / f"state.{ending}", parameters)
    path.write_bytes(damaged(kind)(path.read_bytes()))
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("sharnn: ")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 500
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("prefixes", ["_orig_mod.", "module.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_removed(tmp_path, parameters, prefixes):
    wrapped = {prefixes + name: tensor for name, tensor in parameters.items()}
    expected = from_reference(parameters)
    model = convert(write(tmp_path / "state.safetensors", wrapped))
    assert all(torch.equal(tensor, expected[n]) for n, tensor in model.state_dict().items())


def test_a_prefix_in_the_middle_of_names_is_removed(parameters):
    wrapped = {name.replace(".rnn.", ".rnn._orig_mod."): t for name, t in parameters.items()}
    assert from_reference(wrapped).keys() == from_reference(parameters).keys()
    with pytest.raises(InputError, match="there twice"):
        from_reference(wrapped | parameters)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.2.attn.mha.in_proj_weight", "multi-head attention"),
        ("blocks.2.attn.in_proj_bias", "multi-head attention"),
        ("blocks.2.attn.k.weight", "projected keys, values or outputs"),
        ("blocks.2.attn.r.bias", "projected keys, values or outputs"),
        ("blocks.0.ff.linear2.weight", "a feed-forward layer of two matrices instead of Boom"),
        ("blocks.0.rnn.weight_ih_l1", "LSTMs of several layers or directions"),
        ("blocks.0.rnn.bias_hh_l0_reverse", "LSTMs of several layers or directions"),
        ("pos_emb", "position embeddings"),
    ],
)
def test_variants_are_named(parameters, name, message):
    with pytest.raises(InputError, match=f"variant of the model with {message}.*{name}"):
        from_reference(parameters | {name: torch.zeros(1)})


@pytest.mark.parametrize(("part", "message"), [(".rnn.", "LSTM"), (".ff.", "Boom layer")])
def test_models_without_a_part_are_named(parameters, part, message):
    with pytest.raises(InputError, match=f"variant of the model whose blocks have no {message}"):
        from_reference({n: t for n, t in parameters.items() if part not in n})


def test_several_heads_are_refused():
    """The author's variant with 4 heads has the same tensors, so the number must be given."""
    with pytest.raises(InputError, match="a model with 4 heads in an attention layer can't be"):
        convert(GOLDEN, heads=4)


@pytest.mark.parametrize(("given", "notes"), [("", 1), ("--heads 1", 0)])
def test_the_command_says_that_it_takes_a_layer_to_have_one_head(tmp_path, capsys, given, notes):
    out = str(tmp_path / "model.safetensors")
    assert main(["convert", str(GOLDEN), out, *given.split()]) == 0
    assert capsys.readouterr().err.count("num_heads") == notes
    assert main(["convert", str(GOLDEN), out, "--heads", "4"]) == 2


def test_parameters_that_are_not_finite_are_refused(tmp_path, parameters):
    bias = torch.full_like(parameters["blocks.1.rnn.bias_hh_l0"], torch.nan)
    path = write(tmp_path / "state.pt", parameters | {"blocks.1.rnn.bias_hh_l0": bias})
    with pytest.raises(InputError, match=r"blocks\.1\.lstm\.bias_hh_l0 contains NaN or Inf"):
        convert(path)
