"""A run that fails is saved first, up to the last step whose weights are intact."""

import math
import os
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from sharnn import InputError, resume, train
from sharnn.checkpoint import read_header
from sharnn.cli import main
from sharnn.corpora.sample import sample_bytes
from sharnn.recipe import OPTIMIZERS
from sharnn.run import Run
from sharnn.trainer import Trainer
from small import small_config, small_recipe

CONFIG = small_config(dropout=0.2, attention_layers=(0, 2))
RECIPE = small_recipe(steps=12, log_every=1, eval_every=5, checkpoint_every=1000)


def saved_step(folder):
    return read_header(folder / "last.safetensors")["training"]["step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus):
    """The checkpoint of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(CONFIG, corpus, RECIPE, folder, progress_bar=False)
    return load_file(folder / "last.safetensors")


def assert_ends_like(folder, corpus, whole):
    assert resume(folder, corpus, progress_bar=False).reason == "done"
    tensors = load_file(folder / "last.safetensors")
    assert tensors.keys() == whole.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, whole[name]), name


def interrupt_at(step):
    def callback(line):
        if line["step"] == step and "lr" in line:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def fail_at(step, error):
    def callback(line):
        if line["step"] == step and "lr" in line:
            raise error

    return callback


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(28, "disk full"), SystemExit(3)])
def test_a_failing_callback_ends_the_run_saved(tmp_path, corpus, whole, error):
    folder = tmp_path / "r"
    with pytest.raises(type(error)) as caught:
        train(CONFIG, corpus, RECIPE, folder, progress_bar=False, on_metrics=fail_at(7, error))
    assert caught.value is error
    assert error.__notes__ == [f"{folder} has a checkpoint of step 7"]
    assert saved_step(folder) == 7
    assert_ends_like(folder, corpus, whole)


def test_metrics_that_cannot_be_written_end_the_run_saved(tmp_path, corpus, whole):
    folder = tmp_path / "r"

    def replace_by_folder(line):
        if line["step"] == 3:
            (folder / "metrics.jsonl").unlink()
            (folder / "metrics.jsonl").mkdir()

    with pytest.raises(InputError, match=r"can't write .*metrics\.jsonl: Is a directory"):
        train(CONFIG, corpus, RECIPE, folder, progress_bar=False, on_metrics=replace_by_folder)
    assert saved_step(folder) == 4
    (folder / "metrics.jsonl").rmdir()
    assert_ends_like(folder, corpus, whole)


class BrokenStream:
    """A standard error whose reader exits after some characters."""

    encoding = "utf-8"

    def __init__(self, terminal, characters=0):
        self.terminal, self.left = terminal, characters

    def isatty(self):
        return self.terminal

    def fileno(self):
        raise OSError

    def flush(self):
        pass

    def write(self, text):
        self.left -= len(text)
        if self.left < 0:
            raise BrokenPipeError("the reader has exited")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_progress_bar_without_reader_ends_the_run_saved(
    tmp_path, corpus, whole, terminal, monkeypatch
):
    folder = tmp_path / "r"
    monkeypatch.setattr("sharnn.io.console.LINE_SECONDS", 0)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    monkeypatch.setattr(sys, "stderr", BrokenStream(terminal, characters=200))
    with pytest.raises(BrokenPipeError) as caught:
        train(CONFIG, corpus, small_recipe(**{**vars(RECIPE), "steps": 10**6}), folder)
    monkeypatch.undo()
    steps = saved_step(folder)
    assert caught.value.__notes__ == [f"{folder} has a checkpoint of step {steps}"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert steps == sum("lr" in line for line in lines) >= 1


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_a_step_that_fails_before_its_update_is_repeated(
    tmp_path, corpus, whole, stage, monkeypatch
):
    folder = tmp_path / "r"
    name = {"forward": "_next_segment", "backward": "_backward_and_step"}[stage]
    original = getattr(Trainer, name)

    def failing(trainer, *arguments):
        if trainer.step_count == {"forward": 6, "backward": 7}[stage]:
            torch.rand(5)  # the random state must be restored too
            raise MemoryError
        return original(trainer, *arguments)

    monkeypatch.setattr(Trainer, name, failing)
    with pytest.raises(MemoryError):
        train(CONFIG, corpus, RECIPE, folder, progress_bar=False)
    monkeypatch.undo()
    assert saved_step(folder) == 6
    assert_ends_like(folder, corpus, whole)


def test_a_step_that_fails_in_its_update_is_not_saved(tmp_path, corpus, whole, monkeypatch):
    folder = tmp_path / "r"
    step = torch.optim.AdamW.step

    def failing(optimizer, *arguments):
        result = step(optimizer, *arguments)
        if optimizer.state[optimizer.param_groups[0]["params"][0]]["step"] == 6:
            raise MemoryError  # after some of the weights were updated
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    recipe = small_recipe(**{**vars(RECIPE), "checkpoint_every": 4})
    with pytest.raises(MemoryError) as caught:
        train(CONFIG, corpus, recipe, folder, progress_bar=False)
    monkeypatch.undo()
    assert caught.value.__notes__ == [f"{folder} has a checkpoint of step 4"]
    assert saved_step(folder) == 4
    assert_ends_like(folder, corpus, whole)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path, corpus, whole, monkeypatch
):
    folder = tmp_path / "r"
    save = Run._save

    def full(run, *arguments):
        if run.trainer.step_count >= 8:
            raise InputError("can't write last.safetensors: No space left on device")
        save(run, *arguments)

    monkeypatch.setattr(Run, "_save", full)
    recipe = small_recipe(**{**vars(RECIPE), "checkpoint_every": 4})
    with pytest.raises(InputError, match="No space left") as caught:
        train(CONFIG, corpus, recipe, folder, progress_bar=False)
    monkeypatch.undo()
    assert caught.value.__notes__ == [f"{folder} has a checkpoint of step 4"]
    assert_ends_like(folder, corpus, whole)


def test_a_second_interrupt_does_not_save(tmp_path, corpus):
    folder = tmp_path / "r"
    callback = fail_at(7, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, corpus, RECIPE, folder, progress_bar=False, on_metrics=callback)
    assert saved_step(folder) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_lost_terminal_interrupts_the_run_unless_it_was_started_with_nohup(
    tmp_path, corpus, ignored
):
    def hang_up(line):
        if line["step"] == 6 and "lr" in line:
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        result = train(
            CONFIG, corpus, RECIPE, tmp_path / "r", progress_bar=False, on_metrics=hang_up
        )
        after = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert after == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    assert result.reason == ("done" if ignored else "interrupted")
    assert saved_step(tmp_path / "r") == (12 if ignored else 6)


def test_the_command_line_reports_a_failure_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "text").write_bytes(sample_bytes(20_000))
    folder = tmp_path / "r"
    words = ["train", "--data", tmp_path / "text", "--out", folder, "--preset", "tiny"]
    words += "--dim 16 --boom-dim 32 --batch-size 2 --segment-length 16 --steps 9 --quiet".split()
    log = Run._log

    def failing(run, line):
        if line["step"] == 4:
            raise OSError(28, "No space left on device")
        log(run, line)

    monkeypatch.setattr(Run, "_log", failing)
    assert main([str(word) for word in [*words, "--log-every", 1]]) == 1
    message = "[Errno 28] No space left on device"
    expected = f"sharnn: {message}; {folder} has a checkpoint of step 4\n"
    assert capsys.readouterr().err == expected


def test_a_failure_that_cannot_be_printed_has_an_exit_code_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", BrokenStream(terminal=False))
    assert main(["eval", str(tmp_path), "--data", "x"]) == 2
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["eval", str(tmp_path), "--data", "x"]) == 2


@pytest.mark.parametrize("lr", [1e20, 1e29])
def test_a_diverged_run_fails_and_keeps_its_last_good_checkpoint(tmp_path, corpus, lr):
    folder = tmp_path / "r"
    recipe = small_recipe(steps=6, lr=lr, optimizer="muon", checkpoint_every=2, warmup_steps=0)
    result = train(small_config(), corpus, recipe, folder, progress_bar=False)
    assert result.reason == "non-finite"
    assert result.best is None or math.isfinite(result.best)
    assert "nan" not in result.message
    assert "try a lower lr" in result.message
    step = saved_step(folder)
    assert f"the checkpoint of step {step} is kept" in result.message
    weights = load_file(folder / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    assert "NaN" not in (folder / "metrics.jsonl").read_text()


def test_weights_with_nan_are_not_saved(tmp_path, corpus):
    folder = tmp_path / "r"
    models = []
    original = Trainer.step

    def spoil(line):
        if line["step"] == 6 and "lr" in line:
            with torch.no_grad():
                models[0].output_bias.fill_(math.nan)

    def step(trainer, *arguments):
        models.append(trainer.model)
        return original(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        recipe = small_recipe(**{**vars(RECIPE), "checkpoint_every": 4})
        result = train(CONFIG, corpus, recipe, folder, progress_bar=False, on_metrics=spoil)
    assert result.reason == "non-finite"
    assert saved_step(folder) == 4
    assert "the checkpoint of step 4 is kept" in result.message


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_works_in_any_default_dtype(tmp_path, corpus, precision, optimizer):
    folder = tmp_path / "r"
    recipe = small_recipe(**{**vars(RECIPE), "precision": precision, "optimizer": optimizer})
    callback = interrupt_at(5)
    torch.set_default_dtype(torch.float64)
    try:
        train(CONFIG, corpus, recipe, tmp_path / "w", progress_bar=False)
        train(CONFIG, corpus, recipe, folder, progress_bar=False, on_metrics=callback)
        model = resume(folder, corpus, progress_bar=False).model
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    ours, whole = (load_file(place / "last.safetensors") for place in (folder, tmp_path / "w"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in ours.items())
