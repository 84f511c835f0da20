"""The page about the memory: its stream and its bits under shorter memories, against PyTorch."""

import dataclasses
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from browser import needs_browser
from model_pages import HOSTILE, assert_fits_a_phone_in_the_dark, type_text, until, wait
from sharnn import SHARNN, InputError
from sharnn.web.memory import MemoryPage, memory_lengths
from small import small_model

TEXT = "abcabd abcabd Torvald <b>&amp;</b> café, abcabd Torvald, Torvald and Torvald."
LIMIT = 24  # of the small model
# Records the texts of a stream's moments.
RECORD = """() => {
  window.seen = [];
  const moment = document.getElementById("moment");
  const observer = new MutationObserver(() => window.seen.push(moment.textContent));
  observer.observe(moment, { childList: true });
}"""


@pytest.fixture(scope="module")
def model():
    model = small_model(shifted_keys=True, lstm_skip=0.5)
    model.collapse()
    return model


@torch.no_grad()
def bits_of(model, text, limit):
    """Returns the bits of each byte of a text that is read byte by byte; the first costs 8."""
    losses, state = [torch.tensor(8.0)], None
    symbols = torch.tensor(list(text.encode()))
    for symbol, following in pairwise(symbols):
        logits, state = model.step(symbol[None], state, memory_limit=limit)
        losses.append(F.cross_entropy(logits[0], following) / torch.log(torch.tensor(2.0)))
    return torch.stack(losses)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="needs a model with a head"):
        MemoryPage(small_model(attention_layers=()))


