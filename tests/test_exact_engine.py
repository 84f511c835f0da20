"""The exact engine in a browser has the bits of `sharnn.exact`, and archives that both open."""

import base64
import hashlib
import json

import numpy as np
import pytest

import archives
from browser import needs_browser, open_browser
from sharnn import load
from sharnn.checkpoint import to_bytes
from sharnn.corpora.sample import sample_bytes
from sharnn.exact.stepper import ExactStepper
from sharnn.web.page import asset
from sharnn.web.scripts import EXACT, WORKER, kernels, web_file
from sharnn.weights import fingerprint
from small import small_model
from test_exact import GOLDEN, SHAPES
from test_exact import digest as digest_of

pytestmark = [pytest.mark.slow, *needs_browser]

HARNESS = """
const toBase64 = (array) => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) {
    text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  }
  return btoa(text);
};
function readLanes({ content, kernels, limit, columns }) {
  const file = new ModelFile(fromBase64(content));
  const memory = limit ?? file.config.memory;
  const capacity = memory + 7; // rows are dropped often
  const lanes = columns[0].length;
  const size = ExactModel.size(file) + lanes * ExactStream.size(file.config, capacity);
  const workspace = new Workspace(size, kernels && fromBase64(kernels));
  const model = new ExactModel(file, workspace);
  const streams = columns[0].map(() => new ExactStream(model, memory, capacity));
  const symbols = file.config.vocab_size;
  const all = new Float64Array(columns.length * lanes * symbols);
  columns.forEach((column, t) => column.forEach((symbol, lane) =>
    all.set(streams[lane].step(symbol), (t * lanes + lane) * symbols)));
  return toBase64(all);
}
async function run(type, request) {
  for (const name of ["file", "content", "archive", "fingerprint", "kernels"]) {
    if (request[name]) request[name] = fromBase64(request[name]);
  }
  const steps = new Archiver()[type](request);
  let step = await steps.next();
  while (!step.done) step = await steps.next();
  for (const [name, value] of Object.entries(step.value)) {
    if (ArrayBuffer.isView(value)) step.value[name] = toBase64(value);
  }
  return step.value;
}
"""


@pytest.fixture(scope="module")
def page():
    script = "\n".join([*(asset(f"{name}.js") for name in (*WORKER, *EXACT)), HARNESS])
    with open_browser() as browser:
        page = browser.new_page()
        page.set_content(f"<script>{script}</script>")
        yield page


@pytest.fixture(scope="module")
def model():
    return small_model(shifted_keys=True, lstm_skip=0.5)


def encode(data):
    return base64.b64encode(data).decode()


def engine(page, content, columns, binary=True, limit=None):
    """Returns the logits of the engine, (time, lanes, vocab_size)."""
    request = {"content": content, "columns": columns.tolist(), "limit": limit}
    request["kernels"] = kernels() if binary else None
    found = base64.b64decode(page.evaluate(f"readLanes({json.dumps(request)})"))
    return np.frombuffer(found, "<f8").reshape(*columns.shape, -1)


def run(page, kind, model, **request):
    """Runs a request of the compressor's worker."""
    data = {name: encode(value) for name, value in request.items()}
    data |= {"file": web_file(model), "kernels": kernels()}
    data["fingerprint"] = encode(fingerprint(model))
    return page.evaluate(f"run({json.dumps(kind)}, {json.dumps(data)})")


def pack(page, model, content):
    return base64.b64decode(run(page, "pack", model, content=content)["archive"])


def unpack(page, model, archive):
    """Returns the content, and what the page says about the archive."""
    found = run(page, "unpack", model, archive=archive)
    return base64.b64decode(found.get("content", "")), found.get("problem", found.get("refusal"))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "shape", [*SHAPES, {"vocab_size": 205, "dim": 30, "boom_dim": 71}], ids=str
)
def test_the_bits_are_those_of_python(page, shape, binary):
    model = small_model(**shape)
    columns = np.random.default_rng(0).integers(0, model.config.vocab_size, (60, 3))
    stepper = ExactStepper(model, 3)
    expected = np.stack([stepper.step(x) for x in columns])
    assert digest_of(engine(page, web_file(model), columns, binary)) == digest_of(expected)


@pytest.mark.parametrize(
    ("storage", "binary"), [("int8", True), ("float16", True), ("int8", False)]
)
def test_the_bits_are_those_of_every_machine(page, storage, binary):
    content = encode(b"".join(to_bytes(load("wiki-small"), storage)))
    columns = np.frombuffer(sample_bytes(600), dtype=np.uint8).reshape(2, -1).T
    assert digest_of(engine(page, content, columns, binary, limit=100)) == GOLDEN


def test_wiki_small_over_more_bytes_than_it_remembers(page):
    model = load("wiki-small")
    columns = np.frombuffer(sample_bytes(3000), dtype=np.uint8).astype(np.int64)[:, None]
    stepper = ExactStepper(model)
    expected = np.stack([stepper.step(x) for x in columns])
    assert digest_of(engine(page, web_file(model), columns)) == digest_of(expected)


