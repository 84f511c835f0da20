"""The compressor: its page in a real browser, compared with archives that Python makes."""

import gzip
import zlib

import numpy as np
import pytest
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import (
    HOSTILE,
    assert_fits_a_phone_in_the_dark,
    expect_read,
    open_page,
    type_text,
    until,
    wait,
)
from sharnn.compression.codec import bits_in_archive
from sharnn.web.compressor import CompressorPage
from sharnn.web.page import asset
from small import small_model

pytestmark = [pytest.mark.slow, *needs_browser]

TEXT = "abcabd abcabd abcabd <b>&amp;</b> café\n" * 3
BYTES_OF = {"gzip": gzip.decompress, "deflate-raw": lambda data: zlib.decompress(data, wbits=-15)}


@pytest.fixture(scope="module")
def model():
    model = small_model(shifted_keys=True, lstm_skip=0.5)
    model.collapse()
    return model


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("compressor") / "page.html"
    return CompressorPage(model, "small", TEXT).save(path)


def start(page):
    page.click("#start")
    wait(page)
    wait_for_code(page)


def wait_for_code(page):
    expect(page.locator("#code-hint")).to_contain_text("in hexadecimal")


def restore(page):
    page.click("#restore")
    expect(page.locator("#restore")).to_be_enabled(timeout=60_000)
    return page.locator("#verdict").inner_text()


def bits(page):
    return np.array(page.evaluate("sharnn.known.bits"))


def test_the_prepared_text_is_measured_before_the_model_runs(page, model):
    expected = bits_in_archive(model, TEXT.encode(), num_streams=1)
    np.testing.assert_allclose(bits(page), expected, rtol=1e-3, atol=1e-3)
    size = round(expected.sum() / 8 + 2)
    expect(page.locator("#bars")).to_contain_text(f"small, code only{size} bytes,")
    expect(page.locator("#bars")).to_contain_text("than gzip's code")
    assert page.locator("#restore").is_disabled()
    assert "Not counted: the model itself" in page.locator("#counted").inner_text()


def test_gzip_is_the_browsers(page):
    compressed = """async (format) => {
      const stream = new Blob([sharnn.known.bytes]).stream();
      const blob = new Response(stream.pipeThrough(new CompressionStream(format)));
      return Array.from(new Uint8Array(await blob.arrayBuffer()));
    }"""
    until(page, "sharnn.sizes")
    sizes = page.evaluate("sharnn.sizes")
    for format, name in (("gzip", "gzip"), ("deflate-raw", "deflate")):
        data = bytes(page.evaluate(compressed, format))
        assert BYTES_OF[format](data) == TEXT.encode()
        assert len(data) == sizes[name]
        expect(page.locator("#bars")).to_contain_text(f"{len(data)} bytes")


@pytest.mark.parametrize("text", ["y" + TEXT, "x", "日本語 text \x00\r", "a" * 900])
def test_a_typed_text_has_the_bits_of_an_archive_and_is_restored(page, model, text):
    start(page)
    text = text.replace("\r", "\n")  # a field has no other line ends
    type_text(page, text)
    wait_for_code(page)
    expected = bits_in_archive(model, text.encode(), num_streams=1)
    np.testing.assert_allclose(bits(page), expected, rtol=1e-12)
    size = page.evaluate("sharnn.code.length")
    assert -3 < size - expected.sum() / 8 < 1.01  # zeros at the end of the code are left out
    expect(page.locator("#bars")).to_contain_text(f"small, code only{size + 2} bytes,")
    assert restore(page) == "Restored: identical."
    page.check("#damage")
    assert "and then another text" in restore(page)
    page.uncheck("#damage")
    assert restore(page) == "Restored: identical."


