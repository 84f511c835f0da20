"""The matched pair: texts, trunks that are killed and continued, branches, scores and sentences."""

import dataclasses
import json
import shutil
import signal

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import sharnn
from benchmarks.page_blocks import with_block
from benchmarks.pair import page, records, report, runs, shipping
from benchmarks.pair.__main__ import main
from benchmarks.pair.shipping import load_final
from benchmarks.pair.texts import SPLIT, pair_texts
from sharnn import InputError
from sharnn.checkpoint import LAST, read
from sharnn.corpora.sample import sample_bytes
from sharnn.data import CORPORA
from sharnn.run import METRICS

SAMPLE = sample_bytes(40_000)
SIZES = (12_000, 800, 1500)  # of the fake start of enwik8
SMALL = """--dim 16 --boom-dim 32 --layers 2 --attention-layers 0 --memory 64 --batch-size 2
--segment-length 16 --eval-every 3 --checkpoint-every 4 --log-every 2 --precision float32
--quiet""".split()


def write_page(title, text):
    return b"  <page>\n    <title>%s</title>\n%s\n  </page>\n" % (title, text)


OLD = [write_page(b"Old %d" % i, SAMPLE[i * 900 : i * 900 + 850]) for i in range(17)]
NEW = [write_page(b"New %d" % i, SAMPLE[i * 900 + 20_000 :][:850]) for i in range(6)]
WIKI_TEST = write_page(b"Old 3", b"the newer version" * 20)
WIKI_SPLIT = (sum(map(len, NEW[:5])), len(NEW[5]), len(WIKI_TEST))


@pytest.fixture(autouse=True)
def wiki(monkeypatch):
    """Replaces enwiki2016 by a few pages; the test part has one that is also in the old dump."""
    content = np.frombuffer(b"".join([*NEW, WIKI_TEST]), dtype=np.uint8)
    fake = dataclasses.replace(
        CORPORA["enwiki2016"], open=lambda size, download: content, split=WIKI_SPLIT
    )
    monkeypatch.setitem(CORPORA, "enwiki2016", fake)


@pytest.fixture(scope="module")
def head_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("enwik8") / "head"
    path.write_bytes(b"".join(OLD))
    return path


@pytest.fixture
def pair(head_file):
    """Returns a function that runs a command with the options of the texts, and small models."""
    texts = ["--data", head_file, "--split", ",".join(map(str, SIZES))]

    def run(command, *options):
        extra = {"train": [*texts, *SMALL], "finish": [*texts, "--quiet"], "score": texts}
        return main([command, *map(str, [*extra.get(command, []), *options])])

    return run


def train(pair, folder, steps, contender="head", *options):
    return pair("train", "--contender", contender, "--out", folder, "--steps", steps, *options)


def without_times(curve):
    return {name: values for name, values in curve.items() if "seconds" not in name}


def assert_same_weights(first, second):
    tensors, _ = read(first / LAST, training=True)
    others, _ = read(second / LAST, training=True)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def test_no_page_of_a_held_out_text_is_trained_on(head_file):
    texts = pair_texts(head_file, SIZES)
    content = b"".join(OLD)
    train_text = texts.corpus.train[:].tobytes()
    assert train_text == content[: SIZES[0]].replace(OLD[3], b"") + b"".join(NEW[:5])
    assert texts.corpus.valid[:].tobytes() == content[SIZES[0] :][: SIZES[1]]
    assert texts.tests() == {
        "enwik8": content[sum(SIZES[:2]) :][: SIZES[2]],
        "enwiki2016": WIKI_TEST,
    }
    assert texts.tests(50)["enwiki2016"] == WIKI_TEST[:50]
    facts = texts.facts()
    assert facts["training"]["bytes"] == len(train_text)
    assert len({part["sha256"] for part in facts.values()}) == 5


