"""Several processes train as one: the same curve, exact resumption, and one set of messages."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sharnn import bits_per_byte, load, resume, train
from sharnn.checkpoint import read_header
from sharnn.cli import main
from sharnn.corpora.sample import sample_bytes
from sharnn.distributed import ProcessGroup, current_group, process_group
from sharnn.recipe import OPTIMIZERS
from small import small_config, small_model, small_recipe

# The timeouts only end a test that hangs; a busy machine can take minutes.
pytestmark = pytest.mark.timeout(1200)
HERE = Path(__file__).parent
# --standalone finds a free port. With a check every second instead of every tenth, torchrun is less
# likely to stop the second of two processes that fail together.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
TORCHRUN += ["--monitor-interval", "1", "--nproc-per-node"]
# The same model and recipe as in small.py.
FLAGS = """--dim 16 --boom-dim 40 --layers 3 --attention-layers 1 --memory 24 --dropout 0
--batch-size 4 --segment-length 20 --optimizer adamw --lr 1e-3 --beta2 0.999 --eps 1e-6
--schedule constant --clip 0.25 --warmup-steps 2 --log-every 2 --eval-every 5 --eval-bytes 200
--checkpoint-every 4 --device cpu --precision float32 --threads 1 --quiet""".split()


def start(count, *arguments, **kwargs):
    return subprocess.Popen(
        [*TORCHRUN, str(count), *map(str, arguments)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **kwargs,
    )


def finish(process):
    """Waits for the end; returns exit code, output, our error messages and standard error."""
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    messages = [line for line in err.splitlines() if line.startswith(("sharnn:", "process"))]
    assert "Warning" not in err
    return process.returncode, out, messages, err


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(ours, theirs, tolerance):
    """Asserts that losses, gradient norms and learning rates agree within a tolerance."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "bytes_per_second"}:
            assert one[name] == pytest.approx(other[name], abs=tolerance), name


