"""Training: it learns, resumes bit for bit, and survives non-finite steps and interruptions."""

import copy
import itertools
import json
import math
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sharnn import SHARNN, InputError, bits_per_byte, load, load_corpus, resume, train
from sharnn.device import (
    has_fast_bfloat16,
    is_out_of_memory,
    keep_freed_memory,
    pick_device,
    pick_precision,
)
from sharnn.errors import DamagedModelError
from sharnn.recipe import OPTIMIZERS
from sharnn.trainer import NonFiniteError, Trainer
from small import OPTIONS, small_config, small_recipe

TIMES = ("seconds", "bytes_per_second")


def without_times(lines):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(step):
    """Returns a callback that sends this process SIGINT, as Ctrl-C does, after one step."""

    def callback(line):
        if line["step"] == step and "train_bits_per_byte" in line:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_training_lowers_the_loss(corpus):
    config = small_config(dim=32, boom_dim=64, layers=2)
    recipe = small_recipe(
        steps=150, optimizer="muon", lr=1e-2, segment_length=64, batch_size=8, eval_every=1000
    )
    before = bits_per_byte(SHARNN(config), corpus.valid)
    result = train(config, corpus, recipe, progress_bar=False)
    assert before > 7.5
    assert result.best < 4.0
    assert not result.model.training
    assert bits_per_byte(result.model, corpus.valid[:200]) == pytest.approx(result.best, abs=1e-9)


def test_a_run_can_start_from_another_models_weights(corpus):
    learned = train(small_config(), corpus, small_recipe(steps=30), progress_bar=False).model
    config = small_config(memory=100, dropout=0.1)
    recipe = small_recipe(steps=1, lr=1e-9)
    result = train(config, corpus, recipe, initial=learned, progress_bar=False)
    assert result.model.config == config
    for name, tensor in learned.state_dict().items():
        assert torch.allclose(result.model.state_dict()[name], tensor, atol=1e-6), name
    with pytest.raises(InputError, match="a different shape"):
        train(small_config(dim=20), corpus, recipe, initial=learned, progress_bar=False)


def test_a_collapsed_model_can_be_trained_further(corpus):
    model = SHARNN(small_config())
    model.collapse()
    before = bits_per_byte(model, corpus.valid)
    result = train(model.config, corpus, small_recipe(steps=30), initial=model, progress_bar=False)
    assert result.model.config.collapsed
    assert bits_per_byte(result.model, corpus.valid) < before - 0.5


