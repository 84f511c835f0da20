"""The page that removes rows: in a real browser, compared with sharnn's own ablation."""

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import (
    HOSTILE,
    assert_fits_a_phone_in_the_dark,
    open_page,
    start,
    type_text,
    until,
    wait,
)
from sharnn import InputError, explore
from sharnn.analysis.ablation import ablate
from sharnn.analysis.ablation_page import COUNTS, REPEAT, AblationPage, repeated_keys
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import trace_attention
from small import small_model

TEXT = "The old lamp of Torvald; the old lamp of Mira, and the old lamp of Torvald.\n"
OTHER = "Ein Café, two cafés: the café was the café.\n" * 2
SELECTION = len(COUNTS) + 1  # line of the table
MEMORY = 60


@pytest.fixture(scope="module")
def model():
    """A model with two heads that have clear preferences."""
    model = small_model(memory=MEMORY, attention_layers=(0, 1), shifted_keys=True, lstm_skip=0.5)
    with torch.no_grad():
        for block in (0, 1):
            for parameter in model.blocks[block].head.query_norm.parameters():
                parameter *= 4
    model.collapse()
    return model


def replay_of(model, text):
    """Returns a replay of all bytes but the first, read one at a time as in the page."""
    data = text.encode()
    trace = trace_attention(model, data, start=1, targets=len(data), segment_length=1)
    return Replay(model, trace)


def mask_of(trace, target, rows):
    """Returns a mask (1, memory) of rows, which are numbered like the bytes of the text."""
    mask = torch.zeros(1, trace.memory_limit, dtype=torch.bool)
    for row in rows:
        mask[0, target - row - 1] = True
    return mask


def test_earlier_occurrences_are_found_with_the_byte_after_them():
    trace = trace_attention(small_model(memory=200), TEXT.encode(), start=1, segment_length=1)
    mask = repeated_keys(trace, 4)
    for i, row in enumerate(mask):
        target = trace.first + i
        before = trace.text[max(0, target - 4) : target]
        expected = {
            at + j
            for at in range(target - 4)
            if len(before) == 4 and trace.text[at : at + 4] == before
            for j in range(5)
        }
        assert {target - 1 - int(j) for j in row.nonzero()} == expected
    assert mask.any()