def test_another_text_or_a_shorter_one_is_an_error(tmp_path, head_file):
    with pytest.raises(InputError, match="the split needs the first 3,600,000 of enwik8"):
        pair_texts(head_file)
    long = tmp_path / "long"
    long.write_bytes(bytes(int(sum(SPLIT))))
    with pytest.raises(InputError, match="is not the start of enwik8"):
        pair_texts(long)
    with pytest.raises(InputError, match="missing"):
        pair_texts(tmp_path / "missing", SIZES)


def test_the_contenders_differ_only_in_the_head():
    config, recipe = runs.base_settings()
    head, other = (runs.config_of(name, config) for name in ("head", "no-head"))
    assert head.attention_layers == (2,)
    assert dataclasses.replace(other, attention_layers=(2,)) == head
    assert recipe.schedule == "constant"
    assert recipe.halve_at is None
    assert recipe.eval_every % recipe.log_every == 0


def test_a_killed_trunk_ends_like_an_uninterrupted_one_without_duplicate_points(tmp_path, pair):
    whole, killed, kept = tmp_path / "whole", tmp_path / "killed", tmp_path / "kept"
    assert train(pair, whole, 13) == 0
    assert train(pair, killed, 8) == 0
    shutil.copy(killed / LAST, kept)
    assert train(pair, killed, 11) == 0
    assert 11 in records.read_curve(killed)["step"]
    # As after a kill: the metrics of later steps are written, and their checkpoint is not.
    shutil.copy(kept, killed / LAST)
    with open(killed / METRICS, "a") as file:
        file.write('{"step": 12, "valid_bits_per')
    assert train(pair, killed, 13) == 0
    assert_same_weights(whole, killed)
    curve, expected = (records.read_curve(folder) for folder in (killed, whole))
    assert expected["step"] == [3, 6, 9, 12, 13]
    extra = curve["step"].index(8)  # the validation at its first end
    for values in curve.values():
        del values[extra]
    assert without_times(curve) == without_times(expected)
    for name in ("seconds", "cpu_seconds", "bytes_read"):
        assert curve[name] == sorted(curve[name])
        assert curve[name][0] > 0
    sessions = [json.loads(line) for line in (killed / runs.SESSIONS).read_text().splitlines()]
    assert len(sessions) == 3
    assert sessions[0]["command"][:4] == ["python", "-m", "benchmarks.pair", "train"]
    assert {"commit", "processor", "threads"} <= sessions[0].keys()
    assert str(tmp_path) not in json.dumps(sessions)


