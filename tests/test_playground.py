"""The playground: its page in a real browser without a network, and the command that writes it."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import (
    HOSTILE,
    assert_fits_a_phone_in_the_dark,
    expect_read,
    open_page,
    start,
    type_text,
    until,
    wait,
)
from sharnn import InputError, Playground, load, save
from sharnn.cli import main
from sharnn.web.scripts import export_web
from small import small_model

TEXT = "abcabd abcabd abcabd <b>&amp;</b> café"


@pytest.fixture(scope="module")
def model():
    model = small_model(shifted_keys=True, lstm_skip=0.5)
    model.collapse()
    return model


@torch.no_grad()
def bits_of(model, text, **settings):
    """Returns the bits of each byte of a text; the first byte costs 8."""
    x = torch.tensor(list(text.encode()))
    logits, _ = model(x[None], **settings)
    bits = F.cross_entropy(logits[0, :-1], x[1:], reduction="none") / torch.log(torch.tensor(2.0))
    return torch.cat([torch.tensor([8.0]), bits])


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

    @pytest.fixture
    def page(self, browser, model, tmp_path):
        path = Playground(model, "small", TEXT).save(tmp_path / "page.html")
        with open_page(browser, path) as page:
            yield page

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
        x = torch.tensor([list(text.encode())])
        with torch.no_grad():
            state = None
            rows = []
            for symbol in x[0]:
                _, state, attention = stored.forward_with_attention(symbol.view(1, 1), state)
                rows.append(attention[1][0, 0])
        for index in (5, 30, 60):
            page.evaluate(f"window.sharnn.choose({index})")
            page.wait_for_timeout(200)
            found = page.evaluate("Array.from(window.sharnn.attention.weights)")
            torch.testing.assert_close(torch.tensor(found), rows[index - 1], rtol=1e-3, atol=1e-4)

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

    def totals(self, page):
        """Returns the bits that the bars show, with memory and with the memory cut."""
        text = page.locator("#race").inner_text()
        return [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) bits, ", text)[:2]]

    def test_the_bars_add_up(self, page, stored):
        on, off = (
            float(bits_of(stored, TEXT, **limit).sum()) for limit in ({}, {"memory_limit": 1})
        )
        assert self.totals(page) == [round(on), round(off)]
        saved = round(off) - round(on)
        words = f"{'saves' if saved > 0 else 'costs'} {abs(saved)} bit"
        assert words in page.locator("#race").inner_text()
        assert "Both bars are the same model" in page.inner_text("#comparison")
        assert "This text repeats its names" in page.inner_text("#comparison")

    def test_starting_the_model_leaves_the_totals_as_they_are(self, page):
        before = page.locator("#race").inner_text()
        start(page)
        assert page.locator("#race").inner_text() == before
        assert "This text repeats its names" in page.inner_text("#comparison")
        type_text(page, "another text")
        assert "This text repeats its names" not in page.inner_text("#comparison")

    def test_what_the_model_wrote_is_marked_and_scored_apart(self, page, stored):
        start(page)
        type_text(page, TEXT)
        before, size = self.totals(page), len(TEXT.encode())
        page.click("#continue")
        expect(page.locator("#apart")).to_contain_text("300 bytes", timeout=60_000)
        wait(page)
        assert self.totals(page) == before
        assert page.evaluate("sharnn.chosen") == size
        assert page.locator("#under-bytes").inner_text().endswith("; written by the model")
        text = bytes(page.evaluate("Array.from(sharnn.known.bytes)"))
        assert len(text) == size + 300
        bits = bits_of(stored, text)[size:].mean()
        assert f"{bits:.2f} bits per byte" in page.inner_text("#apart")
        for pane in ("#bytes", "#remembered"):
            marks = page.locator(f"{pane} i.written")
            assert marks.count() == 300
            assert page.locator(f"{pane} i").nth(size).get_attribute("class").count("written")
        page.focus("#text")
        page.keyboard.press("Control+Home")
        page.keyboard.type("x")
        expect(page.locator("#bytes i")).to_have_count(len(page.input_value("#text").encode()))
        wait(page)
        assert page.locator("#bytes i.written").count() >= 300
        assert not page.evaluate("sharnn.known.written[0]")

    def test_marks_follow_their_bytes(self, page):
        """Those at the start and the end that both texts have keep their marks."""
        script = "([old, marks, text]) => Array.from(sharnn.keepMarks(old, marks, text))"
        page.evaluate("sharnn.keepMarks = sharnn.known.constructor.keepMarks")
        for old, marks, text, expected in (
            ("abcd", "0011", "abcd", "0011"),
            ("abcd", "0011", "abxcd", "00011"),
            ("abcd", "0011", "abcdx", "00110"),
            ("abcd", "0011", "abd", "001"),
            ("abcd", "0011", "xyz", "000"),
            ("", "", "a", "0"),
            ("abcd", "0011", "", ""),
        ):
            arguments = [[*old.encode()], [*map(int, marks)], [*text.encode()]]
            page.evaluate(
                "(all) => (window.arguments3 = all.map((x) => Uint8Array.from(x)))", arguments
            )
            found = page.evaluate(f"({script})(window.arguments3)")
            assert "".join(map(str, found)) == expected

    def test_the_model_continues_only_a_text_that_it_has_read(self, page, stored):
        """Pressed during the first reading, the button waits for its end."""
        text = TEXT * 20
        page.evaluate(
            """(text) => {
              document.getElementById("temperature").value = 0;
              document.getElementById("text").value = text;
              sharnn.session.start();
            }""",
            text,
        )
        until(page, "document.body.dataset.started")
        page.evaluate("document.getElementById('continue').click()")
        expect(page.locator("#apart")).to_contain_text("300 bytes", timeout=60_000)
        wait(page)
        written = bytes(page.evaluate("Array.from(sharnn.known.bytes)"))
        size = len(text.encode())
        assert (written[:size], len(written)) == (text.encode(), size + 300)
        with torch.no_grad():
            logits, _ = stored(torch.tensor([list(written[: size + 10])]))
        assert logits[0, size - 1 :].argmax(-1).tolist()[:10] == [*written[size : size + 10]]

    def test_the_text_can_not_be_edited_while_the_model_writes(self, page):
        start(page)
        assert page.evaluate("(sharnn.setWriting(true), document.getElementById('text').readOnly)")
        assert not page.evaluate(
            "(sharnn.setWriting(false), document.getElementById('text').readOnly)"
        )

    def test_an_empty_text_is_not_continued(self, page):
        start(page)
        type_text(page, "")
        page.click("#continue")
        expect(page.locator("#refusal")).to_have_text(
            "Write something first: the model continues a text."
        )
        assert page.input_value("#text") == ""
        type_text(page, "a")
        assert page.locator("#refusal").is_hidden()

    @pytest.mark.parametrize(
        ("field", "value", "range"),
        [
            ("top-k", "-5", "a whole number from 1 to 256"),
            ("top-k", "0", "a whole number from 1 to 256"),
            ("top-k", "2.5", "a whole number from 1 to 256"),
            ("top-k", "", "a whole number from 1 to 256"),
            ("top-p", "0", "a number from 0.01 to 1"),
            ("top-p", "1.5", "a number from 0.01 to 1"),
        ],
    )
    def test_invalid_numbers_are_refused(self, page, field, value, range):
        start(page)
        page.click("summary:has-text('Cut')")
        page.fill(f"#{field}", value)
        expect(page.locator("#refusal")).to_have_text(f"{field} must be {range}.")
        assert page.get_attribute(f"#{field}", "aria-invalid") == "true"
        page.click("summary:has-text('Cut')")
        page.click("#continue")
        expect(page.locator(f"#{field}")).to_be_focused()
        assert page.input_value("#text") == TEXT
        page.fill(f"#{field}", "1")
        assert page.locator("#refusal").is_hidden()
        assert page.get_attribute(f"#{field}", "aria-invalid") == "false"

    def test_the_bits_of_a_byte_with_its_memory_cut(self, page, stored):
        bits, cut = bits_of(stored, TEXT), bits_of(stored, TEXT, memory_limit=1)
        page.evaluate("sharnn.choose(10)")
        words = f"d: {bits[10]:.2f} bits, with its memory cut {cut[10]:.2f}"
        assert page.inner_text("#under-bytes") == words.replace("d:", f"{TEXT[10]}:")

    def test_nothing_old_is_shown_for_the_first_byte_and_an_empty_text(self, page):
        start(page)
        page.evaluate("sharnn.choose(10)")
        until(page, "document.getElementById('under-remembered').textContent")
        page.evaluate("sharnn.choose(0)")
        until(page, "!document.getElementById('under-remembered').textContent")
        assert page.locator("#guesses li").count() == 0
        assert "all 256 bytes are equally likely" in page.inner_text("#guessing-hint")
        assert page.locator("#weights-legend").is_hidden()
        page.evaluate("sharnn.choose(10)")
        until(page, "document.getElementById('under-remembered').textContent")
        type_text(page, "")
        for name in ("under-bytes", "under-remembered", "race", "apart", "comparison", "guesses"):
            assert page.inner_text(f"#{name}") == "", name
        assert page.inner_text("#looking-hint") == "There is no text."
        page.hover("#bytes")
        page.hover("#typing-title")
        assert page.inner_text("#under-bytes") == ""

    def test_characters_of_several_bytes_do_not_show_what_comes(self, page):
        start(page)
        type_text(page, "one café and a café")
        last = len("one café and a café".encode()) - 1
        page.evaluate(f"sharnn.choose({last})")
        hint = page.inner_text("#guessing-hint")
        assert "and a caf‹C3›”" in hint
        assert "é" not in hint.split("”")[0][-6:]
        assert page.locator("#guesses li.came code").inner_text() == "é"
        page.evaluate(f"sharnn.choose({last - 1})")
        assert page.locator("#guesses li.came code").inner_text() == "C3…"
        wide = page.evaluate(
            "(([a, b]) => b.right - a.left)([...document.querySelectorAll('#bytes .glyph:last-child i')]"
            ".map((cell) => cell.getBoundingClientRect()))"
        )
        letter = page.evaluate("sharnn.textPane.cell(0).getBoundingClientRect().width")
        assert wide == pytest.approx(letter, rel=0.05)

    def test_the_selected_byte_and_the_heaviest_are_in_view_on_a_phone(self, page):
        page.set_viewport_size({"width": 390, "height": 800})
        start(page)
        type_text(page, ("abcabd and more of it, " * 40) + "abcabd")
        for index in (500, 300, 900):
            page.evaluate(f"sharnn.choose({index})")
            until(page, f"document.querySelector('#remembered .target')?.index === {index}")
            inside = page.evaluate(
                """() => {
                  const box = document.getElementById("remembered").getBoundingClientRect();
                  const cell = document.querySelector("#remembered .target").getBoundingClientRect();
                  return box.top <= cell.top && cell.bottom <= box.bottom;
                }"""
            )
            assert inside

    def test_it_is_hardly_taller_than_a_screen(self, page):
        start(page)
        page.set_viewport_size({"width": 1200, "height": 900})
        assert page.evaluate("document.body.scrollHeight") <= 900

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#start")
        page.keyboard.press("Enter")
        wait(page)
        page.focus("#bytes")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("window.sharnn.chosen") == 1
        page.keyboard.press("End")
        assert page.evaluate("window.sharnn.chosen") == len(TEXT.encode()) - 1
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
