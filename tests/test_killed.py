"""A real training process, killed and interrupted at many moments."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from sharnn import load
from sharnn.sample import sample_bytes

# The timeouts only end a test that hangs; a busy machine can take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SETTINGS = """--preset tiny --dim 48 --boom-dim 96 --memory 64 --dropout 0.1 --batch-size 4
--segment-length 48 --steps 200 --warmup-steps 5 --checkpoint-every 3 --eval-every 20
--eval-bytes 500 --log-every 1 --threads 1 --quiet""".split()


def start(*arguments):
    command = [sys.executable, "-m", "sharnn", "train", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process):
    """Waits for the end; returns the exit code and the text on standard error."""
    message = process.communicate(timeout=600)[1]
    return process.returncode, message


def wait_for_lines(process, path, count):
    """Waits until the run has logged ``count`` lines; returns False if it ended first."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    return True


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(sample_bytes(30_000))
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start("--data", text, "--out", folder, *SETTINGS)
    assert finish(process) == (0, "")
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


def test_a_run_killed_at_many_moments_ends_like_an_uninterrupted_one(tmp_path, text, uninterrupted):
    folder = tmp_path / "run"
    arguments = ["--data", text, "--out", folder, *SETTINGS]
    kills = 0
    for lines, pause in ((1, 0.0), (25, 0.002), (55, 0.011), (90, 0.005), (130, 0.017)):
        process = start(*arguments)
        if wait_for_lines(process, folder / "metrics.jsonl", lines):
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            kills += 1
        finish(process)
        assert load(folder).config.dim == 48, "the checkpoint must be loadable at any moment"
        arguments = ["--resume", folder, "--threads", "1", "--quiet"]
    assert kills >= 4
    assert finish(start(*arguments)) == (0, "")
    assert_same_end(folder, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_prints_the_resume_command_and_resumes(
    tmp_path, text, uninterrupted, number
):
    folder = tmp_path / "run"
    process = start("--data", text, "--out", folder, *SETTINGS)
    assert wait_for_lines(process, folder / "metrics.jsonl", 60)
    process.send_signal(number)
    code, message = finish(process)
    assert code == 130
    assert message.count("\n") == 1
    assert f"resume with: sharnn train --resume {folder}" in message
    last_step = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 50 <= last_step < 200
    assert finish(start("--resume", folder, "--threads", "1", "--quiet")) == (0, "")
    assert_same_end(folder, uninterrupted)


def test_a_second_interrupt_ends_the_run_at_once(tmp_path, text):
    folder = tmp_path / "run"
    process = start("--data", text, "--out", folder, *SETTINGS)
    assert wait_for_lines(process, folder / "metrics.jsonl", 30)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
    code, message = finish(process)
    assert code == 130
    assert "Traceback" not in message
    assert load(folder).config.dim == 48
