"""The exact engine in a browser has the bits of `sharnn.exact`, and archives that both open."""

import base64
import hashlib
import json

import numpy as np
import pytest

import test_golden as golden
from browser import needs_browser, open_browser
from sharnn import compress, decompress, load
from sharnn.checkpoint import to_bytes
from sharnn.compression import codec, container
from sharnn.compression.coder import to_frequencies
from sharnn.compression.container import CODED, STORED, Header
from sharnn.corpora.sample import sample_bytes
from sharnn.exact.arithmetic import EXP, SIGMOID
from sharnn.exact.stepper import ExactStepper
from sharnn.web.page import asset
from sharnn.web.scripts import EXACT, WORKER, kernels, web_file
from sharnn.weights import fingerprint
from small import favour, small_model
from test_exact import GOLDEN, SHAPES
from test_exact import digest as digest_of

pytestmark = [pytest.mark.slow, *needs_browser]

TEXT = b"abcabd abcabd <b>caf\xc3\xa9</b>\n" * 12
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
    return favour(small_model(shifted_keys=True, lstm_skip=0.5), TEXT)


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


@pytest.mark.parametrize(("name", "table"), [("SIGMOID", SIGMOID), ("EXP", EXP)])
def test_the_tables_are_those_of_python(page, name, table):
    found = np.frombuffer(base64.b64decode(page.evaluate(f"toBase64({name}.values)")), "<f8")
    assert (found == table.values).all()
    assert (found[:-1] <= found[1:]).all()
    low, high = found[0], found[-1]
    assert page.evaluate(f"[-1e30, -99, 99, 1e30].map((x) => {name}.at(x))") == [
        low,
        low,
        high,
        high,
    ]


def test_numbers_are_rounded_to_even(page):
    numbers = [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999999999999994, 1e15 + 0.5, 3.0]
    assert page.evaluate(f"{numbers}.map(rint)") == np.rint(numbers).tolist()


PRODUCT = """
({ rows, columns, W, p, kernels }) => {
  const size = Integers.size(rows + 3, columns) + 128;
  const workspace = new Workspace(size, kernels && fromBase64(kernels));
  const matrix = new Integers(workspace, rows + 3, columns);
  W.forEach((row, r) => matrix.row(r + 3).set(row));
  matrix.p.set(p);
  matrix.multiplyIntegers(3, rows);
  const y = workspace.array(columns, Int32Array);
  const next = workspace.array(8, Int32Array);
  for (const weight of [65536, -3]) matrix.addMultiple(weight, 3, y);
  const product = Array.from(matrix.sums.subarray(0, rows));
  return { product, y: Array.from(y), next: Array.from(next) };
}
"""


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 10), (17, 256), (5, 8192)])
def test_products_of_integers(page, rows, columns, binary):
    rng = np.random.default_rng(0)
    weights, p = rng.integers(-127, 128, (rows, columns)), rng.integers(-127, 128, columns)
    weights[0] = p[:] = -127  # the largest sum
    request = {"rows": rows, "columns": columns, "W": weights.tolist(), "p": p.tolist()}
    found = page.evaluate(PRODUCT, request | {"kernels": kernels() if binary else None})
    assert found["product"] == (weights @ p).tolist()
    assert found["y"] == (65533 * weights[0]).tolist()
    assert found["next"] == [0] * 8, "it writes only the output"


def test_frequencies(page):
    rng = np.random.default_rng(0)
    sharp = np.array([0, 1, 5, 30, 1000])[:, None]
    logits = np.concatenate([sharp * rng.normal(size=(5, 256)), np.zeros((1, 256))])
    found = page.evaluate(f"{logits.tolist()}.map((row) => Array.from(toFrequencies(row)))")
    assert (np.array(found) == to_frequencies(logits)).all()
    found = page.evaluate("Array.from(toFrequencies([0, 3, 3]))")
    assert found == to_frequencies(np.array([[0.0, 3.0, 3.0]]))[0].tolist()


def test_sha256(page):
    data = bytes(range(251)) * 300
    sizes = [*range(130), 1000, 65536, len(data)]
    request = (
        f"{sizes}.map((size) => toBase64(sha256(fromBase64('{encode(data)}').slice(0, size))))"
    )
    expected = [encode(hashlib.sha256(data[:size]).digest()) for size in sizes]
    assert page.evaluate(request) == expected


def test_python_opens_what_the_page_packs(page):
    model, content = load("wiki-small"), sample_bytes(400)
    archive = pack(page, model, content)
    assert archive == compress(model, content, num_streams=1)
    assert len(archive) < len(content) / 2
    assert decompress(model, archive) == content
    assert unpack(page, model, archive) == (content, "")


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256))], ids=len)
def test_what_would_not_get_smaller_is_stored(page, model, content):
    archive = pack(page, model, content)
    assert Header.from_bytes(archive).method == STORED
    assert len(archive) == 32 + (20 + len(content) if content else 0)
    assert decompress(model, archive) == content
    assert unpack(page, model, archive) == (content, "")


