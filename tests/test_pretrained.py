"""The models that ship: whole, small, described by their card, and fit for what the book does."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

import sharnn
from sharnn.checkpoint import SHIPPED

ROOT = Path(__file__).parent.parent
FILES = sorted(SHIPPED.glob("*.safetensors"))
CARD = (SHIPPED / "README.md").read_text()


def card_of(name: str) -> str:
    """The part of the card that is about one model."""
    return CARD.split(f"## `{name}`\n")[1].split("\n## ")[0]


def test_the_promised_model_is_there():
    assert "wiki-small" in [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_card_tells_of_the_file_that_ships(path):
    content, card = path.read_bytes(), card_of(path.stem)
    assert hashlib.sha256(content).hexdigest() in card
    assert f"{len(content) / 1e6:.1f} MB" in card
    model = sharnn.load(path.stem)
    assert f"{model.parameter_count():,}" in card
    shape = f"{model.config.layers} blocks of width {model.config.dim}"
    assert shape in card
    assert f"memory {model.config.memory}" in card
    assert "sharnn train --data head" in card, "the command that made it"
    assert "can't do" in card


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_stored_in_half_precision_and_small(path):
    assert path.stat().st_size < 16e6
    with safe_open(path, framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"F16"}


def test_it_has_the_size_that_was_promised():
    model = sharnn.load("wiki-small")
    assert 3e6 < model.parameter_count() < 13e6
    assert not model.training


def test_it_knows_english_and_the_markup():
    model = sharnn.load("wiki-small")
    text = b"The [[river]] flows through the city of [[London]] and into the [[North Sea]]. " * 4
    reversed_text = text[::-1]
    assert sharnn.bits_per_byte(model, text[:80]) < 3
    assert sharnn.bits_per_byte(model, reversed_text[:80]) > 4


def test_what_it_writes_looks_like_what_it_learned_from():
    model = sharnn.load("wiki-small")
    written = sharnn.generate(model, b"[[Albert Einstein]] was ", 400, temperature=0.7, seed=1)
    words = re.findall(rb"[a-z]+", written)
    common = {b"the", b"of", b"and", b"in", b"to", b"a", b"is"}
    assert sum(word in common for word in words) > len(words) / 10


@pytest.mark.slow
def test_the_card_states_what_the_command_line_measures():
    """On the slice of enwik8 that it has not seen, where enwik8 is in the data folder."""
    enwik8 = ROOT / "data" / "enwik8"
    if not enwik8.exists():
        pytest.skip("needs data/enwik8")
    with open(enwik8, "rb") as file:
        file.seek(3_400_000)
        unseen = file.read(200_000)
    for path in FILES:
        stated = re.search(r"\*\*(\d\.\d+)\*\*", card_of(path.stem))[1]
        measured = sharnn.bits_per_byte(sharnn.load(path.stem), unseen, batch_size=1)
        assert measured == pytest.approx(float(stated), abs=6e-4)


@pytest.mark.slow
def test_it_loads_and_writes_in_a_process_without_a_network(tmp_path):
    """A network that is asked for fails; the installed package has all that it needs."""
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
