"""Models on disk: round trips are exact, damage is reported in one line, and no code is run."""

import hashlib
import json
import os
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sharnn import SHARNN, InputError, bits_per_byte, load, save
from sharnn.checkpoint import SHIPPED, build
from small import OPTIONS, small_config, small_model


@pytest.mark.parametrize(
    "shape", [{}, {"attention_layers": ()}, {"memory_window": "sliding"}, *OPTIONS]
)
@pytest.mark.parametrize("collapsed", [False, True])
def test_the_round_trip_is_exact(tmp_path, shape, collapsed):
    model = small_model(**shape)
    if collapsed:
        model.collapse()
    path = tmp_path / "model.safetensors"
    save(model, path)
    loaded = load(path)
    assert loaded.config == model.config
    assert not loaded.training
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    x = torch.randint(256, (1, 40))
    assert torch.equal(loaded(x)[0], model(x)[0])


def test_half_precision_needs_half_the_bytes_and_rounds_once(tmp_path):
    model = small_model()
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save(model, whole)
    save(model, half, storage="float16")
    size = 4 * model.parameter_count()
    overhead = whole.stat().st_size - size  # the header
    assert size // 2 < half.stat().st_size <= size // 2 + overhead
    loaded = load(half)
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    save(loaded, tmp_path / "again.safetensors", storage="float16")
    assert (tmp_path / "again.safetensors").read_bytes() == half.read_bytes()


def test_a_file_from_before_an_option_existed_has_its_default():
    config = small_config().to_dict()
    for options in OPTIONS:
        for name in options:
            config.pop(name, None)
    assert build(small_model().state_dict(), {"config": config}, "m").config == small_config()


@pytest.mark.parametrize(
    "shape", [{}, {"attention_layers": ()}, {"attention_layers": (0, 1, 2)}, *OPTIONS]
)
@pytest.mark.parametrize("collapsed", [False, True])
def test_int8_rounds_each_weight_by_at_most_half_a_step(tmp_path, shape, collapsed):
    model = small_model(**shape)
    if collapsed:
        model.collapse()
    save(model, tmp_path / "m.safetensors", storage="int8")
    loaded = load(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    for name, weight in model.state_dict().items():
        restored = loaded.state_dict()[name]
        assert restored.dtype == torch.float32
        if weight.dim() == 1:
            assert torch.equal(restored, weight), "vectors must not be rounded"
            continue
        steps = weight.abs().amax(dim=1, keepdim=True) / 127  # (rows, 1)
        assert torch.all((restored - weight).abs() <= 0.5001 * steps)
        assert not torch.equal(restored, weight)


def test_int8_needs_about_a_quarter_of_the_bytes(tmp_path):
    model = load("wiki-small")
    for storage in ("float32", "int8"):
        save(model, tmp_path / f"{storage}.safetensors", storage=storage)
    whole, packed = ((tmp_path / f"{s}.safetensors").stat().st_size for s in ("float32", "int8"))
    assert 0.25 < packed / whole < 0.27


def test_saving_a_loaded_int8_model_again_changes_weights_only_by_rounding(tmp_path):
    save(small_model(), tmp_path / "m.safetensors", storage="int8")
    first = load(tmp_path / "m.safetensors")
    save(first, tmp_path / "m.safetensors", storage="int8")
    second = load(tmp_path / "m.safetensors").state_dict()
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(second[name], weight, rtol=1e-6, atol=0)


def test_an_unknown_storage_is_an_error(tmp_path):
    with pytest.raises(InputError, match="storage must be one of float32, float16, int8"):
        save(small_model(), tmp_path / "m.safetensors", storage="int4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_shipped_model_predicts_english_and_has_a_card(path):
    model = load(path.stem)
    text = (SHIPPED.parent.parent / "README.md").read_bytes()  # not in its training data
    assert bits_per_byte(model, text) < 4.5
    card = (SHIPPED / "README.md").read_text()
    assert f"`{path.stem}`" in card
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert path.stat().st_size < 16e6


def test_loading_does_not_change_the_random_state(tmp_path):
    save(small_model(), tmp_path / "m.safetensors")
    before = torch.get_rng_state()
    load(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_can_be_trained(tmp_path):
    save(small_model(), tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors").train()
    model(torch.randint(256, (1, 5)))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_run_folder_loads_as_its_best_model_or_else_its_last(tmp_path):
    last, best = small_model(), small_model(dim=20)
    save(last, tmp_path / "last.safetensors")
    assert load(tmp_path).config.dim == 16
    save(best, tmp_path / "best.safetensors")
    assert load(str(tmp_path)).config.dim == 20


def header_of(path) -> bytes:
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    return path.read_bytes()[8 : 8 + size]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small_model(), path)
    return path


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_empty(path):
    path.write_bytes(b"")


def damage_garbage(path):
    path.write_bytes(random.Random(0).randbytes(5000))


def damage_pickle(path):
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def damage_foreign(path):
    save_file({"w": torch.zeros(3)}, path)


def damage_config(change):
    def damage(path):
        config = {**small_config().to_dict(), **change}
        header = {"format": 1, "config": config}
        save_file(small_model().state_dict(), path, {"sharnn": json.dumps(header)})

    return damage


def damage_int8(change):
    """Returns a function that writes an int8 file with a changed embedding."""

    def damage(path):
        save(small_model(), path, storage="int8")
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        change(tensors)
        save_file(tensors, path, metadata)

    return damage


def without_scales(tensors):
    del tensors["embedding.weight.scale"]


def with_one_scale(tensors):
    tensors["embedding.weight.scale"] = torch.ones(1, 1)


def with_a_row_of_scales(tensors):
    tensors["embedding.weight.scale"] = torch.ones(1, 256)


def without_numbers(tensors):
    del tensors["embedding.weight"]


def with_numbers_of_a_vector(tensors):
    tensors["embedding.weight"] = torch.ones(256, dtype=torch.int8)


def with_scales_of_floats(tensors):
    tensors["embedding.weight"] = torch.zeros(256, 16)


def with_a_missing_column(tensors):
    tensors["embedding.weight"] = tensors["embedding.weight"][:, 1:].contiguous()


def damage_format(path):
    header = {"format": 99, "config": small_config().to_dict()}
    save_file(small_model().state_dict(), path, {"sharnn": json.dumps(header)})


def damage_json(text):
    def damage(path):
        save_file(small_model().state_dict(), path, {"sharnn": text})

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_empty,
        damage_garbage,
        damage_pickle,
        damage_foreign,
        damage_format,
        damage_json("[not json"),
        damage_json("[" * 100_000),
        damage_json('{"format":' * 100_000),
        damage_int8(without_scales),
        damage_int8(with_one_scale),
        damage_int8(with_a_row_of_scales),
        damage_int8(without_numbers),
        damage_int8(with_numbers_of_a_vector),
        damage_int8(with_scales_of_floats),
        damage_int8(with_a_missing_column),
        damage_config({"dim": 32}),
        damage_config({"layers": 10**9}),
        damage_config({"dim": 10**12, "boom_dim": 10**12}),
        damage_config({"attention_layers": [0]}),
        damage_config({"colour": "red"}),
        damage_config({"dim": "16"}),
    ],
)
def test_damaged_and_foreign_files_are_reported_in_one_line(saved, damage):
    damage(saved)
    with pytest.raises(InputError) as caught:
        load(saved)
    assert "m.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(""), "RuntimeError"),
        (TypeError(" \n"), "TypeError"),
        (TypeError("no room for it\nframe #0\n\n"), "no room for it frame #0"),
    ],
)
def test_damage_is_reported_with_a_reason_even_without_a_message(monkeypatch, error, message):
    def fail(config):
        raise error

    monkeypatch.setattr("sharnn.checkpoint.SHARNN", fail)
    with pytest.raises(InputError, match=f"^m is damaged: {message}$"):
        build(small_model().state_dict(), {"config": small_config().to_dict()}, "m")


