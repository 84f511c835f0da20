"""Compression restores every byte, at the size that the model predicts, or raises an error."""

import dataclasses
import random
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import sharnn
from sharnn import SHARNN, InputError, bits_per_byte, compress, decompress, train
from sharnn.compression import codec
from sharnn.compression.codec import bits_in_archive, default_num_streams
from sharnn.compression.coder import (
    TOTAL,
    Decoder,
    Encoder,
    code_lengths,
    max_symbols,
    to_frequencies,
)
from sharnn.compression.container import (
    CODED,
    HEADER_BYTES,
    LEARNED,
    LEARNED_ALL,
    STORED,
    Container,
    fingerprint,
)
from sharnn.compression.prediction import LearningPredictor, reproducible
from sharnn.corpora.sample import sample_bytes
from sharnn.evaluate import bits_of_bytes
from sharnn.streams import cut_streams
from small import OPTIONS, small_config, small_model, small_recipe

TEXT = sample_bytes(2000)
NOISE = random.Random(0).randbytes(800)
needs_backend_settings = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"),
    reason="this version of torch has no precision setting per backend",
)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def trained():
    return sharnn.load("wiki-small")


@given(data=st.binary(max_size=300), num_streams=st.integers(1, 9), learn=st.booleans())
@example(data=b"", num_streams=1, learn=False)
@example(data=b"", num_streams=3, learn=True)
@example(data=b"x", num_streams=3, learn=False)
@example(data=bytes(range(256)), num_streams=1, learn=False)
@example(data=b"\0" * 600, num_streams=2, learn=False)
@example(data=b"ab" * 400, num_streams=5, learn=True)
def test_any_data_are_restored(model, data, num_streams, learn):
    archive = compress(model, data, num_streams=num_streams, learn=learn)
    assert decompress(model, archive) == data
    assert len(archive) <= len(data) + HEADER_BYTES


@pytest.mark.parametrize(
    ("data", "num_streams"),
    [
        (TEXT[:1000], 1),
        (TEXT, 4),
        (b"a" * 1000 + b" " * 1000, 4),
        (bytes(range(256)) * 8, 8),
    ],
    ids=["text", "text in streams", "long runs", "all values"],
)
def test_the_size_is_what_bits_per_byte_predicts(trained, data, num_streams):
    predicted = bits_per_byte(trained, data, batch_size=num_streams) * len(data) / 8
    expected = min(predicted, len(data))
    archive = compress(trained, data, num_streams=num_streams)
    assert abs(len(archive) - expected) < 0.01 * expected + 64
    assert decompress(trained, archive) == data


@pytest.mark.slow
def test_a_megabyte_is_restored_and_has_the_predicted_size(corpus, tmp_path):
    recipe = small_recipe(steps=200, lr=1e-2, batch_size=8)
    train(small_config(), corpus, recipe, tmp_path / "run", progress_bar=False)
    model, data = sharnn.load(tmp_path / "run"), sample_bytes(1_000_000)
    archive = compress(model, data)
    num_streams = default_num_streams(len(data))
    predicted = bits_per_byte(model, data, batch_size=num_streams) * len(data) / 8
    assert abs(len(archive) - predicted) < 0.01 * predicted + 64
    assert decompress(model, archive) == data


def test_random_bytes_are_stored_unchanged(trained):
    archive = compress(trained, NOISE)
    assert len(archive) == len(NOISE) + HEADER_BYTES
    assert Container.from_bytes(archive).method == STORED
    assert decompress(trained, archive) == NOISE


def test_text_gets_smaller_and_learning_makes_it_smaller_still(trained):
    text = sample_bytes(5000)
    fixed = compress(trained, text, num_streams=8)
    learned = compress(trained, text, num_streams=8, learn=True)
    assert len(learned) < len(fixed) < len(text) / 2
    assert decompress(trained, learned) == text


@pytest.mark.parametrize("learn", [False, True])
def test_the_lengths_of_the_codes_sum_to_the_archives_size(trained, learn):
    lengths = bits_in_archive(trained, TEXT, num_streams=3, learn=learn)
    archive = compress(trained, TEXT, num_streams=3, learn=learn)
    # The coder writes whole words of 4 bytes.
    assert 0 <= len(archive) - HEADER_BYTES - lengths.sum() / 8 < 12
    firsts = cut_streams(len(TEXT), 3)[0]
    np.testing.assert_allclose(lengths[firsts], 8, atol=1e-3)
    if not learn:
        one = bits_in_archive(trained, TEXT, num_streams=1)
        expected = bits_of_bytes(trained, TEXT, batch_size=1)
        likely = expected < 16  # the frequencies of others are rounded
        torch.testing.assert_close(
            torch.from_numpy(one[1:])[likely], expected[likely].double(), rtol=0, atol=0.02
        )