def test_a_signal_saves_the_trunk_and_the_same_command_continues_it(
    tmp_path, pair, monkeypatch, capsys
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(pair, whole, 9) == 0
    score = sharnn.bits_per_byte

    def interrupt(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return score(*arguments, **options)

    monkeypatch.setattr("sharnn.bits_per_byte", interrupt)
    assert train(pair, stopped, 9) == 130
    assert "interrupted at step 3" in capsys.readouterr().err
    monkeypatch.setattr("sharnn.bits_per_byte", score)
    assert train(pair, stopped, 9) == 0
    assert_same_weights(whole, stopped)


def test_only_the_limits_of_a_trunk_can_change(tmp_path, pair, capsys):
    trunk = tmp_path / "trunk"
    assert train(pair, trunk, 4) == 0
    for contender, options, message in (
        ("head", ["--lr", "1"], "was trained with lr 0.008, not 1.0"),
        ("head", ["--dim", "24"], "was trained with dim 16, not 24"),
        ("no-head", [], "was trained with contender head, not no-head"),
    ):
        assert train(pair, trunk, 6, contender, *options) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert pair("train", "--contender", "head", "--out", trunk, "--minutes", "1e-6") == 0


def test_a_branch_ends_at_rate_0_and_leaves_the_trunk_as_it_was(tmp_path, pair, capsys):
    trunk, branch, whole = tmp_path / "trunk", tmp_path / "branch", tmp_path / "whole"
    assert train(pair, trunk, 8) == 0
    before = {file.name: file.read_bytes() for file in trunk.iterdir()}
    assert pair("finish", trunk, "--out", branch) == 0
    assert before == {file.name: file.read_bytes() for file in trunk.iterdir()}
    lines = [json.loads(line) for line in (branch / METRICS).read_text().splitlines()]
    rates = {line["step"]: line["lr"] for line in lines if "lr" in line}
    # The warm-up of 50 steps is not over in step 10: the rate is 10 / 50 of 0.008, halved.
    assert rates == {step: pytest.approx(0.008 * step / 50) for step in (2, 4, 6, 8)} | {
        10: pytest.approx(0.0016 / 2)
    }
    facts = records.describe_run(branch)
    assert [session["from_step"] for session in facts["sessions"]] == [0, 8]
    assert (facts["steps"], facts["decay_start"], facts["finished"]) == (10, 8, True)
    assert not records.describe_run(trunk)["finished"]
    decay = records.cut_curve(records.read_curve(branch), 8, 10)
    assert decay["step"] == [8, 9, 10]

    assert pair("finish", trunk, "--out", branch) == 0, "a complete branch stays as it is"
    assert records.describe_run(branch)["steps"] == 10
    assert train(pair, branch, 12) == 2
    assert "was trained with schedule linear, not constant" in capsys.readouterr().err
    assert pair("finish", branch, "--out", tmp_path / "new") == 2
    assert "is not a trunk" in capsys.readouterr().err
    assert pair("finish", trunk, "--out", tmp_path / "new", "--share", "1") == 2
    assert "between 0 and 1" in capsys.readouterr().err

    assert train(pair, trunk, 12) == 0
    assert train(pair, whole, 12) == 0
    assert_same_weights(trunk, whole)


def test_a_branch_that_was_killed_at_its_start_continues(tmp_path, pair):
    trunk, branch, killed = tmp_path / "trunk", tmp_path / "branch", tmp_path / "killed"
    assert train(pair, trunk, 8) == 0
    assert pair("finish", trunk, "--out", branch) == 0
    # As after a kill before the first checkpoint of the branch.
    shutil.copytree(trunk, killed)
    assert pair("finish", trunk, "--out", killed) == 0
    assert_same_weights(branch, killed)


@pytest.fixture
def ends(tmp_path, pair):
    """Trunks of 8 steps of both contenders, and their branches."""
    for contender in runs.CONTENDERS:
        assert train(pair, tmp_path / contender, 8, contender) == 0
        assert pair("finish", tmp_path / contender, "--out", tmp_path / f"{contender}-end") == 0
    return [tmp_path / f"{contender}-end" for contender in runs.CONTENDERS]


def test_the_scores_are_paired_and_agree_with_bits_per_byte(tmp_path, pair, ends, capsys):
    out = tmp_path / "pair.json"
    assert pair("score", "--runs", *reversed(ends), "--out", out, "--learn") == 0
    printed = capsys.readouterr().out
    results = records.read_results(out)
    (score,) = results["scores"]
    texts = score["texts"]
    assert texts.keys() == {"enwik8", "enwiki2016"}
    assert str(tmp_path) not in out.read_text()
    test = b"".join(OLD)[sum(SIZES[:2]) :][: SIZES[2]]
    models = [load_final(end) for end in ends]
    assert [bool(model.config.attention_layers) for model in models] == [True, False]
    head, other = (sharnn.bits_per_byte(model, test, batch_size=1) for model in models)
    cut = sharnn.bits_per_byte(models[0], test, batch_size=1, memory_limit=50)
    bits = texts["enwik8"]["bits_per_byte"]
    assert bits["head"] == pytest.approx(head, abs=1e-5)
    assert bits["no-head"] == pytest.approx(other, abs=1e-5)
    assert bits["head, memory 50"] == pytest.approx(cut, abs=1e-5)
    differences = texts["enwik8"]["differences"]
    assert differences["no-head"]["all"][0]["difference"] == pytest.approx(other - head, abs=1e-5)
    assert differences.keys() == {"no-head"} | {
        f"head, memory {limit}" for limit in (1024, 256, 50, 1)
    }
    for by in ("kind", "distance"):
        parts = differences["no-head"][by]
        assert sum(part["count"] for part in parts) == len(test) - 1
    learned = texts["enwik8"]["learn"]["bits_per_byte"]
    size = len(sharnn.compress(models[0], test, learn=True))
    assert learned["head"] * len(test) / 8 == pytest.approx(size, abs=70)  # header and words
    assert score["runs"]["head"]["decay"]["step"] == [8, 9, 10]
    assert results["runs"]["no-head"]["curve"]["step"] == [3, 6, 8]
    assert printed.count("bits per byte") >= 12 + 11

    compressors = {"xz -9e": {name: {"alone": 2.5, "after training text": 2.1} for name in texts}}
    records.add_baselines(out, compressors)
    block = report.block(records.read_results(out))
    assert "| `xz -9e`, alone |  | 2.500 |" in block
    assert "| `xz -9e`, after the training text |  | 2.100 |" in block
    for name in ("head", "no-head"):
        assert f"**{bits[name]:.3f}**" in block
    assert f"saved by the head |  | **{other - head:+.3f}" in block
    assert f"its memory cut to 50 rows |  | {cut:.3f} |" in block
    assert f"which learns while it is tested |  | {learned['head']:.3f} |  |" in block

    assert pair("score", "--runs", *ends, "--out", out, "--bytes", 400) == 0
    assert len(records.read_results(out)["scores"]) == 1, "a score of the same steps is replaced"


def test_the_models_ship_as_they_are_scored(tmp_path, ends, capsys):
    assert main(["ship", "--runs", *map(str, ends), "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("wiki-small-no-head.safetensors: ")
    text = torch.arange(40)[None]
    for end, name in zip(ends, shipping.NAMES.values(), strict=True):
        shipped, scored = sharnn.load(tmp_path / f"{name}.safetensors"), load_final(end)
        assert shipped.config == scored.config
        assert shipped.config.collapsed == (name == "wiki-small")
        with torch.no_grad():
            assert torch.equal(shipped(text)[0], scored(text)[0])


@pytest.mark.skipif(not records.DEFAULT.exists(), reason="no pair has been scored yet")
def test_the_pages_have_the_results_of_the_pair():
    new = report.block(records.read_results(records.DEFAULT))
    for path in report.PAGES:
        text = path.read_text()
        assert with_block(text, report.BLOCK, new) == text, "run python -m benchmarks.pair report"


def test_the_curves_of_trunks_and_branches_are_added_to_the_results(tmp_path, pair, ends, capsys):
    out, picture = tmp_path / "pair.json", tmp_path / "pair.png"
    trunks = [tmp_path / contender for contender in runs.CONTENDERS]
    assert train(pair, trunks[0], 12) == 0
    assert train(pair, trunks[1], 12, "no-head") == 0
    assert pair("curves", "--runs", *trunks, "--out", out, "--figure", picture) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6].startswith("head: step 12,")
    assert sum("the one without" in line for line in lines) == 4
    assert records.read_results(out)["runs"]["head"]["curve"]["step"] == [3, 6, 8, 9, 12]
    assert pair("score", "--runs", *ends, "--out", out, "--bytes", 400) == 0
    results = records.read_results(out)
    assert results["runs"]["head"]["curve"]["step"] == [3, 6, 8, 9, 12], "the longer trunk stays"
    assert len(page.pair_figure(results)) == 4
    plt.close("all")


def test_runs_that_are_no_pair_are_errors(tmp_path, pair, ends, capsys):
    trunk = tmp_path / "head"
    other = tmp_path / "seed1"
    assert train(pair, other, 4, "no-head", "--seed", "1") == 0
    plain = tmp_path / "plain"
    plain.mkdir()
    for folders, message in (
        ([trunk, trunk], "one run of each contender"),
        ([trunk, ends[1]], "differ in schedule"),
        ([trunk, other], "differ in seed: 0 and 1"),
        ([trunk, plain], "is not a run of the pair"),
    ):
        assert pair("curves", "--runs", *folders) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    broken = tmp_path / "broken.json"
    broken.write_text("[]")
    assert pair("curves", "--runs", *ends, "--out", broken) == 2
    assert "can't be read as results" in capsys.readouterr().err
