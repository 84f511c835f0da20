"""The command line: its output, and one clear line for every error."""

import dataclasses
import io
import json
import subprocess
import sys

import pytest

import sharnn
from sharnn import bits_per_byte, generate, generate_batch, load
from sharnn.cli import main
from sharnn.cli.app import make_parser
from sharnn.corpora.sample import sample_bytes

SETTINGS = """--preset tiny --dim 16 --boom-dim 32 --memory 32 --batch-size 2 --segment-length 16
--steps 3 --eval-bytes 50 --threads 1""".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def text(folder):
    path = folder / "text"
    path.write_bytes(sample_bytes(20_000))
    return path


@pytest.fixture(scope="module")
def excerpt(folder):
    path = folder / "excerpt"
    path.write_bytes(sample_bytes(2_000))
    return path


@pytest.fixture(scope="module")
def run(folder, text):
    assert main(["train", "--data", str(text), "--out", str(folder / "run"), *SETTINGS]) == 0
    return folder / "run"


def call(capfdbinary, *arguments):
    """Runs a command; returns its exit code, output and error output."""
    capfdbinary.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capfdbinary.readouterr()
    return code, captured.out.decode(), captured.err.decode()


def test_train_shows_progress_and_prints_where_the_model_is(capfdbinary, text, tmp_path):
    code, out, err = call(
        capfdbinary, "train", "--data", text, "--out", tmp_path / "r", *SETTINGS, "--log-every", 1
    )
    assert code == 0
    assert out.startswith("done after 3 steps; best validation ")
    assert out.endswith(f"saved in {tmp_path / 'r'}\n")
    assert "100%" in err
    assert "bits per byte" in err
    assert "kB/s" in err


def test_quiet_hides_the_progress_bar(capfdbinary, text, tmp_path):
    code, _, err = call(
        capfdbinary, "train", "--data", text, "--out", tmp_path / "r", *SETTINGS, "--quiet"
    )
    assert (code, err) == (0, "")


def test_options_change_the_model_and_the_recipe(text, tmp_path):
    flags = "--attention-layers 0,3 --optimizer lamb --min-trust none --lr 0.01 --quiet".split()
    flags += "--shifted-keys true --query-gain 4 --lstm-skip 0.5".split()
    out = str(tmp_path / "r")
    assert main(["train", "--data", str(text), "--out", out, *SETTINGS, *flags]) == 0
    settings = json.loads((tmp_path / "r" / "config.json").read_text())
    assert settings["model"]["attention_layers"] == [0, 3]
    assert settings["model"]["shifted_keys"] is True
    assert settings["model"]["query_gain"] == 4
    assert settings["model"]["lstm_skip"] == 0.5
    assert settings["recipe"]["min_trust"] is None
    assert settings["recipe"]["lr"] == 0.01
    assert settings["recipe"]["minutes"] is None, "--steps replaces the preset's minutes"


def test_train_can_omit_all_heads(text, tmp_path):
    flags = ["--attention-layers", "none", "--quiet"]
    out = str(tmp_path / "r")
    assert main(["train", "--data", str(text), "--out", out, *SETTINGS, *flags]) == 0
    assert load(out).config.attention_layers == ()


def test_resume_finds_its_data_from_anywhere(capfdbinary, text, tmp_path, monkeypatch):
    monkeypatch.chdir(text.parent)
    assert main(["train", "--data", "text", "--out", str(tmp_path / "r"), *SETTINGS]) == 0
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capfdbinary, "train", "--resume", "r", "--steps", 6)
    assert code == 0
    assert "done after 6 steps" in out


def test_train_from_a_models_weights_uses_its_shape(text, run, tmp_path):
    out = str(tmp_path / "r")
    flags = ["--init", str(run), "--memory", "40", "--quiet", "--steps", "2"]
    assert main(["train", "--data", str(text), "--out", out, "--batch-size", "2", *flags]) == 0
    assert load(out).config == dataclasses.replace(load(run).config, memory=40)


def test_eval_prints_text_or_json(capfdbinary, run, excerpt):
    code, out, _ = call(capfdbinary, "eval", run, "--data", excerpt)
    assert code == 0
    assert out.endswith("bits per byte over 1,999 bytes\n")
    code, out, _ = call(capfdbinary, "eval", run, "--data", excerpt, "--json")
    values = json.loads(out)
    assert values["bytes"] == 1_999
    assert values["bits_per_byte"] == pytest.approx(bits_per_byte(load(run), excerpt))
    assert values["part"] == "all"


