"""The page of sampling: its distributions, and what it writes, in a browser without a network."""

import itertools

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import (
    HOSTILE,
    assert_fits_a_phone_in_the_dark,
    start,
    type_text,
    until,
)
from sharnn import InputError
from sharnn.inference.sampling import distribution
from sharnn.web.page import asset
from sharnn.web.sampling import SamplingPage
from small import small_model

PROMPT = "abcabd <b> café "
SETTINGS = list(
    itertools.product((0, 0.3, 1, 2), (1, 3, 40, 256), (0.05, 0.5, 0.95, 1))
)  # temperature, top-k, top-p


@pytest.fixture(scope="module")
def model():
    model = small_model()
    model.collapse()  # as in the page
    with torch.no_grad():
        model.embedding.weight *= 2  # some bytes far likelier than others
    return model


@torch.no_grad()
def logits_after(model, text):
    """Returns the logits of the byte after a text, (256,)."""
    return model(torch.tensor([list(text)]))[0][0, -1]


def test_the_prompt_is_short(model):
    with pytest.raises(InputError, match="must have 2 to 300 bytes, got 301"):
        SamplingPage(model, text="a" * 301)


@pytest.mark.slow
class TestDrawing:
    pytestmark = needs_browser

    def test_symbols_are_drawn_as_often_as_they_are_likely(self, browser):
        draw = """() => {
          const cost = Float32Array.of(3, 1, 2, 3);
          const found = distribution(cost, { temperature: 1, topK: 3, topP: 1 });
          const counts = [0, 0, 0, 0];
          for (let seed = 0; seed < 100; seed++) {
            for (let n = 0; n < 100; n++) counts[draw(found, uniform(seed, n))]++;
          }
          return counts.map((count) => count / 10000);
        }"""
        page = browser.new_page()
        scripts = asset("random.js") + asset("distribution.js")
        page.set_content(f"<script>{scripts}</script>")
        assert page.evaluate(draw) == pytest.approx([1 / 7, 4 / 7, 2 / 7, 0], abs=0.015)
        page.close()

    def test_the_first_numbers_of_seeds_have_nothing_in_common(self, browser):
        page = browser.new_page()
        page.set_content(f"<script>{asset('random.js')}</script>")
        numbers = page.evaluate("Array.from({ length: 1000 }, (_, seed) => uniform(seed, 0))")
        page.close()
        numbers = torch.tensor(numbers)
        counts = (10 * numbers).floor().long().bincount(minlength=10)
        assert counts.min() > 70
        assert counts.max() < 130
        assert torch.stack([numbers[:-1], numbers[1:]]).corrcoef()[0, 1].abs() < 0.1


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    return SamplingPage(model, "small", PROMPT).save(path)


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    def choose_settings(self, page, temperature=1.0, top_k=256, top_p=1.0, seed=1):
        values = {"temperature": temperature, "top-k": top_k, "top-p": top_p, "seed": seed}
        for name, value in values.items():
            page.fill(f"#{name}", str(value))

    def shown(self, page):
        """Returns the distribution of the chosen byte, once it is shown."""
        current = """async () => {
          const view = window.sharnn;
          const first = view.prompt.bytes.length;
          const wanted = () => view.written[view.chosen - first]?.settings ?? view.settings;
          const isShown = () => view.shown?.index === view.chosen
            && JSON.stringify(view.shown.settings) === JSON.stringify(wanted());
          while (!isShown()) {
            await new Promise((resume) => setTimeout(resume, 5));
          }
          return view.shown;
        }"""
        return page.evaluate(current)

    def write(self, page, button="#many"):
        """Presses a button, and returns all that has been written so far."""
        page.click(button)
        until(page, "!sharnn.busy")
        return bytes(page.evaluate("sharnn.written.map(({ symbol }) => symbol)"))

    def erase(self, page):
        page.click("#erase")
        until(page, "sharnn.ready && !sharnn.written.length")

    @pytest.mark.parametrize("started", [False, True])
    def test_the_distribution_is_that_of_the_library(self, page, stored, started):
        if started:
            start(page)
        logits = logits_after(stored, PROMPT.encode())
        for temperature, top_k, top_p in SETTINGS:
            self.choose_settings(page, temperature, top_k, top_p)
            found = self.shown(page)
            expected, symbols = distribution(
                logits, temperature, top_k, None if top_p == 1 else top_p
            )
            kept = len(symbols)
            assert found["kept"] == kept, (temperature, top_k, top_p)
            assert found["symbols"][:kept] == symbols.tolist()
            total = expected.sum()
            assert found["mass"] == pytest.approx(float(total), abs=1e-4)
            after = torch.tensor(found["after"], dtype=torch.float64)
            torch.testing.assert_close(after[:kept], expected / total, rtol=1e-3, atol=1e-5)
            assert (after[kept:] == 0).all()
            before = torch.tensor(found["before"])
            expected = logits.softmax(-1).sort(descending=True).values
            torch.testing.assert_close(before, expected, rtol=1e-3, atol=1e-5)

    def test_what_is_cut_is_stated_and_shown(self, page, stored):
        p, _ = distribution(logits_after(stored, PROMPT.encode()), 1.0)
        self.choose_settings(page, top_k=5)
        self.shown(page)
        share = page.locator("#kept").inner_text()
        assert share.startswith("Kept: 5 of 256 bytes, ")
        assert float(share.split()[5].rstrip("%")) == pytest.approx(
            100 * float(p[:5].sum()), abs=0.6
        )
        bits = page.locator("#entropy").inner_text().split()
        kept = p[:5] / p[:5].sum()
        for text, q in ((bits[1], p), (bits[4], kept)):
            assert float(text) == pytest.approx(-(q * q.log2()).nansum().item(), abs=0.006)
        items = page.locator("#symbols li")
        assert "rule" in items.nth(5).get_attribute("class")
        assert "top-k 5 cuts after 5" in items.nth(5).inner_text()
        assert [("cut" in items.nth(i).get_attribute("class")) for i in range(10)] == [
            *5 * [False],
            False,  # the rule
            *4 * [True],
        ]
        assert page.locator("#wheel span").count() == 5

    def test_the_likeliest_bytes_are_written_at_temperature_0(self, page, stored):
        start(page)
        self.choose_settings(page, temperature=0)
        written = self.write(page)
        assert len(written) == 100
        for i in range(0, 100, 9):
            logits = logits_after(stored, PROMPT.encode() + written[:i])
            assert written[i] == int(logits.argmax())

    def test_the_same_seed_gives_the_same_text_again(self, page):
        self.choose_settings(page, temperature=1, top_k=40)
        first = self.write(page)  # starts the model, too
        self.erase(page)
        for i in range(5):
            assert self.write(page, "#one") == first[: i + 1]
        assert self.write(page)[:100] == first
        self.erase(page)
        assert self.write(page) == first
        self.erase(page)
        self.choose_settings(page, temperature=1, top_k=40, seed=2)
        assert self.write(page) != first

    def test_a_written_byte_shows_what_it_was_drawn_from(self, page, stored):
        start(page)
        self.choose_settings(page, temperature=0.7, top_k=20)
        written = self.write(page)
        self.choose_settings(page, temperature=1.5, top_p=0.5)
        size = len(PROMPT.encode())
        bits = page.evaluate("sharnn.written.map(({ bits }) => bits)")
        for i in (0, 31, 99):
            page.evaluate(f"sharnn.choose({size + i})")
            found = self.shown(page)
            logits = logits_after(stored, PROMPT.encode() + written[:i])
            expected, symbols = distribution(logits, 0.7, 20)
            assert found["symbols"][:20] == symbols.tolist()
            after = torch.tensor(found["after"][:20])
            torch.testing.assert_close(
                after, (expected / expected.sum()).float(), rtol=1e-3, atol=1e-4
            )
            assert written[i] in symbols
            cost = -logits.log_softmax(-1)[written[i]] / torch.log(torch.tensor(2.0))
            assert bits[i] == pytest.approx(float(cost), abs=2e-3)
            assert "temperature 0.7, top-k 20" in page.locator("#under-bytes").inner_text()
            assert page.locator("#symbols .came").count() == 1
            number = page.evaluate(f"sharnn.written[{i}].number")
            chosen = int((after.cumsum(0) <= number).sum())
            assert int(symbols[min(chosen, 19)]) == written[i]

    def test_the_text_is_coloured_by_the_bits_of_its_bytes(self, page):
        start(page)
        self.write(page)
        size = len(PROMPT.encode())
        bits = torch.tensor(page.evaluate("sharnn.written.map(({ bits }) => bits)"))
        levels = page.evaluate("Array.from(sharnn.pane.levels)")
        assert set(levels[:size]) == {0}
        expected = (16 * (bits / 8).clamp(max=1)).round()
        torch.testing.assert_close(torch.tensor(levels[size:-1]).float(), expected, rtol=0, atol=1)

    def test_a_new_prompt_erases_what_was_written(self, page, stored):
        start(page)
        self.write(page)
        type_text(page, "xyz")
        assert page.evaluate("sharnn.written.length") == 0
        found = self.shown(page)
        assert found["symbols"][0] == int(logits_after(stored, b"xyz").argmax())

    def test_writing_waits_until_the_prompt_has_been_read(self, page):
        start(page)
        page.evaluate("""() => {
          document.getElementById("text").value = "a long line ".repeat(200);
          sharnn.session.read();
          document.getElementById("one").click();
        }""")
        until(page, "!sharnn.busy")
        assert page.evaluate("sharnn.written.length") == 1
        assert page.evaluate("sharnn.text.bytes.length") == 2401

    def test_what_is_being_written_can_be_erased(self, page):
        start(page)
        page.evaluate("""async () => {
          sharnn.write(1000);
          while (!sharnn.written.length) await new Promise((resume) => setTimeout(resume, 1));
          sharnn.erase();
        }""")
        until(page, "sharnn.ready && !sharnn.busy")
        first = self.write(page, "#one")
        self.erase(page)
        assert self.write(page, "#one") == first

    def test_writing_can_be_stopped(self, page):
        start(page)
        page.click("#many")
        page.evaluate("document.getElementById('stop').click()")
        until(page, "!sharnn.busy")
        count = page.evaluate("sharnn.written.length")
        assert len(self.write(page, "#one")) == count + 1

    def test_no_more_than_the_limit_is_written(self, page):
        start(page)
        for _ in range(9):
            self.write(page)
        page.click("#many")
        expect(page.locator("#total")).to_contain_text("1,000 bytes written", timeout=60_000)
        expect(page.locator("#many")).to_be_disabled()
        expect(page.locator("#erase")).to_be_enabled()

    @pytest.mark.parametrize("value", ["-1", "4294967296", "0.5", ""])
    def test_an_invalid_seed_is_refused(self, page, value):
        page.fill("#seed", value)
        reason = "seed must be a whole number from 0 to 4,294,967,295."
        expect(page.locator("#refusal")).to_have_text(reason)
        assert page.get_attribute("#seed", "aria-invalid") == "true"
        page.click("#one")
        expect(page.locator("#seed")).to_be_focused()
        assert page.evaluate("[sharnn.written.length, document.body.dataset.started]") == [0, None]
        page.fill("#seed", "7")
        assert page.locator("#refusal").is_hidden()
        assert len(self.write(page, "#one")) == 1

    def test_a_character_is_named_once_its_bytes_are_there(self, page):
        start(page)
        page.evaluate("sharnn.choose(15)")  # the second byte of é
        until(page, "sharnn.shown?.index === 15")
        assert page.locator("#symbols .came code").inner_text() == "é"
        assert "é" not in page.inner_text("#drawing-hint")

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#temperature")
        page.keyboard.press("Home")
        assert "Temperature 0" in page.locator("#kept").inner_text()
        page.focus("#one")
        page.keyboard.press("Enter")
        until(page, "!sharnn.busy")
        assert page.locator("#total").inner_text().startswith("1 byte written")
        for count in (2, 3):
            page.keyboard.press("Enter")
            until(page, f"!sharnn.busy && sharnn.written.length === {count}")
        page.focus("#bytes")
        page.keyboard.press("Home")
        assert page.evaluate("sharnn.chosen") == 0
        assert "part of the prompt" in page.get_attribute("#bytes", "aria-valuetext")
        page.keyboard.press("End")
        assert page.get_attribute("#bytes", "aria-valuetext") == "the next byte: not drawn yet"

    def test_hostile_text_is_only_text(self, page):
        type_text(page, HOSTILE)
        self.write(page)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0

    def test_an_empty_and_a_long_prompt(self, page):
        type_text(page, "")
        assert self.shown(page)["before"] == pytest.approx([1 / 256] * 256)
        assert page.inner_text("#drawing-hint").startswith("Before the first byte, all 256 are")
        assert len(self.write(page, "#one")) == 1
        page.fill("#text", "a long line \n" * 400)
        expect(page.locator("#status")).to_contain_text("first 4,000 bytes", timeout=60_000)
        assert len(self.write(page)) == 100

    def test_it_writes_on_while_nobody_looks(self, page):
        start(page)
        page.evaluate("window.requestAnimationFrame = () => 0")  # as in a tab out of view
        assert len(self.write(page)) == 100

    def test_it_fits_a_phone_in_the_dark(self, page):
        start(page)
        self.write(page)
        assert_fits_a_phone_in_the_dark(page)
