"""A real training process, killed and interrupted at many moments."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from processes import Command
from sharnn import load
from sharnn.checkpoint import read
from sharnn.corpora.sample import sample_bytes

# The timeouts only end a test that hangs; a busy machine can take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SETTINGS = """--preset tiny --dim 48 --boom-dim 96 --memory 64 --dropout 0.1 --batch-size 4
--segment-length 48 --steps 200 --warmup-steps 5 --checkpoint-every 3 --eval-every 20
--eval-bytes 500 --log-every 1 --threads 1 --quiet""".split()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Returns a function that starts ``sharnn train``."""
    return lambda *arguments: Command(tmp_path_factory.mktemp("log") / "err", "train", *arguments)


def wait_for_lines(process, path, count):
    """Waits until the run has logged ``count`` lines; returns False if it ended first."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        if not process.is_running():
            return False
        time.sleep(0.001)
    return True


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(sample_bytes(30_000))
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, text, start):
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start("--data", text, "--out", folder, *SETTINGS)
    assert process.finish() == (0, "")
    return load_file(folder / "last.safetensors")


def assert_same_end(folder, uninterrupted):
    tensors = load_file(folder / "last.safetensors")
    assert tensors.keys() == uninterrupted.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, uninterrupted[name]), name
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)
    assert set(steps) == set(range(1, 201))


def test_a_run_killed_at_many_moments_ends_like_an_uninterrupted_one(
    tmp_path, text, start, uninterrupted
):
    folder = tmp_path / "run"
    arguments = ["--data", text, "--out", folder, *SETTINGS]
    kills = 0
    for lines, pause in ((1, 0.0), (25, 0.002), (55, 0.011), (90, 0.005), (130, 0.017)):
        process = start(*arguments)
        if wait_for_lines(process, folder / "metrics.jsonl", lines):
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.finish()
        assert load(folder).config.dim == 48, "the checkpoint must be loadable at any moment"
        arguments = ["--resume", folder, "--threads", "1", "--quiet"]
    assert kills >= 4
    assert start(*arguments).finish() == (0, "")
    assert_same_end(folder, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_prints_the_command_to_resume(
    tmp_path, text, start, uninterrupted, number
):
    folder = tmp_path / "run"
    process = start("--data", text, "--out", folder, *SETTINGS)
    assert wait_for_lines(process, folder / "metrics.jsonl", 60)
    process.send_signal(number)
    code, message = process.finish()
    assert code == 130
    assert message.count("\n") == 1
    assert f"resume with: sharnn train --resume {folder}" in message
    last_step = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 50 <= last_step < 200
    assert start("--resume", folder, "--threads", "1", "--quiet").finish() == (0, "")
    assert_same_end(folder, uninterrupted)


# The command line, which interrupts itself twice before its step 32. Two signals from outside could
# merge into one, or the second could arrive after the run has ended.
INTERRUPTED_TWICE = """
import os, signal, sys
from sharnn.cli import main
from sharnn.trainer import Trainer

step = Trainer.step

def interrupted_step(trainer, *arguments):
    if trainer.step_count == 31:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    return step(trainer, *arguments)

Trainer.step = interrupted_step
sys.exit(main(sys.argv[1:]))
"""


def test_a_second_interrupt_ends_the_run_at_once(tmp_path, text):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", INTERRUPTED_TWICE, "train", "--data", text, "--out", folder]
    result = subprocess.run([*command, *SETTINGS], stderr=subprocess.PIPE, text=True, timeout=600)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    assert load(folder).config.dim == 48
    _, header = read(folder / "last.safetensors", training=True)
    assert header["training"]["step"] == 30, "the run must end without another checkpoint"
