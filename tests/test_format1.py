"""Archives of format 1 are restored, or raise an error."""

import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from format1_writer import Encoder, compress
from sharnn import InputError, decompress
from sharnn.compression.format1.coder import TOTAL, Decoder, max_symbols, to_frequencies
from sharnn.compression.format1.container import CODED, LEARNED, LEARNED_ALL, STORED, Container
from sharnn.compression.format1.prediction import LearningPredictor
from sharnn.compression.settings import reproducible
from sharnn.corpora.sample import sample_bytes
from small import coding_model, small_model, unusual_torch_settings

TEXT = sample_bytes(2000)
NOISE = random.Random(0).randbytes(800)
METHODS = [CODED, LEARNED_ALL, LEARNED]
needs_backend_settings = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"),
    reason="this version of torch has no precision setting per backend",
)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def trained():
    return coding_model(TEXT)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_streams", [1, 3])
def test_what_earlier_versions_wrote_is_restored(trained, method, num_streams):
    for data in (TEXT, b"x" * 3, NOISE):
        archive = compress(trained, data, num_streams, method)
        assert Container.from_bytes(archive).method == (method if data == TEXT else STORED)
        assert decompress(trained, archive) == data


def test_learning_obeys_the_memory_limit(monkeypatch):
    model, limits = small_model(memory=24), []
    forward = type(model).forward

    def recorded(self, *arguments, **options):
        limits.append(options.get("memory_limit"))
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(model), "forward", recorded)
    with reproducible():
        predictor = LearningPredictor(model, num_streams=1, memory_limit=10)
        for symbol in TEXT[:70]:
            predictor.read(np.array([symbol], dtype=np.int32))
    assert limits == [10]


def test_only_matrices_learn():
    model = small_model()
    with reproducible():
        predictor = LearningPredictor(model, num_streams=1)
        for symbol in TEXT[:70]:
            predictor.read(np.array([symbol], dtype=np.int32))
    learned = dict(predictor.model.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(learned[name], weight) == (weight.dim() == 1), name


def test_a_second_thread_waits_until_the_settings_are_restored():
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


@needs_backend_settings
def test_the_precision_of_the_backend_makes_no_difference(trained):
    archive = compress(trained, TEXT[:300], num_streams=8)
    matmul = torch.backends.mkldnn.matmul
    precision = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        assert decompress(trained, archive) == TEXT[:300]
        assert matmul.fp32_precision == "bf16", "the setting is restored"
    finally:
        matmul.fp32_precision = precision


@needs_backend_settings
def test_an_inherited_precision_stays_inherited():
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


def test_a_machine_that_rounds_differently_is_detected(trained, monkeypatch):
    archive = compress(trained, TEXT, num_streams=8)

    def rounded_differently(logits):
        return to_frequencies(logits.bfloat16())

    monkeypatch.setattr("sharnn.compression.format1.prediction.to_frequencies", rounded_differently)
    with pytest.raises(InputError, match="rounds differently"):
        decompress(trained, archive)


def test_frequencies_are_positive_integers_and_sum_to_the_total():
    logits = torch.cat([torch.randn(20, 256) * 10, torch.tensor([[1e4] + [-1e4] * 255])])
    frequencies = to_frequencies(logits)
    assert (frequencies >= 1).all()
    assert (frequencies == np.floor(frequencies)).all()
    assert (frequencies.sum(axis=1) == TOTAL).all()


def test_the_symbols_of_a_code_come_back():
    generator, encoder, written = np.random.default_rng(0), Encoder(), []
    for _ in range(500):
        frequencies = to_frequencies(torch.randn(4, 256) * 3)
        symbols = generator.integers(0, 256, 4).astype(np.int32)
        encoder.write(symbols, frequencies)
        written.append((frequencies, symbols))
    decoder = Decoder(encoder.to_bytes())
    for frequencies, symbols in written:
        assert (decoder.read(frequencies) == symbols).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"method": 4},
        {"num_streams": 0},
        {"num_streams": 2001},
        {"num_streams": 1025},
        {"length": 2**62},
        {"length": 10**9},
        {"method": STORED},
        {"method": STORED, "length": 5, "payload": b"other"},
    ],
)
def test_an_invalid_header_with_a_valid_checksum_is_rejected(trained, changes):
    archive = Container.from_bytes(compress(trained, TEXT, num_streams=8))
    with pytest.raises(InputError, match="the archive is invalid"):
        decompress(trained, dataclasses.replace(archive, **changes).to_bytes())


@pytest.fixture(scope="module")
def noise(model):
    return Container.from_bytes(compress(model, NOISE[:200]))


@given(payload=st.binary(max_size=400), length=st.integers(0, 200), num_streams=st.integers(1, 8))
@example(payload=b"", length=200, num_streams=1)
def test_any_other_payload_is_rejected(model, noise, payload, length, num_streams):
    """The checksum in the header belongs to random bytes, which no drawn payload decodes to."""
    archive = dataclasses.replace(
        noise,
        method=CODED,
        payload=payload,
        length=length,
        num_streams=num_streams,
    )
    with pytest.raises(InputError):
        decompress(model, archive.to_bytes())


def test_a_code_can_represent_max_symbols():
    """The prediction is as confident as possible, so each symbol has the minimum code length."""
    logits = torch.full((1, 256), -1e4)
    logits[0, 7] = 1e4
    frequencies, symbol, encoder = to_frequencies(logits), np.array([7], dtype=np.int32), Encoder()
    for _ in range(40_000):
        encoder.write(symbol, frequencies)
    assert max_symbols(len(encoder.to_bytes()), 256) >= 40_000
    shortest = -np.log2(frequencies[0, 7] / TOTAL)
    assert shortest * max_symbols(0, 256) >= 32


def test_a_container_returns_what_it_was_given():
    container = Container(1, 300, 2**40, b"12345678", b"0123456789abcdef", b"payload")
    assert Container.from_bytes(container.to_bytes()) == container
    empty = dataclasses.replace(container, payload=b"")
    assert Container.from_bytes(empty.to_bytes()) == empty


def test_a_change_of_any_byte_is_detected(trained):
    archive = compress(trained, TEXT[:400])
    for place in range(len(archive)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(archive)
            damaged[place] ^= change
            with pytest.raises(InputError, match=r"damaged|not a sharnn archive|has format"):
                decompress(trained, bytes(damaged))


def test_missing_and_additional_bytes_are_detected(trained):
    archive = compress(trained, TEXT[:400])
    for size in range(len(archive)):
        with pytest.raises(InputError, match=r"truncated|not a sharnn archive"):
            decompress(trained, archive[:size])
    with pytest.raises(InputError, match="truncated or damaged"):
        decompress(trained, archive + b"\0")


@pytest.mark.parametrize("num_streams", [1, 8])
@pytest.mark.parametrize("method", METHODS)
def test_threads_and_other_settings_of_torch_make_no_difference(trained, method, num_streams):
    text = TEXT[:300]
    archive = compress(trained, text, num_streams=num_streams, method=method)
    with unusual_torch_settings():
        with torch.autocast("cpu", torch.bfloat16):
            assert decompress(trained, archive) == text
        with torch.inference_mode():
            assert decompress(trained, archive) == text
            assert compress(trained, text, num_streams=num_streams, method=method) == archive


def test_two_python_threads_at_once(trained):
    threads = torch.get_num_threads()

    def compress_in(num_streams):
        return compress(trained, TEXT[:400], num_streams=num_streams)

    expected = [compress_in(num_streams) for num_streams in (1, 8)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(compress_in, (1, 8))) == expected
    assert torch.get_num_threads() == threads, "the settings are restored"
