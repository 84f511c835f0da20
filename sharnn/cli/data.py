"""The command ``sharnn data``, and functions that open corpora for other commands."""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

from sharnn.cli.output import require_output_stream
from sharnn.cli.parsers import SOURCES, Commands, split_option
from sharnn.corpora.corpus_files import data_folders
from sharnn.data import CORPORA, Corpus, Split, corpus_name, load_corpus
from sharnn.distributed import ProcessGroup
from sharnn.io.byte_sources import Bytes, open_files
from sharnn.io.text_format import describe_format


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn data``."""
    parser = commands.add("data", run_data, "Fetch, verify and describe a corpus.", split_option())
    parser.add_argument("source", nargs="+", metavar=SOURCES, help="the corpus")


def run_data(options: argparse.Namespace) -> int:
    """Executes ``sharnn data``."""
    require_output_stream()
    print(open_corpus(options.source, options.split).describe())
    if corpus_name(options.source) is None:
        for path in options.source:
            for remark in describe_format(path):
                print(f"  {path} {remark}")
    return 0


def data_files(source: list[str]) -> list[Path]:
    """Returns the files that words of the command line name; no output may overwrite them."""
    name = corpus_name(source)
    if name is not None:
        return [folder / file for folder in data_folders() for file in CORPORA[name].files]
    return [Path(path) for path in source]


def open_corpus(source: list[str], split: Split | None) -> Corpus:
    """Opens the corpus that words of the command line name; nothing replaces it."""
    return load_corpus(source, split, stand_in=False)


def open_data(source: list[str]) -> Bytes:
    """Opens data to read once: the test part of a named corpus, or whole files."""
    if corpus_name(source) is not None:
        return open_corpus(source, None).test
    return open_files(source)


def open_shared_corpus(group: ProcessGroup, source: list[str], split: Split | None) -> Corpus:
    """Opens a corpus in every process; a download happens once on each machine."""
    corpus = None
    for is_turn in (group.local_rank == 0, group.local_rank != 0):
        with group.shared_errors():
            # Notices are printed once.
            silent = contextlib.redirect_stderr(io.StringIO())
            if is_turn:
                with contextlib.nullcontext() if group.is_rank0 else silent:
                    corpus = open_corpus(source, split)
    assert corpus is not None
    return corpus