def test_learning_does_not_change_the_model(trained):
    before = fingerprint(trained)
    decompress(trained, compress(trained, TEXT, num_streams=8, learn=True))
    assert fingerprint(trained) == before
    assert all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize("num_streams", [1, 8])
@pytest.mark.parametrize("learn", [False, True])
def test_threads_and_other_settings_of_torch_make_no_difference(trained, learn, num_streams):
    text = TEXT[:300]
    archive = compress(trained, text, num_streams=num_streams, learn=learn)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert decompress(trained, archive) == text
        with torch.inference_mode():
            assert decompress(trained, archive) == text
            assert compress(trained, text, num_streams=num_streams, learn=learn) == archive
        assert torch.get_num_threads() == 2, "the settings are restored"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


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


def test_archives_for_which_all_weights_learned_can_be_restored(monkeypatch, trained):
    archive = compress(trained, TEXT[:600], learn=True)
    monkeypatch.setattr(codec, "LEARNED", LEARNED_ALL)
    earlier = compress(trained, TEXT[:600], learn=True)
    monkeypatch.undo()
    assert Container.from_bytes(earlier).method == LEARNED_ALL
    assert Container.from_bytes(earlier).payload != Container.from_bytes(archive).payload
    assert decompress(trained, earlier) == TEXT[:600]


def test_a_model_created_in_inference_mode_can_learn():
    with torch.inference_mode():
        model = small_model()
        archive = compress(model, TEXT[:200], learn=True)
    assert decompress(small_model(), archive) == TEXT[:200]
    assert decompress(model, archive) == TEXT[:200]


def test_two_python_threads_at_once(trained):
    threads = torch.get_num_threads()

    def compress_in(num_streams):
        return compress(trained, TEXT[:400], num_streams=num_streams)

    expected = [compress_in(num_streams) for num_streams in (1, 8)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(compress_in, (1, 8))) == expected
    assert torch.get_num_threads() == threads, "the settings are restored"


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


@pytest.mark.parametrize("change", [lambda m: m.train(), lambda m: m.double(), lambda m: m.half()])
@pytest.mark.parametrize("learn", [False, True])
def test_a_model_in_training_mode_or_of_another_dtype(change, learn):
    model = change(small_model(dropout=0.5))
    training = model.training
    archive = compress(model, TEXT[:300], num_streams=2, learn=learn)
    assert decompress(model, archive) == TEXT[:300]
    assert decompress(small_model().to(model.embedding.weight.dtype), archive) == TEXT[:300]
    assert model.training == training


def test_a_collapsed_model_gives_another_archive_of_the_same_size():
    model, collapsed = small_model(), small_model()
    collapsed.collapse()
    archive, other = compress(model, TEXT), compress(collapsed, TEXT)
    assert abs(len(archive) - len(other)) <= 4
    assert decompress(collapsed, other) == TEXT


def test_a_streams_memory_has_no_more_rows_than_the_stream_has_bytes():
    """With a ring buffer of 10**9 rows, the model would not fit into RAM."""
    long, short = small_model(memory=10**9), small_model(memory=50)
    archive = compress(long, TEXT[:100], num_streams=2, learn=True)
    assert Container.from_bytes(archive).payload == (
        Container.from_bytes(compress(short, TEXT[:100], num_streams=2, learn=True)).payload
    )
    assert decompress(long, archive) == TEXT[:100]


def test_a_saved_and_loaded_model_restores_the_data(model, tmp_path):
    sharnn.save(model, tmp_path / "m.safetensors")
    assert decompress(sharnn.load(tmp_path / "m.safetensors"), compress(model, TEXT)) == TEXT


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


def test_the_error_for_another_model_names_the_fingerprint(model, trained):
    archive = compress(model, TEXT)
    with pytest.raises(InputError, match=rf"another model.*{fingerprint(model).hex()}"):
        decompress(trained, archive)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("window", ["segment", "sliding"])
def test_models_with_options_restore_the_data(options, window):
    model, text = small_model(memory_window=window, **options), TEXT[:600]
    with torch.no_grad():  # so that the text is coded, not stored
        counts = torch.bincount(torch.tensor(list(text)), minlength=256)
        model.output_bias.copy_((counts + 0.01).log())
        model.embedding.weight *= 0.5
    for learn, method in ((False, CODED), (True, LEARNED)):
        archive = compress(model, text, num_streams=3, learn=learn)
        assert Container.from_bytes(archive).method == method
        assert decompress(model, archive) == text
    predicted = bits_per_byte(model, text, batch_size=3, segment_length=1) * len(text) / 8
    size = len(compress(model, text, num_streams=3))
    assert abs(size - predicted) < 0.01 * predicted + 64


