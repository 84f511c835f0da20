"""Archives that were made once open and are made again, byte for byte, on every machine.

`python -m tests.test_golden` writes them anew. That is only right together with a new version of
the format: archives in use could no longer be opened.
"""

import hashlib
from pathlib import Path

import pytest

from sharnn import compress, decompress, load
from sharnn.corpora.sample import sample_bytes
from small import OTHER_INSTRUCTIONS, run_with

FOLDER = Path(__file__).parent / "golden"
TEXT = sample_bytes(1200) + bytes(range(256))
OPTIONS = {
    "fixed": {},
    "learned": {"learn": True},
    "mixed": {"mix": True},
    "learned-mixed": {"learn": True, "mix": True},
}
SHA256 = {
    "fixed": "8052d603621ba15945feb20eaf072ae33a128960ac19572b9097096aef16e8c7",
    "learned": "8dd2fd2470b237a754dcc65217b5e6d458619a19d3b2d53b0927ec5d1342512c",
    "mixed": "8642a7af1ea6087d412e962caf671458b03dd8cffad2c4a840a0c82aa6de7446",
    "learned-mixed": "e634b3f207f27052b59a499e54f110e7c929431ee90a6f573ef7a30766ee5c73",
}


def archive_of(name):
    return compress(load("wiki-small"), TEXT, num_streams=3, **OPTIONS[name])


def digest(name):
    return hashlib.sha256(archive_of(name)).hexdigest()


def sums():
    return {name: digest(name) for name in OPTIONS}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_archives_are_those_that_were_committed(name):
    archive = (FOLDER / f"{name}.sha").read_bytes()
    assert hashlib.sha256(archive).hexdigest() == SHA256[name]
    assert decompress(load("wiki-small"), archive) == TEXT
    assert archive_of(name) == archive


@pytest.mark.parametrize("name", OPTIONS)
def test_products_in_float32_make_the_same_archives(float32_products, name):
    assert digest(name) == SHA256[name]


@pytest.mark.slow
@pytest.mark.parametrize("settings", OTHER_INSTRUCTIONS, ids=str)
def test_other_instructions_make_the_same_archives(settings):
    printed = run_with(settings, "from test_golden import *; print(sums())")
    assert printed == str(SHA256)


if __name__ == "__main__":
    for name in OPTIONS:
        (FOLDER / f"{name}.sha").write_bytes(archive_of(name))
    print(sums())