def test_the_coder_restores_the_symbols_of_any_predictions(page):
    script = asset("exact.js") + asset("coder.js")
    found = page.evaluate(
        f"""() => {{
          {script}
          let seed = 1;
          const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
          const wrong = [];
          for (let trial = 0; trial < 200; trial++) {{
            const sharp = [0.1, 1, 5, 30, 400][trial % 5];
            const encoder = new Encoder();
            const all = [];
            let bits = 0;
            for (let i = 0; i < 3 * trial; i++) {{
              const logits = Array.from({{ length: 256 }}, () => sharp * random());
              const largest = Math.max(...logits);
              const frequencies = toFrequencies(logits);
              const likeliest = logits.indexOf(largest);
              const symbol = [likeliest, 255, Math.floor(256 * random())][trial % 3];
              if (Math.min(...frequencies) < 1) wrong.push("frequency");
              if (frequencies.reduce((a, b) => a + b) !== TOTAL) wrong.push("total");
              bits -= Math.log2(frequencies[symbol] / TOTAL);
              encoder.write(frequencies, symbol);
              all.push([frequencies, symbol]);
            }}
            const code = encoder.finish();
            const more = code.length - bits / 8; // negative if it would end in zeros
            if (more > 1.01 || more < -3) wrong.push(["size", trial]);
            const decoder = new Decoder(code);
            for (const [frequencies, symbol] of all) {{
              if (decoder.read(frequencies) !== symbol) wrong.push(["symbol", trial]);
            }}
          }}
          return wrong;
        }}"""
    )
    assert found == []


def test_a_file_is_read_byte_by_byte_up_to_a_limit(page):
    start(page)
    data = bytes(range(256)) * 20  # no valid UTF-8
    page.set_input_files(
        "#file", {"name": "a.bin", "mimeType": "application/x-bin", "buffer": data}
    )
    expect(page.locator("#status")).to_contain_text("the first 4,000 bytes read", timeout=60_000)
    wait_for_code(page)
    assert bytes(page.evaluate("Array.from(sharnn.known.bytes)")) == data[:4000]
    assert restore(page) == "Restored: identical."


def test_a_dropped_file_starts_the_model(page):
    files = page.evaluate_handle(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["dropped, and dropped again"], "a.txt"));
          return data;
        }"""
    )
    page.dispatch_event("#text", "dragover", {"dataTransfer": files})
    page.dispatch_event("#text", "drop", {"dataTransfer": files})
    expect(page.locator("#text")).to_have_value("dropped, and dropped again")
    expect_read(page, 26)
    wait_for_code(page)
    assert restore(page) == "Restored: identical."


def test_a_change_while_it_decodes(page):
    start(page)
    type_text(page, TEXT * 8)
    wait_for_code(page)
    page.click("#restore")
    page.fill("#text", "another text")
    expect_read(page, 12)
    wait_for_code(page)
    expect(page.locator("#verdict")).to_have_text("")
    assert restore(page) == "Restored: identical."
    assert page.locator("#restored").inner_text() == "another text"


def test_it_works_if_no_frame_is_drawn(browser, path):
    """As in a tab that is left open in the background."""
    with open_page(browser, path, "window.requestAnimationFrame = () => 0") as page:
        start(page)
        type_text(page, "another " + TEXT)
        wait_for_code(page)
        assert restore(page) == "Restored: identical."


def test_everything_works_with_the_keyboard(page):
    page.focus("#start")
    page.keyboard.press("Enter")
    wait_for_code(page)
    page.focus("#bytes")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("sharnn.chosen") == 1
    expect(page.locator("#under-bytes")).to_contain_text("the first 2 bytes together")
    page.focus("#restore")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.is_checked("#damage")
    page.focus("#restore")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("then another text")


def test_hostile_text_is_only_text(page):
    start(page)
    page.fill("#text", HOSTILE)
    expect_read(page, len(HOSTILE.encode()))
    wait_for_code(page)
    assert restore(page) == "Restored: identical."
    assert "window.hacked=1" in page.locator("#restored").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_an_empty_text(page):
    start(page)
    page.fill("#text", "")
    expect_read(page, 0)
    wait_for_code(page)
    assert page.locator("#bars").inner_text() == ""
    assert page.locator("#spread").inner_text() == ""
    assert restore(page) == "Restored: identical."


def test_it_fits_a_phone_in_the_dark(page):
    assert_fits_a_phone_in_the_dark(page)
