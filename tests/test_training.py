"""Training: it learns, it resumes bit for bit, and it survives bad steps and interruptions."""

import copy
import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sharnn import SHARNN, InputError, bits_per_byte, load, load_corpus, resume, train
from sharnn.device import pick_device, pick_precision
from sharnn.precision import multiplies_bfloat16_fast
from sharnn.trainer import NonFiniteError, Trainer
from small import small_config, small_recipe

TIMES = ("seconds", "bytes_per_second")


def without_times(lines):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(step):
    """A callback that sends this process what Ctrl-C sends, once."""

    def callback(line):
        if line["step"] == step and "train_bits_per_byte" in line:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_it_learns(corpus):
    config = small_config(dim=32, boom_dim=64, layers=2)
    recipe = small_recipe(
        steps=150, optimizer="muon", lr=1e-2, segment_length=64, batch_size=8, eval_every=1000
    )
    before = bits_per_byte(SHARNN(config), corpus.valid)
    result = train(config, corpus, recipe, progress=False)
    assert before > 7.5
    assert result.best < 4.0
    assert not result.model.training
    assert bits_per_byte(result.model, corpus.valid[:200]) == pytest.approx(result.best, abs=1e-9)


def test_a_run_can_start_from_another_models_weights(corpus):
    learned = train(small_config(), corpus, small_recipe(steps=30), progress=False).model
    config = small_config(memory=100, dropout=0.1)
    recipe = small_recipe(steps=1, lr=1e-9)
    result = train(config, corpus, recipe, initial=learned, progress=False)
    assert result.model.config == config
    for name, tensor in learned.state_dict().items():
        assert torch.allclose(result.model.state_dict()[name], tensor, atol=1e-6), name
    with pytest.raises(InputError, match="another shape"):
        train(small_config(dim=20), corpus, recipe, initial=learned, progress=False)


def test_a_collapsed_model_can_be_trained_on(corpus):
    model = SHARNN(small_config())
    model.collapse()
    before = bits_per_byte(model, corpus.valid)
    result = train(model.config, corpus, small_recipe(steps=30), initial=model, progress=False)
    assert result.model.config.collapsed
    assert bits_per_byte(result.model, corpus.valid) < before - 0.5


@pytest.mark.parametrize(
    ("optimizer", "shape"),
    [("lamb", {"dim": 10, "boom_dim": 25}), ("adamw", {"memory": 100}), ("muon", {})],
)
def test_resume_equals_no_interruption_bit_for_bit(tmp_path, corpus, optimizer, shape):
    """Dropout draws, jittered segments, carried state, an end of the streams in between."""
    config = small_config(dropout=0.2, attention_layers=(0, 2), **shape)
    recipe = small_recipe(
        steps=40, optimizer=optimizer, batch_size=9, segment_length=90, schedule="cosine"
    )
    whole = train(config, corpus, recipe, tmp_path / "whole", progress=False)
    assert read_metrics(tmp_path / "whole")[-1]["step"] == 40
    folder = tmp_path / "cut"
    result = train(config, corpus, recipe, folder, progress=False, on_metrics=interrupt_at(6))
    assert result.reason == "interrupted"
    for stop in (14, 30):
        result = resume(folder, corpus, progress=False, on_metrics=interrupt_at(stop))
        assert result.reason == "interrupted"
    result = resume(folder, corpus, progress=False)
    assert result.reason == "done"
    assert any(line.get("epoch", 0) > 1 for line in result.metrics)
    ours, theirs = (load_file(place / "last.safetensors") for place in (folder, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert without_times(read_metrics(folder)) == without_times(read_metrics(tmp_path / "whole"))
    assert result.best == whole.best


def test_a_run_goes_on_past_its_end_when_told_to(tmp_path, corpus):
    train(small_config(), corpus, small_recipe(steps=4), tmp_path / "r", progress=False)
    result = resume(tmp_path / "r", corpus, {"steps": 8}, progress=False)
    assert result.metrics[-1]["step"] == 8
    assert resume(tmp_path / "r", corpus, progress=False).metrics == [], "it is done"


def test_metrics_of_steps_that_were_lost_are_dropped(tmp_path, corpus):
    folder = tmp_path / "r"
    train(small_config(), corpus, small_recipe(steps=6), folder, progress=False)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines + '{"step": 900, "x": 1}\n{"step": 9')
    resume(folder, corpus, {"steps": 8}, progress=False)
    assert [line["step"] for line in read_metrics(folder)] == [2, 4, 5, 6, 6, 8, 8]


def test_the_run_folder_holds_what_it_promises(tmp_path, corpus):
    folder = tmp_path / "deep" / "run"
    train(small_config(), corpus, small_recipe(), folder, progress=False)
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors"}
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
    kept = load_file(folder / "last.safetensors")
    kinds = {name.split(".")[1] for name in kept if name.startswith("training.")}
    assert kinds == {"optimizer", "state", "random"}


def test_a_folder_with_a_run_is_not_overwritten(tmp_path, corpus):
    train(small_config(), corpus, small_recipe(steps=1), tmp_path, progress=False)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match="already holds a run"):
        train(small_config(), corpus, small_recipe(steps=1), tmp_path, progress=False)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_resume_refuses_what_does_not_fit(tmp_path, corpus):
    with pytest.raises(InputError, match="no run to resume"):
        resume(tmp_path, corpus)
    train(small_config(), corpus, small_recipe(steps=2), tmp_path / "r", progress=False)
    other = load_corpus("sample", sample_size=30_000)
    with pytest.raises(InputError, match="trained on other data"):
        resume(tmp_path / "r", other)
    with pytest.raises(InputError, match="batch_size can't change"):
        resume(tmp_path / "r", corpus, {"batch_size": 4, "steps": 5})
    with pytest.raises(InputError, match="unknown training setting"):
        resume(tmp_path / "r", corpus, {"colour": 4})
    best = tmp_path / "r" / "best.safetensors"
    best.replace(tmp_path / "r" / "last.safetensors")
    with pytest.raises(InputError, match="without its training"):
        resume(tmp_path / "r", corpus)


