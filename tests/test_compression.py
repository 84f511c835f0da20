"""Compression restores every byte, at the size that the model predicts, or raises an error."""

import dataclasses
import random
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import sharnn
from sharnn import SHARNN, InputError, bits_per_byte, compress, decompress, train
from sharnn.compression.codec import bits_in_archive, default_num_streams, recover
from sharnn.compression.coder import TOTAL, Decoder, Encoder, code_lengths, to_frequencies
from sharnn.compression.container import (
    CODED,
    FRAME_BYTES,
    HEADER_BYTES,
    LEARNED,
    STORED,
    Frame,
    Header,
    checksum,
)
from sharnn.corpora.sample import sample_bytes
from sharnn.evaluate import bits_of_bytes
from sharnn.streams import cut_streams
from sharnn.weights import fingerprint
from small import (
    OPTIONS,
    coding_model,
    small_config,
    small_model,
    small_recipe,
    unusual_torch_settings,
)

TEXT = sample_bytes(2000)
NOISE = random.Random(0).randbytes(800)
FRAME_OVERHEAD = 20


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def trained():
    return sharnn.load("wiki-small")


@given(
    data=st.binary(max_size=300),
    num_streams=st.integers(1, 9),
    learn=st.booleans(),
    mix=st.booleans(),
)
@example(data=b"", num_streams=1, learn=False, mix=False)
@example(data=b"", num_streams=3, learn=True, mix=True)
@example(data=b"x", num_streams=3, learn=False, mix=True)
@example(data=bytes(range(256)), num_streams=1, learn=False, mix=False)
@example(data=b"\0" * 600, num_streams=2, learn=False, mix=True)
@example(data=b"ab" * 400, num_streams=5, learn=True, mix=False)
def test_any_data_are_restored(model, data, num_streams, learn, mix):
    archive = compress(model, data, num_streams=num_streams, learn=learn, mix=mix)
    assert decompress(model, archive) == data
    assert len(archive) <= len(data) + HEADER_BYTES + FRAME_OVERHEAD


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
def test_a_long_text_is_restored_and_has_the_predicted_size(corpus, tmp_path, monkeypatch):
    """With the default number of streams, which is larger here to save time."""
    monkeypatch.setattr("sharnn.compression.codec.BYTES_PER_STREAM", 2_000)
    recipe = small_recipe(steps=60, lr=1e-2, batch_size=8)
    train(small_config(), corpus, recipe, tmp_path / "run", progress_bar=False)
    model, data = sharnn.load(tmp_path / "run"), sample_bytes(FRAME_BYTES + 9_000)
    archive = compress(model, data)
    num_streams = default_num_streams(len(data))
    assert Header.from_bytes(archive).num_streams == num_streams == 37
    predicted = bits_per_byte(model, data, batch_size=num_streams) * len(data) / 8
    assert abs(len(archive) - predicted) < 0.01 * predicted + 64
    assert decompress(model, archive) == data


def test_random_bytes_are_stored_unchanged(trained):
    archive = compress(trained, NOISE)
    assert len(archive) == len(NOISE) + HEADER_BYTES + FRAME_OVERHEAD
    assert Header.from_bytes(archive).method == STORED
    assert decompress(trained, archive) == NOISE


def test_text_gets_smaller_and_learning_makes_it_smaller_still(trained):
    text = sample_bytes(3000)
    fixed = compress(trained, text, num_streams=8)
    learned = compress(trained, text, num_streams=8, learn=True)
    assert len(learned) < len(fixed) < len(text) / 2
    assert decompress(trained, learned) == text


@pytest.mark.parametrize("options", [{}, {"learn": True}, {"mix": True}], ids=str)
def test_the_lengths_of_the_codes_sum_to_the_archives_size(trained, options):
    lengths = bits_in_archive(trained, TEXT, num_streams=3, **options)
    size = len(compress(trained, TEXT, num_streams=3, **options)) - HEADER_BYTES - FRAME_OVERHEAD
    assert abs(size - lengths.sum() / 8) < 1.01
    if "mix" not in options:
        firsts = cut_streams(len(TEXT), 3)[0]
        np.testing.assert_allclose(lengths[firsts], 8, atol=1e-3)


def test_the_lengths_are_near_those_of_the_model(trained):
    text = sample_bytes(3000)
    lengths = bits_in_archive(trained, text, num_streams=1)[1:]
    expected = bits_of_bytes(trained, text, batch_size=1).numpy()
    assert abs(lengths.mean() - expected.mean()) < 0.02
    assert np.corrcoef(lengths, expected)[0, 1] > 0.99


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
    with unusual_torch_settings():
        with torch.autocast("cpu", torch.bfloat16):
            assert decompress(trained, archive) == text
        with torch.inference_mode():
            assert decompress(trained, archive) == text
            assert compress(trained, text, num_streams=num_streams, learn=learn) == archive


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
    long, short = coding_model(TEXT, memory=10**9), coding_model(TEXT, memory=50)
    archive = compress(long, TEXT[:100], num_streams=2)
    other = compress(short, TEXT[:100], num_streams=2)
    start = HEADER_BYTES + FRAME_OVERHEAD  # the checksums before it include the model's
    assert archive[start:] == other[start:]
    assert decompress(long, archive) == TEXT[:100]


