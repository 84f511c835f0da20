"""The model continues a reader's text: waiting, writing, removing, undoing, and what is refused."""

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import TEXT, bits_of, expect_read, start, type_text, until, wait
from test_playground_use import totals


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    def test_what_the_model_wrote_is_marked_and_scored_apart(self, page, stored):
        start(page)
        type_text(page, TEXT)
        before, size = totals(page), len(TEXT.encode())
        page.click("#continue")
        expect(page.locator("#apart")).to_contain_text("that the model wrote", timeout=60_000)
        wait(page)
        assert totals(page) == before
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
        until(page, "!sharnn.session.typing")  # the text is being read
        assert "no space for more" in page.inner_text("#refusal")
        assert page.locator("#stop").is_hidden()
        assert page.input_value("#text") == text
        page.fill("#text", "short")
        assert page.locator("#limit").is_hidden()

    def test_an_empty_text_is_not_continued(self, page):
        start(page)
        type_text(page, "")
        assert page.locator("#continue").is_disabled()
        page.evaluate("sharnn.writer.write()")
        assert page.inner_text("#refusal") == "Write something first: the model continues a text."
        assert page.input_value("#text") == ""
        type_text(page, "a")
        assert page.locator("#refusal").is_hidden()
        assert page.locator("#continue").is_enabled()

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