def poison(model, steps, kind):
    """Makes the loss or the gradient of some calls of the model not a number."""
    calls = []

    def hook(module, inputs, output):
        calls.append(None)
        if len(calls) not in steps:
            return output
        logits, state = output
        if kind == "loss":
            return logits * math.nan, state
        logits.register_hook(lambda gradient: gradient * math.inf)
        return logits, state

    model.register_forward_hook(hook)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_bad_steps_are_skipped_and_counted(corpus, kind):
    trainer = Trainer(SHARNN(small_config()), corpus, small_recipe())
    poison(trainer.model, {3, 4}, kind)
    for step in range(1, 7):
        before = [p.detach().clone() for p in trainer.model.parameters()]
        result = trainer.step()
        moved = any(
            not torch.equal(p, old)
            for p, old in zip(trainer.model.parameters(), before, strict=True)
        )
        assert result.skipped == (step in (3, 4))
        assert moved != result.skipped
    assert trainer.skipped == 2
    assert trainer.step_count == 6
    assert trainer.state.is_finite()


@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "muon"])
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_skipped_step_leaves_the_optimiser_as_it_was(corpus, kind, optimizer):
    trainer = Trainer(SHARNN(small_config()), corpus, small_recipe(optimizer=optimizer))
    poison(trainer.model, {1, 4}, kind)
    for step in range(1, 6):
        before = copy.deepcopy(trainer.optimizer.state_dict()["state"])
        assert trainer.step().skipped == (step in (1, 4))
        for index, values in trainer.optimizer.state_dict()["state"].items():
            if step == 1:  # a step that was not taken is one that was never there
                assert not any(tensor.any() for tensor in values.values())
            if step == 4:
                assert all(torch.equal(t, before[index][name]) for name, t in values.items())


class Watch(TorchDispatchMode):
    """Notes in order what is computed, and where a number is read back."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.log.append("read" if name in ("_local_scalar_dense", "is_nonzero") else name)
        return function(*args, **(kwargs or {}))


class WatchLists(TorchFunctionMode):
    """Notes reads of whole tensors, which call no operation."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("tolist", "numpy", "cpu"):
            self.log.append("read")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "muon"])
