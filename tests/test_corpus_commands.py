"""Which data a command reads: named corpora, files with such names, splits, remarks."""

import gzip
import json

import pytest

import sharnn
from sharnn.cli import main
from sharnn.corpora.sample import sample_bytes
from sharnn.data import CORPORA
from small import small_config, small_recipe

SHAPE = "--dim 16 --boom-dim 32 --memory 32 --batch-size 2 --segment-length 16 --device cpu".split()
SETTINGS = [*SHAPE, *"--preset tiny --eval-bytes 50 --threads 1 --quiet".split()]
SPLIT = ["--split", "0.5,0.2,0.2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Starts each test in a new folder that has a file named sample."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").write_bytes(b"This is a file. " * 500)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def fetch(file, target):
        raise OSError("no route to host")

    monkeypatch.setattr("sharnn.corpora.enwik8._fetch", fetch)


def train(*arguments):
    return main(["train", *arguments])


def one_line(capsys):
    """Returns what was printed on standard error, which must be one line."""
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, shown
    return shown


@pytest.fixture
def run(capsys):
    """Trains on the file named sample for 2 steps, with a split of its own."""
    code = train("--data", "./sample", "--out", "run", "--steps", "2", *SPLIT, *SETTINGS)
    assert (code, capsys.readouterr().err) == (0, "")
    return "run"


@pytest.mark.parametrize(
    "command",
    [
        "data enwik8",
        "train --data enwik8 --out out",
        "paper --data enwik8 --out out --device cpu",
        "paper --data enwik8 --out out --dry-run",
        "eval wiki-small --data enwik8",
        "attention wiki-small --data enwik8 --out out",
    ],
)
def test_no_command_replaces_a_missing_corpus(folder, capsys, offline, command):
    assert main(command.split()) == 2
    message = one_line(capsys)
    assert "enwik8 could not be downloaded: download https://mattmahoney.net" in message
    assert message.endswith("(enwiki2016, 206 pages) instead, write enwiki2016\n")
    assert not (folder / "out").exists()


def test_a_name_that_is_also_a_file_is_pointed_out_once(folder, capsys):
    code = train("--data", "sample", "--out", "run", "--steps", "2", *SETTINGS)
    assert code == 0
    assert one_line(capsys).endswith("write ./sample for the file\n")
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["corpus"] == CORPORA["sample"].title
    assert config["data"] == ["sample"]
    assert train("--resume", "run", "--steps", "3", "--quiet") == 0
    assert "done after 3 steps" in capsys.readouterr().out


def test_a_run_on_a_file_with_the_name_of_a_corpus_is_resumed(folder, run, monkeypatch, capsys):
    config = json.loads((folder / run / "config.json").read_text())
    assert config["data"] == [str(folder / "sample")]
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert train("--resume", str(folder / run), "--steps", "3", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_a_named_corpus_joined_with_a_file_is_an_error(capsys):
    assert main(["data", "./sample", "sample"]) == 2
    assert "write ./sample for a file" in one_line(capsys)


def test_a_resumed_run_keeps_its_split(run, capsys):
    """Data given again, for example because they were moved, are split as before."""
    resume = ["--resume", run, "--quiet", "--steps"]
    assert train(*resume, "3") == 0
    assert train(*resume, "4", "--data", "./sample") == 0
    assert train(*resume, "5", *SPLIT) == 0
    assert capsys.readouterr().err == ""
    for data in ([], ["--data", "./sample"]):
        assert train(*resume, "6", "--split", "0.5,0.2,0.1", *data) == 2
        assert "with another split: give the data and the split" in one_line(capsys)


def test_data_changed_in_the_middle_are_refused(folder, run, capsys):
    text = bytearray((folder / "sample").read_bytes())
    text[4000] += 1
    (folder / "sample").write_bytes(text)
    assert train("--resume", run, "--steps", "3", "--quiet") == 2
    assert "was trained on different data" in one_line(capsys)


def test_a_run_whose_data_are_truncated_is_saved_and_can_be_resumed(folder):
    path = folder / "text"
    path.write_bytes(sample_bytes(20_000))
    whole = path.read_bytes()

    def truncate(line):
        if line["step"] == 4:
            path.write_bytes(whole[:30])

    def start(out, on_metrics=None):
        recipe = small_recipe(steps=12, log_every=1)
        return sharnn.train(
            small_config(),
            sharnn.load_corpus(path),
            recipe,
            out,
            on_metrics=on_metrics,
            progress_bar=False,
        )

    expected = start("expected").metrics[-1]
    with pytest.raises(sharnn.InputError, match="text was truncated while it was being read"):
        start("run", truncate)
    path.write_bytes(whole)
    result = sharnn.resume("run", sharnn.load_corpus(path), progress_bar=False)
    assert result.metrics[0]["step"] == 5
    assert result.metrics[-1] == expected


def test_a_damaged_config_is_no_obstacle_if_the_data_are_given(folder, run, capsys):
    (folder / run / "config.json").write_text("{")
    resume = ["--resume", run, "--quiet", "--steps", "3"]
    assert train(*resume) == 2
    assert "give --data" in one_line(capsys)
    assert train(*resume, "--data", "./sample", *SPLIT) == 0


def test_eval_obeys_a_split_or_refuses_it(run, capsys):
    score = ["eval", run, "--data", "./sample", "--json"]
    for part in ([], ["--part", "all"]):
        assert main([*score, *SPLIT, *part]) == 2
        assert "--split needs --part" in one_line(capsys)
    assert main([*score, *SPLIT, "--part", "valid"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 1600 - 1
    assert main(["eval", run, "--data", "sample", "--json", "--split", "100,100,300"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 300 - 1


def test_data_prints_a_remark_for_each_file_that_is_not_plain_text(folder, capsys):
    (folder / "packed").write_bytes(gzip.compress(sample_bytes(20_000)))
    (folder / "windows.txt").write_bytes(b"one\r\ntwo\r\n")
    assert main(["data", "packed", "./sample", "windows.txt"]) == 0
    remarks = capsys.readouterr().out.splitlines()[3:]
    assert [line.split(maxsplit=2)[:2] for line in remarks] == [
        ["packed", "looks"],
        ["windows.txt", "has"],
    ]


def test_a_data_folder_of_an_unknown_user_is_an_error(monkeypatch, capsys):
    monkeypatch.setenv("SHARNN_DATA", "~nosuchuser/data")
    assert main(["data", "enwik8"]) == 2
    assert "SHARNN_DATA" in one_line(capsys)


def test_an_unusable_file_is_named_once_in_the_message(folder, capsys):
    (folder / "empty").write_bytes(b"")
    assert main(["data", "empty"]) == 2
    assert one_line(capsys) == "sharnn: empty is empty\n"