def test_a_tensor_name_with_line_breaks_is_reported_in_one_line():
    tensors = {**small_model().state_dict(), "wheel\n\n": torch.zeros(1)}
    with pytest.raises(InputError, match=r'^m is damaged: Unexpected key.* "wheel'):
        build(tensors, {"config": small_config().to_dict()}, "m")


def test_building_a_model_does_not_copy_its_weights():
    tensors = small_model().state_dict()
    model = build(tensors, {"config": small_config().to_dict()}, "m")
    assert all(t.data_ptr() == tensors[name].data_ptr() for name, t in model.state_dict().items())


def test_the_weights_of_a_loaded_model_are_contiguous_and_aligned(saved):
    for storage in ("float32", "float16", "int8"):
        save(small_model(), saved, storage=storage)
        weights = list(load(saved).parameters())
        assert all(weight.is_contiguous() and weight.data_ptr() % 64 == 0 for weight in weights)


@pytest.mark.parametrize("place", ["nowhere", "nowhere/at/all", "../wiki-small"])
def test_a_missing_model_is_an_error(tmp_path, place):
    with pytest.raises(InputError, match="no model at"):
        load(tmp_path / place)


def test_a_name_is_the_shipped_model_and_a_path_is_not(saved, monkeypatch, capsys):
    monkeypatch.chdir(saved.parent)
    shipped = load("wiki-small").config
    assert capsys.readouterr().err == ""
    saved.rename("wiki-small")
    assert load("wiki-small").config == shipped
    assert capsys.readouterr().err == (
        "sharnn: wiki-small is the shipped model, not wiki-small in this folder: "
        "write ./wiki-small for that\n"
    )
    for path in ("./wiki-small", Path("wiki-small"), saved.parent / "wiki-small"):
        assert load(path).config == small_config()
    assert load(SHIPPED / "wiki-small.safetensors").config == shipped
    assert load(str(SHIPPED / "wiki-small.safetensors")).config == shipped
    assert capsys.readouterr().err == ""


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        load(tmp_path)


def test_saving_with_another_extension_is_an_error(tmp_path):
    with pytest.raises(InputError, match="safetensors"):
        save(small_model(), tmp_path / "model.pt")


def test_code_in_a_pickle_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError):
        load(path)
    assert not (tmp_path / "boom").exists()


def test_a_file_contains_only_weights_and_json(saved):
    header = json.loads(header_of(saved))
    assert json.loads(header["__metadata__"]["sharnn"])["config"]["dim"] == 16
    assert {name for name in header if name != "__metadata__"} == set(small_model().state_dict())


def test_a_file_is_hardly_larger_than_its_weights(saved):
    weights = sum(tensor.numel() * 4 for tensor in SHARNN(small_config()).state_dict().values())
    assert saved.stat().st_size < weights + 8000