def test_nothing_is_read_back_before_the_whole_step_is_queued(
    corpus, optimizer, scaled, monkeypatch
):
    """On a GPU each read would let the device run dry."""
    trainer = Trainer(SHARNN(small_config()), corpus, small_recipe(optimizer=optimizer))
    if scaled:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.step()  # scaler and optimiser make their tensors
    monkeypatch.setattr(trainer.model, "_check", lambda *_: None)  # it looks on the CPU only
    take, log, inside = trainer.optimizer.step, [], []

    def step():
        start = len(log)
        take()
        inside.extend(log[start:])
        del log[start:]
        log.append("optimiser")

    monkeypatch.setattr(trainer.optimizer, "step", step)
    with WatchLists(log), Watch(log):
        assert not trainer.step().skipped
    assert log.count("read") >= 1
    last = {False: "optimiser", True: "_amp_update_scale_"}[scaled]
    assert log.index("read") > log.index(last)
    # On the CPU alone our own optimisers ask whether the step was called off.
    assert inside.count("read") == (0 if optimizer == "adamw" else 1)


def test_loss_scaling_skips_overflows_halves_its_scale_and_recovers(corpus):
    """On the CPU, where gradients are made to overflow as those of float16 would."""
    recipe = small_recipe(precision="float32")

    def trainer_of(hook):
        torch.manual_seed(0)
        trainer = Trainer(SHARNN(small_config()), corpus, recipe)
        trainer.model.register_forward_hook(hook)
        return trainer

    def overflow(module, inputs, output):
        largest = torch.finfo(torch.float16).max
        output[0].register_hook(lambda g: g.where(g.abs() <= largest, math.inf))

    scaled = trainer_of(overflow)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, growth_interval=4)
    start = [weight.detach().clone() for weight in scaled.model.parameters()]
    while scaled.step().skipped:
        for weight, old in zip(scaled.model.parameters(), start, strict=True):
            assert torch.equal(weight, old)
    overflows = scaled.skipped
    assert 2 <= overflows <= 10
    assert scaled.scaler.get_scale() == 2.0 ** (26 - overflows)
    assert not any(scaled.step().skipped for _ in range(3))
    assert scaled.scaler.get_scale() == 2.0 ** (27 - overflows), "it grows again"
    # The steps that were taken are those of a run that scales nothing.
    plain = trainer_of(lambda *_: None)
    poison(plain.model, set(range(1, overflows + 1)), "gradient")
    assert sum(plain.step().skipped for _ in range(overflows + 4)) == overflows
    for weight, other in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(weight, other)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_too_many_bad_steps_stop_the_run_at_the_last_good_state(
    tmp_path, corpus, kind, monkeypatch
):
    recipe = small_recipe(max_skips=3, steps=50, checkpoint_every=1000, eval_every=1000)
    original = SHARNN.__init__

    def poisoned(self, config):
        original(self, config)
        poison(self, set(range(6, 100)), kind)

    monkeypatch.setattr(SHARNN, "__init__", poisoned)
    result = train(small_config(), corpus, recipe, tmp_path / "r", progress=False)
    monkeypatch.undo()
    assert result.reason == "non-finite"
    assert "4 steps in a row" in result.message
    five = train(small_config(), corpus, small_recipe(steps=5), tmp_path / "five", progress=False)
    for name, tensor in five.model.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], tensor)
    # ... and it can go on from there
    again = resume(tmp_path / "r", corpus, {"steps": 8}, progress=False)
    assert again.reason == "done"
    assert again.metrics[-1]["step"] == 8


def test_a_run_by_minutes_ends_by_the_clock(corpus):
    result = train(
        small_config(),
        corpus,
        small_recipe(steps=None, minutes=0.02, warmup_steps=1),
        progress=False,
    )
    last = [line for line in result.metrics if "seconds" in line][-1]
    assert 0.5 < last["seconds"] < 3


def test_too_little_text_for_the_batch_is_told(corpus):
    with pytest.raises(InputError, match="streams need at least"):
        train(small_config(), corpus, small_recipe(batch_size=20_000), progress=False)


def test_devices_and_precisions():
    assert pick_device("cpu").type == "cpu"
    fast = multiplies_bfloat16_fast(torch.device("cpu"))
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
            small_config(), corpus, small_recipe(precision=precision, steps=20), progress=False
        )
        losses.append(result.best)
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_tensorboard_gets_the_metrics(tmp_path, corpus):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small_config(), corpus, small_recipe(), tmp_path, progress=False, tensorboard=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    values = [event.value for event in events.Scalars("valid_bits_per_byte")]
    lines = [line["valid_bits_per_byte"] for line in read_metrics(tmp_path) if len(line) == 2]
    np.testing.assert_allclose(values, lines, rtol=1e-5)


def test_non_finite_error_is_no_input_error():
    assert not issubclass(NonFiniteError, InputError)