def test_lengths_end_at_the_rows_that_a_text_can_have():
    assert memory_lengths(1, 2048) == [1]
    assert memory_lengths(8, 2048) == [1, 2, 4, 8]
    assert memory_lengths(4000, 2048) == [2**i for i in range(12)]


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    @pytest.fixture
    def path(self, model, tmp_path):
        return MemoryPage(model, "small", TEXT).save(tmp_path / "page.html")

    def start(self, page):
        page.click("#start")
        wait(page)
        self.complete(page, TEXT)

    def complete(self, page, text):
        """Waits until a text of this size has been read with every length of the memory."""
        page.wait_for_selector(f"body[data-complete='{len(text.encode())}']", timeout=60_000)

    def check_bits(self, page, model, text, limits=None):
        found = dict(page.evaluate("[...window.sharnn.bitsBy]"))
        assert sorted(found) == memory_lengths(len(text.encode()), LIMIT)
        for limit in limits or found:
            expected = bits_of(model, text, limit)
            torch.testing.assert_close(torch.tensor(found[limit]), expected, rtol=1e-3, atol=1e-3)

    def test_the_prepared_text_has_the_bits_of_each_memory(self, page, stored):
        self.check_bits(page, stored, TEXT)

    def test_a_typed_text_has_the_bits_of_each_memory(self, page, stored):
        self.start(page)
        self.check_bits(page, stored, TEXT)
        for text in (TEXT[:20] + "日本語" + TEXT, "ab"):
            type_text(page, text)
            self.complete(page, text)
            self.check_bits(page, stored, text)

    def test_the_extra_bits_of_a_cut_are_shown(self, page, stored):
        page.fill("#length", "2")  # 4 rows
        cut, whole = (bits_of(stored, TEXT, limit) for limit in (4, LIMIT))
        verdict = page.inner_text("#verdict")
        assert f"costs {cut.sum():.0f} bits" in verdict
        extra, kind = re.search(r": ([\d.]+) (more|fewer) than with all 24", verdict).groups()
        difference = float(cut.sum() - whole.sum())
        assert float(extra) == pytest.approx(abs(difference), abs=0.05)
        assert kind == ("more" if difference > 0 else "fewer")
        curve = page.get_attribute("#total svg", "aria-label")
        assert f" 4: {cut.mean():.3f}," in curve
        assert curve.endswith(f" 24: {whole.mean():.3f}")
        page.locator("#total").click(position={"x": 3, "y": 50})
        assert "a memory of 1 row," in page.inner_text("#verdict")
        page.fill("#length", "2")
        page.evaluate("window.sharnn.choose(40)")
        assert f"{cut[40]:.2f} bits with 4 rows, {whole[40]:.2f}" in page.inner_text("#under-bytes")
        sums = page.evaluate("window.sharnn.costs()")
        for word in sums:
            expected = (cut - whole)[word["start"] : word["end"]].sum()
            assert word["sum"] == pytest.approx(float(expected), abs=1e-2)
        words = page.locator("#words li")
        assert words.count() == min(6, len(sums))
        assert "Torvald" in page.inner_text("#words")

    @pytest.mark.parametrize("window", ["segment", "sliding"])
    def test_the_stream_shows_the_rows_that_pytorchs_queries_see(self, page, model, window):
        page.select_option("#window", window)
        for length, limit in ((1, 1), (5, 12), (8, 20), (8, 8), (16, 10), (3, 48)):
            page.fill("#segment-length", str(length))
            page.fill("#window-length", str(limit))
            moments = page.evaluate("window.sharnn.stream.all")
            size = page.evaluate("window.sharnn.stream.columns")
            queries = [moment for moment in moments if moment["kind"] == "query"]
            before = [moment for moment in moments if moment["kind"] == "before"]
            after = [moment for moment in moments if moment["kind"] == "after"]
            config = dataclasses.replace(model.config, memory_window=window)
            reader = SHARNN(config).eval()
            reader.load_state_dict(model.state_dict())
            state, seen, trimmed, remembered = None, [], [], []
            for x in torch.tensor([list(TEXT.encode())[:size]]).split(length, dim=1):
                with torch.no_grad():
                    _, state, attention = reader.forward_with_attention(
                        x, state, memory_limit=limit
                    )
                seen += (attention[1][0] > 0).sum(dim=1).tolist()
                trimmed.append(attention[1].shape[2] - x.shape[1])
                remembered.append(state.memory_rows)
            assert [q["position"] for q in queries] == list(range(size))
            assert [q["position"] + 1 - q["oldest"] for q in queries] == seen
            assert [moment["start"] - moment["kept"] for moment in before] == trimmed
            assert [moment["end"] - moment["kept"] for moment in after] == remembered

    def test_a_new_text_ends_the_readings_of_the_old_one(self, page, stored):
        self.start(page)
        page.fill("#text", TEXT * 50)
        until(page, "window.sharnn.known.bytes.length > 3000 && window.sharnn.bitsBy.size")
        text = TEXT[::-1] * 20
        page.fill("#text", text)
        self.complete(page, text)
        self.check_bits(page, stored, text, limits=(1, LIMIT))

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#start")
        page.keyboard.press("Enter")
        wait(page)
        self.complete(page, TEXT)
        page.focus("#moment-number")
        page.keyboard.press("Home")
        assert "The memory is empty" in page.inner_text("#moment")
        page.select_option("#speed", "2")  # a second: the stream doesn't end during the test
        page.focus("#play")
        page.keyboard.press("Enter")
        until(page, "window.sharnn.stream.now > 3")
        page.keyboard.press("Enter")
        assert page.inner_text("#play") == "Play"
        now = page.evaluate("window.sharnn.stream.now")
        page.focus("#forward")
        page.keyboard.press("Enter")
        assert page.evaluate("window.sharnn.stream.now") == now + 1
        page.focus("#length")
        page.keyboard.press("Home")
        assert "a memory of 1 row," in page.inner_text("#verdict")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.focus("#words button")
        page.keyboard.press("Enter")
        chosen = page.evaluate("window.sharnn.chosen")
        assert chosen == page.evaluate("window.sharnn.costs()[0].most")
        page.focus("#bytes")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("window.sharnn.chosen") == chosen + 1

    def test_with_reduced_motion_the_stream_jumps_from_segment_to_segment(self, page):
        page.emulate_media(reduced_motion="reduce")
        duration = "getComputedStyle(document.querySelector('#tape i')).transitionDuration"
        assert page.evaluate(duration) == "0s"
        page.fill("#moment-number", "0")
        page.evaluate(RECORD)
        page.click("#play")
        until(page, "window.seen.length >= 2")
        for number, text in enumerate(page.evaluate("window.seen")[:2], start=2):
            assert text.startswith(f"Segment {number}, byte 8 of 8")
        page.click("#play")

    def test_hostile_and_empty_texts(self, page):
        self.start(page)
        type_text(page, HOSTILE)
        self.complete(page, HOSTILE)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        type_text(page, "")
        self.complete(page, "")
        assert page.inner_text("#verdict") == "There is no text."
        assert page.inner_text("#under-bytes") == ""
        assert page.locator("#total").is_hidden()
        assert page.locator("#choice").is_hidden()
        page.click("#play")
        type_text(page, "a")
        self.complete(page, "a")
        assert page.evaluate("window.sharnn.stream.columns") == 1

    def test_it_fits_a_phone_in_the_dark(self, page):
        assert_fits_a_phone_in_the_dark(page)
        assert page.evaluate("window.sharnn.stream.columns") == 32

    def test_it_is_not_much_taller_than_a_screen(self, page):
        assert page.evaluate("document.body.scrollHeight") <= 1260
