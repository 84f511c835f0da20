"""Corpora: bytes on disk, split into a training, a validation and a test part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sharnn.corpora import enwik8, enwiki2016
from sharnn.corpora.corpus_files import DownloadError, data_folders
from sharnn.corpora.sample import sample_bytes
from sharnn.errors import InputError
from sharnn.io.byte_sources import Bytes, FileBytes, Window, open_files
from sharnn.io.console import notify

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Split = tuple[float, float, float]
SHARES: Split = (0.9, 0.05, 0.05)
ENWIK8_SPLIT: Split = (90_000_000, 5_000_000, 5_000_000)
SAMPLE, SAMPLE_SIZE = "sample", 4_000_000
BLOCK, HASHED_BLOCKS = 2**18, 2**10  # 256 MiB in all, which take less than a second


@dataclass(frozen=True)
class Corpus:
    """Bytes split into a training, a validation and a test part.

    Args:
        name: description for people.
        train, valid, test: the three parts.
        is_sample: the corpus is the built-in sample, not real text.
        notice: why it replaces the corpus that was requested; None if it doesn't.
        fingerprint: identifies the corpus: a hash of the sizes of its parts and of all their bytes,
            or of 256 MiB of them if there are more.
        origin: authors and licence of the text; None if they are unknown.
    """

    name: str
    train: Bytes
    valid: Bytes
    test: Bytes
    is_sample: bool
    notice: str | None
    fingerprint: str
    origin: str | None = None

    def describe(self) -> str:
        """Returns a line each for name, sizes of the parts, number of byte values, and origin.

        Example:
            >>> print(load_corpus("sample", sample_size=10_000).describe().splitlines()[1])
              train 9,000 bytes, valid 500, test 500
        """
        start = self.train[:1_000_000]
        sizes = (
            f"train {len(self.train):,} bytes, valid {len(self.valid):,}, test {len(self.test):,}"
        )
        values = f"{len(np.unique(start))} different byte values in the first {len(start):,}"
        return "\n  ".join([self.name, sizes, values, *([self.origin] if self.origin else [])])


@dataclass(frozen=True)
class NamedCorpus:
    """A corpus that is chosen by its name instead of by its files.

    Args:
        title: description for people.
        open: returns its bytes, given the arguments ``sample_size`` and ``download`` of
            `load_corpus`. Raises `DownloadError` if they are missing.
        split: the default split.
        stand_in: name of the corpus that can replace it if it is missing; None if none can.
        origin: authors and licence of the text; None if it is generated.
        files: names of its files in a data folder.
    """

    title: str
    open: Callable[[int, bool], Bytes]
    split: Split
    stand_in: str | None = None
    origin: str | None = None
    files: tuple[str, ...] = ()


def _open_enwik8(sample_size: int, download: bool) -> Bytes:
    return FileBytes(enwik8.enwik8_path(download))


def _open_enwiki2016(sample_size: int, download: bool) -> Bytes:
    return FileBytes(enwiki2016.enwiki2016_path(download))


def _open_sample(sample_size: int, download: bool) -> Bytes:
    return np.frombuffer(sample_bytes(sample_size), dtype=np.uint8)


CORPORA = {
    "enwik8": NamedCorpus(
        "enwik8",
        _open_enwik8,
        ENWIK8_SPLIT,
        stand_in="enwiki2016",
        origin=enwik8.ORIGIN,
        files=(enwik8.ENWIK8.name, enwik8.ENWIK8.archive),
    ),
    "enwiki2016": NamedCorpus(
        "English Wikipedia of 2016 (enwiki2016, 206 pages)",
        _open_enwiki2016,
        enwiki2016.ENWIKI2016.split,
        stand_in=SAMPLE,
        origin=enwiki2016.ORIGIN,
        files=(enwiki2016.ENWIKI2016.name, enwiki2016.ENWIKI2016.archive),
    ),
    SAMPLE: NamedCorpus("built-in sample (generated, not enwik8)", _open_sample, SHARES),
}


def load_corpus(
    source: Source,
    split: Split | None = None,
    *,
    stand_in: bool = True,
    sample_size: int = SAMPLE_SIZE,
    download: bool = True,
) -> Corpus:
    """Opens a corpus. Files are read slice by slice, so that a large one takes no memory.

    The names of corpora are ``"enwik8"``, ``"enwiki2016"`` and ``"sample"``. A file with such a
    name is given as ``"./enwik8"`` or as a `pathlib.Path`; one line on standard error points out a
    name that is both.

    If enwik8 is missing and can't be downloaded, enwiki2016 replaces it; if that can't be
    downloaded either, the built-in sample does. One line on standard error reports it and explains
    how to place the missing files by hand. The commands of ``sharnn`` never replace a corpus.

    Args:
        source: the name of a corpus, a file, or several files, which are concatenated.
        split: three fractions of the whole that sum to at most 1, or three numbers of bytes,
            counted from the start; None for 90, 5 and 5 % (enwik8: 90, 5 and 5 million bytes;
            enwiki2016: whole pages, 5,565,906, 250,018 and 273,822 bytes).
        stand_in: replace a corpus that is missing; False to raise an error.
        sample_size: number of bytes of the sample.
        download: download a corpus that is missing.

    Raises:
        InputError: a file is missing, unreadable, empty or damaged, or too short for the split;
            or a corpus is missing and not replaced.

    Example:
        >>> corpus = load_corpus("sample", sample_size=10_000)
        >>> len(corpus.train), corpus.is_sample
        (9000, True)
    """
    name = corpus_name(source)
    if name is None:
        paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        return _corpus(", ".join(str(path) for path in paths), open_files(paths), split or SHARES)
    _point_out_file(name)
    missing: list[str] = []
    while True:
        corpus = CORPORA[name]
        try:
            content = corpus.open(sample_size, download)
            break
        except DownloadError as error:
            if corpus.stand_in is None:
                raise
            name = corpus.stand_in
            if not stand_in:
                title = CORPORA[name].title
                raise DownloadError(f"{error}; to use the {title} instead, write {name}") from error
            missing.append(str(error))
            split = None  # it was meant for the corpus that is replaced
    notice = None
    if missing:
        notice = f"using the {corpus.title} instead: {'; '.join(missing)}"
        notify(notice)
    opened = _corpus(corpus.title, content, split or corpus.split)
    return replace(opened, is_sample=name == SAMPLE, notice=notice, origin=corpus.origin)


def corpus_name(source: Source) -> str | None:
    """Returns the name of a corpus, or None if ``source`` is a file or several files.

    Raises:
        InputError: ``source`` has the name of a corpus among several files.

    Example:
        >>> corpus_name("enwik8"), corpus_name(["sample"]), corpus_name("./sample")
        ('enwik8', 'sample', None)
    """
    words = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    names = [word for word in words if isinstance(word, str) and word in CORPORA]
    if names and len(words) > 1:
        raise InputError(
            f"{names[0]} is the name of a corpus, which can't be joined with other data: "
            f"write ./{names[0]} for a file"
        )
    return names[0] if names else None


def _point_out_file(name: str) -> None:
    """Prints a line if a name of a corpus is also a file in the current folder."""
    file = Path(name)
    if file.is_file() and file.resolve() not in [(f / name).resolve() for f in data_folders()]:
        notify(
            f"{name} is the named corpus, not the file in this folder: write ./{name} for the file"
        )


def _corpus(name: str, whole: Bytes, split: Split) -> Corpus:
    """Splits a sequence of bytes into the three parts."""
    total = len(whole)
    shares = sum(split) <= 1 + 1e-9
    sizes = [int(total * share) if shares else int(share) for share in split]
    if sum(sizes) > total:
        raise InputError(f"{name} has {total:,} bytes, but the split needs {sum(sizes):,}")
    parts, start = [], 0
    for part, size in zip(("train", "valid", "test"), sizes, strict=True):
        if size < 2:
            raise InputError(
                f"{name} is too short: its {total:,} bytes leave {size} for {part}, which needs 2"
            )
        parts.append(Window(whole, start, start + size))
        start += size
    fingerprint = _fingerprint(Window(whole, 0, start), sizes)
    return Corpus(name, parts[0], parts[1], parts[2], False, None, fingerprint)


def _fingerprint(content: Bytes, sizes: list[int]) -> str:
    """Returns a hash of the sizes of the parts and of their bytes.

    Of more than ``HASHED_BLOCKS`` blocks, only that number of them are read, evenly spaced.
    """
    digest = hashlib.sha256(repr(sizes).encode())
    last = max(0, len(content) - BLOCK)  # start of the last block
    count = min(HASHED_BLOCKS, -(-len(content) // BLOCK))
    for number in range(count):
        start = number * last // max(1, count - 1)
        digest.update(content[start : start + BLOCK].tobytes())
    return digest.hexdigest()


def parse_split(text: str) -> Split:
    """Parses a split as written on the command line: three fractions or three byte counts.

    Raises:
        InputError: ``text`` is neither.

    Example:
        >>> parse_split("0.8,0.1,0.1"), parse_split("300,20,20")
        ((0.8, 0.1, 0.1), (300.0, 20.0, 20.0))
    """
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"a split is three numbers like 0.9,0.05,0.05, got {text!r}") from None
    split = (train, valid, test)
    if not all(0 < part < 1e15 for part in split):
        raise InputError(f"the parts of a split must be more than 0, got {text!r}")
    if sum(split) > 1 + 1e-9 and not all(part == int(part) for part in split):
        raise InputError(f"the fractions of a split must sum to at most 1, got {text!r}")
    return split
