"""The playground in a reader's hands: bars, selections, phones, pointers, and empty texts."""

import re

import pytest
import torch

from browser import needs_browser
from model_pages import TEXT, bits_of, open_page, start, type_text, until
from sharnn import Playground, save
from sharnn.checkpoint import SHIPPED
from sharnn.web.model_page import shipped_record
from sharnn.web.page import asset
from small import small_model


def totals(page):
    """Returns the bits that the bars show, with memory and with the memory cut."""
    text = page.locator("#race").inner_text()
    return [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) bits, ", text)[:2]]


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    def test_the_bars_add_up(self, page, stored):
        on, off = (
            float(bits_of(stored, TEXT, **limit).sum()) for limit in ({}, {"memory_limit": 1})
        )
        assert totals(page) == [round(on), round(off)]
        saved = round(off) - round(on)
        words = f"{'saves' if saved > 0 else 'costs'} {abs(saved)} bit"
        assert words in page.locator("#race").inner_text()
        assert "Both bars are the same model" in page.inner_text("#comparison")
        assert "This text repeats its names" in page.inner_text("#comparison")

    def test_the_score_of_a_shipped_model_is_stated(self, browser, model, tmp_path):
        playground = Playground(model, "small", TEXT)
        playground.record = {
            "findings": {
                "bits per byte": "1.503",
                "bits per byte with 1 row": "3.006",
                "bits per byte, trained without a head": "1.7512",
            }
        }
        with open_page(browser, playground.save(tmp_path / "scored.html")) as page:
            words = page.inner_text("#race .wide")
            assert "small on Wikipedia text that it has not seen: 1.50 bits per byte, 3.01" in words
            assert "saves 50% there" in words
            assert "without a head needs 1.75 bits" in page.inner_text("#comparison")
            assert page.locator("#race .holder .typical").count() == 1

    def test_starting_the_model_leaves_the_totals_as_they_are(self, page):
        before = page.locator("#race").inner_text()
        start(page)
        assert page.locator("#race").inner_text() == before
        assert "This text repeats its names" in page.inner_text("#comparison")
        type_text(page, "another text")
        assert "This text repeats its names" not in page.inner_text("#comparison")

    def attend(self, page, source):
        """Lets the head look at one byte in all predictions."""
        page.evaluate(
            """(source) => {
              const weight = (_, row) => (row === source ? 0.9 : 0.0001);
              sharnn.weightsOf = async (length) => ({
                first: 0, weights: Array.from({ length }, weight),
              });
            }""",
            source,
        )

    def test_a_copy_is_explained_only_if_the_head_looks_at_one(self, page):
        for source, is_copy in ((0, True), (1, False), (4, False)):
            self.attend(page, source)
            page.evaluate("sharnn.choose(7)")  # the second "abc" begins
            until(page, f"document.querySelector('#remembered .here')?.index === {source}")
            assert page.locator("#why").is_visible() == is_copy
            if is_copy:
                page.click("#why summary")
                assert "leaves a row of numbers in the memory" in page.inner_text("#why")

    def test_the_byte_under_the_pointer_is_named_as_such(self, page):
        selected = page.inner_text("#under-bytes")
        page.hover("#bytes i >> nth=2")
        assert page.inner_text("#under-bytes").startswith("Pointer on c: ")
        page.hover("#typing-title")
        assert page.inner_text("#under-bytes") == selected

    def test_the_bits_of_a_byte_with_its_memory_cut(self, page, stored):
        bits, cut = bits_of(stored, TEXT), bits_of(stored, TEXT, memory_limit=1)
        page.evaluate("sharnn.choose(10)")
        words = rf"{TEXT[10]}: ([\d.]+) bits, with its memory cut ([\d.]+)"
        found = re.fullmatch(words, page.inner_text("#under-bytes")).groups()
        assert [*map(float, found)] == pytest.approx([float(bits[10]), float(cut[10])], abs=0.06)

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
        for name in ("under-bytes", "under-remembered", "race", "apart", "guesses"):
            assert page.inner_text(f"#{name}") == "", name
        assert page.inner_text("#comparison") == "There is no text."
        assert page.inner_text("#looking-hint") == "There is no text."
        page.hover("#bytes")
        page.hover("#typing-title")
        assert page.inner_text("#under-bytes") == ""

    def test_the_byte_after_the_end_can_be_selected(self, page, stored):
        def check(text):
            x = torch.tensor([list(text.encode())])
            with torch.no_grad():
                logits, _, attention = stored.forward_with_attention(x)
            shares, symbols = logits[0, -1].softmax(-1).topk(8)
            page.evaluate("sharnn.choose(sharnn.known.bytes.length)")
            until(page, "document.getElementById('looking-hint').textContent.includes('next byte')")
            guesses = page.evaluate("sharnn.known.guesses[sharnn.known.bytes.length]")
            assert guesses["symbols"] == symbols.tolist()
            assert guesses["probabilities"] == pytest.approx(shares.tolist(), abs=1e-3)
            assert page.locator("#guesses li").count() == 8
            assert page.locator("#guesses .came").count() == 0
            assert "where the text ends" in page.inner_text("#guessing-hint")
            assert "has not come yet" in page.inner_text("#under-bytes")
            found = page.evaluate("Array.from(sharnn.attention.weights)")
            rows = attention[1][0, -1]
            assert found == pytest.approx(rows[-len(found) :].tolist(), abs=0.02)

        check(TEXT)
        start(page)
        check(TEXT)
        page.hover("#remembered i >> nth=-1")
        assert "has not come yet" in page.inner_text("#under-remembered")
        type_text(page, TEXT + "!")  # the selection stays at the end
        assert page.evaluate("sharnn.chosen") == len(TEXT.encode()) + 1

    def test_characters_of_several_bytes_do_not_show_what_comes(self, page):
        start(page)
        type_text(page, "one café and a café")
        last = len("one café and a café".encode()) - 1
        page.evaluate(f"sharnn.choose({last})")
        hint = page.inner_text("#guessing-hint")
        assert "and a caf\u2039C3\u203a”" in hint
        assert "é" not in hint.split("”")[0][-6:]
        assert page.locator("#guesses li.came code").inner_text() == "é"
        page.evaluate(f"sharnn.choose({last - 1})")
        assert page.locator("#guesses li.came code").inner_text() == "C3…"
        width = "(index) => sharnn.textPane.cell(index).getBoundingClientRect().width"
        letter, *halves = (page.evaluate(width, index) for index in (0, last - 1, last))
        assert sum(halves) == pytest.approx(letter, rel=0.05)

    @pytest.mark.parametrize("width", [390, 1200])
    def test_the_byte_with_the_largest_weight_is_in_view(self, page, width):
        page.set_viewport_size({"width": width, "height": 800})
        start(page)
        type_text(page, ("abcabd and more of it, " * 40) + "abcabd")
        for source, index in ((20, 500), (480, 500), (5, 900), (700, 710)):
            self.attend(page, source)
            page.evaluate(f"window.scrollTo(0, 50); sharnn.choose({index})")
            until(page, f"document.querySelector('#remembered .target')?.index === {index}")
            until(page, f"document.querySelector('#remembered .here')?.index === {source}")
            near = index - source < 30
            for name in ["here", "target"][: 2 if near else 1]:
                inside = page.evaluate(
                    """(name) => {
                      const pane = document.getElementById("remembered");
                      const box = pane.getBoundingClientRect();
                      const cell = pane.querySelector(`.${name}`).getBoundingClientRect();
                      return box.top <= cell.top && cell.bottom <= box.bottom;
                    }""",
                    name,
                )
                assert inside, (source, index, name)
            assert page.evaluate("window.scrollY") == 50

    def test_fingers_can_use_it(self, page):
        assert not page.get_by_label("Forward: byte of the text").is_visible()
        page.set_viewport_size({"width": 390, "height": 800})
        size = "(element) => element.getBoundingClientRect().height"
        assert page.locator("#bytes i").first.evaluate(size) >= 24
        for button in page.locator("button:visible").all():
            assert button.evaluate(size) >= 40
        field = page.locator("#text")
        assert field.evaluate("(field) => getComputedStyle(field).fontSize") == "16px"
        chosen = page.evaluate("sharnn.chosen")
        page.get_by_label("Forward: byte of the text").click()
        assert page.evaluate("sharnn.chosen") == chosen + 1
        page.get_by_label("Back: byte of the text").click()
        page.get_by_label("Back: byte of the text").click()
        assert page.evaluate("sharnn.chosen") == chosen - 1
        page.evaluate("sharnn.choose(0)")
        page.get_by_label("Back: byte of the text").click()
        assert page.evaluate("sharnn.chosen") == 0

    def test_weak_colours_can_be_seen_in_the_dark(self, page):
        alpha = "Number(sharnn.colours.bits[4].match(/[\\d.]+(?=\\))/)[0])"  # 2 bits
        page.select_option("#theme", "dark")
        assert page.evaluate(alpha) >= 0.2

    def test_the_wheel_scrolls_the_page_over_a_short_text(self, page):
        page.set_viewport_size({"width": 1200, "height": 500})
        page.hover("#bytes")
        page.mouse.wheel(0, 100)
        until(page, "window.scrollY > 50")

    def test_it_is_hardly_taller_than_a_screen(self, page):
        start(page)
        page.set_viewport_size({"width": 1200, "height": 900})
        assert page.evaluate("document.body.scrollHeight") <= 950


