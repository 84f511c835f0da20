"""Several processes train as one: the same curve, exact resumption, no drift, one voice."""

import json
import math
import os
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
from sharnn.cli import main
from sharnn.distributed import Ranks, current, joined
from sharnn.sample import sample_bytes
from small import small_config, small_model, small_recipe

HERE = Path(__file__).parent
# --standalone finds a free port.
# torchrun looks at its processes each second: two that end at once must not look like one that
# ended and one that it had to stop.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
TORCHRUN += ["--monitor-interval", "1", "--nproc-per-node"]
# The flags' model and recipe are those of small.py.
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
    """Waits for the end; the exit code, the output and what our processes said of errors."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    ours = [line for line in err.splitlines() if line.startswith(("sharnn:", "process"))]
    assert "Warning" not in err
    return process.returncode, out, ours, err


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(ours, theirs, tolerance):
    """Losses, gradient norms, validations and learning rates agree to rounding."""
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
    """The bytes of the fixture `corpus`."""
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(sample_bytes(20_000))
    return path


@pytest.mark.parametrize(("streams", "count"), [(6, 3), (5, 3), (1, 3), (16, 4)])
def test_every_stream_is_someones(streams, count):
    shares = [range(streams)[Ranks(rank, count).share(streams)] for rank in range(count)]
    assert [stream for share in shares for stream in share] == list(range(streams))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_no_process_group_is_made(corpus, monkeypatch):
    def seen(line):
        assert not torch.distributed.is_initialized()

    assert current() == Ranks()
    train(small_config(), corpus, small_recipe(steps=2), progress=False, on_metrics=seen)
    # torchrun --nproc-per-node 1
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with joined() as ranks:
        assert ranks == Ranks()
        assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, corpus, text, capsys):
    folder, one = tmp_path / "two", tmp_path / "one"
    command = ["-m", "sharnn", "train", "--data", text, "--out", folder, *FLAGS]
    code, out, ours, _ = finish(start(2, *command, "--steps", "12"))
    assert (code, ours) == (0, [])
    assert out.count("\n") == 1
    assert out.startswith("done after 12 steps; best validation ")
    recipe = small_recipe(batch_size=4, precision="float32")
    theirs = train(small_config(), corpus, recipe, one, progress=False)
    assert {path.name for path in folder.iterdir()} == {path.name for path in one.iterdir()}
    settings = json.loads((folder / "config.json").read_text())
    assert settings["ranks"] == 2
    assert settings["recipe"]["batch_size"] == 4
    assert_same_curve(read_metrics(folder), read_metrics(one), 2e-4)
    kept, expected = (load_file(place / "last.safetensors") for place in (folder, one))
    del kept["training.random.cpu.1"]
    assert_same_weights(kept, expected, 1e-5)
    assert bits_per_byte(load(folder), corpus.valid[:200]) == pytest.approx(theirs.best, abs=1e-5)
    # One process goes on with it, as it would with its own.
    arguments = ["train", "--resume", folder, "--steps", "18", "--threads", "1", "--quiet"]
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "trained by 2 processes and goes on with 1 process" in said
    resume(one, corpus, {"steps": 18}, progress=False)
    assert_same_curve(read_metrics(folder), read_metrics(one), 2e-4)


def wait_for_lines(process, path, count):
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
    code, out, ours, err = finish(process)
    assert code != 0
    assert out == ""
    assert len(ours) == 1
    assert ours[0].startswith("sharnn: interrupted at step ")
    assert ours[0].endswith(f"go on with: torchrun ... -m sharnn train --resume {folder}")
    assert load(folder).config.dim == 16
    before = {file: file.read_bytes() for file in folder.iterdir()}
    code, out, ours, err = finish(start(2, *command))
    assert (code, out) == (1, ""), "torchrun's own code"
    assert ours == [f"sharnn: {folder} already holds a run: resume it, or name another folder"]
    assert err.count("exitcode  : 2 ") == 2
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    lines = len(read_metrics(folder))
    process = start(2, "-m", "sharnn", "train", "--resume", folder, "--threads", "1", "--quiet")
    wait_for_lines(process, folder / "metrics.jsonl", lines + 6)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    killed = time.monotonic()
    code, _, ours, _ = finish(process)
    assert (code, ours) == (1, [])
    assert time.monotonic() - killed < 30, "nobody waits for the dead"
    assert load(folder).config.dim == 16


@pytest.fixture(scope="module")
def three(tmp_path_factory, corpus, text):
    """What three processes saw that ran in_ranks.py, and where they did it."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "text").write_bytes(text.read_bytes())
    recipe = small_recipe(batch_size=6, precision="float32")
    train(small_config(), corpus, recipe, folder / "of-one", progress=False)
    changes = {"batch_size": 4, "steps": 1}
    train(small_config(), corpus, small_recipe(**changes), folder / "of-four", progress=False)
    code, out, ours, err = finish(start(3, "in_ranks.py", folder))
    assert (code, out, ours) == (0, "", []), err
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "muon"])
def test_three_processes_train_as_one(three, corpus, tmp_path, optimizer):
    folder, seen = three
    assert seen[0]["as_one"] == seen[1]["as_one"] == seen[2]["as_one"]
    recipe = small_recipe(optimizer=optimizer, batch_size=6, precision="float32")
    result = train(small_config(), corpus, recipe, tmp_path, progress=False)
    assert_same_curve(read_metrics(folder / optimizer), result.metrics, 2e-4)
    assert seen[0]["as_one"][optimizer]["best"] == pytest.approx(result.best, abs=1e-3)