def test_eval_scores_a_part_with_a_memory_limit(capfdbinary, run, text):
    values = []
    for flags in (["--part", "test"], ["--part", "test", "--memory", 1]):
        code, out, _ = call(capfdbinary, "eval", run, "--data", text, "--json", *flags)
        assert code == 0
        values.append(json.loads(out))
    assert values[0]["bytes"] == 999
    assert values[0]["bits_per_byte"] != values[1]["bits_per_byte"]


def test_eval_scores_several_files(capfdbinary, run, excerpt):
    code, out, _ = call(capfdbinary, "eval", run, "--data", excerpt, excerpt, "--json")
    assert code == 0
    assert json.loads(out)["bytes"] == 3_999


def test_generate_prints_prompt_and_text(capfdbinary, run):
    arguments = ("generate", run, "--prompt", "é [[", "--length", 30, "--seed", 4)
    code, out, _ = call(capfdbinary, *arguments)
    assert code == 0
    assert out.startswith("é [[")
    assert out.endswith("\n")
    assert call(capfdbinary, *arguments)[1] == out
    main([str(argument) for argument in (*arguments, "--raw")])
    expected = generate(load(run), "é [[".encode(), 30, temperature=0.8, seed=4)
    assert capfdbinary.readouterr().out == expected


@pytest.mark.parametrize("prompt", ["-n", "-", "-1", "--no-such-option", "-n=3", "- a - b"])
def test_a_prompt_may_begin_with_a_dash(capfdbinary, run, prompt):
    code, out, _ = call(capfdbinary, "generate", run, "--prompt", prompt, "--length", 0)
    assert (code, out) == (0, f"{prompt}\n")


@pytest.mark.parametrize("words", ["--prompt --length 3", "--prompt -h", "--prompt"])
def test_an_option_is_not_taken_for_a_prompt(capfdbinary, run, words):
    code, _, err = call(capfdbinary, "generate", run, *words.split())
    assert (code, err.count("\n")) == (2, 1)
    assert "--prompt: expected one argument" in err
    option = words.split()[-1]
    code, out, _ = call(capfdbinary, "generate", run, f"--prompt={option}", "--length", 0)
    assert (code, out) == (0, f"{option}\n")


def test_a_prompt_from_a_file_or_standard_input(capfdbinary, run, tmp_path, monkeypatch):
    prompt = sample_bytes(100_000) + b"\xff\r\n\n"  # more than a command line can hold
    (tmp_path / "prompt").write_bytes(prompt)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompt)))
    expected = generate(load(run), prompt, 5, temperature=0.8, seed=1)
    for source in (tmp_path / "prompt", "-"):
        arguments = ("--prompt-file", source, "--length", 5, "--seed", 1, "--raw")
        capfdbinary.readouterr()
        assert main([str(word) for word in ("generate", run, *arguments)]) == 0
        assert capfdbinary.readouterr().out == expected


def test_generate_prints_several_samples(capfdbinary, run):
    arguments = ("generate", run, "--prompt", "A", "--length", 6, "--seed", 1, "--threads", 1)
    code, out, _ = call(capfdbinary, *arguments, "--samples", 2, "--weights", "int8")
    assert code == 0
    assert out.startswith("--- 1 of 2\nA")
    assert "\n--- 2 of 2\nA" in out
    main([str(word) for word in (*arguments, "--samples", 2, "--raw")])
    first, second = generate_batch(load(run), [b"A", b"A"], 6, temperature=0.8, seed=1)
    expected = b"--- 1 of 2\n%b\n--- 2 of 2\n%b\n" % (first, second)
    assert capfdbinary.readouterr().out == expected
    code, _, err = call(capfdbinary, *arguments, "--weights", "int4")
    assert code == 2
    assert "int4" in err


def test_data_describes_a_file(capfdbinary, text):
    code, out, _ = call(capfdbinary, "data", text)
    assert code == 0
    assert "train 18,000 bytes, valid 1,000, test 1,000" in out


def test_data_describes_the_sample(capfdbinary):
    code, out, _ = call(capfdbinary, "data", "sample")
    assert code == 0
    assert "not enwik8" in out


def test_version_and_help_exit_with_0(capsys):
    for flag in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            main([flag])
        assert caught.value.code == 0
    assert sharnn.__version__ in capsys.readouterr().out