def test_a_saved_and_loaded_model_restores_the_data(model, tmp_path):
    sharnn.save(model, tmp_path / "m.safetensors")
    assert decompress(sharnn.load(tmp_path / "m.safetensors"), compress(model, TEXT)) == TEXT


def test_a_change_of_any_byte_is_detected():
    model = coding_model(TEXT)
    archive = compress(model, TEXT[:300])
    for place in range(len(archive)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(archive)
            damaged[place] ^= change
            with pytest.raises(
                InputError, match=r"damaged|not a sharnn archive|has format|invalid"
            ):
                decompress(model, bytes(damaged))


def test_missing_and_additional_bytes_are_detected():
    model = coding_model(TEXT)
    archive = compress(model, TEXT[:300])
    for size in range(len(archive)):
        with pytest.raises(InputError, match=r"truncated|not a sharnn archive"):
            decompress(model, archive[:size])
    with pytest.raises(InputError, match="1 bytes follow its end"):
        decompress(model, archive + b"\0")


@pytest.fixture
def frames_of_600_bytes(monkeypatch):
    monkeypatch.setattr("sharnn.compression.container.FRAME_BYTES", 600)


@pytest.mark.parametrize("num_streams", [1, 3])
def test_everything_before_the_damage_is_recovered(frames_of_600_bytes, num_streams):
    model = coding_model(TEXT)
    archive = compress(model, TEXT, num_streams=num_streams)
    assert recover(model, archive).content == TEXT
    place = archive.index(frame_codes(archive)[2])  # 2 frames with 600 bytes each come before it
    damaged = bytearray(archive)
    damaged[place + 3] ^= 4
    with pytest.raises(InputError, match=r"damaged at byte [\d,]+; the 1,200 bytes before it can"):
        decompress(model, bytes(damaged))
    for broken in (bytes(damaged), archive[: place + 3], archive[:place]):
        recovered = recover(model, broken)
        assert recovered.num_restored == 1200
        assert recovered.length == len(TEXT)
        assert [len(part) for part in recovered.intact] == [1200 // num_streams] * num_streams
        for part in recovered.intact:
            assert recovered.content[part.start : part.stop] == TEXT[part.start : part.stop]
            part_after = recovered.content[part.stop : part.stop + 40]
            assert part_after == bytes(len(part_after))
        assert len(recovered.content) == recovered.intact[-1].stop


def frame_codes(archive):
    """Returns the code of each frame."""
    codes, place = [], HEADER_BYTES
    while place < len(archive):
        (size,) = struct.unpack_from("<I", archive, place)
        place += FRAME_OVERHEAD + size
        codes.append(archive[place - size : place])
    return codes


def test_stored_frames_before_the_damage_are_recovered(trained, monkeypatch):
    monkeypatch.setattr("sharnn.compression.codec.FRAME_BYTES", 300)
    archive = compress(trained, NOISE)
    assert Header.from_bytes(archive).method == STORED
    assert decompress(trained, archive) == NOISE
    recovered = recover(trained, archive[:-1])
    assert (recovered.content, recovered.intact) == (NOISE[:600], [range(600)])
    damaged = bytearray(archive)
    damaged[HEADER_BYTES + 12] ^= 1  # in the checksum of the first frame's content
    with pytest.raises(InputError, match="restored bytes do not match their checksum"):
        decompress(trained, bytes(damaged))


def test_frames_of_another_archive_or_another_place_are_noticed(frames_of_600_bytes):
    model = coding_model(TEXT)
    archive, other = compress(model, TEXT), compress(model, TEXT[1:] + b"!")
    first, second = (
        HEADER_BYTES + FRAME_OVERHEAD + len(frame_codes(each)[0]) for each in (archive, other)
    )
    with pytest.raises(InputError, match="damaged at byte 32"):
        decompress(model, archive[:HEADER_BYTES] + archive[first:])
    with pytest.raises(InputError, match=rf"at byte {first}|the predictions; the 600 bytes before"):
        decompress(model, archive[:first] + other[second:])


@pytest.mark.parametrize(("content", "method"), [(TEXT[:300], CODED), (NOISE, STORED)])
def test_the_error_for_another_model_names_the_fingerprint(model, trained, content, method):
    archive = compress(trained, content)
    assert Header.from_bytes(archive).method == method
    with pytest.raises(InputError, match=rf"another model.*{fingerprint(trained).hex()}"):
        decompress(model, archive)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("window", ["segment", "sliding"])
def test_models_with_options_restore_the_data(options, window):
    model, text = coding_model(TEXT, memory_window=window, **options), TEXT[:600]
    archive = compress(model, text, num_streams=3)
    assert Header.from_bytes(archive).method == CODED
    assert decompress(model, archive) == text
    predicted = bits_per_byte(model, text, batch_size=3, segment_length=1) * len(text) / 8
    assert abs(len(archive) - predicted) < 0.03 * predicted + 64
    learned = compress(model, text, num_streams=3, learn=True)
    assert Header.from_bytes(learned).method == CODED | LEARNED
    assert decompress(model, learned) == text


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


def test_the_error_for_a_later_format_names_its_version(model):
    archive = compress(model, b"abc")
    later = archive[:4] + struct.pack("B", 3) + archive[5:]
    with pytest.raises(InputError, match=r"has format 3, but .* reads formats 1 and 2"):
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


def test_mixing_makes_text_of_any_kind_smaller():
    model = coding_model(TEXT)
    for data in (TEXT[:400], TEXT[:100] * 4, bytes(range(100, 140)) * 10):
        fixed, mixed = compress(model, data), compress(model, data, mix=True)
        assert len(mixed) < len(fixed)
        assert decompress(model, mixed) == data


def test_mixing_needs_a_model_of_bytes():
    with pytest.raises(InputError, match="mixing needs a model with 256 symbols, not 128"):
        compress(small_model(vocab_size=128), b"abc", mix=True)


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
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(size=(20, 256)) * 10, [[1e4] + [-1e4] * 255]])
    frequencies = to_frequencies(logits)
    assert (frequencies >= 1).all()
    assert (frequencies.sum(axis=1) == TOTAL).all()
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(frequencies / TOTAL, p, atol=2e-6, rtol=2e-3)