@pytest.mark.parametrize(
    ("optimizer", "shape"),
    [
        ("lamb", {"dim": 10, "boom_dim": 25}),
        ("adamw", {"memory": 100}),
        ("muon", {}),
        *(("muon", options) for options in OPTIONS),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, corpus, optimizer, shape):
    """With dropout, jittered segments, carried state and a restart of the streams in between."""
    config = small_config(dropout=0.2, attention_layers=(0, 2), **shape)
    recipe = small_recipe(
        steps=40, optimizer=optimizer, batch_size=9, segment_length=90, schedule="cosine"
    )
    whole = train(config, corpus, recipe, tmp_path / "whole", progress_bar=False)
    assert read_metrics(tmp_path / "whole")[-1]["step"] == 40
    folder = tmp_path / "cut"
    result = train(config, corpus, recipe, folder, progress_bar=False, on_metrics=interrupt_at(6))
    assert result.reason == "interrupted"
    for stop in (14, 30):
        result = resume(folder, corpus, progress_bar=False, on_metrics=interrupt_at(stop))
        assert result.reason == "interrupted"
    result = resume(folder, corpus, progress_bar=False)
    assert result.reason == "done"
    assert any(line.get("epoch", 0) > 1 for line in result.metrics)
    ours, theirs = (load_file(place / "last.safetensors") for place in (folder, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert without_times(read_metrics(folder)) == without_times(read_metrics(tmp_path / "whole"))
    assert result.best == whole.best


def test_a_complete_run_continues_with_a_larger_limit(tmp_path, corpus):
    train(small_config(), corpus, small_recipe(steps=4), tmp_path / "r", progress_bar=False)
    result = resume(tmp_path / "r", corpus, {"steps": 8}, progress_bar=False)
    assert result.metrics[-1]["step"] == 8
    assert resume(tmp_path / "r", corpus, progress_bar=False).metrics == [], "complete"


def test_resuming_drops_metrics_after_the_checkpoint(tmp_path, corpus):
    folder = tmp_path / "r"
    train(small_config(), corpus, small_recipe(steps=6), folder, progress_bar=False)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines + '{"step": 900, "x": 1}\n{"step": 9')
    resume(folder, corpus, {"steps": 8}, progress_bar=False)
    assert [line["step"] for line in read_metrics(folder)] == [2, 4, 5, 6, 6, 8, 8]


def test_the_run_folder_contains_the_documented_files(tmp_path, corpus):
    folder = tmp_path / "deep" / "run"
    train(small_config(), corpus, small_recipe(), folder, progress_bar=False)
    names = {path.name for path in folder.iterdir()}
    files = {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors"}
    assert names == files | {".lock"}
    settings = json.loads((folder / "config.json").read_text())
    assert settings["model"] == small_config().to_dict()
    assert settings["recipe"]["steps"] == 12
    lines = read_metrics(folder)
    losses = [line["train_bits_per_byte"] for line in lines if "train_bits_per_byte" in line]
    assert len(losses) == 6
    valid = {line["step"]: line["valid_bits_per_byte"] for line in lines if len(line) == 2}
    assert sorted(valid) == [5, 10, 12]
    assert bits_per_byte(load(folder), corpus.valid[:200]) == pytest.approx(
        min(valid.values()), abs=1e-4
    )
    checkpoint = load_file(folder / "last.safetensors")
    kinds = {name.split(".")[1] for name in checkpoint if name.startswith("training.")}
    assert kinds == {"optimizer", "state", "random"}


def test_a_folder_with_a_run_is_not_overwritten(tmp_path, corpus):
    train(small_config(), corpus, small_recipe(steps=1), tmp_path, progress_bar=False)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match="already contains a run"):
        train(small_config(), corpus, small_recipe(steps=1), tmp_path, progress_bar=False)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_resuming_with_other_data_or_settings_is_an_error(tmp_path, corpus):
    with pytest.raises(InputError, match="no run to resume"):
        resume(tmp_path, corpus)
    train(small_config(), corpus, small_recipe(steps=2), tmp_path / "r", progress_bar=False)
    other = load_corpus("sample", sample_size=30_000)
    with pytest.raises(InputError, match="trained on different data"):
        resume(tmp_path / "r", other)
    with pytest.raises(InputError, match="batch_size can't change"):
        resume(tmp_path / "r", corpus, {"batch_size": 4, "steps": 5})
    with pytest.raises(InputError, match="unknown setting"):
        resume(tmp_path / "r", corpus, {"colour": 4})
    best = tmp_path / "r" / "best.safetensors"
    best.replace(tmp_path / "r" / "last.safetensors")
    with pytest.raises(InputError, match="without training state"):
        resume(tmp_path / "r", corpus)


def poison(model, passes, kind):
    """Makes the loss or the gradient of some forward passes, counted from 1, non-finite."""
    count = itertools.count(1)

    def hook(module, inputs, output):
        if next(count) not in passes:
            return output
        logits, state = output
        if kind == "loss":
            return logits * math.nan, state
        logits.register_hook(lambda gradient: gradient * math.inf)
        return logits, state

    model.register_forward_hook(hook)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_non_finite_steps_are_skipped_and_counted(corpus, kind):
    trainer = Trainer(SHARNN(small_config()), corpus, small_recipe())
    poison(trainer.model, {3, 4}, kind)
    for step in range(1, 7):
        before = [p.detach().clone() for p in trainer.model.parameters()]
        result = trainer.step()
        changed = any(
            not torch.equal(p, old)
            for p, old in zip(trainer.model.parameters(), before, strict=True)
        )
        assert result.skipped == (step in (3, 4))
        assert changed != result.skipped
    assert trainer.skipped == 2
    assert trainer.step_count == 6
    assert trainer.state.is_finite()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_skipped_step_leaves_the_optimiser_unchanged(corpus, kind, optimizer):
    trainer = Trainer(SHARNN(small_config()), corpus, small_recipe(optimizer=optimizer))
    poison(trainer.model, {1, 4}, kind)
    for step in range(1, 6):
        before = copy.deepcopy(trainer.optimizer.state_dict()["state"])
        assert trainer.step().skipped == (step in (1, 4))
        for index, values in trainer.optimizer.state_dict()["state"].items():
            if step == 1:  # a skipped first step leaves no trace
                assert not any(tensor.any() for tensor in values.values())
            if step == 4:
                assert all(torch.equal(t, before[index][name]) for name, t in values.items())


class OperationLog(TorchDispatchMode):
    """Logs operations in order; one that copies a number to the host is logged as "read"."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.log.append("read" if name in ("_local_scalar_dense", "is_nonzero") else name)
        return function(*args, **(kwargs or {}))


class CopyLog(TorchFunctionMode):
    """Logs copies of whole tensors to the host, which are not operations, as "read"."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("tolist", "numpy", "cpu"):
            self.log.append("read")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_host_reads_nothing_before_the_whole_step_is_queued(
    corpus, optimizer, scaled, monkeypatch
):
    """On a GPU each read would leave the device idle."""
    trainer = Trainer(SHARNN(small_config()), corpus, small_recipe(optimizer=optimizer))
    if scaled:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.step()  # creates the tensors of scaler and optimiser
    monkeypatch.setattr(trainer.model, "_check", lambda *_: None)  # checks values on the CPU only
    optimizer_step, log, during_step = trainer.optimizer.step, [], []

    def step():
        start = len(log)
        optimizer_step()
        during_step.extend(log[start:])
        del log[start:]
        log.append("optimiser")

    monkeypatch.setattr(trainer.optimizer, "step", step)
    with CopyLog(log), OperationLog(log):
        assert not trainer.step().skipped
    assert log.count("read") >= 1
    last = {False: "optimiser", True: "_amp_update_scale_"}[scaled]
    assert log.index("read") > log.index(last)
    # On the CPU, our own optimisers read whether the step is cancelled.
    assert during_step.count("read") == (0 if optimizer == "adamw" else 1)


def test_loss_scaling_skips_overflows_halves_its_scale_and_recovers(corpus):
    """On the CPU, with gradients that are made to overflow as in float16."""
    recipe = small_recipe(precision="float32")

    def make_trainer(hook):
        torch.manual_seed(0)
        trainer = Trainer(SHARNN(small_config()), corpus, recipe)
        trainer.model.register_forward_hook(hook)
        return trainer

    def overflow(module, inputs, output):
        largest = torch.finfo(torch.float16).max
        output[0].register_hook(lambda g: g.where(g.abs() <= largest, math.inf))

    scaled = make_trainer(overflow)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, growth_interval=4)
    initial = [weight.detach().clone() for weight in scaled.model.parameters()]
    while scaled.step().skipped:
        for weight, old in zip(scaled.model.parameters(), initial, strict=True):
            assert torch.equal(weight, old)
    overflows = scaled.skipped
    assert 2 <= overflows <= 10
    assert scaled.scaler.get_scale() == 2.0 ** (26 - overflows)
    assert not any(scaled.step().skipped for _ in range(3))
    assert scaled.scaler.get_scale() == 2.0 ** (27 - overflows), "the scale must grow again"
    # The other steps are those of a run without loss scaling.
    plain = make_trainer(lambda *_: None)
    poison(plain.model, set(range(1, overflows + 1)), "gradient")
    assert sum(plain.step().skipped for _ in range(overflows + 4)) == overflows
    for weight, other in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(weight, other)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_too_many_non_finite_steps_stop_the_run_at_the_last_good_state(
    tmp_path, corpus, kind, monkeypatch
):
    recipe = small_recipe(max_skips=3, steps=50, checkpoint_every=1000, eval_every=1000)
    original = SHARNN.__init__

    def poisoned(self, config):
        original(self, config)
        poison(self, set(range(6, 100)), kind)

    monkeypatch.setattr(SHARNN, "__init__", poisoned)
    result = train(small_config(), corpus, recipe, tmp_path / "r", progress_bar=False)
    monkeypatch.undo()
    assert result.reason == "non-finite"
    assert "4 consecutive steps" in result.message
    five = train(
        small_config(), corpus, small_recipe(steps=5), tmp_path / "five", progress_bar=False
    )
    for name, tensor in five.model.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], tensor)
    # The run can be resumed from there.
    resumed = resume(tmp_path / "r", corpus, {"steps": 8}, progress_bar=False)
    assert resumed.reason == "done"
    assert resumed.metrics[-1]["step"] == 8


