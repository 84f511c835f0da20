"""The paper's run: one command that starts it, resumes it, and scores it."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import sharnn
from sharnn.cli import main
from sharnn.corpora.sample import sample_bytes
from sharnn.paper.backup import RunBackup
from sharnn.paper.reproduce import PUBLISHED, reproduce

SHAPE = {"dim": 16, "boom_dim": 64, "memory": 64}
RECIPE = {
    "steps": 6,
    "batch_size": 2,
    "segment_length": 16,
    "checkpoint_every": 2,
    "eval_bytes": 300,
    "device": "cpu",
}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(sample_bytes(20_000))
    return path


def options(settings):
    return [word for name, value in settings.items() for word in (flag(name), str(value))]


def flag(name):
    return "--" + name.replace("_", "-")


def test_the_presets_are_the_papers():
    for preset in PUBLISHED:
        assert sharnn.ModelConfig.preset(preset).dim == 1024
        assert sharnn.Recipe.preset(preset).optimizer == "lamb"
    # Paper: 25 passes, the last two at half the rate.
    assert sharnn.Recipe.preset("paper").epochs == 25


def test_it_scores_the_best_checkpoint_as_the_paper_does(tmp_path, corpus):
    run = reproduce(
        tmp_path / "run", corpus, model_changes=SHAPE, recipe_changes=RECIPE, progress_bar=False
    )
    best = sharnn.load(tmp_path / "run")
    assert run.test == sharnn.bits_per_byte(best, corpus.test, batch_size=8, segment_length=1024)
    assert run.test_bytes == len(corpus.test) - 1
    assert f"{run.test:.3f}" in run.table()
    assert "1.100  1.076" in run.table()


def test_calling_it_again_only_scores_again(tmp_path, corpus):
    settings = {"model_changes": SHAPE, "recipe_changes": RECIPE, "progress_bar": False}
    first = reproduce(tmp_path / "run", corpus, **settings)
    again = reproduce(tmp_path / "run", corpus, **settings)
    assert again.test == first.test
    assert again.result.metrics == []


def test_sessions_on_lost_machines_give_the_result_of_one_session(tmp_path, corpus):
    whole = reproduce(
        tmp_path / "whole", corpus, model_changes=SHAPE, recipe_changes=RECIPE, progress_bar=False
    )

    def session(number, stop_at):
        """Runs a session on a new machine, which is lost after a line of metrics."""
        out = tmp_path / f"machine{number}"

        def cut(line):
            if line["step"] == stop_at:
                raise KeyboardInterrupt  # ends the run at once, unsaved, like a lost machine

        backup = RunBackup(out, tmp_path / "drive", minutes=0)
        changes = {**RECIPE, "log_every": 1}
        return reproduce(
            out,
            corpus,
            model_changes=SHAPE,
            recipe_changes=changes,
            backup=backup,
            on_metrics=cut,
            progress_bar=False,
        )

    for number, stop_at in enumerate((3, 5)):
        with pytest.raises(KeyboardInterrupt):
            session(number, stop_at)
    last = session(2, None)
    assert last.test == whole.test
    assert last.result.metrics[0]["step"] == 5, "it must resume from the checkpoint of step 4"


def test_a_run_of_another_model_is_refused(tmp_path, corpus):
    settings = {"recipe_changes": RECIPE, "progress_bar": False}
    reproduce(tmp_path / "run", corpus, model_changes=SHAPE, **settings)
    with pytest.raises(sharnn.InputError, match="holds a run of another model"):
        reproduce(tmp_path / "run", corpus, model_changes={**SHAPE, "dim": 32}, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_is_refused(tmp_path, capsys):
    assert main(["paper", "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "needs a GPU" in message
    assert not (tmp_path / "run").exists()


def test_no_sample_replaces_enwik8(tmp_path, capsys, monkeypatch):
    def offline(file, target):
        raise OSError("no network")

    monkeypatch.setattr("sharnn.corpora.enwik8._fetch", offline)
    assert main(["paper", "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "could not be downloaded" in message
    assert not (tmp_path / "run").exists()


def test_a_trial_prints_its_scores_and_that_it_is_a_trial(tmp_path, text, capsys):
    out = str(tmp_path / "run")
    arguments = [
        "paper",
        "--dry-run",
        "--data",
        str(text),
        "--out",
        out,
        "--quiet",
        *options(SHAPE),
    ]
    arguments += ["--batch-size", "2", "--segment-length", "16", "--device", "cpu"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "done after 4 steps" in printed
    assert "the paper, on enwik8      1.100  1.076" in printed
    assert "This was a trial" in printed
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = dataclasses.replace(sharnn.ModelConfig.preset("paper"), **SHAPE)
    assert config["model"] == expected.to_dict()
    assert config["recipe"]["optimizer"] == "lamb"


@pytest.mark.slow
def test_a_run_killed_and_moved_to_another_machine_ends_like_an_uninterrupted_one(tmp_path, text):
    """Runs the command of `make paper` in processes: killed, its folder lost, started again."""
    settings = options({**SHAPE, **RECIPE, "steps": 60, "segment_length": 32, "log_every": 1})
    settings += ["--dry-run", "--data", str(text), "--quiet", "--threads", "1"]

    def start(out):
        command = [sys.executable, "-m", "sharnn", "paper", "--out", str(out), *settings]
        command += ["--keep", f"{out}-drive", "--keep-minutes", "0"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(process):
        printed, message = process.communicate(timeout=600)
        assert (process.returncode, message) == (0, "")
        return printed

    expected = finish(start(tmp_path / "whole")).replace("whole", "cut")
    out = tmp_path / "cut"
    process = start(out)
    while (
        not (out / "metrics.jsonl").exists()
        or (out / "metrics.jsonl").read_text().count("train_bits") < 20
    ):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shutil.rmtree(out)
    assert finish(start(out)) == expected
    tensors = load_file(out / "last.safetensors")
    for name, tensor in load_file(tmp_path / "whole" / "last.safetensors").items():
        assert torch.equal(tensor, tensors[name]), name


@pytest.mark.slow
def test_two_processes_restore_a_lost_run_and_score_it_again(tmp_path, text):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "sharnn", "paper", "--out", str(out)]
    command += ["--keep", f"{out}-drive", *options({**SHAPE, **RECIPE})]
    command += ["--dry-run", "--data", str(text), "--quiet", "--threads", "1"]
    printed = []
    for _ in range(2):
        process = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert process.returncode == 0, process.stderr
        printed.append(process.stdout)
        shutil.rmtree(out)
    assert printed[0] == printed[1]
    assert printed[0].startswith("done after 6 steps")
    assert printed[0].count("this run ") == 1, "only rank 0 prints"