COMMANDS = list(
    next(action for action in make_parser()._actions if action.metavar == "COMMAND").choices
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_defaults(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    if command == "train":
        assert "--attention-layers" in out
        assert "LAMB's minimum trust ratio; none for plain LAMB (0.25)" in " ".join(out.split())
    if command == "generate":
        assert "(default: 0.8)" in out


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command}" in out


def test_help_needs_no_docstrings_no_environment_and_no_input():
    script = (
        "from sharnn.cli import main\n"
        f"for command in {COMMANDS!r}:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
    )
    words = [sys.executable, "-I", "-OO", "-c", script]
    environment = {"LC_ALL": "C"}  # no HOME, and an encoding of ASCII
    command = ["/bin/sh", "-c", '"$@" <&-', "sh", *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("usage: sharnn ") == len(COMMANDS)
    assert "--attention-layers" in result.stdout


def test_other_runtime_errors_are_not_reported_as_a_lack_of_memory(monkeypatch, capsys, text):
    def fail(*arguments, **settings):
        raise RuntimeError(message)

    monkeypatch.setattr("sharnn.cli.data.load_corpus", fail)
    message = "the allocation of names failed"
    with pytest.raises(RuntimeError, match="allocation of names"):
        main(["data", str(text)])
    message = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert main(["data", str(text)]) == 1
    assert "out of memory" in capsys.readouterr().err


INVALID = """
no command:
unknown command: fly
data missing file: data {folder}/nowhere
data folder: data {folder}
data split: data {text} --split 1,2
train without data: train --out {folder}/x
train without out: train --data {text}
train unknown preset: train --data {text} --out {folder}/x --preset huge
train missing data: train --data {folder}/nowhere --out {folder}/x
train short data: train --data {short} --out {folder}/x
train batch too large: train --data {text} --out {folder}/x --batch-size 30000
train bad number: train --data {text} --out {folder}/x --lr fast
train negative: train --data {text} --out {folder}/x --lr -1
train zero steps: train --data {text} --out {folder}/x --steps 0
train bad head: train --data {text} --out {folder}/x --attention-layers 9
train head in words: train --data {text} --out {folder}/x --attention-layers second
train shifted keys as a number: train --data {text} --out {folder}/x --shifted-keys 1
train negative gain: train --data {text} --out {folder}/x --query-gain -4
train unreadable skip: train --data {text} --out {folder}/x --lstm-skip half
train narrow boom: train --data {text} --out {folder}/x --dim 64 --boom-dim 32
train bad optimiser: train --data {text} --out {folder}/x --optimizer nonesuch
train unknown device: train --data {text} --out {folder}/x --device mars
train from a missing model: train --data {text} --out {folder}/x --init {folder}/nowhere
train from another shape: train --data {text} --out {folder}/x --init {run} --dim 24
resume with initial weights: train --resume {run} --init {run}
train into an existing run: train --data {text} --out {run}
train out is a file: train --data {text} --out {text}
train out inside a file: train --data {text} --out {text}/x
train split too large: train --data {text} --out {folder}/x --split 30000,1,1
train without a limit: train --data {text} --out {folder}/x --epochs none
train unknown option: train --data {text} --out {folder}/x --colour red
train float16 on a cpu: train --data {text} --out {folder}/x --device cpu --precision float16
train too large: train --data {text} --out {folder}/x --dim 400000000000 --boom-dim 400000000000
resume a missing run: train --resume {folder}/nowhere
resume other data: train --resume {run} --data {short} --split 10,10,10
resume with a preset: train --resume {run} --preset tiny
resume into another folder: train --resume {run} --out {folder}/x
resume with another shape: train --resume {run} --dim 32
resume with other keys: train --resume {run} --shifted-keys true
eval a missing model: eval {folder}/nowhere --data {text}
eval no data: eval {run}
eval missing data: eval {run} --data {folder}/nowhere
eval empty data: eval {run} --data {empty}
eval one byte: eval {run} --data {one}
eval not a model: eval {text} --data {text}
eval truncated model: eval {truncated} --data {text}
eval folder without model: eval {folder} --data {text}
eval memory 0: eval {run} --data {text} --memory 0
eval bad part: eval {run} --data {text} --part most
eval all of a named corpus: eval {run} --data sample --part all
paper unknown preset: paper --out {folder}/x --preset tiny
paper missing data: paper --out {folder}/x --dry-run --data {folder}/nowhere
paper into another run: paper --out {run} --dry-run --data {text}
paper with minutes but no backup: paper --out {folder}/x --dry-run --data {text} --keep-minutes 5
paper with a file as backup: paper --out {folder}/x --dry-run --data {text} --keep {text}
generate from a missing model: generate {folder}/nowhere
generate bad length: generate {run} --length -1
generate bad temperature: generate {run} --temperature -2
generate bad top-k: generate {run} --top-k 0
generate bad top-p: generate {run} --top-p 2
generate bad seed: generate {run} --seed -1
generate two prompts: generate {run} --prompt a --prompt-file {text}
generate missing prompt: generate {run} --prompt-file {folder}/nowhere
generate endless prompt: generate {run} --prompt-file /dev/zero
generate too many samples: generate {run} --samples 9223372036854775808
generate huge seed: generate {run} --seed 99999999999999999999999
export a missing model: export {folder}/nowhere {folder}/x.onnx
export to another extension: export {run} {folder}/x.pt
export into a missing folder: export {run} {folder}/nowhere/x.onnx
export over a folder: export {run} {folder}
export unknown storage: export {run} {folder}/x.onnx --weights int4
export onnx in float16: export {run} {folder}/x.onnx --weights float16
convert a missing file: convert {folder}/nowhere {folder}/x.safetensors
convert a folder: convert {folder} {folder}/x.safetensors
convert a text: convert {text} {folder}/x.safetensors
convert a sharnn model: convert {run}/last.safetensors {folder}/x.safetensors
convert bad memory: convert {text} {folder}/x.safetensors --memory 0
convert bad dropout: convert {text} {folder}/x.safetensors --dropout much
""".strip().splitlines()


@pytest.mark.parametrize("line", INVALID, ids=lambda line: line.split(":")[0])
def test_invalid_input_prints_one_clear_line(capfdbinary, folder, text, run, line):
    files = {"empty": b"", "one": b"x", "short": sample_bytes(100)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    truncated = folder / "truncated.safetensors"
    truncated.write_bytes((run / "last.safetensors").read_bytes()[:-500])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    paths = {name: folder / name for name in files} | {"truncated": truncated}
    words = line.partition(":")[2].format(folder=folder, text=text, run=run, **paths)
    code, out, err = call(capfdbinary, *words.split())
    assert code != 0
    assert out == ""
    assert err.startswith("sharnn: ")
    assert err.count("\n") == 1
    assert len(err) < 500
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before, "no file may change, and no partial file may remain"


def test_the_module_prints_errors_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "sharnn", "eval", str(tmp_path), "--data", "x"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("sharnn: ")
    assert result.stderr.count("\n") == 1


def test_a_closed_pipe_is_not_an_error(run):
    command = f"{sys.executable} -m sharnn generate {run} --length 2000 --seed 1 | head -c 10"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert result.stderr == b""


def test_a_compressed_file_is_restored_exactly(capfdbinary, excerpt, run, tmp_path):
    packed, restored = tmp_path / "packed", tmp_path / "restored"
    code, out, err = call(capfdbinary, "compress", run, excerpt, packed)
    assert (code, out) == (0, "")
    assert "100%" in err
    assert err.endswith(f"{excerpt}: 2,000 -> {packed.stat().st_size:,} bytes\n")
    code, out, err = call(capfdbinary, "decompress", run, packed, restored, "--quiet")
    assert (code, out, err) == (0, "", "")
    assert restored.read_bytes() == excerpt.read_bytes()


def test_compression_uses_standard_input_and_output(text, run, tmp_path):
    content = text.read_bytes()[:300]
    words = [sys.executable, "-m", "sharnn"]
    packed = subprocess.run(
        [*words, "compress", run, "-", "-", "--learn"],
        input=content,
        capture_output=True,
        check=True,
    ).stdout
    restored = subprocess.run(
        [*words, "decompress", run, "-", "-"], input=packed, capture_output=True, check=True
    ).stdout
    assert restored == content


@pytest.mark.parametrize(
    ("files", "closed", "message"),
    [
        (["-", "out"], "<&-", "can't read standard input: it is closed"),
        (["in", "-"], ">&-", "can't write to standard output: it is closed"),
    ],
)
def test_closed_standard_streams_are_reported(run, tmp_path, files, closed, message):
    (tmp_path / "in").write_bytes(b"abc")
    words = [sys.executable, "-m", "sharnn", "compress", str(run.resolve()), *files]
    result = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (2, f"sharnn: {message}\n")


def test_a_damaged_archive_is_reported_and_nothing_is_written(capfdbinary, text, run, tmp_path):
    packed, restored = tmp_path / "packed", tmp_path / "restored"
    small = tmp_path / "small"
    small.write_bytes(text.read_bytes()[:200])
    assert call(capfdbinary, "compress", run, small, packed, "--quiet") == (0, "", "")
    packed.write_bytes(packed.read_bytes()[:-1])
    restored.write_bytes(b"old content")
    code, out, err = call(capfdbinary, "decompress", run, packed, restored, "--quiet")
    assert (code, out) == (2, "")
    message = "the archive is truncated or damaged at byte 32"
    assert err == f"sharnn: {packed}: {message}\n"
    assert restored.read_bytes() == b"old content"
    arguments = ["decompress", run, packed, restored, "--recover", "--quiet"]
    code, out, err = call(capfdbinary, *arguments)
    assert (code, out) == (2, "")
    assert err == f"sharnn: {packed}: {message}; nothing can be recovered\n"
    assert restored.read_bytes() == b"old content"
    assert {path.name for path in tmp_path.iterdir()} == {"packed", "restored", "small"}


@pytest.mark.parametrize("lanes", [1, 2])
def test_what_comes_before_the_damage_is_recovered(capfdbinary, tmp_path, monkeypatch, lanes):
    monkeypatch.setattr("sharnn.compression.container.FRAME_BYTES", 300)
    text = sample_bytes(1_000)
    content, packed, restored = (tmp_path / name for name in ("text", "packed", "restored"))
    content.write_bytes(text)
    arguments = ["compress", "wiki-small", content, packed, "--lanes", str(lanes), "--quiet"]
    assert call(capfdbinary, *arguments) == (0, "", "")
    packed.write_bytes(packed.read_bytes()[:-1])
    arguments = ["decompress", "wiki-small", packed, restored, "--recover", "--quiet"]
    code, out, err = call(capfdbinary, *arguments)
    assert (code, out) == (1, "")
    found = restored.read_bytes()
    assert err.startswith(f"sharnn: {packed}: the archive is truncated or damaged at byte ")
    if lanes == 1:
        assert err.endswith("; recovered 900 of 1,000 bytes\n")
        assert found == text[:900]
    else:
        assert "recovered 900 of 1,000 bytes, the start of each of 2 streams; those" in err
        assert found == text[:450] + bytes(50) + text[500:950]


@pytest.mark.parametrize(
    "words",
    [
        ["compress", "model.safetensors", "in", "model.safetensors"],
        ["decompress", "model.safetensors", "packed", "model.safetensors"],
        ["decompress", "model.safetensors", "packed", "./packed"],
        ["export", "model.safetensors", "model.safetensors", "--weights", "int8"],
        ["convert", "model.safetensors", "model.safetensors"],
    ],
    ids=" ".join,
)
def test_no_output_overwrites_its_input(capfdbinary, run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    model = (run / "best.safetensors").read_bytes()
    contents = {"model.safetensors": model, "in": b"abc"}
    contents["packed"] = sharnn.compress(load(run), b"abc")
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    code, out, err = call(capfdbinary, *words)
    assert (code, out) == (2, "")
    assert ": name another file\n" in err
    assert err.startswith("sharnn: the output would overwrite ")
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress", "nowhere", "in", "out"], "no model at nowhere"),
        (
            ["compress", "wiki-small", "in", "out", "--lanes", "2000"],
            "num_streams (--lanes) must be",
        ),
        (["decompress", "wiki-small", "in", "out"], "in: not a sharnn archive"),
        (
            ["decompress", "wiki-small", "packed", "out"],
            "packed: the archive was compressed with",
        ),
        (["decompress", "nowhere", "packed", "out"], "no model at nowhere"),
    ],
    ids=str,
)
def test_invalid_compression_prints_one_line(
    capfdbinary, run, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_bytes(b"abc")
    (tmp_path / "packed").write_bytes(sharnn.compress(load(run), b"abc"))
    code, out, err = call(capfdbinary, *words, "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith(f"sharnn: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nowhere", "out", "can't read {0}/nowhere: No such file or directory"),
        ("in", "no/out", "can't write {0}/no/out: its folder does not exist"),
        ("in", "folder", "can't write {0}/folder: it is not a regular file"),
        ("in", "in", "the output would overwrite {0}/in: name another file"),
    ],
)
def test_unreadable_and_unwritable_files_are_reported(
    capfdbinary, run, tmp_path, source, target, message
):
    (tmp_path / "in").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    code, _, err = call(capfdbinary, "compress", run, tmp_path / source, tmp_path / target)
    assert (code, err) == (2, f"sharnn: {message.format(tmp_path)}\n")
    assert (tmp_path / "in").read_bytes() == b"abc"
