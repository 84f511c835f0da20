"""The checksum of a checkpoint detects damage to any of its bytes."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from sharnn import InputError, OnnxModel, export, load, resume, save, train
from sharnn.checkpoint import SHIPPED
from sharnn.interop.onnx_graph import model_graph
from sharnn.io.checksum import KEY, add_checksum, verify_checksum
from sharnn.io.tensor_file import read_tensors
from small import small_config, small_model, small_recipe


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small_model(), path)
    return path


def metadata_of(path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def flip(path, position, bit):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_no_flipped_bit_goes_unnoticed(saved):
    content = saved.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    places = [*range(8), *range(8, start, 37), *range(start, len(content), 997), len(content) - 1]
    for number, place in enumerate(places):
        flip(saved, place, number % 8)
        with pytest.raises(InputError, match=r"m\.safetensors.* (damaged|can't be read as)"):
            load(saved)
        saved.write_bytes(content)
    load(saved)


@pytest.mark.parametrize("bit", range(5))
def test_a_damaged_name_of_the_checksum_is_noticed(saved, bit):
    place = saved.read_bytes().index(KEY.encode())
    flip(saved, place, bit)
    with pytest.raises(InputError, match="checksum does not match"):
        load(saved)


def test_a_damaged_run_is_not_resumed(tmp_path, corpus):
    folder = tmp_path / "run"
    train(small_config(), corpus, small_recipe(steps=2), folder, progress_bar=False)
    last = folder / "last.safetensors"
    with safe_open(last, "pt") as file:
        assert "training.random.cpu" in file.keys()  # noqa: SIM118
    for place in (-1, -5000):
        flip(last, place, 3)
        with pytest.raises(InputError, match=r"last\.safetensors is damaged: its checksum"):
            resume(folder, corpus, {"steps": 3}, progress_bar=False)
        flip(last, place, 3)
    resume(folder, corpus, {"steps": 3}, progress_bar=False)


def test_a_file_without_a_checksum_loads(saved):
    with safe_open(saved, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {"sharnn": file.metadata()["sharnn"], "format": "pt"}
    saved.write_bytes(to_bytes(tensors, metadata))
    assert load(saved).config == small_config()


def test_other_programs_read_the_file(saved):
    content = saved.read_bytes()
    assert set(metadata_of(saved)) == {"sharnn", KEY}
    assert json.loads(metadata_of(saved)["sharnn"])["config"]["dim"] == 16
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0, "tensors are aligned"
    assert json.loads(content[8 : 8 + size])["__metadata__"] == metadata_of(saved)


def test_truncating_a_file_does_not_harm_tensors_that_were_read(saved):
    _, tensors = read_tensors(saved)
    with open(saved, "r+b") as file:
        file.truncate(10)  # the next access to a memory map would kill the process
    assert sum(tensor.sum() for tensor in tensors.values()).isfinite()


def test_the_same_model_gives_the_same_file(saved):
    content = saved.read_bytes()
    save(load(saved), saved)
    assert saved.read_bytes() == content


def test_metadata_are_needed_and_a_checksum_is_added_once(saved):
    for content in (to_bytes({"x": torch.ones(1)}), saved.read_bytes()):
        with pytest.raises(ValueError, match="no metadata, or a checksum already"):
            add_checksum(content)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_shipped_models_have_a_checksum(path):
    assert KEY in metadata_of(path)
    verify_checksum(path, path.read_bytes(), metadata_of(path))


def test_a_file_without_read_permission_is_not_called_missing(saved, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"can't read .*m\.safetensors: Permission denied$"):
        load(saved)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(36, "Too long")]
)
def test_a_folder_that_can_not_be_read_is_reported(saved, monkeypatch, error):
    def refuse(self):
        raise error

    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    with pytest.raises(InputError, match=rf"can't read .*m\.safetensors: {error.strerror}$"):
        load(saved)


def test_an_onnx_file_without_read_permission_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    export(small_model(), path)

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"can't read .*m\.onnx: Permission denied$"):
        OnnxModel(path)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_no_flipped_bit_of_an_onnx_file_goes_unnoticed(tmp_path, storage):
    path = tmp_path / "m.onnx"
    export(small_model(), path, storage=storage)
    content = path.read_bytes()
    entry = content.index(KEY.encode())
    places = [*range(0, len(content), 997), *range(entry - 6, entry + 42), len(content) - 1]
    for number, place in enumerate(places):
        flip(path, place, number % 8)
        with pytest.raises(InputError, match=r"m\.onnx is damaged"):
            OnnxModel(path)
        path.write_bytes(content)
    assert OnnxModel(path).config == small_config()


def test_an_onnx_file_without_a_checksum_loads(tmp_path):
    path = tmp_path / "m.onnx"
    file = model_graph(small_model(), "float32")
    (entry,) = (entry for entry in file.metadata_props if entry.key == KEY)
    file.metadata_props.remove(entry)
    path.write_bytes(file.SerializeToString())
    assert OnnxModel(path).config == small_config()


def test_weights_that_are_too_large_for_float16_are_reported(tmp_path):
    model = small_model()
    torch.nn.init.constant_(model.output_bias, 70_000.0)
    with pytest.raises(InputError, match="output_bias has weights that are too large for float16"):
        save(model, tmp_path / "m.safetensors", storage="float16")
    assert list(tmp_path.iterdir()) == []
