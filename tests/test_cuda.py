"""The same numbers and the same training on a GPU; without one, only the tests of the tests run."""

import copy

import pytest
import torch

from benchmarks.race_run import open_data
from benchmarks.race_run import train as train_of_race
from benchmarks.race_search import Run
from benchmarks.race_settings import QUICK
from extras import HAS_TRANSFORMER
from sharnn import (
    SHARNN,
    InputError,
    ModelConfig,
    Stepper,
    attention_statistics,
    bits_per_byte,
    generate,
    generate_batch,
    resume,
    trace_attention,
    train,
)
from sharnn.analysis.ablation import top_keys
from sharnn.analysis.replay import Replay
from sharnn.memory import State
from sharnn.recipe import OPTIMIZERS
from sharnn.trainer import Trainer
from small import ALL_OPTIONS, small_config, small_model, small_recipe

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# On the CPU these tests show that a test of the GPU can pass.
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


def assert_same_numbers(ours, theirs):
    """Compares two models on segments with carried state, until the memories have overflowed.

    ``theirs`` can be on another device.
    """
    device = theirs.embedding.weight.device
    our_state = their_state = None
    # cuDNN's LSTM would round float32 products to TF32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for i, x in enumerate(torch.randint(256, (2, 60)).split(13, dim=1)):
            expected, our_state = ours(x, our_state)
            logits, their_state = theirs(x.to(device), their_state)
            assert_close(logits, expected, f"logits of segment {i}")
    assert our_state.memory_rows == ours.config.memory, "the memory has not overflowed"
    expected_state, state = our_state.to_tensors(), their_state.to_tensors()
    assert state.keys() == expected_state.keys()
    for name, tensor in expected_state.items():
        assert_close(state[name], tensor, f"final state, {name}")


