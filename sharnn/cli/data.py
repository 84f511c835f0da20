"""The command ``sharnn data``, and functions that open corpora for other commands."""

from __future__ import annotations

import argparse
import contextlib
import io

from sharnn.cli.exit import FAILED
from sharnn.cli.parsers import SOURCES, Commands, split_option
from sharnn.data import Bytes, Corpus, Split, load_corpus, open_files
from sharnn.distributed import ProcessGroup
from sharnn.enwik8 import enwik8_path


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn data``."""
    parser = commands.add("data", run_data, "Fetch, verify and describe a corpus.", split_option())
    parser.add_argument("source", nargs="+", metavar=SOURCES, help="the corpus")


def run_data(options: argparse.Namespace) -> int:
    """Executes ``sharnn data``."""
    corpus = open_corpus(options.source, options.split)
    print(corpus.describe())
    return 0 if corpus.notice is None else FAILED


def is_named(source: list[str]) -> bool:
    """Returns True if words of the command line name a corpus, and False if they are files."""
    return source in (["enwik8"], ["sample"])


def open_corpus(source: list[str], split: Split | None) -> Corpus:
    """Opens the corpus that words of the command line name."""
    return load_corpus(source[0] if is_named(source) else source, split)


def open_data(source: list[str]) -> Bytes:
    """Opens data to read once: the test part of a named corpus, or whole files."""
    return open_corpus(source, None).test if is_named(source) else open_files(source)


def open_shared_corpus(
    group: ProcessGroup, source: list[str], split: Split | None, *, only_enwik8: bool = False
) -> Corpus:
    """Opens a corpus in every process; a download happens once on each machine.

    Args:
        group: the processes.
        source, split: see `open_corpus`.
        only_enwik8: raise an error, instead of using the sample, if enwik8 is missing.
    """
    corpus = None
    for is_turn in (group.local_rank == 0, group.local_rank != 0):
        with group.shared_errors():
            # Notices are printed once.
            silent = contextlib.redirect_stderr(io.StringIO())
            if is_turn:
                with contextlib.nullcontext() if group.is_rank0 else silent:
                    if only_enwik8 and source == ["enwik8"]:
                        enwik8_path()
                    corpus = open_corpus(source, split)
    assert corpus is not None
    return corpus