def assert_same_weights(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if not name.startswith("training.random"):
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file with the bytes of the fixture `corpus`."""
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(sample_bytes(20_000))
    return path


@pytest.mark.parametrize(("streams", "count"), [(6, 3), (5, 3), (1, 3), (16, 4)])
def test_every_stream_belongs_to_one_process(streams, count):
    shares = [range(streams)[ProcessGroup(rank, count).shard(streams)] for rank in range(count)]
    assert [stream for share in shares for stream in share] == list(range(streams))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_single_process_creates_no_process_group(corpus, monkeypatch):
    def require_no_group(line):
        assert not torch.distributed.is_initialized()

    assert current_group() == ProcessGroup()
    train(
        small_config(),
        corpus,
        small_recipe(steps=2),
        progress_bar=False,
        on_metrics=require_no_group,
    )
    # torchrun --nproc-per-node 1
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with process_group() as group:
        assert group == ProcessGroup()
        assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, corpus, text, capsys):
    folder, one = tmp_path / "two", tmp_path / "one"
    command = ["-m", "sharnn", "train", "--data", text, "--out", folder, *FLAGS]
    code, out, messages, _ = finish(start(2, *command, "--steps", "12"))
    assert (code, messages) == (0, [])
    assert out.count("\n") == 1
    assert out.startswith("done after 12 steps; best validation ")
    recipe = small_recipe(batch_size=4, precision="float32")
    theirs = train(small_config(), corpus, recipe, one, progress_bar=False)
    assert {path.name for path in folder.iterdir()} == {path.name for path in one.iterdir()}
    settings = json.loads((folder / "config.json").read_text())
    assert settings["world_size"] == 2
    assert settings["recipe"]["batch_size"] == 4
    assert_same_curve(read_metrics(folder), read_metrics(one), 2e-4)
    tensors, expected = (load_file(place / "last.safetensors") for place in (folder, one))
    del tensors["training.random.cpu.1"]
    assert_same_weights(tensors, expected, 1e-5)
    assert bits_per_byte(load(folder), corpus.valid[:200]) == pytest.approx(theirs.best, abs=1e-5)
    # A single process can resume the run.
    arguments = ["train", "--resume", folder, "--steps", "18", "--threads", "1", "--quiet"]
    assert main([str(argument) for argument in arguments]) == 0
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "trained by 2 processes and continues with 1 process" in message
    resume(one, corpus, {"steps": 18}, progress_bar=False)
    assert_same_curve(read_metrics(folder), read_metrics(one), 2e-4)


def wait_for_lines(process, path, count):
    """Waits until the run has logged ``count`` lines."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_bad_input_and_a_killed_process_under_torchrun(tmp_path, text):
    folder = tmp_path / "run"
    command = ["-m", "sharnn", "train", "--data", text, "--out", folder, *FLAGS]
    process = start(2, *command, "--steps", "100000")
    wait_for_lines(process, folder / "metrics.jsonl", 10)
    process.send_signal(signal.SIGINT)
    code, out, messages, _ = finish(process)
    assert code != 0
    assert out == ""
    assert len(messages) == 1
    assert messages[0].startswith("sharnn: interrupted at step ")
    assert messages[0].endswith(f"resume with: torchrun ... -m sharnn train --resume {folder}")
    assert load(folder).config.dim == 16
    before = {file: file.read_bytes() for file in folder.iterdir()}
    code, out, messages, err = finish(start(2, *command))
    assert (code, out) == (1, ""), "torchrun's own exit code"
    existing = f"sharnn: {folder} already contains a run: resume it, or name another folder"
    assert messages == [existing]
    # torchrun ends a process that exits more than a second after the first.
    codes = re.findall(r"exitcode  : (\S+)", err)
    assert "2" in codes
    assert set(codes) <= {"2", str(-signal.SIGTERM)}
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    lines = len(read_metrics(folder))
    process = start(2, "-m", "sharnn", "train", "--resume", folder, "--threads", "1", "--quiet")
    wait_for_lines(process, folder / "metrics.jsonl", lines + 6)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    killed = time.monotonic()
    code, _, messages, _ = finish(process)
    assert (code, messages) == (1, [])
    assert time.monotonic() - killed < 30, "the other process must not wait"
    assert load(folder).config.dim == 16


@pytest.fixture(scope="module")
def three_processes(tmp_path_factory, corpus, text):
    """Runs distributed_program.py in three processes; returns its folder and their results."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "text").write_bytes(text.read_bytes())
    recipe = small_recipe(batch_size=6, precision="float32")
    train(small_config(), corpus, recipe, folder / "of-one", progress_bar=False)
    changes = {"batch_size": 4, "steps": 1}
    train(small_config(), corpus, small_recipe(**changes), folder / "of-four", progress_bar=False)
    code, out, messages, err = finish(start(3, "distributed_program.py", folder))
    assert (code, out, messages) == (0, "", []), err
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_processes_train_as_one(three_processes, corpus, tmp_path, optimizer):
    folder, results = three_processes
    assert results[0]["as_one"] == results[1]["as_one"] == results[2]["as_one"]
    recipe = small_recipe(optimizer=optimizer, batch_size=6, precision="float32")
    result = train(small_config(), corpus, recipe, tmp_path, progress_bar=False)
    assert_same_curve(read_metrics(folder / optimizer), result.metrics, 2e-4)
    assert results[0]["as_one"][optimizer]["best"] == pytest.approx(result.best, abs=1e-3)


@pytest.mark.slow
def test_a_process_that_is_slower_than_the_others_changes_nothing(three_processes):
    _, results = three_processes
    for result in results:
        assert result["uneven"] == result["as_one"]["lamb"]


@pytest.mark.slow
def test_resuming_is_exact_when_one_process_was_interrupted(three_processes):
    """With dropout in each process, carried state and a restart of the streams in between."""
    folder, results = three_processes
    whole, cut = results[0]["whole"], results[0]["cut"]
    assert results[0]["cut"] == results[1]["cut"] == results[2]["cut"], (
        "all must stop at the same step"
    )
    assert [part["reason"] for part in cut] == ["interrupted", "interrupted", "done"]
    assert [part["steps"][-1] for part in cut] == [7, 16, 24]
    assert [lr for part in cut for lr in part["rates"]] == whole["rates"]
    ours, theirs = (load_file(folder / name / "last.safetensors") for name in ("cut", "whole"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    random = [ours[f"training.random.cpu{rank}"] for rank in ("", ".1", ".2")]
    assert not torch.equal(random[0], random[1])
    assert not torch.equal(random[1], random[2])
    lines = [read_metrics(folder / name) for name in ("cut", "whole")]
    assert_same_curve(*lines, 0)
    assert lines[0][-1]["step"] == 24
    assert max(line.get("epoch", 0) for line in lines[0]) > 1


@pytest.mark.slow
def test_all_processes_save_together_if_rank_0_cannot_log(three_processes):
    folder, results = three_processes
    found = [one["failing_log"] for one in results]
    # The others learn of it with the next step.
    notes = [f"{folder / 'failing'} has a checkpoint of step 5"]
    assert found[0] == ["No space left on device", notes]
    assert found[1] == found[2] == ["interrupted", 5]
    header = read_header(folder / "failing" / "last.safetensors")
    assert header["training"]["step"] == 5


@pytest.mark.slow
def test_a_run_continues_with_more_processes(three_processes, corpus, tmp_path):
    folder, results = three_processes
    recipe = small_recipe(batch_size=6, steps=18, precision="float32")
    result = train(small_config(), corpus, recipe, tmp_path, progress_bar=False)
    more = [one["more_processes"] for one in results]
    assert more[0].pop("message") == (
        f"sharnn: {folder / 'of-one'} was trained by 1 process and continues with 3 processes: "
        "its streams are redistributed, and dropout will use other random numbers\n"
    )
    assert more[1].pop("message") == more[2].pop("message") == ""
    assert more[0] == more[1] == more[2]
    end = [line for line in read_metrics(folder / "of-one") if line["step"] > 12]
    assert_same_curve(end, [line for line in result.metrics if line["step"] > 12], 2e-4)


@pytest.mark.slow
def test_processes_limited_by_minutes_follow_the_clock_of_rank_0(three_processes):
    runs = [one["limited_by_minutes"] for one in three_processes[1]]
    assert runs[0]["reason"] == "done"
    assert runs[0]["steps"][-1] == 12
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.slow
def test_a_non_finite_step_of_one_process_is_skipped_by_all(three_processes):
    steps = [one["non_finite_steps"] for one in three_processes[1]]
    assert steps[0] == steps[1] == steps[2]
    *steps, end = steps[0]
    skipped = [step["skipped"] for step in steps]
    assert skipped == [False, True, False, True, False, True, True]
    assert [step["state dropped"] for step in steps] == [
        False,
        True,
        False,
        False,
        False,
        True,
        True,
    ]
    assert [step["scale"] for step in steps] == [1024, 512, 512, 256, 256, 128, 64]
    for before, step in pairwise(steps):
        assert (before["weights"] == step["weights"]) == step["skipped"]
    assert end == {"stopped at": 5, "weights": steps[4]["weights"]}


@pytest.mark.slow
def test_rank_0_prints_the_error_and_all_exit_with_the_same_code(three_processes):
    folder, results = three_processes
    expected = {
        "batch size": "batch_size 4 can't be divided among 3 processes",
        "existing run": "already contains a run",
        "no data": "nowhere does not exist",
        "data missing for some": "process 1: ",
        "unknown option": "unrecognized arguments: --colour",
        "folder inside a file": "can't use",
        "different settings": "processes have different data or settings",
        "no run": "does not name the run's data",
        "other data": "was trained on different data",
        "other batch size": "batch_size can't change when a run is resumed",
        "other number of processes": "batch_size 4 can't be divided among 3 processes",
    }
    errors = [one["invalid_commands"] for one in results]
    assert errors[0].keys() == expected.keys()
    for name, (code, message) in errors[0].items():
        assert code == 2, name
        assert message.startswith("sharnn: "), name
        assert expected[name] in message
        assert message.count("\n") == 1
        assert errors[1][name] == errors[2][name] == [2, ""], name
    assert not (folder / "new").exists()


@pytest.mark.slow
def test_processes_score_their_streams_and_agree_on_the_result(three_processes):
    results, model = three_processes[1], small_model()
    assert results[0]["scores"] == results[1]["scores"] == results[2]["scores"]
    content = bytes(torch.randint(256, (500,), generator=torch.Generator().manual_seed(5)).tolist())
    for streams, bits in results[0]["scores"].items():
        alone = bits_per_byte(model, content, batch_size=int(streams))
        assert math.isclose(bits, alone, abs_tol=1e-6)
    symbols = {one["symbols"] for one in results}
    assert symbols == {"process 2: the data contains byte 200, but the model has 100 symbols"}


@pytest.mark.slow
def test_an_existing_process_group_is_used_and_left_open(three_processes):
    runs = [one["existing_group"] for one in three_processes[1]]
    assert runs[0]["reason"] == "done"
    assert runs[0] == runs[1] == runs[2]
