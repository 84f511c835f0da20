"""Compression: what goes in comes back, at the size the model predicts, or one clear line."""

import dataclasses
import random
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sharnn.compression.codec import default_lanes

import sharnn
from sharnn import InputError, bits_per_byte, compress, decompress, train
from sharnn.compression.coder import TOTAL, Decoder, Encoder, bits, frequencies, most_symbols
from sharnn.compression.container import CODED, HEADER_BYTES, STORED, Container, fingerprint
from sharnn.compression.prediction import LearningPredictor, reproducible
from sharnn.sample import sample_bytes
from small import small_config, small_model, small_recipe

TEXT = sample_bytes(2000)
needs_backend_settings = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch has no setting of each backend"
)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def trained():
    return sharnn.load("wiki-tiny")


@given(data=st.binary(max_size=300), lanes=st.integers(1, 9), learn=st.booleans())
@example(data=b"", lanes=1, learn=False)
@example(data=b"", lanes=3, learn=True)
@example(data=b"x", lanes=3, learn=False)
@example(data=bytes(range(256)), lanes=1, learn=False)
@example(data=b"\0" * 600, lanes=2, learn=False)
@example(data=b"ab" * 400, lanes=5, learn=True)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_everything_comes_back(model, data, lanes, learn):
    packed = compress(model, data, lanes=lanes, learn=learn)
    assert decompress(model, packed) == data
    assert len(packed) <= len(data) + HEADER_BYTES


@pytest.mark.parametrize(
    ("data", "lanes"),
    [
        (TEXT[:1000], 1),
        (TEXT, 4),
        (b"a" * 1000 + b" " * 1000, 4),
        (bytes(range(256)) * 8, 8),
    ],
    ids=["text", "text in lanes", "long runs", "all values"],
)
def test_the_size_is_what_bits_per_byte_predicts(trained, data, lanes):
    predicted = bits_per_byte(trained, data, batch_size=lanes) * len(data) / 8
    expected = min(predicted, len(data))
    packed = compress(trained, data, lanes=lanes)
    assert abs(len(packed) - expected) < 0.01 * expected + 64
    assert decompress(trained, packed) == data


@pytest.mark.slow
def test_a_megabyte_comes_back_at_the_predicted_size(corpus, tmp_path):
    recipe = small_recipe(steps=200, lr=1e-2, batch_size=8)
    train(small_config(), corpus, recipe, tmp_path / "run", progress=False)
    model, data = sharnn.load(tmp_path / "run"), sample_bytes(1_000_000)
    packed = compress(model, data)
    lanes = default_lanes(len(data))
    predicted = bits_per_byte(model, data, batch_size=lanes) * len(data) / 8
    assert abs(len(packed) - predicted) < 0.01 * predicted + 64
    assert decompress(model, packed) == data


def test_random_bytes_are_stored_as_they_are(trained):
    data = random.Random(0).randbytes(2000)
    packed = compress(trained, data)
    assert len(packed) == len(data) + HEADER_BYTES
    assert Container.from_bytes(packed).method == STORED
    assert decompress(trained, packed) == data


def test_text_gets_smaller_and_learning_makes_it_smaller_still(trained):
    text = sample_bytes(5000)
    plain, learned = compress(trained, text, lanes=8), compress(trained, text, lanes=8, learn=True)
    assert len(learned) < len(plain) < len(text) / 2
    assert decompress(trained, learned) == text


def test_learning_leaves_the_model_as_it_was(trained):
    before = fingerprint(trained)
    decompress(trained, compress(trained, TEXT, lanes=8, learn=True))
    assert fingerprint(trained) == before
    assert all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("learn", [False, True])
def test_threads_and_other_settings_of_torch_make_no_difference(trained, learn, lanes):
    text = TEXT[:600]
    packed = compress(trained, text, lanes=lanes, learn=learn)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert decompress(trained, packed) == text
        with torch.inference_mode():
            assert decompress(trained, packed) == text
            assert compress(trained, text, lanes=lanes, learn=learn) == packed
        assert torch.get_num_threads() == 2, "they are put back"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


@needs_backend_settings
def test_the_precision_of_the_backend_makes_no_difference(trained):
    packed = compress(trained, TEXT[:600], lanes=8)
    matmul = torch.backends.mkldnn.matmul
    precision = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        assert decompress(trained, packed) == TEXT[:600]
        assert matmul.fp32_precision == "bf16", "it is put back"
    finally:
        matmul.fp32_precision = precision


@needs_backend_settings
def test_a_precision_that_was_inherited_is_not_kept():
    matmul = torch.backends.mkldnn.matmul
    own, inherited = matmul.fp32_precision, torch.backends.fp32_precision
    matmul.fp32_precision, torch.backends.fp32_precision = "none", "tf32"
    try:
        with reproducible():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
        torch.backends.fp32_precision = "none"
        assert matmul.fp32_precision == "none"
    finally:
        matmul.fp32_precision, torch.backends.fp32_precision = own, inherited


