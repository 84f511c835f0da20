"""Remarks on files that are not plain text."""

import bz2
import gzip
import lzma

import numpy as np
import pytest

from sharnn.corpora.sample import sample_bytes
from sharnn.io.text_format import describe_format

TEXT = sample_bytes(20_000).decode(errors="ignore")
NOISE = np.random.default_rng(0).bytes(20_000)


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (gzip.compress(b"a", mtime=0), "looks compressed with gzip"),
        (bz2.compress(TEXT.encode()), "looks compressed with bzip2"),
        (lzma.compress(TEXT.encode()), "looks compressed with xz"),
        (NOISE, "looks compressed or encrypted"),
        (TEXT.encode("utf-16"), "looks like UTF-16,"),
        (TEXT.encode("utf-16-le"), "looks like UTF-16,"),
        (TEXT.encode("utf-16-be"), "looks like UTF-16,"),
        (TEXT.encode("utf-32"), "looks like UTF-32,"),
        (TEXT.replace("\n", "\r\n").encode(), "has Windows line endings (CRLF)"),
        (b"one line\r\n", "has Windows line endings (CRLF)"),
    ],
)
def test_a_file_that_is_not_plain_text_gets_one_remark(tmp_path, content, remark):
    (tmp_path / "f").write_bytes(content)
    (found,) = describe_format(tmp_path / "f")
    assert found.startswith(remark)
    assert "\n" not in found


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        "Шла Саша по шоссе.\n".encode() * 500,
        "春眠不觉晓处处闻啼鸟。\n".encode() * 500,
        TEXT.encode("latin-1", errors="ignore"),
        b"one\ntwo\nthree\r\n",
        b"BZh is not enough: this is text, and not an archive",
        NOISE[:100],
        bytes(5000),
        b"a",
    ],
)
def test_plain_text_and_small_files_get_no_remark(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    assert describe_format(tmp_path / "f") == []