@pytest.fixture
def quarter_seconds(monkeypatch):
    """Replaces the trainer's clock by one on which every step takes a quarter of a second."""
    # A step reads each clock twice, and nothing else does.
    wall, cpu = itertools.count(step=0.25), itertools.count(step=0.5)
    clocks = SimpleNamespace(perf_counter=wall.__next__, process_time=cpu.__next__)
    monkeypatch.setattr("sharnn.trainer.time", clocks)


def test_a_run_limited_by_minutes_ends_with_the_step_that_reaches_them(corpus, quarter_seconds):
    recipe = small_recipe(steps=None, minutes=0.02, warmup_steps=1, log_every=1)
    result = train(small_config(), corpus, recipe, progress_bar=False)
    seconds = [line["seconds"] for line in result.metrics if "seconds" in line]
    assert seconds == [0.25, 0.5, 0.75, 1.0, 1.25]  # 0.02 minutes are 1.2 seconds


def test_minutes_can_be_those_of_the_processor(corpus, quarter_seconds):
    recipe = small_recipe(steps=None, minutes=0.02, clock="cpu", warmup_steps=1)
    result = train(small_config(), corpus, recipe, progress_bar=False)
    assert result.metrics[-1]["step"] == 3  # 0.5 seconds each: 0.02 minutes are 1.2 seconds