@pytest.mark.slow
def test_resuming_is_exact_whoever_was_interrupted(three):
    """Dropout draws of each process, carried state, an end of the streams in between."""
    folder, seen = three
    whole, cut = seen[0]["whole"], seen[0]["cut"]
    assert seen[0]["cut"] == seen[1]["cut"] == seen[2]["cut"], "all stop at the same step"
    assert [part["reason"] for part in cut] == ["interrupted", "interrupted", "done"]
    assert [part["steps"][-1] for part in cut] == [7, 16, 24]
    assert [lr for part in cut for lr in part["rates"]] == whole["rates"]
    ours, theirs = (load_file(folder / name / "last.safetensors") for name in ("cut", "whole"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    draws = [ours[f"training.random.cpu{rank}"] for rank in ("", ".1", ".2")]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])
    lines = [read_metrics(folder / name) for name in ("cut", "whole")]
    assert_same_curve(*lines, 0)
    assert lines[0][-1]["step"] == 24
    assert max(line.get("epoch", 0) for line in lines[0]) > 1


@pytest.mark.slow
def test_a_run_goes_on_in_more_processes(three, corpus, tmp_path):
    folder, seen = three
    recipe = small_recipe(batch_size=6, steps=18, precision="float32")
    result = train(small_config(), corpus, recipe, tmp_path, progress=False)
    more = [one["more_processes"] for one in seen]
    assert more[0].pop("said") == (
        f"sharnn: {folder / 'of-one'} was trained by 1 process and goes on with 3 processes: "
        "its streams are dealt anew, and dropout draws differ from here on\n"
    )
    assert more[1].pop("said") == more[2].pop("said") == ""
    assert more[0] == more[1] == more[2]
    end = [line for line in read_metrics(folder / "of-one") if line["step"] > 12]
    assert_same_curve(end, [line for line in result.metrics if line["step"] > 12], 2e-4)


@pytest.mark.slow
def test_the_clock_lets_no_process_drift(three):
    runs = [one["by_the_clock"] for one in three[1]]
    assert runs[0]["reason"] == "done"
    assert len(runs[0]["steps"]) > 2
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.slow
def test_a_bad_step_of_one_is_skipped_by_all(three):
    steps = [one["bad_steps"] for one in three[1]]
    assert steps[0] == steps[1] == steps[2]
    *steps, end = steps[0]
    skipped = [step["skipped"] for step in steps]
    assert skipped == [False, True, False, True, False, True, True]
    assert [step["forgot"] for step in steps] == [False, True, False, False, False, True, True]
    assert [step["scale"] for step in steps] == [1024, 512, 512, 256, 256, 128, 64]
    for before, step in pairwise(steps):
        assert (before["weights"] == step["weights"]) == step["skipped"]
    assert end == {"gave up at": 5, "weights": steps[4]["weights"]}


@pytest.mark.slow
def test_the_first_speaks_and_all_end_alike(three):
    folder, seen = three
    words = {
        "batch": "batch_size 4 can't be dealt to 3 processes",
        "over a run": "already holds a run",
        "no data": "nowhere does not exist",
        "only some lack their data": "process 1: ",
        "flag": "unrecognized arguments: --colour",
        "under a file": "can't make",
        "different": "given different data or settings",
        "no run": "doesn't say what data",
        "other data": "was trained on other data",
        "another batch": "batch_size can't change on resuming",
        "other processes": "batch_size 4 can't be dealt to 3 processes",
    }
    refusals = [one["refusals"] for one in seen]
    assert refusals[0].keys() == words.keys()
    for name, (code, said) in refusals[0].items():
        assert code == 2, name
        assert said.startswith("sharnn: "), name
        assert words[name] in said
        assert said.count("\n") == 1
        assert refusals[1][name] == refusals[2][name] == [2, ""], name
    assert not (folder / "new").exists()


@pytest.mark.slow
def test_validation_is_shared(three):
    seen, model = three[1], small_model()
    assert seen[0]["scores"] == seen[1]["scores"] == seen[2]["scores"]
    content = bytes(torch.randint(256, (500,), generator=torch.Generator().manual_seed(5)).tolist())
    for streams, bits in seen[0]["scores"].items():
        alone = bits_per_byte(model, content, batch_size=int(streams))
        assert math.isclose(bits, alone, abs_tol=1e-6)
    symbols = {one["symbols"] for one in seen}
    assert symbols == {"process 2: the data hold byte 200, but the model has 100 symbols"}


@pytest.mark.slow
def test_a_group_of_the_callers_is_used_and_left_to_it(three):
    again = [one["again"] for one in three[1]]
    assert again[0]["reason"] == "done"
    assert again[0] == again[1] == again[2]