@pytest.mark.parametrize("lanes", [1, 2, 7, 100])
def test_the_page_opens_what_python_packs(page, model, lanes):
    archive = compress(model, TEXT, num_streams=lanes)
    assert Header.from_bytes(archive).method == CODED
    assert unpack(page, model, archive) == (TEXT, "")


def test_the_archives_that_every_machine_makes(page):
    found = {
        name: unpack(page, load("wiki-small"), (golden.FOLDER / f"{name}.sha").read_bytes())
        for name in golden.OPTIONS
    }
    assert found["fixed"] == (golden.TEXT, "")
    assert "kept learning" in found["learned"][1]
    assert "kept learning" in found["learned-mixed"][1]
    assert "mixes the model" in found["mixed"][1]


def test_archives_of_several_frames(page, model, monkeypatch):
    """Frames are shorter here, so that a short text has several."""
    for module in (container, codec):
        monkeypatch.setattr(module, "FRAME_BYTES", 100)
    script = "\n".join(asset(f"{name}.js") for name in (*WORKER, *EXACT))
    other = page.context.browser.new_page()
    other.set_content(f"<script>{script.replace('= 65536;', '= 100;')}{HARNESS}</script>")
    archive = compress(model, TEXT, num_streams=1)
    assert pack(other, model, TEXT) == archive
    assert unpack(other, model, archive) == (TEXT, "")
    three = compress(model, TEXT, num_streams=3)
    assert unpack(other, model, three) == (TEXT, "")
    stored = pack(other, model, bytes(range(250)))
    assert unpack(other, model, stored) == (bytes(range(250)), "")
    # What comes before a damage is there.
    for damaged in (archive[:-1], three[:-1] + bytes([three[-1] ^ 1]), three[:200], stored[:-1]):
        expected = codec.recover(model, damaged)
        content, problem = unpack(other, model, damaged)
        assert content == expected.content
        assert problem == expected.problem.replace("the a", "The a", 1) + "."
    other.close()


def test_damage_is_found(page, model):
    archive = compress(model, TEXT, num_streams=2)
    for place in (0, 4, 5, 7, 9, 20, 31, 32, 35, 40, 50, 52, len(archive) - 1):
        damaged = archive[:place] + bytes([archive[place] ^ 64]) + archive[place + 1 :]
        content, problem = unpack(page, model, damaged)
        assert problem, place
        assert content == b""
    damaged = "The archive is truncated or damaged at byte 32."
    assert unpack(page, model, archive[:-1]) == (b"", damaged)
    problem = f"Other bytes follow the archive, from byte {len(archive)} on."
    assert unpack(page, model, archive + b"more") == (TEXT, problem)


def signed(model, **changes):
    """Returns the header of an archive with some bytes changed, and its checksum."""
    start = bytearray(Header(CODED, 1, 9, fingerprint(model)).to_bytes()[:24])
    for name, value in changes.items():
        start[{"format": 4, "method": 5, "lanes": 6, "length": 13}[name]] = value
    return bytes(start) + container.checksum(bytes(start))


def test_what_a_page_does_not_open(page, model):
    def refusal(archive):
        content, problem = unpack(page, model, archive)
        assert content == b""
        return problem

    assert refusal(b"") == refusal(b"text") == "This is not an archive of sharnn."
    assert "has format 1, and this page opens format 2" in refusal(signed(model, format=1))
    assert "kept learning" in refusal(signed(model, method=3))
    assert "mixes the model" in refusal(signed(model, method=5))
    assert "unknown method 9" in refusal(signed(model, method=9))
    assert "10 lanes" in refusal(signed(model, lanes=10))
    assert "0 lanes" in refusal(signed(model, lanes=0))
    assert "another model" in refusal(Header(CODED, 1, 9, fingerprint(small_model())).to_bytes())
    assert "in its first 32 bytes" in refusal(signed(model)[:20])
    assert "most of it is missing" in refusal(signed(model))
    assert "most of it is missing" in refusal(signed(model, length=1) + bytes(1000))
    assert "at byte 32" in refusal(signed(model) + bytes(20))


def test_lanes_for_which_a_page_has_too_little_memory(page, model):
    big = small_model(memory=2**16)
    header = Header(CODED, 1024, 2**26, fingerprint(big)).to_bytes()
    _, problem = unpack(page, big, header + bytes(20 * 1024))
    assert "has 1024 lanes, for which a page has too little memory" in problem