def test_the_code_is_as_long_as_the_frequencies_predict():
    rng = np.random.default_rng(0)
    encoder, bits, written = Encoder(), 0.0, []
    for _ in range(500):
        frequencies = to_frequencies(rng.normal(size=(4, 256)) * 3)
        symbols = rng.integers(0, 256, 4).astype(np.int32)
        encoder.write(symbols, frequencies)
        bits += code_lengths(frequencies, symbols).sum()
        written.append((frequencies, symbols))
    code = encoder.to_bytes()
    assert abs(len(code) - bits / 8) < 1.01
    decoder = Decoder(code)
    for frequencies, symbols in written:
        assert (decoder.read(frequencies) == symbols).all()


@given(data=st.data())
def test_any_symbols_and_frequencies(data):
    """Frequencies of 1 and of nearly the total make carries and long runs of equal bytes."""
    written, encoder = [], Encoder()
    for _ in range(data.draw(st.integers(0, 60))):
        cut = data.draw(st.sampled_from([1, 2, TOTAL // 2, TOTAL - 3, TOTAL - 1]))
        frequencies = np.array([[cut, TOTAL - cut]])
        symbols = np.array([data.draw(st.integers(0, 1))], dtype=np.int32)
        encoder.write(symbols, frequencies)
        written.append((frequencies, symbols))
    code = encoder.to_bytes()
    assert not code.endswith(b"\0")
    decoder = Decoder(code)
    for frequencies, symbols in written:
        assert decoder.read(frequencies) == symbols


@pytest.mark.parametrize(
    "changes",
    [
        {"method": 2},
        {"num_streams": 0},
        {"num_streams": 2001},
        {"num_streams": 1025},
        {"length": 2**62},
        {"length": 10**9},
        {"method": STORED, "num_streams": 1},
        {"method": STORED, "num_streams": 1, "length": 5},
    ],
    ids=str,
)
def test_an_invalid_header_with_a_valid_checksum_is_rejected(trained, changes):
    header = Header(CODED, 8, len(TEXT), fingerprint(trained))
    forged = dataclasses.replace(header, **changes)
    frame = Frame(b"code", checksum(b"other")).to_bytes(forged, 0)
    with pytest.raises(InputError, match=r"the archive is (truncated|invalid)"):
        decompress(trained, forged.to_bytes() + frame)


@given(code=st.binary(max_size=400), length=st.integers(1, 200), num_streams=st.integers(1, 8))
@example(code=b"", length=200, num_streams=1)
def test_a_code_that_gives_other_bytes_is_rejected(model, code, length, num_streams):
    header = Header(CODED, min(num_streams, length), length, fingerprint(model))
    frame = Frame(code, checksum(NOISE[:length]))
    with pytest.raises(InputError, match=r"does not match|do not match"):
        decompress(model, header.to_bytes() + frame.to_bytes(header, 0))


def test_a_header_returns_what_it_was_given():
    header = Header(CODED, 300, 2**40, b"12345678")
    assert Header.from_bytes(header.to_bytes()) == header
    assert len(header.to_bytes()) == HEADER_BYTES
    assert header.steps_per_frame == FRAME_BYTES // 300