def test_frequencies(page):
    rng = np.random.default_rng(0)
    sharp = np.array([0, 1, 5, 30, 1000])[:, None]
    logits = np.concatenate([sharp * rng.normal(size=(5, 256)), np.zeros((1, 256))])
    found = page.evaluate(f"{logits.tolist()}.map((row) => Array.from(toFrequencies(row)))")
    assert (np.array(found) == archives.frequencies(logits)).all()
    found = page.evaluate("Array.from(toFrequencies([0, 3, 3]))")
    assert found == archives.frequencies(np.array([[0.0, 3.0, 3.0]]))[0].tolist()


def test_sha256(page):
    data = bytes(range(251)) * 300
    sizes = [*range(130), 1000, 65536, len(data)]
    request = (
        f"{sizes}.map((size) => toBase64(sha256(fromBase64('{encode(data)}').slice(0, size))))"
    )
    expected = [encode(hashlib.sha256(data[:size]).digest()) for size in sizes]
    assert page.evaluate(request) == expected


TEXT = b"abcabd abcabd <b>caf\xc3\xa9</b>\n" * 12


def test_python_opens_what_the_page_packs(page):
    model = load("wiki-small")
    content = sample_bytes(400)
    archive = pack(page, model, content)
    assert archive == archives.pack(model, content, 1)
    assert len(archive) < len(content) / 2
    assert archives.unpack(model, archive) == content
    assert unpack(page, model, archive) == (content, "")


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256))], ids=len)
def test_what_would_not_get_smaller_is_stored(page, model, content):
    archive = pack(page, model, content)
    assert archive[5] == 0
    assert len(archive) == 32 + (20 + len(content) if content else 0)
    assert archives.unpack(model, archive) == content
    assert unpack(page, model, archive) == (content, "")


@pytest.mark.parametrize("lanes", [1, 2, 7, 100])
def test_the_page_opens_what_python_packs(page, model, lanes):
    assert unpack(page, model, archives.pack(model, TEXT, lanes)) == (TEXT, "")


def test_archives_of_several_frames(page, monkeypatch):
    """Frames are shorter here, so that a short text has several."""
    model, text = load("wiki-small"), sample_bytes(240)
    monkeypatch.setattr(archives, "FRAME", 100)
    script = "\n".join(asset(f"{name}.js") for name in (*WORKER, *EXACT))
    other = page.context.browser.new_page()
    other.set_content(f"<script>{script.replace('= 65536;', '= 100;')}{HARNESS}</script>")
    archive = archives.pack(model, text, 1)
    assert pack(other, model, text) == archive
    assert unpack(other, model, archive) == (text, "")
    three = archives.pack(model, text, 3)
    assert unpack(other, model, three) == (text, "")
    # Damage in the last frame: what came before it is there.
    damaged = three[:-1] + bytes([three[-1] ^ 1])
    content, problem = unpack(other, model, damaged)
    assert "is damaged from byte" in problem
    third = len(text) // 3
    assert content == b"".join(text[k * third :][: len(content) // 3] for k in range(3))
    assert 0 < len(content) < len(text)

    content, problem = unpack(other, model, archive[:-1])
    assert "is damaged from byte" in problem
    assert text.startswith(content)
    assert len(content) == len(text) // 100 * 100
    other.close()


def test_damage_is_found(page, model):
    archive = archives.pack(model, TEXT, 2)
    for place in (0, 4, 5, 7, 9, 20, 31, 32, 35, 40, 50, 52, len(archive) - 1):
        damaged = archive[:place] + bytes([archive[place] ^ 64]) + archive[place + 1 :]
        content, problem = unpack(page, model, damaged)
        assert problem, place
        assert content == b""
    assert unpack(page, model, archive[:-1]) == (b"", "The archive is damaged from byte 33 on.")
    content, problem = unpack(page, model, archive + b"more")
    assert content == TEXT
    assert problem == f"The archive is followed by other bytes, from byte {len(archive) + 1} on."


def signed(model, **changes):
    """Returns an archive whose header differs from a usual one, with its checksum."""
    start = bytearray(archives.header(model, 9, 1)[:24])
    for name, value in changes.items():
        place = {"format": 4, "method": 5, "lanes": 6, "fingerprint": 16}[name]
        start[place] = value
    return bytes(start) + archives.digest(bytes(start))


def test_what_a_page_does_not_open(page, model):
    def refusal(archive):
        content, problem = unpack(page, model, archive)
        assert content == b""
        return problem

    assert refusal(b"") == refusal(b"text") == "This is not an archive of sharnn."
    assert (
        refusal(signed(model, format=1))
        == "The archive has format 1, and this page opens format 2."
    )
    assert "kept learning" in refusal(signed(model, method=3))
    assert "mixes the model" in refusal(signed(model, method=5))
    assert "unknown method 9" in refusal(signed(model, method=9))
    assert "10 lanes" in refusal(signed(model, lanes=10))
    assert "0 lanes" in refusal(signed(model, lanes=0))
    assert "another model" in refusal(archives.header(small_model(), 9, 1))
    assert "in its first 32 bytes" in refusal(signed(model)[:20])
    assert "from byte 33 on" in refusal(signed(model))
    assert "from byte 33 on" in refusal(archives.header(model, 2**64 - 1, 1000))
    assert "65535 lanes" in refusal(archives.header(model, 2**40, 65535))