def test_a_page_needs_a_head():
    with pytest.raises(InputError, match="needs a model with a head"):
        AblationPage(small_model(attention_layers=()))


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("ablation") / "page.html"
    return AblationPage(model, "small", TEXT).save(path)


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    def choose(self, page, target):
        """Selects a byte and returns the effect of each line on it."""
        page.evaluate(f"sharnn.choose({target})")
        return page.evaluate("sharnn.effects.at(-1)")

    def test_the_prepared_numbers_are_those_of_the_ablation(self, page, stored):
        replay = replay_of(stored, TEXT)
        table = ablate(replay, 0, COUNTS)
        repeated = replay.bits_without(0, repeated_keys(replay.trace, REPEAT)) - replay.bits
        assert page.evaluate("sharnn.chosen") == 1 + int(table.top[:, 2].argmax())
        for target in (1, 20, 50, 70, len(TEXT) - 2):
            effects = self.choose(page, target)
            for k in range(len(COUNTS)):
                expected = table.top[target - 1, k].item()
                assert effects[k]["bits"] == pytest.approx(expected, abs=1e-3)
            if effects[len(COUNTS)]:
                expected = repeated[target - 1].item()
                assert effects[len(COUNTS)]["bits"] == pytest.approx(expected, abs=1e-3)
        assert effects[len(COUNTS)], "the end occurred before"
        assert page.evaluate("sharnn.session.engine") is None

    @pytest.mark.parametrize("text", [f"x{TEXT}", OTHER])
    def test_removed_rows_cost_what_the_explorer_says(self, page, stored, text):
        start(page)
        type_text(page, text)
        explorer = explore(stored, text.encode(), start=1, targets=len(text), segment_length=1)
        replay = explorer.replay
        repeats = repeated_keys(replay.trace, REPEAT)
        for target in (1, 20, 50, 73):
            effects = self.choose(page, target)
            weights = torch.tensor(page.evaluate("sharnn.attention.weights"))
            expected = replay.trace.weights[0][target - 1, : len(weights)].flip(0)
            torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-4)
            for k, count in enumerate(COUNTS):
                result = explorer.ablate(target - 1, count=count, block=0)
                assert len(effects[k]["rows"]) == result.removed
                assert effects[k]["weight"] == pytest.approx(result.weight, abs=1e-3)
                assert effects[k]["bits"] == pytest.approx(result.bits, abs=1e-3)
            whole = effects[len(COUNTS) - 1]  # all rows: every draw is the same
            assert whole["random"] == pytest.approx([whole["bits"]] * 8, abs=1e-6)
            assert len(set(effects[0]["random"])) > 1 or target == 1
            mask = repeats[target - 1 : target]
            effect = effects[len(COUNTS)]
            assert (effect is not None) == bool(mask.any())
            if effect:
                expected = replay.bits_without(0, mask, [target - 1]) - replay.bits[target - 1]
                assert effect["bits"] == pytest.approx(expected.item(), abs=1e-3)
            probabilities = replay.probabilities_without(
                0, mask_of(replay.trace, target, effects[1]["rows"]), [target - 1]
            )
            expected = probabilities[0].topk(3)
            assert effects[1]["guesses"]["symbols"] == expected.indices.tolist()
            found = effects[1]["guesses"]["probabilities"]
            assert found == pytest.approx(expected.values.tolist(), abs=1e-3)

    def test_a_removal_leaves_the_text_as_it_was(self, page):
        start(page)
        before = self.choose(page, 60)
        self.choose(page, 30)
        assert self.choose(page, 60) == before
        type_text(page, TEXT + "!")
        assert self.choose(page, 60) == before

    def test_selected_rows_of_a_whole_word(self, page, stored):
        start(page)
        replay = replay_of(stored, TEXT)
        first = TEXT.rindex("Torvald")
        page.evaluate(f"sharnn.choose({first + 3})")
        page.check("#word")
        at = TEXT.index("Torvald")
        page.locator("#remembered i").nth(at).click()
        page.locator("#remembered i").nth(at + 6).click(modifiers=["Shift"])
        until(page, "sharnn.effects.at(-1).at(-1)?.rows.length === 7")
        rows = list(range(at, at + 7))
        total = 0.0
        for target in range(first, first + 7):
            visible = [row for row in rows if row >= target - MEMORY]
            mask = mask_of(replay.trace, target, visible)
            total += (replay.bits_without(0, mask, [target - 1]) - replay.bits[target - 1]).item()
        assert page.evaluate(f"sharnn.together({SELECTION}).bits") == pytest.approx(total, abs=5e-3)
        assert page.locator("#remembered i.gone").count() == 7
        expect(page.locator("#verdict")).to_contain_text("“Torvald” costs")
        assert page.locator("#predictions .bytes span").count() == 7

    def test_the_same_bytes_wherever_they_occur(self, page, stored):
        start(page)
        target = len(TEXT) - 3
        page.evaluate(f"sharnn.choose({target})")
        page.check("#everywhere")
        page.check("#extend")
        at = TEXT.index("lamp")
        page.locator("#remembered i").nth(at).click()
        page.locator("#remembered i").nth(at + 3).click()
        places = [i for i in range(len(TEXT)) if TEXT.startswith("lamp", i)]
        assert len(places) == 3
        rows = {at + j for at in places for j in range(4) if at + j >= target - MEMORY}
        until(page, f"sharnn.effects[0]?.at(-1)?.rows.length === {len(rows)}")
        effect = page.evaluate("sharnn.effects[0].at(-1)")
        assert set(effect["rows"]) == rows
        replay = replay_of(stored, TEXT)
        without = replay.bits_without(0, mask_of(replay.trace, target, rows), [target - 1])
        expected = (without - replay.bits[target - 1]).item()
        assert effect["bits"] == pytest.approx(expected, abs=1e-3)

    def test_a_selection_starts_the_model(self, page):
        page.evaluate("sharnn.choose(60)")
        page.locator("#remembered i").nth(40).click()
        wait(page)
        until(page, "sharnn.effects?.[0]?.at(-1)?.rows[0] === 40")
        assert page.evaluate("sharnn.chosen") == 60

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#start")
        page.keyboard.press("Enter")
        wait(page)
        page.focus("#bytes")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("sharnn.chosen") == len(TEXT) - 2
        page.focus("#lines button")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("sharnn.line") == 1
        page.keyboard.press("Tab")  # the focus is kept
        page.keyboard.press("Space")
        assert page.evaluate("sharnn.line") == 2
        page.focus("#remembered")
        page.evaluate("sharnn.look(40)")
        page.keyboard.press("ArrowRight")
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        assert page.evaluate("sharnn.picked") == {"from": 41, "to": 44}
        until(page, "sharnn.effects?.[0]?.at(-1)?.rows.length === 4")

    def test_it_works_if_no_frame_is_drawn(self, browser, path):
        """As in a tab that is left open in the background."""
        with open_page(browser, path, "window.requestAnimationFrame = () => 0") as page:
            start(page)
            type_text(page, OTHER)
            assert len(self.choose(page, 70)[2]["rows"]) == 16

    def test_hostile_text_is_only_text(self, page):
        start(page)
        type_text(page, HOSTILE)
        page.check("#word")
        for target in (3, 12, len(HOSTILE)):
            self.choose(page, target)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0

    def test_very_short_texts(self, page):
        start(page)
        for text in ("é", "ab", "a"):
            type_text(page, text)
        page.fill("#text", "")
        expect(page.locator("#bytes i")).to_have_count(0)
        wait(page)
        for name in ("verdict", "under-bytes", "under-remembered", "predictions"):
            assert page.inner_text(f"#{name}") == "", name
        assert page.inner_text("#causes-hint") == "There is no text."
        assert page.inner_text("#looking-hint") == "There is no text."
        page.check("#word")
        assert "NaN" not in page.locator("body").inner_text()

    def test_nothing_old_is_shown_for_the_first_byte(self, page):
        self.choose(page, 60)
        assert page.inner_text("#under-remembered")
        page.evaluate("sharnn.choose(0)")
        until(page, "!document.getElementById('under-remembered').textContent")
        assert page.inner_text("#verdict") == ""
        assert page.inner_text("#looking-hint").startswith("Before the first byte")
        assert page.locator("#weights-legend").is_hidden()

    def test_it_fits_a_phone_in_the_dark(self, page):
        start(page)
        page.check("#word")
        self.choose(page, 65)
        assert_fits_a_phone_in_the_dark(page)
        assert page.evaluate("(e => e.scrollWidth <= e.clientWidth)(lines.parentElement)")