def test_the_fingerprint_of_a_model_without_options_stays_the_same():
    """This one was computed before there were options."""
    model = SHARNN(small_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    assert fingerprint(model).hex() == "f3e0399b6f6f9084"
    model.config = small_config(shifted_keys=True)
    assert fingerprint(model).hex() != "f3e0399b6f6f9084"
    models = [SHARNN(small_config(lstm_skip=start)) for start in (None, 0.5, 1.0)]
    for other in models:
        other.load_state_dict(model.state_dict(), strict=False)
        for block in other.blocks:
            if block.lstm_skip is not None:
                torch.nn.init.zeros_(block.lstm_skip)
    hashes = [fingerprint(other).hex() for other in models]
    assert hashes[0] == "f3e0399b6f6f9084" != hashes[1] == hashes[2]


def test_the_fingerprint_depends_on_shape_and_weights_but_not_on_settings_of_training(model):
    before = fingerprint(model)
    other = small_model(dropout=0.5, query_gain=2.0)
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) == before
    assert fingerprint(small_model(memory=25)) != fingerprint(model)
    other = small_model()
    with torch.no_grad():
        other.output_bias[7] += 1e-6
    assert fingerprint(other) != fingerprint(model)


def test_a_machine_that_rounds_differently_is_detected(trained, monkeypatch):
    archive = compress(trained, TEXT, num_streams=8)

    def rounded_differently(logits):
        return to_frequencies(logits.bfloat16())

    monkeypatch.setattr("sharnn.compression.prediction.to_frequencies", rounded_differently)
    with pytest.raises(InputError, match="rounds differently"):
        decompress(trained, archive)


def test_the_error_for_a_later_format_names_its_version(model):
    archive = compress(model, b"abc")
    later = archive[:4] + struct.pack("B", 2) + archive[5:]
    with pytest.raises(InputError, match=r"has format 2, but .* reads format 1"):
        decompress(model, later)


@pytest.mark.parametrize("num_streams", [0, -1, 1025, 2.0, True, "2"])
def test_an_invalid_number_of_streams(model, num_streams):
    with pytest.raises(InputError, match=r"--lanes\) must be an integer from 1 to 1024, got"):
        compress(model, b"abc", num_streams=num_streams)


def test_the_maximum_number_of_streams(model):
    assert decompress(model, compress(model, TEXT, num_streams=1024)) == TEXT


@pytest.mark.parametrize("function", [compress, decompress])
def test_a_string_is_rejected(model, function):
    with pytest.raises(InputError, match="data must be bytes, got str: encode"):
        function(model, "text")


@pytest.mark.parametrize("function", [compress, decompress])
def test_a_model_that_is_not_on_the_cpu_is_rejected(model, function):
    archive = compress(model, b"abc")
    with pytest.raises(InputError, match=r"the model is on meta: use model\.cpu\(\)"):
        function(small_model().to("meta"), archive)


def test_a_model_with_a_single_symbol_is_rejected():
    with pytest.raises(InputError, match="a model with a single symbol can't code bytes"):
        compress(small_model(vocab_size=1), bytes(3))


def test_a_byte_outside_the_vocabulary_is_rejected():
    with pytest.raises(InputError, match="contains byte 200, but the model has 128 symbols"):
        compress(small_model(vocab_size=128), bytes([200]))


def test_a_model_with_a_smaller_vocabulary():
    model = small_model(vocab_size=128)
    ascii = bytes(byte for byte in TEXT[:200] if byte < 128)
    assert decompress(model, compress(model, ascii)) == ascii


def test_damaged_weights_raise_an_error():
    model = small_model()
    with torch.no_grad():
        model.output_bias[0] = float("nan")
    with pytest.raises(InputError, match="NaN or Inf"):
        compress(model, b"abc")


def test_frequencies_are_positive_integers_and_sum_to_the_total():
    logits = torch.cat([torch.randn(20, 256) * 10, torch.tensor([[1e4] + [-1e4] * 255])])
    frequencies = to_frequencies(logits)
    assert (frequencies >= 1).all()
    assert (frequencies == np.floor(frequencies)).all()
    assert (frequencies.sum(axis=1) == TOTAL).all()


def test_the_code_is_as_long_as_the_frequencies_predict():
    generator = np.random.default_rng(0)
    encoder, bits, written = Encoder(), 0.0, []
    for _ in range(500):
        frequencies = to_frequencies(torch.randn(4, 256) * 3)
        symbols = generator.integers(0, 256, 4).astype(np.int32)
        encoder.write(symbols, frequencies)
        bits += code_lengths(frequencies, symbols).sum()
        written.append((frequencies, symbols))
    code = encoder.to_bytes()
    assert bits / 8 <= len(code) + 4 <= bits / 8 * 1.001 + 12
    decoder = Decoder(code)
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
    assert code_lengths(frequencies, symbol)[0] * max_symbols(0, 256) >= 32


def test_a_container_returns_what_it_was_given():
    container = Container(1, 300, 2**40, b"12345678", b"0123456789abcdef", b"payload")
    assert Container.from_bytes(container.to_bytes()) == container
    empty = dataclasses.replace(container, payload=b"")
    assert Container.from_bytes(empty.to_bytes()) == empty
