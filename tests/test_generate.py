"""Generation: seeds repeat, limits hold, and the bytes follow the model's distribution."""

import pytest
import torch

from sharnn import SHARNN, InputError, ModelConfig, generate, generate_batch
from sharnn.inference.sampling import draw, printable, stream
from sharnn.inference.stepper import READ
from small import small_model


def test_the_same_seed_writes_the_same_bytes():
    model = small_model()
    first = generate(model, b"The ", 50, seed=3)
    assert len(first) == 50
    assert generate(model, b"The ", 50, seed=3) == first
    assert generate(model, b"The ", 50, seed=4) != first
    torch.manual_seed(9)
    assert generate(model, b"The ", 50, seed=3) == first, "the global seed has no part in it"


def test_without_a_seed_texts_differ():
    model = small_model()
    assert generate(model, b"x", 60) != generate(model, b"x", 60)


def test_temperature_0_takes_the_likeliest_byte_each_time():
    model = small_model(memory_window="sliding")
    prompt = bytes(range(30))
    written = generate(model, prompt, 20, temperature=0)
    logits, _ = model(torch.tensor([list(prompt + written)]))
    assert written == bytes(logits[0, len(prompt) - 1 : -1].argmax(-1).tolist())


def test_a_prompt_longer_than_a_read_and_the_memory():
    model = small_model(memory_window="sliding")
    prompt = bytes(torch.randint(256, (READ + 77,)).tolist())
    logits, _ = model(torch.tensor([list(prompt)]))
    assert generate(model, prompt, 1, temperature=0)[0] == logits[0, -1].argmax()


def test_an_empty_prompt_and_no_length():
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
    random = torch.Generator().manual_seed(0)
    limits = {"top_k": None, "top_p": None} | settings
    drawn = {draw(logits, 1.0, random=random, **limits) for _ in range(300)}
    assert drawn == allowed


def test_draws_follow_the_distribution_and_the_temperature():
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    random = torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5, 1e-300):
        drawn = torch.tensor([draw(logits, temperature, None, None, random) for _ in range(3000)])
        shares = torch.bincount(drawn, minlength=3) / 3000
        expected = torch.softmax((logits - logits.max()).double() / temperature, 0)
        torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.03)


def test_streaming_gives_the_bytes_one_by_one():
    model = small_model()
    assert bytes(stream(model, b"a", 9, seed=2)) == generate(model, b"a", 9, seed=2)


def test_the_mode_is_left():
    model = small_model(dropout=0.5).train()
    first = generate(model, b"a", 20, seed=1)
    assert model.training
    assert generate(model.eval(), b"a", 20, seed=1) == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "text"}, "encode"),
        ({"length": -1}, "length"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_settings_out_of_range(arguments, words):
    with pytest.raises(InputError, match=words):
        generate(small_model(), **{"prompt": b"a", "length": 3, **arguments})


def test_a_prompt_the_model_has_no_symbols_for():
    with pytest.raises(InputError, match="symbols"):
        generate(small_model(vocab_size=100), b"\xff", 1)


def test_a_broken_model_is_told_in_words():
    model = SHARNN(ModelConfig(dim=8, boom_dim=8))
    with torch.no_grad():
        model.output_bias.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        generate(model, b"a", 3)


def test_text_for_a_terminal_waits_for_whole_characters():
    text = "é€😀".encode()
    pieces = list(printable(b"", iter(text)))
    assert "".join(pieces) == "é€😀"
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_prompt_may_end_within_a_character():
    assert "".join(printable("é".encode()[:1], iter("é".encode()[1:]))) == "é"


def test_bytes_that_could_command_a_terminal_are_shown_as_marks():
    shown = "".join(printable(b"", iter(b"a\x1b[31m\x07\r\nb\tc\x80\xff\xc3")))
    assert shown == "a\ufffd[31m\ufffd\ufffd\nb\tc\ufffd\ufffd\ufffd"


def test_texts_written_side_by_side_are_those_written_alone():
    """Prompts of different lengths, one of them longer than the memory."""
    model = small_model(memory_window="sliding")
    prompts = [b"The ", bytes(range(40, 90)), b""]
    together = generate_batch(model, prompts, 30, temperature=0.7, seed=5)
    assert together == [
        generate(model, prompt, 30, temperature=0.7, seed=5 + i) for i, prompt in enumerate(prompts)
    ]
    assert generate_batch(model, [b"a", b"a"], 20, seed=1)[0] != together[1]
    with pytest.raises(InputError, match="at least one prompt"):
        generate_batch(model, [], 5)


def test_weights_of_8_bits_write_too():
    model = small_model()
    assert len(generate(model, b"The ", 20, seed=1, weights="int8")) == 20
    with pytest.raises(InputError, match="weights must be one of float32, int8, got 'int4'"):
        generate(model, b"x", 5, weights="int4")