def test_a_callback_adds_to_the_lines_of_validation(tmp_path, corpus):
    def totals(trainer):
        return {"total": trainer.bytes_read, "cpu": trainer.cpu_seconds}

    arguments = {"on_validation": totals, "progress_bar": False}
    train(small_config(), corpus, small_recipe(steps=7), tmp_path, **arguments)
    resume(tmp_path, corpus, {"steps": 12, "log_every": 1}, **arguments)
    lines = read_metrics(tmp_path)
    read = sum(line.get("bytes", 0) for line in lines)
    added = [line for line in lines if "total" in line]
    assert [line["step"] for line in added] == [5, 7, 10, 12]
    assert added[-1]["total"] == read
    times = [line["cpu"] for line in added]
    assert 0 < times[0] < times[1] < times[2] < times[3]


def test_too_little_text_for_the_batch_is_an_error(corpus):
    with pytest.raises(InputError, match="streams need at least"):
        train(small_config(), corpus, small_recipe(batch_size=20_000), progress_bar=False)


def test_devices_and_precisions_are_picked_by_name():
    assert pick_device("cpu").type == "cpu"
    fast = has_fast_bfloat16(torch.device("cpu"))
    expected = torch.bfloat16 if fast else torch.float32
    assert pick_precision("auto", torch.device("cpu")) == expected
    assert pick_precision("auto", torch.device("cuda")) == torch.float16
    assert pick_precision("bfloat16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(InputError, match="float32"):
        pick_precision("float16", torch.device("cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not available"):
            pick_device("cuda")


def test_bfloat16_trains_close_to_float32(corpus):
    losses = []
    for precision in ("float32", "bfloat16"):
        result = train(
            small_config(), corpus, small_recipe(precision=precision, steps=20), progress_bar=False
        )
        losses.append(result.best)
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_a_validation_that_overflows_is_scored_again_in_float32(corpus, monkeypatch):
    modes = []

    def score(*arguments, **options):
        modes.append(torch.is_autocast_enabled("cpu"))
        if modes[-1]:
            raise DamagedModelError("NaN or Inf")
        return bits_per_byte(*arguments, **options)

    monkeypatch.setattr("sharnn.run.bits_per_byte", score)
    monkeypatch.setattr(
        Trainer, "validation_precision", lambda self: torch.autocast("cpu", torch.bfloat16)
    )
    result = train(small_config(), corpus, small_recipe(), progress_bar=False)
    assert result.reason == "done"
    assert modes[:2] == [True, False]


def test_a_validation_in_float32_that_is_not_finite_ends_the_run_at_once(corpus, monkeypatch):
    calls = []

    def score(*arguments, **options):
        calls.append(arguments)
        raise DamagedModelError("NaN or Inf")

    monkeypatch.setattr("sharnn.run.bits_per_byte", score)
    result = train(small_config(), corpus, small_recipe(), progress_bar=False)
    assert result.reason == "non-finite"
    assert len(calls) == 1


def test_tensorboard_events_equal_the_metrics(tmp_path, corpus):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small_config(), corpus, small_recipe(), tmp_path, progress_bar=False, tensorboard=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    values = [event.value for event in events.Scalars("valid_bits_per_byte")]
    lines = [line["valid_bits_per_byte"] for line in read_metrics(tmp_path) if len(line) == 2]
    np.testing.assert_allclose(values, lines, rtol=1e-5)


def test_a_non_finite_error_is_not_an_input_error():
    assert not issubclass(NonFiniteError, InputError)


def test_a_trainer_in_a_custom_loop_ends_and_lowers_its_rate_by_the_clock(corpus, quarter_seconds):
    recipe = small_recipe(steps=None, minutes=0.05, schedule="linear", warmup_steps=0, lr=1e-3)
    trainer = Trainer(SHARNN(small_config()), corpus, recipe)
    rates = []
    while trainer.progress < 1:
        rates.append(trainer.step().lr)
    assert len(rates) == 12
    assert trainer.seconds == 3.0
    assert rates == pytest.approx([1e-3 * (1 - step / 12) for step in range(12)])


def test_a_resumed_run_continues_its_clock(corpus, tmp_path):
    first = train(small_config(), corpus, small_recipe(steps=4), tmp_path, progress_bar=False)
    second = resume(tmp_path, corpus, {"steps": 8}, progress_bar=False)
    before, after = (
        [line["seconds"] for line in result.metrics if "seconds" in line]
        for result in (first, second)
    )
    assert after[0] > before[-1] > 0


def test_a_trainer_does_not_change_the_allocator_of_the_process(corpus, monkeypatch):
    def fail(self, name):
        raise AssertionError(f"loads {name}")

    monkeypatch.setattr("ctypes.CDLL.__init__", fail)
    Trainer(SHARNN(small_config()), corpus, small_recipe()).step()
    with pytest.raises(AssertionError, match="loads libc"):
        keep_freed_memory()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory: you ..."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not execute a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for an LSTM"), False),
        (RuntimeError("the allocation of names failed"), False),
        (RuntimeError("balloon"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) == expected


def test_torchs_message_for_a_lack_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
