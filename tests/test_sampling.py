"""Text generation: seeds repeat, limits hold, and samples follow the model's distribution."""

import unicodedata

import pytest
import torch

from sharnn import SHARNN, InputError, ModelConfig, generate, generate_batch
from sharnn.inference.sampling import printable, sample_symbol, stream
from sharnn.inference.stepper import SEGMENT_LENGTH
from small import OPTIONS, small_model


def test_the_same_seed_gives_the_same_bytes():
    model = small_model()
    first = generate(model, b"The ", 50, seed=3)
    assert len(first) == 50
    assert generate(model, b"The ", 50, seed=3) == first
    assert generate(model, b"The ", 50, seed=4) != first
    torch.manual_seed(9)
    assert generate(model, b"The ", 50, seed=3) == first, "the global seed has no effect"


def test_without_a_seed_the_texts_differ():
    model = small_model()
    assert generate(model, b"x", 60) != generate(model, b"x", 60)


def test_temperature_0_always_takes_the_likeliest_byte():
    model = small_model(memory_window="sliding")
    prompt = bytes(range(30))
    generated = generate(model, prompt, 20, temperature=0)
    logits, _ = model(torch.tensor([list(prompt + generated)]))
    assert generated == bytes(logits[0, len(prompt) - 1 : -1].argmax(-1).tolist())


def test_a_prompt_longer_than_a_segment_and_the_memory():
    model = small_model(memory_window="sliding")
    prompt = bytes(torch.randint(256, (SEGMENT_LENGTH + 77,)).tolist())
    logits, _ = model(torch.tensor([list(prompt)]))
    assert generate(model, prompt, 1, temperature=0)[0] == logits[0, -1].argmax()


def test_an_empty_prompt_and_a_length_of_0():
    assert len(generate(small_model(), b"", 5, seed=1)) == 5
    assert generate(small_model(), b"x", 0) == b""


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"top_k": 1}, {3}),
        ({"top_k": 2}, {3, 1}),
        ({"top_k": 100}, {0, 1, 2, 3}),
        ({"top_p": 0.01}, {3}),
        ({"top_p": 0.65}, {3, 1}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 3, "top_p": 0.65}, {3, 1}),
    ],
)
def test_top_k_and_top_p_limit_the_choice(settings, allowed):
    logits = torch.tensor([0.1, 0.3, 0.1, 0.5]).log()
    generator = torch.Generator().manual_seed(0)
    assert {sample_symbol(logits, generator, **settings) for _ in range(300)} == allowed


def test_samples_follow_the_distribution_and_the_temperature():
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    generator = torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5, 1e-300):
        samples = torch.tensor([sample_symbol(logits, generator, temperature) for _ in range(3000)])
        shares = torch.bincount(samples, minlength=3) / 3000
        expected = torch.softmax((logits - logits.max()).double() / temperature, 0)
        torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.03)


def test_stream_yields_the_bytes_of_generate():
    model = small_model()
    assert bytes(stream(model, b"a", 9, seed=2)) == generate(model, b"a", 9, seed=2)


def test_the_training_mode_does_not_change():
    model = small_model(dropout=0.5).train()
    first = generate(model, b"a", 20, seed=1)
    assert model.training
    assert generate(model.eval(), b"a", 20, seed=1) == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "text"}, "prompt must be bytes, got str: encode text first"),
        ({"length": -1}, "length must be at least 0, got -1"),
        ({"temperature": -1.0}, "temperature must be finite and at least 0"),
        ({"temperature": float("nan")}, "temperature must be finite and at least 0"),
        ({"temperature": float("inf")}, "temperature must be finite and at least 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be more than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p must be more than 0 and at most 1"),
        ({"seed": -1}, r"seed must be at least 0 and below 2\*\*63"),
        ({"seed": 2**64}, r"seed must be at least 0 and below 2\*\*63"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        generate(small_model(), **{"prompt": b"a", "length": 3, **arguments})


def test_a_prompt_outside_the_vocabulary():
    with pytest.raises(InputError, match="contains byte 255, but the model has 100 symbols"):
        generate(small_model(vocab_size=100), b"\xff", 1)


def test_damaged_weights_raise_an_error():
    model = SHARNN(ModelConfig(dim=8, boom_dim=8))
    with torch.no_grad():
        model.output_bias.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN or Inf"):
        generate(model, b"a", 3)


def test_printable_text_waits_for_complete_characters():
    text = "é€😀".encode()
    pieces = list(printable(b"", iter(text)))
    assert "".join(pieces) == "é€😀"
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_prompt_may_end_within_a_character():
    assert "".join(printable("é".encode()[:1], iter("é".encode()[1:]))) == "é"


def test_control_characters_and_invalid_bytes_are_replaced():
    text = b"a\x1b[31m\x07\x00\x7f\r\nb\tc\x80\xff\xc3"
    expected = "a␛[31m␇␀␡\r\nb\tc\ufffd\ufffd\ufffd"
    assert "".join(printable(b"", iter(text))) == "".join(printable(text, iter(b""))) == expected


def test_every_character_but_control_characters_is_shown_unchanged():
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    controls = {c for c in characters if unicodedata.category(c) == "Cc"} - {*"\r\n\t"}
    others = "".join(c for c in characters if c not in controls)
    assert "".join(printable(others.encode(), iter(b""))) == others
    shown = ["".join(printable(control.encode(), iter(b""))) for control in controls]
    assert len(set(shown)) == len(controls) == 62
    assert not {"\ufffd", *controls} & {*"".join(shown)}


def test_windows_line_ends_are_shown_unchanged():
    assert "".join(printable(b"one\r\n", iter(b"two\r\n"))) == "one\r\ntwo\r\n"


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_texts_generated_in_parallel_equal_those_generated_alone(options):
    """The prompts differ in length, and one is longer than the memory."""
    model = small_model(memory_window="sliding", **options)
    prompts = [b"The ", bytes(range(40, 90)), b""]
    texts = generate_batch(model, prompts, 30, temperature=0.7, seed=5)
    assert texts == [
        generate(model, prompt, 30, temperature=0.7, seed=5 + i) for i, prompt in enumerate(prompts)
    ]
    assert generate_batch(model, [b"a", b"a"], 20, seed=1)[0] != texts[1]
    with pytest.raises(InputError, match="at least one prompt"):
        generate_batch(model, [], 5)


def test_generation_with_int8_storage():
    model = small_model()
    assert len(generate(model, b"The ", 20, seed=1, storage="int8")) == 20
    with pytest.raises(InputError, match="storage must be one of float32, int8, got 'int4'"):
        generate(model, b"x", 5, storage="int4")