def assert_close(actual, expected, name):
    torch.testing.assert_close(
        actual.cpu(), expected, rtol=1e-3, atol=1e-3, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize("memory_window", ["segment", "sliding"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, ALL_OPTIONS], ids=str)
def test_all_segments_and_the_final_state_equal_those_on_the_cpu(device, memory_window, options):
    model = small_model(attention_layers=(0, 2), memory_window=memory_window, **options)
    assert_same_numbers(model, copy.deepcopy(model).to(device))


def zero_memory(state):
    rows = [memory and memory.map(torch.zeros_like) for memory in state.memory]
    return State(state.lstm, tuple(rows))


def reversed_memory(state):
    rows = [memory and memory.map(lambda rows: rows.flip(1)) for memory in state.memory]
    return State(state.lstm, tuple(rows))


def swapped_streams(state):
    return state.map(lambda tensor: tensor.flip(0))


def zero_cell(state):
    lstm = [(hidden, torch.zeros_like(cell)) for hidden, cell in state.lstm]
    return State(tuple(lstm), state.memory)


@pytest.mark.parametrize("corrupt", [zero_memory, reversed_memory, swapped_streams, zero_cell])
@pytest.mark.parametrize(
    ("segment", "message"), [(0, "logits of segment 1"), (3, "logits of segment 4"), (4, "final")]
)
def test_the_comparison_notices_a_corrupted_state(corrupt, segment, message):
    model = small_model()
    corrupted = copy.deepcopy(model)
    calls = []

    def hook(module, inputs, output):
        logits, state = output
        calls.append(None)
        return logits, corrupt(state) if len(calls) == segment + 1 else state

    corrupted.register_forward_hook(hook)
    with pytest.raises(AssertionError, match=message):
        assert_same_numbers(model, corrupted)


@needs_cuda
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
def test_it_trains_evaluates_and_generates(corpus, precision):
    config = ModelConfig(dim=128, boom_dim=512, layers=2, attention_layers=(0,), memory=256)
    recipe = small_recipe(
        steps=60,
        batch_size=8,
        segment_length=64,
        device="cuda",
        precision=precision,
        optimizer="muon",
        lr=1e-2,
        eval_every=1000,
        checkpoint_every=1000,
    )
    before = bits_per_byte(SHARNN(config).cuda(), corpus.valid)
    result = train(config, corpus, recipe, progress_bar=False)
    assert result.reason == "done"
    assert bits_per_byte(result.model, corpus.valid) < before - 2
    assert len(generate(result.model, b"The ", 20, seed=1)) == 20


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("device", DEVICES)
def test_loss_scaling_skips_its_first_overflows_and_recovers(
    corpus, monkeypatch, device, optimizer
):
    precision = "float16" if device == "cuda" else "float32"
    recipe = small_recipe(
        steps=40, batch_size=8, device=device, precision=precision, optimizer=optimizer, lr=1e-2
    )
    trainer = Trainer(SHARNN(small_config(dim=64, boom_dim=64)), corpus, recipe)
    first_scale = 2.0**30  # large enough for gradients to overflow in float16
    trainer.scaler = torch.amp.GradScaler(device, init_scale=first_scale)
    if device == "cpu":  # which trains in float32: simulate the GPU's float16 gradients
        monkeypatch.setattr("sharnn.optim.foreach.host_can_read", lambda tensor: False)
        for parameter in trainer.model.parameters():
            parameter.register_hook(lambda gradient: gradient.half().float())
    steps = [trainer.step() for _ in range(recipe.steps)]
    skipped = [step.skipped for step in steps]
    num_skipped = skipped.count(True)
    assert skipped[0]
    assert num_skipped <= recipe.steps // 2, "most steps must be taken"
    assert trainer.scaler.get_scale() == first_scale / 2**num_skipped
    assert steps[-1].loss < steps[0].loss - 1  # nats
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@needs_cuda
def test_a_run_resumes_on_the_gpu(tmp_path, corpus):
    recipe = small_recipe(steps=4, device="cuda")
    train(small_config(dropout=0.1), corpus, recipe, tmp_path / "r", progress_bar=False)
    result = resume(tmp_path / "r", corpus, {"steps": 8}, progress_bar=False)
    assert result.metrics[-1]["step"] == 8


@needs_cuda
def test_a_run_from_the_gpu_resumes_on_the_cpu(tmp_path, corpus):
    recipe = small_recipe(steps=4, device="cuda")
    train(small_config(), corpus, recipe, tmp_path / "r", progress_bar=False)
    changes = {"steps": 6, "device": "cpu", "precision": "auto"}
    assert resume(tmp_path / "r", corpus, changes, progress_bar=False).reason == "done"


@pytest.mark.parametrize("device", DEVICES)
def test_the_analysis_gives_the_cpus_numbers(device):
    model, text = small_model(), bytes(range(32, 127)) * 3
    other = copy.deepcopy(model).to(device)
    expected, trace = (trace_attention(m, text, targets=60) for m in (model, other))
    torch.testing.assert_close(trace.bits, expected.bits, rtol=1e-3, atol=1e-3, equal_nan=True)
    torch.testing.assert_close(trace.weights[1], expected.weights[1], rtol=1e-3, atol=1e-3)
    removed = top_keys(expected.weights[1], expected.num_visible, 5)
    without = Replay(other, trace).bits_without(1, removed)
    torch.testing.assert_close(
        without, Replay(model, expected).bits_without(1, removed), rtol=1e-3, atol=1e-3
    )
    ours, theirs = (attention_statistics(m, text).head() for m in (model, other))
    torch.testing.assert_close(theirs.by_distance, ours.by_distance, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        theirs.by_class.value, ours.by_class.value, equal_nan=True, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("device", DEVICES)
def test_the_stepper_gives_the_cpus_numbers(device):
    model = small_model()
    ours, theirs = Stepper(model, 2), Stepper(copy.deepcopy(model).to(device), 2)
    for x in torch.randint(256, (40, 2)):
        logits = theirs.step(x.to(device)).cpu()
        torch.testing.assert_close(logits, ours.step(x), rtol=1e-3, atol=1e-3)
    texts = generate_batch(copy.deepcopy(model).to(device), [b"a", b"The "], 20, seed=1)
    assert [len(text) for text in texts] == [20, 20]


@needs_cuda
def test_int8_storage_is_refused_on_the_gpu():
    with pytest.raises(InputError, match="int8 storage runs on the CPU only"):
        Stepper(small_model().cuda(), storage="int8")


@needs_cuda
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_step_with_a_bad_gradient_is_skipped_on_the_device(corpus, optimizer, precision):
    recipe = small_recipe(device="cuda", precision=precision, optimizer=optimizer, batch_size=8)
    trainer = Trainer(SHARNN(small_config(dim=128, boom_dim=128)), corpus, recipe)
    while trainer.step().skipped:
        pass  # until loss scaling has found its scale
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    poison = trainer.model.output_bias.register_hook(lambda gradient: gradient * torch.nan)
    assert trainer.step().skipped
    poison.remove()
    for parameter, old in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    assert not trainer.step().skipped


@pytest.mark.parametrize("device", DEVICES)
def test_only_on_a_gpu_a_validation_uses_the_recipes_precision(corpus, device, monkeypatch):
    config = ModelConfig(dim=128, boom_dim=512, layers=2, attention_layers=(0,), memory=256)
    recipe = small_recipe(
        steps=40,
        batch_size=8,
        segment_length=64,
        lr=1e-2,
        device=device,
        precision="bfloat16",
        eval_every=1000,
        eval_bytes=None,
    )
    modes = []

    def score(*arguments, **options):
        modes.append(torch.is_autocast_enabled(device))
        return bits_per_byte(*arguments, **options)

    monkeypatch.setattr("sharnn.run.bits_per_byte", score)
    result = train(config, corpus, recipe, progress_bar=False)
    assert modes == [device == "cuda"]
    exact = bits_per_byte(result.model, corpus.valid, batch_size=recipe.eval_batch_size)
    assert result.best == pytest.approx(exact, abs=1e-6 if device == "cpu" else 0.01)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("contender", QUICK.contenders, ids=lambda contender: contender.name)
def test_a_run_of_the_race_equals_one_on_the_cpu(device, contender):
    if contender.transformer and not HAS_TRANSFORMER:
        pytest.skip("x-transformers is not installed")
    corpus, seconds = open_data(QUICK, "sample"), QUICK.track.seconds / 20
    run = Run("final", contender.name, contender.start, 1)
    expected = train_of_race(QUICK, run, corpus, seconds)
    found = train_of_race(QUICK, run, corpus, seconds, device=device)
    for part in ("valid", "test"):
        assert found[part] == pytest.approx(expected[part], abs=0.05)  # bfloat16, float32
    assert found["bytes_read"] == expected["bytes_read"]
    assert (found["device"] == "cpu") == (device == "cpu") == (found["peak_bytes"] is not None)
