"""The playground: its page in a real browser without a network, and the command that writes it."""

import json
import re

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import (
    HOSTILE,
    TEXT,
    assert_fits_a_phone_in_the_dark,
    bits_of,
    expect_read,
    start,
    type_text,
    wait,
    weights_of,
)
from sharnn import InputError, Playground, load, save
from sharnn.cli import main
from sharnn.web.scripts import export_web
from small import small_model


class TestThePython:
    def test_a_page_needs_a_model_over_bytes_and_a_text(self, model):
        with pytest.raises(InputError, match="205 symbols"):
            Playground(small_model(vocab_size=205))
        for text in ("", "a", "a" * 2001):
            with pytest.raises(InputError, match="must have 2 to 2,000 bytes"):
                Playground(model, text=text)

    def test_it_is_saved_whole_and_shown_in_a_frame(self, model, tmp_path):
        playground = Playground(model, "a <model>", TEXT)
        path = playground.save(tmp_path / "page.html")
        page = path.read_text("utf-8")
        assert "<title>Playground (a &lt;model&gt;)</title>" in page
        assert "default-src 'none'" in page
        assert "<body>\n<noscript><p>This page needs JavaScript.</p></noscript>" in page
        assert "http://" not in page
        assert "https://" not in page
        assert playground._repr_html_().startswith("<iframe")

    def test_shared_weights_are_not_in_the_page(self, model, tmp_path):
        whole = Playground(model, text=TEXT).page()
        shared = Playground(model, text=TEXT, weights="_static/model.js").page()
        export_web(model, tmp_path / "model.js")
        script = (tmp_path / "model.js").read_text()
        content = re.fullmatch(r'window\.sharnnWeights = "([A-Za-z0-9+/=]+)";\n', script)[1]
        assert content in whole
        assert content not in shared
        assert "_static/model.js" in shared

    def test_a_books_own_model_is_shared_while_the_book_is_built(self, tmp_path, monkeypatch):
        name = f"{tmp_path}/small.safetensors"
        save(small_model(), name)
        assert Playground(name).weights is None
        monkeypatch.setenv("SHARNN_SHARED_MODEL", name)
        playground = Playground(name)
        assert (playground.weights, playground.name) == ("small.js", "small")
        assert Playground(load(name)).weights is None

    def test_the_model_is_not_changed(self, tmp_path):
        model = small_model()
        Playground(model, text=TEXT).page()
        export_web(model, tmp_path / "model.js")
        assert not model.config.collapsed

    def test_the_command_writes_the_page(self, model, tmp_path, capsys):
        save(model, tmp_path / "m.safetensors")
        (tmp_path / "text").write_text(TEXT)
        page = tmp_path / "page.html"
        words = ["playground", f"{tmp_path}/m.safetensors", "--out", str(page)]
        assert main([*words, "--text", f"{tmp_path}/text"]) == 0
        assert page.read_text("utf-8") == Playground(model, "m", TEXT).page()
        assert "MB; open it in a browser" in capsys.readouterr().out
        (tmp_path / "text").write_bytes(b"\xff\xfe")
        assert main([*words, "--text", f"{tmp_path}/text"]) == 2
        assert capsys.readouterr().err.endswith("text is not text in UTF-8\n")
        assert main([*words[:3], f"{tmp_path}/m.safetensors"]) == 2
        assert "would overwrite" in capsys.readouterr().err

    def test_the_export_writes_a_script(self, model, tmp_path, capsys):
        save(model, tmp_path / "m.safetensors")
        source = f"{tmp_path}/m.safetensors"
        assert main(["export", source, f"{tmp_path}/m.js", "--web"]) == 0
        assert capsys.readouterr().out.endswith("int8\n")
        assert (tmp_path / "m.js").read_text().startswith('window.sharnnWeights = "')
        assert main(["export", source, f"{tmp_path}/m.onnx", "--web"]) == 2
        assert "must end in .js" in capsys.readouterr().err


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    def numbers(self, page):
        known = page.evaluate(
            "({ bits: window.sharnn.known.bitsOf[0], without: window.sharnn.known.bitsOf[1] })"
        )
        return (torch.tensor(known[name]) for name in ("bits", "without"))

    def test_the_prepared_text_is_shown_before_the_model_runs(self, page, stored):
        bits, without = self.numbers(page)
        torch.testing.assert_close(bits, bits_of(stored, TEXT), rtol=1e-3, atol=1e-3)
        expected = bits_of(stored, TEXT, memory_limit=1)
        torch.testing.assert_close(without, expected, rtol=1e-3, atol=1e-3)
        assert page.locator("#guesses li").count() >= 8
        assert page.locator("#bytes").inner_text().startswith("abcabd")
        assert "of the attention" in page.locator("#under-remembered").inner_text()

    def test_a_typed_text_costs_what_pytorch_says(self, page, stored):
        start(page)
        for text in (TEXT, TEXT + " and more", TEXT[:10], "x" + TEXT, "日本語 text"):
            type_text(page, text)
            bits, without = self.numbers(page)
            torch.testing.assert_close(bits, bits_of(stored, text), rtol=1e-3, atol=1e-3)
            expected = bits_of(stored, text, memory_limit=1)
            torch.testing.assert_close(without, expected, rtol=1e-3, atol=1e-3)

    def test_the_weights_of_a_byte_are_pytorchs(self, page, stored):
        start(page)
        text = TEXT * 2  # longer than the memory
        type_text(page, text)
        for index in (5, 30, 60):
            page.evaluate(f"window.sharnn.choose({index})")
            page.wait_for_timeout(200)
            found = page.evaluate("Array.from(window.sharnn.attention.weights)")
            expected = weights_of(stored, text, index)
            torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-3, atol=1e-4)

    def test_the_most_likely_byte_is_written_at_temperature_0(self, page, stored):
        start(page)
        type_text(page, TEXT)
        page.fill("#temperature", "0")
        page.click("#continue")
        page.wait_for_selector("#continue:visible")
        wait(page)
        written = page.input_value("#text").encode()[len(TEXT.encode()) :]
        x = torch.tensor([list(TEXT.encode())])
        with torch.no_grad():
            logits, state = stored(x)
            expected = bytearray()
            for _ in range(20):
                expected.append(int(logits[0, -1].argmax()))
                logits, state = stored(torch.tensor([[expected[-1]]]), state)
        assert written.startswith(bytes(expected).decode(errors="replace").encode())

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#start")
        page.keyboard.press("Enter")
        wait(page)
        page.focus("#bytes")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("window.sharnn.chosen") == 1
        page.keyboard.press("End")
        assert page.evaluate("window.sharnn.chosen") == len(TEXT.encode())  # the next byte
        page.focus("#text")
        page.keyboard.press("Control+End")
        page.keyboard.type("!")
        size = len(TEXT.encode()) + 1
        expect_read(page, size)

    def test_hostile_text_is_only_text(self, page):
        start(page)
        page.fill("#text", HOSTILE)
        page.wait_for_timeout(1500)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0

    def test_an_empty_and_a_long_text(self, page):
        start(page)
        type_text(page, "")
        assert page.locator("#bytes i").count() == 0
        page.fill("#text", "a long line \n" * 400)
        expect(page.locator("#status")).to_contain_text("first 4,000 bytes", timeout=60_000)
        assert json.loads(page.evaluate("JSON.stringify(window.sharnn.known.bits.length)")) == 4000

    def test_it_fits_a_phone_in_the_dark(self, page):
        assert_fits_a_phone_in_the_dark(page)
