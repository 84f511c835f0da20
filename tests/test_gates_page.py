"""The page of gates: its units, and its numbers in a real browser without a network."""

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import HOSTILE, assert_fits_a_phone_in_the_dark, type_text, wait
from sharnn import InputError
from sharnn.corpora.sample import sample_bytes
from sharnn.web.gates import GatesPage
from sharnn.web.units import NUMBERS, find_units, kind_mask, lstm_numbers
from small import small_model

TEXT = "The [[link]] of 1847\nand café <b>1900</b>\n"
DATA = sample_bytes(4_000)


@pytest.fixture(scope="module")
def model():
    model = small_model(lstm_skip=0.5)
    model.collapse()  # as in the page
    return model


@torch.no_grad()
def numbers_by_steps(model, text):
    """Returns i, f, g, o and c of each block after each byte: (blocks, 5, time, dim)."""
    found = [[] for _ in model.blocks]

    def keep_in(rows):
        def keep(lstm, inputs, output):
            x, state = inputs
            hidden = state[0] if state else torch.zeros_like(x[:, 0])
            gates = x[0, 0] @ lstm.weight_ih_l0.T + hidden[0] @ lstm.weight_hh_l0.T
            i, f, g, o = (gates + lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(4)
            _, (_, cell) = output
            rows.append(torch.stack([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid(), cell[0]]))

        return keep

    hooks = [
        block.lstm.register_forward_hook(keep_in(rows))
        for block, rows in zip(model.blocks, found, strict=True)
    ]
    state = None
    for byte in text:
        _, state = model(torch.tensor([[byte]]), state)
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.stack(rows, dim=1) for rows in found])


