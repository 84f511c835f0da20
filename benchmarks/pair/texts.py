"""The texts of the matched pair: those it is trained on, validated on and tested on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import sharnn
from sharnn import Corpus
from sharnn.corpora.wiki_pages import training_text
from sharnn.data import Split
from sharnn.io.byte_sources import open_files

# Bytes of the start of enwik8: training, validation and test.
SPLIT: Split = (3_350_000, 50_000, 200_000)
TRAINING_BYTES = 8_746_360
TRAINING_SHA256 = "19ec8fa6f0b8eded5e21a17ed7cae2c907c8f73ccffb84f4c275a72f3a4bdccf"


@dataclass(frozen=True)
class PairTexts:
    """Training text from two corpora, and the held-out texts of each.

    Args:
        corpus: the training text, with the held-out parts of enwik8.
        wiki: enwiki2016, of which the validation and the test part are used.
    """

    corpus: Corpus
    wiki: Corpus

    def tests(self, size: int | None = None) -> dict[str, bytes]:
        """Returns the test texts by name.

        Args:
            size: number of bytes of each, from its start; None for all.
        """
        parts = {"enwik8": self.corpus.test, "enwiki2016": self.wiki.test}
        return {name: part[:size].tobytes() for name, part in parts.items()}

    def facts(self) -> dict[str, Any]:
        """Returns the sizes and hashes of all texts, as values that JSON can represent."""
        parts = {
            "training": self.corpus.train,
            "enwik8, validation": self.corpus.valid,
            "enwik8, test": self.corpus.test,
            "enwiki2016, validation": self.wiki.valid,
            "enwiki2016, test": self.wiki.test,
        }
        return {
            name: {"bytes": len(part), "sha256": hashlib.sha256(part[:].tobytes()).hexdigest()}
            for name, part in parts.items()
        }


def pair_texts(head: Path, split: Split = SPLIT) -> PairTexts:
    """Reads the texts.

    The training text is the first part of enwik8 and the training part of enwiki2016, both without
    pages whose titles also occur in a held-out text: the two corpora have versions of many pages.

    Args:
        head: a file with the start of enwik8.
        split: sizes of its training, validation and test part; anything after them is not used.

    Raises:
        sharnn.InputError: the file is missing or too short, with the default split it is not
            the start of enwik8; or enwiki2016 is missing.
    """
    content = open_files([head])
    sizes = [int(size) for size in split]
    if len(content) < sum(sizes):
        raise sharnn.InputError(
            f"{head} has {len(content):,} bytes; the split needs the first {sum(sizes):,} of enwik8"
        )
    starts = np.cumsum([0, *sizes])
    own, valid, test = (content[a:b] for a, b in pairwise(starts))
    wiki = sharnn.load_corpus("enwiki2016", stand_in=False)
    text = training_text([own, wiki.train], held_out=[valid, test, wiki.valid, wiki.test])
    found = hashlib.sha256(text).hexdigest()
    if split == SPLIT and (len(text), found) != (TRAINING_BYTES, TRAINING_SHA256):
        raise sharnn.InputError(
            f"{head} is not the start of enwik8: the training text should have "
            f"{TRAINING_BYTES:,} bytes and the sha256 {TRAINING_SHA256[:8]}..., "
            f"it has {len(text):,} and {found[:8]}..."
        )
    held_out = b"".join(part[:].tobytes() for part in (valid, test, wiki.valid, wiki.test))
    fingerprint = hashlib.sha256(text + held_out).hexdigest()
    train = np.frombuffer(text, dtype=np.uint8)
    name = f"the first {sizes[0]:,} bytes of enwik8, and enwiki2016"
    corpus = Corpus(name, train, valid, test, False, None, fingerprint, wiki.origin)
    return PairTexts(corpus, wiki)
