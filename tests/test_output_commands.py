"""Output of the command line: no command overwrites what it reads, and every output is checked."""

import os
import shutil
import subprocess
import sys

import pytest

import sharnn
from sharnn import load
from sharnn.cli import main
from sharnn.corpora.corpus_files import data_folder
from sharnn.corpora.sample import sample_bytes

SETTINGS = """--preset tiny --dim 16 --boom-dim 32 --memory 32 --batch-size 2 --segment-length 16
--steps 2 --eval-bytes 50 --threads 1 --quiet""".split()
DRY_RUN = """--dry-run --dim 16 --boom-dim 32 --memory 32 --batch-size 2 --segment-length 16
--device cpu --quiet --threads 1""".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text").write_bytes(sample_bytes(20_000))
    arguments = ["--data", str(folder / "text"), "--out", str(folder / "run"), *SETTINGS]
    assert main(["train", *arguments]) == 0
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A folder, entered, with a run, a model, a text, an archive and links to them."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copy(trained / "text", tmp_path)
    shutil.copy(tmp_path / "run" / "best.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "short").write_bytes(sample_bytes(500))
    (tmp_path / "packed").write_bytes(sharnn.compress(load(tmp_path / "run"), b"abc"))
    (tmp_path / "symbolic.html").symlink_to("short")
    os.link(tmp_path / "model.safetensors", tmp_path / "hard.safetensors")
    data_folder().mkdir(exist_ok=True)
    (data_folder() / "enwik8").write_bytes(b"not all of it")
    (tmp_path / "enwik8").symlink_to(data_folder() / "enwik8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


REFUSED = """
attention model.safetensors --data short --out short
attention model.safetensors --data short --out ./symbolic.html
attention model.safetensors --data text short --out short
attention model.safetensors --data short --out model.safetensors
attention hard.safetensors --data short --out model.safetensors
attention run --data short --out run/last.safetensors
attention run --data short --out run/config.json
attention wiki-small --data short --out run/metrics.jsonl
attention run --data short --out page.html --survey run/best.safetensors
attention run --data short --out page.png --survey page.png
attention run --data short --out page.html --survey short
attention run --data enwik8 --out enwik8
compress run short run/last.safetensors
compress run short short
compress model.safetensors - hard.safetensors
compress wiki-small short run/config.json
decompress run packed packed
decompress run packed run/metrics.jsonl
export run run/last.safetensors
export run run/best.safetensors --weights int8
export wiki-small run/best.safetensors
export model.safetensors hard.safetensors
convert model.safetensors hard.safetensors
convert model.safetensors run/best.safetensors
train --data text --out run
train --data run/config.json --out run
train --data text --out .
train --data new/config.json --out new
train --resume run --data run/metrics.jsonl --steps 3
paper --data new/config.json --out new
paper --data text --out .
paper --data text --out keep/a --keep keep
paper --data text --out new --keep text
""".strip().splitlines()


@pytest.mark.parametrize("line", REFUSED)
def test_no_command_overwrites_an_input_or_a_file_of_a_run(place, capfd, line):
    (place / "new").mkdir()
    (place / "new" / "config.json").write_bytes(sample_bytes(5_000))
    before = snapshot(place)
    words = line.split()
    words += {"train": [] if "--resume" in words else SETTINGS, "paper": DRY_RUN}.get(words[0], [])
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("sharnn: ")
    assert err.count("\n") == 1
    assert snapshot(place) == before


LATE = """
attention run --data short --out {0}
attention run --data short --out page.html --survey {0}.png
compress run short {0}
decompress run packed {0}
export run {0}.safetensors
convert checkpoint.npz {0}.safetensors
train --data text --out {0}
paper --data text --out {0}
paper --data text --out new --keep {0}
""".strip().splitlines()


@pytest.mark.parametrize("line", LATE)
def test_a_place_that_cannot_be_written_is_noticed_before_the_work(place, capfd, monkeypatch, line):
    (place / "file").write_bytes(b"")
    for module in ("attention", "files", "training"):  # loading a model begins the work
        monkeypatch.setattr(f"sharnn.cli.{module}.load", lambda *_: pytest.fail("too late"))
    monkeypatch.setattr("sharnn.cli.training.open_shared_corpus", lambda *_: pytest.fail("late"))
    words = line.format("file/inside").split()
    words += {"train": SETTINGS, "paper": DRY_RUN}.get(words[0], [])
    assert main(words) == 2
    err = capfd.readouterr().err
    assert err.startswith("sharnn: can't ")
    assert "file" in err
    assert not (place / "new").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize(
    "line",
    [
        "eval {0} --data short",
        "eval run --data {0}",
        "data {0}",
        "generate {0}",
        "generate run --prompt-file {0}",
        "compress run {0} out",
        "compress {0} short out",
        "decompress run {0} out",
        "export {0} out.safetensors",
        "convert {0} out.safetensors",
        "attention run --data {0} --out page.html",
        "attention {0} --data short --out page.html",
        "train --data {0} --out new",
        "train --data text --out new --init {0}",
        "train --resume {0}",
        "train --resume pipes --steps 3",
        "paper --data {0} --out new --dry-run --device cpu",
    ],
)
def test_pipes_and_endless_devices_are_not_read(place, capfd, line):
    os.mkfifo(place / "pipe")
    shutil.copytree(place / "run", place / "pipes")
    for name in ("config.json", "metrics.jsonl"):
        (place / "pipes" / name).unlink()
        os.mkfifo(place / "pipes" / name)
    for source in ("pipe", "/dev/zero"):
        assert main(line.format(source).split()) == 2
        err = capfd.readouterr().err
        assert err.startswith("sharnn: ")
        assert err.count("\n") == 1
    assert not (place / "new").exists()
    assert not (place / "out").exists()


def run_sharnn(words, redirection="", **environment):
    """Runs a command in a process of its own, with its standard output redirected."""
    command = ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-m", "sharnn", *words]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("words", ["eval run --data short", "generate run", "data text"])
@pytest.mark.parametrize(
    ("redirection", "message"),
    [(">&-", "can't write to standard output: it is closed"), (">/dev/full", "No space left")],
)
def test_a_result_that_cannot_be_printed_is_an_error(place, words, redirection, message):
    if "/dev" in redirection and not os.path.exists("/dev/full"):
        pytest.skip("the system has no /dev/full")
    result = run_sharnn(words.split(), redirection)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_names_that_the_output_cannot_represent_are_printed_as_escapes(place):
    encoding = {"PYTHONIOENCODING": "cp1252"}
    (place / "日本.txt").write_bytes((place / "text").read_bytes())
    for line, shown in (
        ("data 日本.txt", r"\u65e5\u672c.txt"),
        ("train --data 日本.txt --out 走", r"saved in \u8d70"),
        ("export 走 模.safetensors", r"\u6a21.safetensors"),
        ("attention 走 --data 日本.txt --watched 9 --out 頁.html", r"\u9801.html: "),
        ("eval 無 --data text", r"no model at \u7121"),
    ):
        words = line.split()
        words += SETTINGS if words[0] == "train" else []
        result = run_sharnn(words, **encoding)
        assert result.returncode == (2 if words[0] == "eval" else 0), result.stderr
        assert shown in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on other systems")
def test_names_that_are_not_utf8_can_be_used_everywhere(place, capfd):
    run, text, page = (os.fsdecode(name) for name in (b"r\xff", b"caf\xe9.txt", b"p\xfe.html"))
    os.rename("text", text)
    for words in (
        ["train", "--data", text, "--out", run, *SETTINGS],
        ["train", "--resume", run, "--steps", "3", "--quiet"],
        ["generate", run, "--length", "3"],
        ["attention", run, "--data", text, "--watched", "9", "--out", page],
        ["export", run, os.fsdecode(b"m\xff.safetensors")],
        ["eval", os.fsdecode(b"m\xff.safetensors"), "--data", "short"],
    ):
        assert main(words) == 0, capfd.readouterr().err
    assert os.path.exists(page)


def test_the_outputs_error_handling_is_restored(capsys):
    before = sys.stdout.errors
    assert main(["data", "sample"]) == 0
    assert sys.stdout.errors == before