def test_a_shipped_model_has_a_yardstick(tmp_path):
    """Its record states what its memory saves on text that it has not seen."""
    record = shipped_record("wiki-small")
    found = record["findings"]
    content = Playground("wiki-small", text="abc abc")._payload()
    expected = [float(found["bits per byte"]), float(found["bits per byte with 1 row"])]
    assert content["typical"] == expected
    assert record["learned from"] in content["warning"]
    name = f"{tmp_path}/other.safetensors"
    save(small_model(), name)
    assert shipped_record(name) == {}
    assert shipped_record(SHIPPED / "wiki-small.safetensors") == record
    assert Playground(name, text="abc abc")._payload()["typical"] is None


@pytest.mark.slow
class TestTheScripts:
    pytestmark = needs_browser

    def test_marks_follow_their_bytes(self, browser):
        """Those at the start and the end that both texts have keep their marks."""
        page = browser.new_page()
        page.set_content(f"<script>{asset('known.js')}</script>")
        script = """([old, marks, text]) => Array.from(
          keepMarks(toBytes(old), Uint8Array.from(marks), toBytes(text))).join("")"""
        for old, marks, text, expected in (
            ("abcd", "0011", "abcd", "0011"),
            ("abcd", "0011", "abxcd", "00011"),
            ("abcd", "0011", "abcdx", "00110"),
            ("abcd", "0011", "abd", "001"),
            ("abcd", "0011", "xyz", "000"),
            ("", "", "a", "0"),
            ("abcd", "0011", "", ""),
        ):
            found = page.evaluate(script, [old, [*marks], text])
            assert found == expected, (old, text)
        page.close()

    def test_bytes_in_lists_are_shown_as_the_characters_that_they_end(self, browser):
        page = browser.new_page()
        page.set_content(f"<script>{asset('bytes.js')}</script>")
        script = """([text, symbol]) => {
          const bytes = Uint8Array.from(text);
          return shownAs(symbol, unfinished(bytes, bytes.length));
        }"""
        for text, symbol, expected in (
            (b"a", ord("b"), "b"),
            (b"a", ord(" "), "space"),
            (b"a", 0xC3, "C3…"),
            (b"a\xc3", 0xA9, "é"),
            (b"a\xc3", ord("b"), "b"),
            (b"a\xc3\xa9", 0xA9, "A9"),
            (b"\xe6\x97", 0xA5, "\u65e5"),
            (b"\xe6", 0x97, "97"),
            (b"\xf0\x9f\x98", 0x80, "\U0001f600"),
            (b"\xa9\xa9\xa9", 0xA9, "A9"),
            (b"", 0xFF, "FF"),
        ):
            assert page.evaluate(script, [[*text], symbol]) == expected, (text, symbol)
        page.close()

    def test_percentages_are_short(self, browser):
        page = browser.new_page()
        page.set_content(f"<script>{asset('numbers.js')}</script>")
        for share, expected in (
            (1, "100%"),
            (0.9999, ">99.9%"),
            (0.9961, "99.6%"),
            (0.123, "12%"),
            (0.0123, "1.2%"),
            (0.000123, "0.01%"),
            (1e-9, "<0.01%"),
            (0, "0%"),
        ):
            assert page.evaluate(f"percent({share})") == expected
        assert page.evaluate("[cost(9.3e-6), cost(0), cost(0.05)]") == ["<0.001", "0.00", "0.05"]
        page.close()