def test_learning_sees_no_more_rows_than_the_memory(monkeypatch):
    model, memories = small_model(memory=24), []
    forward = type(model).forward

    def counted(self, *arguments, **others):
        memories.append(others.get("memory"))
        return forward(self, *arguments, **others)

    monkeypatch.setattr(type(model), "forward", counted)
    with reproducible():
        predictor = LearningPredictor(model, lanes=1, memory=10)
        for symbol in TEXT[:70]:
            predictor.read(np.array([symbol], dtype=np.int32))
    assert memories == [10]


def test_a_model_made_in_inference_mode_learns_as_well():
    with torch.inference_mode():
        model = small_model()
        packed = compress(model, TEXT[:200], learn=True)
    assert decompress(small_model(), packed) == TEXT[:200]
    assert decompress(model, packed) == TEXT[:200]


def test_two_threads_of_python_at_once(trained):
    threads = torch.get_num_threads()
    expected = [compress(trained, TEXT[:400], lanes=lanes) for lanes in (1, 8)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda lanes: compress(trained, TEXT[:400], lanes=lanes), (1, 8)))
    assert made == expected
    assert torch.get_num_threads() == threads, "each puts back what it found"


def test_a_second_thread_waits_for_the_settings():
    entered, left = threading.Event(), []

    def second():
        entered.set()
        with reproducible():
            left.append("second")

    with reproducible():
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(0.2)
        left.append("first")
    thread.join()
    assert left == ["first", "second"]


@pytest.mark.parametrize("change", [lambda m: m.train(), lambda m: m.double(), lambda m: m.half()])
@pytest.mark.parametrize("learn", [False, True])
def test_a_model_in_training_or_of_another_dtype(change, learn):
    model = change(small_model(dropout=0.5))
    mode = model.training
    packed = compress(model, TEXT[:300], lanes=2, learn=learn)
    assert decompress(model, packed) == TEXT[:300]
    assert decompress(small_model().to(model.embedding.weight.dtype), packed) == TEXT[:300]
    assert model.training == mode


def test_a_collapsed_model_is_another_file_but_the_same_size():
    model, collapsed = small_model(), small_model()
    collapsed.collapse()
    packed, other = compress(model, TEXT), compress(collapsed, TEXT)
    assert abs(len(packed) - len(other)) <= 4
    assert decompress(collapsed, other) == TEXT


def test_a_lanes_memory_is_no_longer_than_the_lane():
    """Rows that stay empty would make a model with a long memory take room for nothing."""
    long, short = small_model(memory=10**9), small_model(memory=50)
    packed = compress(long, TEXT[:100], lanes=2, learn=True)
    assert Container.from_bytes(packed).payload == (
        Container.from_bytes(compress(short, TEXT[:100], lanes=2, learn=True)).payload
    )
    assert decompress(long, packed) == TEXT[:100]


def test_a_saved_model_is_the_same_model(model, tmp_path):
    sharnn.save(model, tmp_path / "m.safetensors")
    assert decompress(sharnn.load(tmp_path / "m.safetensors"), compress(model, TEXT)) == TEXT


