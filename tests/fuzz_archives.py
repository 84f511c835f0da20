"""Looks for damaged or forged archives that are not noticed: python tests/fuzz_archives.py MINUTES.

Each round makes an archive of random data, changes it, and restores it. The result must be the
original or one `InputError`, and what `recover` calls intact must be that. Prints a line for each
minute, and stops at the first failure with what is needed to repeat it.
"""

import dataclasses
import random
import sys
import time

import numpy as np
import torch

from sharnn import InputError, compress, decompress
from sharnn.compression import container
from sharnn.compression.codec import recover
from sharnn.compression.container import METHODS, Frame, Header, checksum, read_frame
from sharnn.corpora.sample import sample_bytes
from small import coding_model

TEXT = sample_bytes(20_000)
MAX_SECONDS = 5.0  # of processor time


def random_data(rng):
    size = rng.choice([0, 1, 5, 60, 300, 700])
    start = rng.randrange(len(TEXT) - size)
    return rng.choice([TEXT[start : start + size], rng.randbytes(size), b"ab" * (size // 2)])


def damaged(rng, archive):
    """Returns the archive after some accident."""
    kind, content = rng.randrange(5), bytearray(archive)
    place = rng.randrange(len(archive))
    if kind == 0:
        for _ in range(rng.choice([1, 1, 2, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[place:]
    elif kind == 2:
        del content[place : place + rng.randrange(1, 40)]
    elif kind == 3:
        content[place:place] = rng.randbytes(rng.randrange(1, 40))
    else:
        end = place + rng.randrange(1, 40)
        content[place:end] = rng.randbytes(end - place)
    return bytes(content)


def forged(rng, archive):
    """Returns an archive whose header and frames are changed, with checksums that match."""
    header = Header.from_bytes(archive)
    changes = {
        "method": rng.choice([*METHODS, 2, 9, 255]),
        "num_streams": rng.choice([0, 1, 2, 7, 1024, 65535]),
        "length": rng.choice([0, 1, header.length + 1, 2 * header.length, 10**6, 2**63]),
    }
    chosen = rng.sample(list(changes), rng.randrange(1, 4))
    changed = dataclasses.replace(header, **{name: changes[name] for name in chosen})
    content, place, number = changed.to_bytes(), container.HEADER_BYTES, 0
    while place < len(archive):
        frame, place = read_frame(header, archive, place, number)
        if rng.random() < 0.5:
            frame = Frame(rng.randbytes(rng.randrange(80)), frame.checksum)
        if rng.random() < 0.1:
            frame = Frame(frame.code, checksum(rng.randbytes(3)))
        content += frame.to_bytes(changed, number)
        number += 1
    return content


def check(model, data, archive, changed, is_forged):
    try:
        restored = decompress(model, changed)
    except InputError:
        restored = None
    assert restored in (None, data), "wrong content"
    if changed != archive and not is_forged:
        assert restored is None, "a damage was not noticed"
    try:
        recovered = recover(model, changed)
    except InputError:
        return
    assert (recovered.problem is None) == (restored is not None)
    if not is_forged:
        for part in recovered.intact:
            whole, found = data[part.start : part.stop], recovered.content[part.start : part.stop]
            assert whole == found, "what is called intact is not"


def main(minutes):
    torch.set_num_threads(1)
    container.FRAME_BYTES = 200  # so that short data have several frames
    model, seed = coding_model(TEXT, layers=2), int(time.time())
    end, reported, rounds = time.monotonic() + 60 * minutes, time.monotonic(), 0
    while time.monotonic() < end:
        rng = random.Random(seed + rounds)
        data = random_data(rng)
        options = {"learn": rng.random() < 0.2, "mix": rng.random() < 0.1}
        archive = compress(model, data, num_streams=rng.choice([1, 1, 2, 5]), **options)
        is_forged = rng.random() < 0.4
        changed = forged(rng, archive) if is_forged else damaged(rng, archive)
        start = time.process_time()
        try:
            check(model, data, archive, changed, is_forged)
            assert time.process_time() - start < MAX_SECONDS, "too slow"
        except BaseException:
            print(f"round {rounds} of seed {seed}: {len(data)} bytes, {options}, {changed.hex()}")
            raise
        rounds += 1
        if time.monotonic() - reported > 60:
            reported = time.monotonic()
            print(f"{rounds:,} rounds of seed {seed}: nothing wrong", flush=True)
    print(f"{rounds:,} rounds of seed {seed}: nothing wrong")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main(float(sys.argv[1]))
