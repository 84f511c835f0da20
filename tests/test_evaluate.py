"""Bits per byte: every byte is scored once, however the data are cut into streams."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import sharnn
from sharnn import SHARNN, InputError, ModelConfig, bits_per_byte
from small import OPTIONS, small_model

TEXT = bytes(torch.randint(256, (500,), generator=torch.Generator().manual_seed(5)).tolist())


def plain(model, text, streams=1, **kwargs):
    """Computes bits per byte from the definition, one byte after another."""
    shortest, longer = divmod(len(text) - 1, streams)
    nats, start = 0.0, 0
    for stream in range(streams):
        stop = start + shortest + (stream < longer)
        content = text[start : stop + 1]
        start = stop
        state = None
        for byte, following in pairwise(content):
            logits, state = model.step(torch.tensor([byte]), state, **kwargs)
            nats += F.cross_entropy(logits, torch.tensor([following])).item()
    return nats / (len(text) - 1) / math.log(2)


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
@pytest.mark.parametrize("segment_length", [1, 10, 499])
def test_every_byte_but_the_first_is_scored_once(streams, segment_length):
    model = small_model(memory_window="sliding")
    bits = bits_per_byte(model, TEXT, batch_size=streams, segment_length=segment_length)
    assert bits == pytest.approx(plain(model, TEXT, streams), abs=1e-5)


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_the_memory_limit_can_be_any_number(limit, options):
    model = small_model(memory_window="sliding", **options)
    bits = bits_per_byte(model, TEXT, batch_size=1, memory_limit=limit)
    assert bits == pytest.approx(plain(model, TEXT, memory_limit=limit), abs=1e-5)


def test_a_uniform_model_needs_8_bits():
    model = SHARNN(ModelConfig(dim=16, boom_dim=32))
    with torch.no_grad():
        model.embedding.weight.zero_()
    assert bits_per_byte(model, TEXT) == pytest.approx(8, abs=1e-6)


def test_a_model_that_is_certain_of_the_text_needs_almost_0_bits():
    model = SHARNN(ModelConfig(dim=16, boom_dim=32))
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.output_bias[ord("a")] = 30
    assert bits_per_byte(model, b"a" * 300) < 1e-6


def test_bytes_paths_and_tensors_get_the_same_score(tmp_path):
    model = small_model()
    (tmp_path / "f").write_bytes(TEXT)
    array = np.frombuffer(TEXT, dtype=np.uint8)
    values = {
        bits_per_byte(model, data)
        for data in (TEXT, tmp_path / "f", array, torch.from_numpy(array.copy()))
    }
    assert len(values) == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_dropout_is_off(training):
    model = small_model(dropout=0.5).train(training)
    assert bits_per_byte(model, TEXT) == bits_per_byte(model, TEXT)
    assert model.training == training


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (b"", {}, "at least 2 bytes"),
        (b"a", {}, "at least 2 bytes"),
        (b"abc", {"batch_size": 0}, "at least 1"),
        (b"abc", {"segment_length": 0}, "at least 1"),
        (b"abc", {"memory_limit": 0}, "at least 1"),
        ("nowhere", {}, "does not exist"),
    ],
)
def test_invalid_input_is_an_error(data, settings, message):
    with pytest.raises(InputError, match=message):
        bits_per_byte(small_model(), data, **settings)


def test_a_byte_without_a_symbol_is_an_error():
    with pytest.raises(InputError, match="byte 200, but the model has 100 symbols"):
        bits_per_byte(small_model(vocab_size=100), b"abc\xc8")


class NoFloat64(TorchFunctionMode):
    """Makes a model behave as on a device without float64, such as Apple's GPUs.

    Everything that is computed from the model's parameters is on that device, until `Tensor.cpu`
    copies it.
    """

    def __init__(self, model):
        super().__init__()
        for parameter in model.parameters():
            parameter.on_device = True

    def __torch_function__(self, function, types, args=(), kwargs=None):
        values = (*args, *(kwargs or {}).values())
        on_device = any(getattr(value, "on_device", False) for value in values)
        double = function is torch.Tensor.double or any(value is torch.float64 for value in values)
        if on_device and double:
            raise TypeError("the MPS framework doesn't support float64")
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else [result]:
            if isinstance(part, torch.Tensor) and on_device:
                part.on_device = function is not torch.Tensor.cpu
        return result


@pytest.mark.parametrize(
    "use",
    [
        lambda model, text: bits_per_byte(model, text),
        lambda model, text: sharnn.generate(model, b"a", 5),
        lambda model, text: sharnn.explore(model, text, targets=9).ablate(3, count=4),
        lambda model, text: sharnn.attention_statistics(model, text),
    ],
    ids=["eval", "generate", "explore", "statistics"],
)
def test_devices_without_float64_are_supported(use):
    model = small_model()
    with NoFloat64(model):
        with pytest.raises(TypeError, match="float64"):
            (model.output_bias + 1)[:3].sum(dtype=torch.float64)
        use(model, b"hello world " * 10)