class TestTheUnits:
    def test_the_numbers_are_those_of_single_steps(self, model):
        found = torch.cat(list(lstm_numbers(model, DATA[:1100])), dim=2)  # several segments
        expected = numbers_by_steps(model, DATA[:1100])
        # The memory is shorter than a segment, so the head sees other rows in steps.
        torch.testing.assert_close(found[:2], expected[:2], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            torch.cat(list(lstm_numbers(model, DATA[:20])), dim=2),
            expected[:, :, :20],
            rtol=1e-3,
            atol=1e-4,
        )

    def test_a_unit_that_closes_at_line_ends_is_found(self):
        model = small_model()
        block, unit, dim = model.blocks[0], 5, model.config.dim
        with torch.no_grad():
            newline = block.start_norm(model.embedding.weight[ord("\n")])
            block.lstm.weight_ih_l0[dim + unit] = -4 * newline
            block.lstm.weight_hh_l0[dim + unit] = 0
            block.lstm.bias_ih_l0[dim + unit] = 55  # its product with itself is 64
        reactions = find_units(model, DATA, count=1)
        best = next(each for each in reactions if each.place == "at line ends")
        assert (best.block, best.unit, best.number) == (0, unit, "forget gate")
        assert best.there < 0.01
        assert best.elsewhere > 0.9
        assert best.words == "forget gate 0.00, elsewhere 1.00"

    def test_the_means_are_those_of_the_half_that_did_not_choose(self, model):
        half = len(DATA) // 2
        numbers = torch.cat(list(lstm_numbers(model, DATA)), dim=2)[:, :, half:]
        reactions = find_units(model, DATA)
        assert len(reactions) == 9
        for each in reactions:
            mask = kind_mask(DATA, each.place)[half:]
            values = numbers[each.block, NUMBERS.index(each.number), :, each.unit]
            assert each.there == pytest.approx(float(values[mask].mean()), abs=1e-5)
            assert each.elsewhere == pytest.approx(float(values[~mask].mean()), abs=1e-5)

    def test_the_largest_reactions_of_the_first_half_come_first(self, model):
        half = len(DATA) // 2
        numbers = torch.cat(list(lstm_numbers(model, DATA)), dim=2)[:, :, :half]
        sizes = {}
        for each in find_units(model, DATA, count=3 * model.config.dim):
            mask = kind_mask(DATA, each.place)[:half]
            values = numbers[each.block, NUMBERS.index(each.number), :, each.unit]
            here, elsewhere = values[mask], values[~mask]
            deviation = (here.var(correction=0) + elsewhere.var(correction=0)).div(2).sqrt()
            size = (here.mean() - elsewhere.mean()).abs() / deviation
            sizes.setdefault(each.place, []).append(float(size))
        for found in sizes.values():
            assert len(found) == 3 * model.config.dim
            assert found == sorted(found, reverse=True)

    def test_the_text_for_the_search_has_any_form(self, model, tmp_path):
        (tmp_path / "text").write_bytes(DATA)
        array = torch.tensor(list(DATA), dtype=torch.uint8)
        for data in (DATA, array, array.numpy(), tmp_path / "text"):
            assert GatesPage(model, data=data).data == DATA
        with pytest.raises(InputError, match="data must be bytes"):
            GatesPage(model, data=[1, 2])

    def test_nothing_is_said_about_bytes_that_hardly_occur(self, model):
        assert find_units(model, b"no digits, links or lines " * 20) == []
        assert {each.place for each in find_units(model, b"1 and 2 " * 20)} == {"at digits"}


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    return GatesPage(model, "small", TEXT, data=DATA).save(path)


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    def numbers(self, page):
        """Returns the numbers of the chosen unit, (time, 5)."""
        return torch.tensor(
            page.evaluate("Array.from(sharnn.known.bytes, (_, i) => sharnn.numbersAt(i))")
        )

    def choose_unit(self, page, block, unit):
        page.select_option("#block", str(block))
        wait(page)
        page.fill("#unit", str(unit))
        page.press("#unit", "Enter")

    def test_the_offered_units_are_shown_before_the_model_runs(self, page, stored):
        expected = numbers_by_steps(stored, TEXT.encode())
        buttons = page.locator("#offers button")
        reactions = find_units(stored, DATA)
        assert buttons.count() == len(reactions)
        for k, each in enumerate(reactions):
            assert each.words in buttons.nth(k).inner_text()
            buttons.nth(k).click()
            found = self.numbers(page)
            torch.testing.assert_close(
                found, expected[each.block, :, :, each.unit].T, rtol=1e-3, atol=1e-4
            )
        assert page.evaluate("document.body.dataset.started") is None

    def test_the_numbers_of_any_unit_are_pytorchs(self, page, stored):
        page.click("#start")
        wait(page)
        for text in (TEXT, TEXT + "1", "x" + TEXT, "日本語", TEXT):
            type_text(page, text)
            expected = numbers_by_steps(stored, text.encode())
            for block, unit in ((0, 0), (1, 15), (2, 7), (2, 8)):
                self.choose_unit(page, block, unit)
                found = self.numbers(page)
                torch.testing.assert_close(
                    found, expected[block, :, :, unit].T, rtol=1e-3, atol=1e-3
                )

    def test_another_unit_starts_the_model(self, page, stored):
        taken = {each.unit for each in find_units(stored, DATA)}
        unit = next(unit for unit in range(16) if unit not in taken)
        page.fill("#unit", str(unit))
        page.press("#unit", "Enter")
        wait(page)
        expect(page.locator("#numbers dd")).to_have_count(5)

    def test_another_block_can_be_chosen_while_the_model_starts(self, page, stored):
        page.evaluate("document.getElementById('start').click(); sharnn.select(2, 3)")
        wait(page)
        expected = numbers_by_steps(stored, TEXT.encode())[2, :, :, 3].T
        torch.testing.assert_close(self.numbers(page), expected, rtol=1e-3, atol=1e-3)

    def test_the_shown_numbers_are_those_of_the_byte(self, page, stored):
        each = find_units(stored, DATA)[0]
        numbers = numbers_by_steps(stored, TEXT.encode())
        i, f, g, o, c = numbers[each.block, :, 7, each.unit].tolist()
        page.locator("#bytes i").nth(7).click(position={"x": 3, "y": 60})  # on its tracks
        shown = page.locator("#numbers dd").all_inner_texts()
        assert [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown] == pytest.approx(
            [i, f, g, o, c], abs=0.006
        )
        page.locator("#bytes i").nth(9).hover(position={"x": 3, "y": 5})
        assert page.locator("#numbers dd").all_inner_texts() != shown
        page.hover("#typing-title")
        assert page.locator("#numbers dd").all_inner_texts() == shown

    def test_the_text_is_coloured_by_a_number(self, page):
        page.select_option("#colour", label="forget gate")
        values = self.numbers(page)[:, 1]
        page.wait_for_timeout(50)
        levels = torch.tensor(page.evaluate("Array.from(sharnn.pane.levels)"))
        torch.testing.assert_close(levels.float(), (16 * values).round(), rtol=0, atol=1)
        page.select_option("#colour", label="nothing")
        assert set(page.evaluate("Array.from(sharnn.pane.levels)")) == {0}

    def test_the_tracks_are_drawn_below_the_bytes(self, page):
        count = """() => {
          const canvas = document.getElementById("tracks");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return data.filter((value, i) => i % 4 === 3 && value > 200).length;
        }"""
        assert page.evaluate(count) > 2000

    @pytest.mark.parametrize("value", ["-5", "16", "1.5", ""])
    def test_an_invalid_unit_is_refused(self, page, value):
        unit = page.evaluate("sharnn.unit")
        page.fill("#unit", value)
        expect(page.locator("#refusal")).to_have_text("unit must be a whole number from 0 to 15.")
        assert page.get_attribute("#unit", "aria-invalid") == "true"
        page.select_option("#block", "2")
        assert page.evaluate("[sharnn.unit, document.body.dataset.started]") == [unit, None]
        page.locator("#offers button").first.click()
        assert page.locator("#refusal").is_hidden()

    def test_blocks_are_numbered_from_0(self, page):
        assert page.locator("#block option").all_inner_texts()[2] == "2, the third"
        assert "numbered from 0" in page.inner_text("#choosing-hint")
        assert "Only the second also has a head" in page.inner_text("#about")

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#start")
        page.keyboard.press("Enter")
        wait(page)
        page.focus("#bytes")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("sharnn.chosen") == 1
        assert "cell" in page.get_attribute("#bytes", "aria-valuetext")
        page.locator("#offers button").nth(4).focus()
        page.keyboard.press("Enter")
        assert page.locator("#offers button").nth(4).get_attribute("aria-pressed") == "true"
        page.focus("#unit")
        before = int(page.input_value("#unit"))
        page.keyboard.press("ArrowUp" if before < 15 else "ArrowDown")
        assert page.evaluate("sharnn.unit") != before

    def test_hostile_text_is_only_text(self, page):
        type_text(page, HOSTILE)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0

    def test_an_empty_and_a_long_text(self, page):
        type_text(page, "")
        assert page.locator("#bytes i").count() == 0
        assert page.locator("#numbers dd").count() == 0
        assert page.inner_text("#under-bytes") == "There is no text."
        assert page.inner_text("#update") == ""
        page.fill("#text", "a long line \n" * 400)
        expect(page.locator("#status")).to_contain_text("first 4,000 bytes", timeout=60_000)
        assert len(self.numbers(page)) == 4000

    def test_it_reads_on_while_nobody_looks(self, page):
        page.click("#start")
        wait(page)
        page.evaluate("window.requestAnimationFrame = () => 0")  # as in a tab out of view
        type_text(page, "abc [[def]] " * 100)
        assert len(self.numbers(page)) == 1200

    def test_it_fits_a_phone_in_the_dark(self, page):
        assert_fits_a_phone_in_the_dark(page)
