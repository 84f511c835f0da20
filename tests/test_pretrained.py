"""The models shipped with the package: small files that agree with their card and their figures."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

import sharnn
from sharnn.checkpoint import SHIPPED
from sharnn.corpora.sample import sample_bytes

ROOT = Path(__file__).parent.parent
FILES = sorted(SHIPPED.glob("*.safetensors"))
CARD = (SHIPPED / "README.md").read_text()
FIGURES = json.loads((SHIPPED / "wiki-small.json").read_text())
# Read before a fixture replaces the variable for each test.
ENWIK8 = Path(os.environ.get("SHARNN_DATA") or ROOT / "data") / "enwik8"


def card_of(name: str) -> str:
    """Returns the section of the card about one model."""
    return CARD.split(f"## `{name}`\n")[1].split("\n## ")[0]


def test_the_pair_is_shipped():
    assert [path.stem for path in FILES] == ["wiki-small-no-head", "wiki-small"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_card_describes_the_shipped_file(path):
    content, card = path.read_bytes(), card_of(path.stem)
    assert hashlib.sha256(content).hexdigest() in card
    assert f"{len(content) / 1e6:.1f} MB" in card
    model = sharnn.load(path.stem)
    assert f"{model.parameter_count():,}" in card
    shape = f"{model.config.layers} blocks of width {model.config.dim}"
    assert shape in card
    assert f"memory {model.config.memory}" in card


def test_the_card_has_the_commands_and_the_limits():
    for command in ("train --contender $c", "finish", "score", "ship"):
        assert f"python -m benchmarks.pair {command}" in CARD
    assert "can't do" in CARD


def test_the_pair_differs_only_in_the_head():
    head, other = (sharnn.load(name).config for name in ("wiki-small", "wiki-small-no-head"))
    assert dataclasses.replace(head, attention_layers=(), collapsed=False) == other


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_file_is_small_and_in_half_precision(path):
    assert path.stat().st_size < 16e6
    with safe_open(path, framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"F16"}


def test_wiki_small_has_between_3_and_13_million_parameters():
    model = sharnn.load("wiki-small")
    assert 3e6 < model.parameter_count() < 13e6
    assert not model.training


def test_it_predicts_english_with_markup_better_than_the_reverse():
    model = sharnn.load("wiki-small")
    text = b"The [[river]] flows through the city of [[London]] and into the [[North Sea]]. " * 4
    reversed_text = text[::-1]
    assert sharnn.bits_per_byte(model, text[:80]) < 3
    assert sharnn.bits_per_byte(model, reversed_text[:80]) > 4


def test_generated_text_has_common_english_words():
    model = sharnn.load("wiki-small")
    prompts = [b"'''Stonehaven''' is a town on the coast of [[Scotland]]. It is the "] * 4
    texts = sharnn.generate_batch(model, prompts, 300, temperature=0.9, seed=1)
    words = re.findall(rb"[a-z]+", b" ".join(texts))
    common = {b"the", b"of", b"and", b"in", b"to", b"a", b"is"}
    assert sum(word in common for word in words) > len(words) / 10


def assert_measured(text: bytes, figures: dict[str, str]):
    measured = sharnn.bits_per_byte(sharnn.load("wiki-small"), text, batch_size=1)
    assert measured == pytest.approx(float(figures["bits per byte"]), abs=6e-4)


def assert_measured_with_1_row(text: bytes, figures: dict[str, str]):
    model = sharnn.load("wiki-small")
    measured = sharnn.bits_per_byte(model, text, batch_size=1, memory_limit=1, segment_length=1024)
    # The state is far from any in training and enlarges rounding errors: instruction sets differ
    # by 0.002.
    assert measured == pytest.approx(float(figures["bits per byte with 1 row"]), abs=0.01)


def test_its_figure_on_generated_text_is_right():
    """A changed model, or changed code that it runs in, changes this figure on every machine."""
    assert_measured(sample_bytes(FIGURES["sample"]["size"]), FIGURES["sample"])


@pytest.mark.slow
def test_its_figure_without_a_memory_is_right():
    assert_measured_with_1_row(sample_bytes(FIGURES["sample"]["size"]), FIGURES["sample"])


def test_the_card_has_the_figure_on_unseen_text():
    assert f"**{FIGURES['findings']['bits per byte']}**" in card_of("wiki-small")
    assert f"{FIGURES['findings']['bits per byte with 1 row']} with 1 row" in card_of("wiki-small")


@pytest.mark.slow
@pytest.mark.skipif(not ENWIK8.exists(), reason="needs enwik8: run sharnn data enwik8")
def test_its_figure_on_unseen_text_is_right():
    start, stop = (
        int(number.replace(",", "")) for number in re.findall(r"[\d,]{4,}", FIGURES["text"])
    )
    with open(ENWIK8, "rb") as file:
        file.seek(start)
        text = file.read(stop - start)
    assert_measured(text, FIGURES["findings"])
    assert_measured_with_1_row(text, FIGURES["findings"])


@pytest.mark.slow
def test_it_generates_without_a_network(tmp_path):
    """The installed package has everything it needs: each connection is refused."""
    script = tmp_path / "offline.py"
    script.write_text(
        "import socket\n"
        "def refuse(*_, **__):\n"
        "    raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from sharnn.cli import main\n"
        "main(['generate', 'wiki-small', '--prompt', 'The ', '--length', '40', '--seed', '1'])\n"
    )
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The ")
    assert len(result.stdout.encode()) > 40
