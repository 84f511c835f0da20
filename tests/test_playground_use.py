"""The playground in a reader's hands: what the model wrote, invalid numbers, and empty texts."""

import re

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import expect_read, open_page, start, type_text, until, wait
from sharnn import Playground, save
from sharnn.checkpoint import SHIPPED
from sharnn.web.model_page import shipped_record
from sharnn.web.page import asset
from small import small_model
from test_playground import TEXT, bits_of


@pytest.fixture(scope="module")
def model():
    model = small_model(shifted_keys=True, lstm_skip=0.5)
    model.collapse()
    return model


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    @pytest.fixture
    def path(self, model, tmp_path):
        return Playground(model, "small", TEXT).save(tmp_path / "page.html")

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

    def test_the_score_of_a_shipped_model_is_stated(self, browser, model, tmp_path):
        playground = Playground(model, "small", TEXT)
        playground.record = {
            "findings": {"bits per byte": "1.503", "bits per byte with 1 row": "3.006"}
        }
        with open_page(browser, playground.save(tmp_path / "scored.html")) as page:
            words = page.inner_text("#race .wide")
            assert "small on Wikipedia text that it has not seen: 1.50 bits per byte, 3.01" in words
            assert "saves 50% there" in words
            assert page.locator("#race .holder .typical").count() == 1

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
        expect(page.locator("#apart")).to_contain_text("that the model wrote", timeout=60_000)
        wait(page)
        assert self.totals(page) == before
        assert page.evaluate("sharnn.chosen") == size
        assert page.locator("#under-bytes").inner_text().endswith("; written by the model")
        text = page.input_value("#text")
        count = len(text.encode()) - size
        assert text.startswith(TEXT)
        assert f"the {count} bytes that the model wrote" in page.inner_text("#apart")
        bits = bits_of(stored, text)[size:].mean()
        assert f"{bits:.2f} bits per byte" in page.inner_text("#apart")
        for pane in ("#bytes", "#remembered"):
            assert page.locator(f"{pane} i.written").count() == count
            assert "written" in page.locator(f"{pane} i").nth(size).get_attribute("class")
        page.focus("#text")
        page.keyboard.press("Control+Home")
        page.keyboard.type("x")
        expect_read(page, size + count + 1)
        assert page.locator("#bytes i.written").count() == count
        assert "written" not in (page.locator("#bytes i").nth(size).get_attribute("class") or "")

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
        for _ in range(2):  # once or more often
            page.evaluate("document.getElementById('continue').click()")
        expect(page.locator("#apart")).to_contain_text("that the model wrote", timeout=60_000)
        wait(page)
        written = page.input_value("#text").encode()
        size = len(text.encode())
        assert written.startswith(text.encode())
        with torch.no_grad():
            logits, _ = stored(torch.tensor([list(text.encode())]))
        first = bytes([int(logits[0, -1].argmax())])
        assert written[size:].startswith(first.decode(errors="replace").encode())

    def read_slowly(self, page, text):
        """Types a text whose reading does not end before `finishReading` is called."""
        page.evaluate(
            """() => {
              const { session } = sharnn;
              const request = session.request.bind(session);
              session.request = async (type, fields, receive) => {
                const answer = await request(type, fields, receive);
                if (type === "read") await new Promise((finish) => (window.finishReading = finish));
                return answer;
              };
            }"""
        )
        page.fill("#text", text)
        until(page, "typeof finishReading === 'function'")

    def test_the_model_waits_visibly_until_it_has_read(self, page):
        start(page)
        self.read_slowly(page, TEXT + TEXT)
        page.click("#continue")
        expect(page.locator("#stop")).to_be_visible()
        assert page.locator("#continue").is_hidden()
        size = 2 * len(TEXT.encode())
        assert page.inner_text("#status") == f"{size} of {size} bytes, then it continues the text"
        page.click("#stop")
        expect(page.locator("#continue")).to_be_focused()
        assert page.inner_text("#status") == f"{size} of {size} bytes"
        page.evaluate("finishReading()")
        expect_read(page, size)
        assert page.input_value("#text") == TEXT + TEXT

    def write(self, page):
        """Lets the model continue the text, and returns the text that follows from it."""
        page.click("#continue")
        expect(page.locator("#remove")).to_be_visible(timeout=60_000)
        wait(page)
        return page.input_value("#text")

    def test_what_the_model_wrote_can_be_removed(self, page):
        start(page)
        type_text(page, TEXT)
        assert page.locator("#remove").is_hidden()
        whole = self.write(page)
        page.focus("#text")
        page.keyboard.press("Control+End")
        page.keyboard.type("my own")
        expect_read(page, len(f"{whole}my own".encode()))
        page.click("#remove")
        expect_read(page, len(f"{TEXT}my own".encode()))
        assert page.input_value("#text") == f"{TEXT}my own"
        assert page.locator("i.written").count() == 0
        assert page.locator("#remove").is_hidden()

    def test_undo_takes_off_what_the_model_wrote_and_then_what_was_typed(self, page):
        start(page)
        page.focus("#text")
        page.keyboard.press("Control+a")
        page.keyboard.type("abc ")
        expect_read(page, 4)
        whole = self.write(page)
        count = page.locator("#bytes i.written").count()
        page.focus("#text")
        for text in ("abc ", TEXT, TEXT):
            page.keyboard.press("Control+z")
            assert page.input_value("#text") == text
        expect_read(page, len(TEXT.encode()))
        for text in ("abc ", whole, whole):
            page.keyboard.press("Control+Shift+z")
            assert page.input_value("#text") == text
        expect_read(page, len(whole.encode()))
        assert page.locator("#bytes i.written").count() == count
        # The browser's menu undoes in the same way.
        page.evaluate("document.execCommand('undo')")
        assert page.input_value("#text") == "abc "
        page.evaluate("document.execCommand('redo')")
        assert page.input_value("#text") == whole
        expect_read(page, len(whole.encode()))

    def test_there_is_a_way_back_to_the_example(self, page):
        assert page.locator("#to-example").is_hidden()
        start(page)
        assert page.locator("#to-example").is_hidden()
        chosen = page.evaluate("sharnn.chosen")
        type_text(page, "another text")
        page.click("#to-example")
        expect_read(page, len(TEXT.encode()))
        assert page.input_value("#text") == TEXT
        assert page.evaluate("sharnn.chosen") == chosen
        assert page.locator("#to-example").is_hidden()
        page.keyboard.press("Control+z")
        assert page.input_value("#text") == "another text"

    def test_typing_ends_the_writing_and_nothing_typed_is_lost(self, page):
        start(page)
        type_text(page, TEXT)
        page.focus("#text")
        page.keyboard.press("Control+End")
        self.write_slowly(page)
        assert page.input_value("#text") == TEXT + "abc"
        page.keyboard.type("KEPT")
        page.evaluate("finishWriting()")
        expect(page.locator("#continue")).to_be_visible()
        expect_read(page, len(f"{TEXT}abcKEPT".encode()))
        assert page.input_value("#text") == TEXT + "abcKEPT"
        assert page.locator("#bytes i.written").count() == 3
        for text in (TEXT + "abc", TEXT):
            page.keyboard.press("Control+z")
            assert page.input_value("#text") == text

    def test_undo_ends_the_writing(self, page):
        start(page)
        page.focus("#text")
        self.write_slowly(page)
        assert page.input_value("#text") == TEXT + "abc"
        page.keyboard.press("Control+z")
        assert page.input_value("#text") == TEXT
        page.evaluate("finishWriting()")
        expect(page.locator("#continue")).to_be_visible()
        wait(page)
        assert page.input_value("#text") == TEXT

    def write_slowly(self, page):
        """Lets the model write "abc", and not end before `finishWriting` is called."""
        page.evaluate(
            """() => {
              const { session } = sharnn;
              const request = session.request.bind(session);
              session.request = (type, fields, receive) => {
                if (type !== "write") return request(type, fields, receive);
                receive({ symbols: [97, 98, 99] });
                return new Promise((finish) => (window.finishWriting = finish));
              };
              document.getElementById("continue").click();
            }"""
        )
        until(page, "typeof finishWriting === 'function'")

    def test_a_long_text_is_reported_at_once(self, page):
        start(page)
        self.read_slowly(page, "x")
        text = "a long line é\n" * 500
        page.fill("#text", text)
        words = "The text has 7,500 bytes. Only the first 4,000 are read."
        expect(page.locator("#limit")).to_have_text(words)
        assert page.locator("#status").inner_text() != words
        page.click("#continue")
        expect(page.locator("#refusal")).to_have_text(
            "The text has 7,500 bytes, and 4,000 is the most: there is no space for more."
        )
        assert page.locator("#stop").is_hidden()
        assert page.input_value("#text") == text
        page.fill("#text", "short")
        assert page.locator("#limit").is_hidden()

    def test_an_empty_text_is_not_continued(self, page):
        start(page)
        type_text(page, "")
        assert page.locator("#continue").is_disabled()
        page.evaluate("sharnn.write()")
        assert page.inner_text("#refusal") == "Write something first: the model continues a text."
        assert page.input_value("#text") == ""
        type_text(page, "a")
        assert page.locator("#refusal").is_hidden()
        assert page.locator("#continue").is_enabled()

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