def test_a_change_of_any_byte_is_noticed(trained):
    packed = compress(trained, TEXT[:400])
    for place in range(len(packed)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(packed)
            damaged[place] ^= change
            with pytest.raises(InputError, match=r"altered|no file that sharnn|of format"):
                decompress(trained, bytes(damaged))


def test_a_file_that_is_cut_or_has_more_is_noticed(trained):
    packed = compress(trained, TEXT[:400])
    for size in range(len(packed)):
        with pytest.raises(InputError, match=r"cut short|no file that sharnn"):
            decompress(trained, packed[:size])
    with pytest.raises(InputError, match="cut short or altered"):
        decompress(trained, packed + b"\0")


def test_another_model_is_refused_by_name(model, trained):
    packed = compress(model, TEXT)
    with pytest.raises(InputError, match=rf"another model.*{fingerprint(model).hex()}"):
        decompress(trained, packed)


def test_the_fingerprint_sees_shape_and_weights_but_not_dropout(model):
    assert fingerprint(small_model(dropout=0.5)) == fingerprint(model)
    assert fingerprint(small_model(memory=25)) != fingerprint(model)
    other = small_model()
    with torch.no_grad():
        other.output_bias[7] += 1e-6
    assert fingerprint(other) != fingerprint(model)


def test_a_machine_that_rounds_otherwise_is_noticed(trained, monkeypatch):
    packed = compress(trained, TEXT, lanes=8)

    def rounded_otherwise(logits):
        return frequencies(logits.bfloat16())

    monkeypatch.setattr("sharnn.prediction.frequencies", rounded_otherwise)
    with pytest.raises(InputError, match="rounds otherwise"):
        decompress(trained, packed)


def test_a_later_format_is_told_by_its_number(model):
    packed = compress(model, b"abc")
    later = packed[:4] + struct.pack("B", 2) + packed[5:]
    with pytest.raises(InputError, match="of format 2, this sharnn reads format 1"):
        decompress(model, later)


@pytest.mark.parametrize("lanes", [0, -1, 1025, 2.0, True, "2"])
def test_lanes_out_of_range(model, lanes):
    with pytest.raises(InputError, match="lanes must be a whole number from 1 to 1024, got"):
        compress(model, b"abc", lanes=lanes)


def test_as_many_lanes_as_there_may_be(model):
    assert decompress(model, compress(model, TEXT, lanes=1024)) == TEXT


@pytest.mark.parametrize("function", [compress, decompress])
def test_text_that_is_no_bytes(model, function):
    with pytest.raises(InputError, match="data must be bytes, got str: encode"):
        function(model, "text")


@pytest.mark.parametrize("function", [compress, decompress])
def test_a_model_that_is_not_on_the_cpu(model, function):
    packed = compress(model, b"abc")
    with pytest.raises(InputError, match=r"the model is on meta: use model\.cpu\(\)"):
        function(small_model().to("meta"), packed)


def test_a_model_of_a_single_symbol_is_told():
    with pytest.raises(InputError, match="a single symbol has nothing to code"):
        compress(small_model(vocab_size=1), bytes(3))


def test_bytes_that_the_model_has_no_symbol_for():
    with pytest.raises(InputError, match="hold byte 200, but the model has 128 symbols"):
        compress(small_model(vocab_size=128), bytes([200]))


def test_a_model_of_fewer_symbols():
    model = small_model(vocab_size=128)
    ascii = bytes(byte for byte in TEXT[:200] if byte < 128)
    assert decompress(model, compress(model, ascii)) == ascii


def test_damaged_weights_are_told():
    model = small_model()
    with torch.no_grad():
        model.output_bias[0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        compress(model, b"abc")


def test_frequencies_are_whole_positive_and_sum_to_the_total():
    logits = torch.cat([torch.randn(20, 256) * 10, torch.tensor([[1e4] + [-1e4] * 255])])
    counts = frequencies(logits)
    assert (counts >= 1).all()
    assert (counts == np.floor(counts)).all()
    assert (counts.sum(axis=1) == TOTAL).all()


def test_the_coder_costs_what_the_frequencies_say():
    random_numbers = np.random.default_rng(0)
    encoder, cost, written = Encoder(), 0.0, []
    counts = [frequencies(torch.randn(4, 256) * 3) for _ in range(500)]
    for row in counts:
        symbols = random_numbers.integers(0, 256, 4).astype(np.int32)
        encoder.write(symbols, row)
        cost += bits(row, symbols).sum()
        written.append(symbols)
    coded = encoder.to_bytes()
    assert cost / 8 <= len(coded) + 4 <= cost / 8 * 1.001 + 12
    decoder = Decoder(coded)
    for row, symbols in zip(counts, written, strict=True):
        assert (decoder.read(row) == symbols).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": 3},
        {"lanes": 0},
        {"lanes": 2001},
        {"lanes": 1025},
        {"length": 2**62},
        {"length": 10**9},
        {"method": STORED},
        {"method": STORED, "length": 5, "payload": b"other"},
    ],
)
def test_a_header_that_makes_no_sense(trained, wrong):
    """Its checksum is right: someone made it so."""
    packed = Container.from_bytes(compress(trained, TEXT, lanes=8))
    with pytest.raises(InputError, match="the file is not by sharnn"):
        decompress(trained, dataclasses.replace(packed, **wrong).to_bytes())


@given(payload=st.binary(max_size=400), length=st.integers(0, 200), lanes=st.integers(1, 8))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_noise_under_a_right_header_is_told(model, payload, length, lanes):
    real = Container.from_bytes(compress(model, b"\0" * 200))
    made = dataclasses.replace(real, method=CODED, payload=payload, length=length, lanes=lanes)
    with pytest.raises(InputError):
        decompress(model, made.to_bytes())


def test_as_many_symbols_as_a_code_can_stand_for():
    """A prediction that is as sure as can be, for as long as a word of the code lasts."""
    logits = torch.full((1, 256), -1e4)
    logits[0, 7] = 1e4
    counts, encoder = frequencies(logits), Encoder()
    for _ in range(40_000):
        encoder.write(np.array([7], dtype=np.int32), counts)
    assert most_symbols(len(encoder.to_bytes()), 256) >= 40_000
    assert bits(counts, np.array([7], dtype=np.int32))[0] * most_symbols(0, 256) >= 32


def test_a_container_holds_what_it_was_given():
    held = Container(1, 300, 2**40, b"12345678", b"0123456789abcdef", b"payload")
    assert Container.from_bytes(held.to_bytes()) == held
    assert Container.from_bytes(dataclasses.replace(held, payload=b"").to_bytes()).payload == b""
