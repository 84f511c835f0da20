"""The explorer's page in a real browser, from a single file and without a network."""

import html
import math
import re
import statistics

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import until
from sharnn import SHARNN, ModelConfig, explore
from small import small_model

pytestmark = [
    pytest.mark.slow,
    *needs_browser,
]

PLAIN = b"The quick brown fox\njumps over the lazy dog,\tand then it sleeps.\n" * 8
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>&lt;b&gt;\n"
    "--><!-- {{ }} `${window.hacked=3}`\n"
    "abc\u202edef \u2066x \ufeff \u00a0 \u200b \u0301e \u115f \U000e0001"
    " 😀 سلام 漢字 é\x00\x07\x7f\r\n"
).encode() + b"\xff\xc3\x28\xe2\x82 \xf0\x9f\n"
PLACES = ("0, the first", "1, the second", "2, the third")  # of blocks
# The promised limits, in milliseconds.
FIRST_PAINT = 1000
SELECTION = 50
FIRST_CONTENTFUL_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
# Waits longer than the page, which continues after a frame or, if none is drawn, 500 ms.
AFTER_A_FRAME = """new Promise((done) => {
  requestAnimationFrame(() => setTimeout(done));
  setTimeout(done, 1000);
})"""


@pytest.fixture(scope="module")
def model():
    """A model whose heads have clear preferences."""
    model = small_model(memory=120, attention_layers=(0, 1))
    with torch.no_grad():
        for block in (0, 1):
            for parameter in model.blocks[block].head.query_norm.parameters():
                parameter *= 4
    return model


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """An explorer for a text of short lines, and the path of its page."""
    explorer = explore(model, PLAIN, targets=300)
    return explorer, explorer.save(tmp_path_factory.mktemp("plain") / "page.html")


@pytest.fixture
def show(browser):
    """Opens a page without a network. Any message, error or request of the page fails the test."""
    contexts, problems = [], []

    def open_page(path, ready=True, script="", **options):
        options = {"viewport": {"width": 1200, "height": 900}, **options}
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.on("console", lambda m: problems.append(m.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: r.url == path.as_uri() or problems.append(r.url))
        page.goto(path.as_uri())
        if ready:
            page.locator("body[data-ready]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def chosen(page) -> int:
    return page.evaluate("sharnn.chosen")


def cell(page, pane: str, index: int):
    """Scrolls a pane to a byte and returns the element of its cell."""
    handle = page.evaluate_handle(
        f"(sharnn.{pane}.show({index}), sharnn.{pane}.cell({index}))"
    ).as_element()
    return handle


class TestNumbers:
    @pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
    def test_the_weights_in_the_browser_are_the_models(self, show, tmp_path, heads):
        model = small_model(memory=40, attention_layers=heads)
        explorer = explore(model, PLAIN[:150])
        page = show(explorer.save(tmp_path / "page.html"))
        assert page.locator("#head-choice").is_visible() == (len(heads) > 1)
        for place, block in enumerate(heads):
            if place:
                page.select_option("#head", label=PLACES[block])
            assert page.evaluate("sharnn.head.block") == block
            weights = page.evaluate(
                "Array.from({ length: sharnn.trace.numTargets },"
                " (_, i) => [...sharnn.head.weights(i)])"
            )
            expected = explorer.trace.weights[block]
            assert torch.allclose(torch.tensor(weights), expected, rtol=0.0334, atol=1e-7)

    def test_texts_and_tables_follow_the_selected_head(self, show, tmp_path):
        explorer = explore(small_model(memory=40, attention_layers=(0, 1, 2)), PLAIN[:150])
        page = show(explorer.save(tmp_path / "page.html"))
        seen = set()
        for block in (2, 0, 1):
            page.select_option("#head", label=PLACES[block])
            page.evaluate("sharnn.choose(100)")
            table = page.locator("#by-count").inner_text()
            result = explorer.ablate(100, count=4, block=block)
            sign = "+" if result.bits > 0 else "\N{MINUS SIGN}"
            assert f"{sign}{abs(result.bits):.3f}" in table
            seen.add(table + page.locator("#peaks").inner_text())
        assert len(seen) == 3

    def test_the_bits_of_the_selected_byte(self, show, plain):
        explorer, path = plain
        page = show(path)
        page.evaluate("sharnn.choose(17)")
        bits = float(explorer.trace.bits[explorer.trace.first + 17])
        digits = 1 if bits >= 10 else 2
        assert f"{bits:.{digits}f} bits" in page.locator("#byte").inner_text()


class TestSelection:
    def test_by_mouse(self, show, plain):
        page = show(plain[1])
        first = plain[0].trace.first
        cell(page, "targetPane", first + 30).click()
        assert chosen(page) == 30
        assert page.locator("#targets i.here").count() == 1
        cell(page, "targetPane", first + 33).hover()
        expect(page.locator("#under-targets")).to_contain_text("bits")
        assert chosen(page) == 30, "hovering does not select"
        page.mouse.move(1, 1)
        expect(page.locator("#under-targets")).to_have_text("")

    def test_the_memory_by_mouse(self, show, plain):
        page = show(plain[1])
        page.evaluate("sharnn.choose(100)")
        target = plain[0].trace.first + 100
        cell(page, "memoryPane", target - 7).hover()
        expect(page.locator("#under-remembered")).to_contain_text("7 bytes back: weight")
        cell(page, "memoryPane", target - 9).click()
        assert page.evaluate("sharnn.marked") == 9
        page.mouse.move(1, 1)
        expect(page.locator("#under-remembered")).to_contain_text("9 bytes back: weight")
        weight = float(plain[0].trace.weights[0][100, 8])
        text = page.locator("#under-remembered").inner_text()
        assert float(re.search(r"weight ([\d.]+)%", text)[1]) / 100 == pytest.approx(
            weight, rel=0.1
        )
        cell(page, "memoryPane", target - 121).hover()
        expect(page.locator("#under-remembered")).to_contain_text("outside the memory")
        cell(page, "memoryPane", target).hover()
        expect(page.locator("#under-remembered")).to_contain_text("not read yet")

    def test_each_byte_has_the_colour_of_its_weight(self, show, plain):
        page = show(plain[1])
        page.evaluate("sharnn.choose(100)")
        page.evaluate(AFTER_A_FRAME)  # cells out of view are coloured then
        trace = plain[0].trace
        target = trace.first + 100
        colours = page.evaluate(
            "sharnn.memoryPane.cells.map((cell) => getComputedStyle(cell).backgroundColor)"
        )
        none = "rgba(0, 0, 0, 0)"
        assert set(colours[target:]) == {none}
        assert set(colours[: target - 120]) <= {none}
        weights = trace.weights[0][100, : trace.num_visible[100]]
        assert colours[target - 1 - int(weights.argmax())].startswith("rgba(230, 97, 0, 0.")
        even = 1 / len(weights)
        assert {colours[target - 1 - j] for j, weight in enumerate(weights) if weight < even} == {
            none
        }

    def test_the_pointer_previews_the_weights_of_a_target(self, show, plain):
        page = show(plain[1])
        trace = plain[0].trace
        page.evaluate("sharnn.choose(100)")
        other = trace.first + 20
        cell(page, "targetPane", other).hover()
        page.evaluate(AFTER_A_FRAME)
        assert page.evaluate("sharnn.memoryPane.dimmed") == other
        page.mouse.move(1, 1)
        page.evaluate(AFTER_A_FRAME)
        assert page.evaluate("sharnn.memoryPane.dimmed") == trace.first + 100
        assert chosen(page) == 100

    def test_a_text_is_found(self, show, plain):
        page = show(plain[1])
        trace = plain[0].trace
        page.evaluate("sharnn.choose(5)")
        page.keyboard.press("/")
        page.keyboard.type("lazy")
        found = []
        for _ in range(7):
            page.keyboard.press("Enter")
            found.append(chosen(page))
        targets = trace.text[trace.first :]
        assert all(targets[i : i + 4] == b"lazy" for i in found)
        assert found[:2] == sorted(found[:2])
        assert len(set(found)) == targets.count(b"lazy")
        page.fill("#find", "nowhere")
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_have_text("not found")
        assert chosen(page) == found[-1]

    def test_the_address_names_the_selected_byte(self, show, plain):
        page = show(plain[1])
        assert "#" not in page.url, "nothing has been selected yet"
        page.evaluate("sharnn.choose(77)")
        assert page.url.endswith("#byte-77")
        page.reload()
        page.locator("body[data-ready]").wait_for()
        assert chosen(page) == 77
        page.evaluate("location.hash = '#byte-30'")
        until(page, "sharnn.chosen === 30")
        page.evaluate("location.hash = '#a-heading'")
        page.evaluate("location.hash = '#byte-100000'")
        until(page, "sharnn.chosen === 299")

    def test_by_touch(self, show, plain):
        page = show(plain[1], has_touch=True, viewport={"width": 390, "height": 800})
        cell(page, "targetPane", plain[0].trace.first + 30).tap()
        assert chosen(page) == 30
        page.locator("#peaks button").nth(1).tap()
        assert page.locator("#peaks button").nth(1).get_attribute("aria-pressed") == "true"
        page.locator("#overview").tap()
        assert chosen(page) != 30
        box = page.locator("#minimap").bounding_box()
        page.locator("#minimap").tap(position={"x": box["width"] - 3, "y": 20})
        assert page.evaluate("sharnn.marked") <= 3

    def test_by_keyboard(self, show, plain):
        page = show(plain[1])
        first = plain[0].trace.first
        page.evaluate("sharnn.choose(100)")
        page.locator("#targets").focus()

        def press(key: str) -> int:
            page.keyboard.press(key)
            assert page.locator("#targets").get_attribute("aria-valuenow") == str(
                first + chosen(page)
            )
            return chosen(page)

        assert press("ArrowRight") == 101
        assert press("ArrowLeft") == 100
        down = press("ArrowDown")
        assert PLAIN[first + 100 : first + down].count(b"\n") == 1
        assert press("ArrowUp") <= 100 + 20
        assert press("Home") == 0
        assert press("ArrowLeft") == 0
        assert press("ArrowUp") == 0
        assert press("PageDown") == 64
        assert press("PageUp") == 0
        assert press("End") == 299
        assert press("ArrowDown") == 299
        page.keyboard.press("Control+ArrowLeft")
        assert chosen(page) == 299, "shortcuts of the browser are left alone"
        in_view = page.evaluate(
            "(() => { const box = document.getElementById('targets').getBoundingClientRect();"
            " const cell = sharnn.targetPane.here.getBoundingClientRect();"
            " return cell.top >= box.top && cell.bottom <= box.bottom; })()"
        )
        assert in_view

    def test_peaks_by_keyboard_and_buttons(self, show, plain):
        page = show(plain[1])
        page.evaluate("sharnn.choose(100)")
        buttons = page.locator("#peaks button")
        count = buttons.count()
        assert 2 <= count <= 8
        peaks = page.evaluate("sharnn.peaks")
        weights = plain[0].trace.weights[0][100]
        assert peaks[0]["distance"] - 1 in weights.topk(3).indices
        assert [peak["weight"] for peak in peaks] == sorted(
            (peak["weight"] for peak in peaks), reverse=True
        )

        def pressed() -> list[int]:
            return [
                n for n in range(count) if buttons.nth(n).get_attribute("aria-pressed") == "true"
            ]

        assert pressed() == [0]
        page.keyboard.press("n")
        assert pressed() == [1]
        page.keyboard.press("p")
        page.keyboard.press("p")
        assert pressed() == [count - 1], "it wraps around"
        buttons.nth(1).click()
        assert pressed() == [1]
        assert page.evaluate("sharnn.marked") == peaks[1]["distance"]
        buttons.nth(0).focus()
        page.keyboard.press("Enter")
        assert pressed() == [0]

    def test_tab_reaches_every_control_and_shows_the_focus(self, show, plain):
        page = show(plain[1])
        reached = []
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
                " return [e.id || e.parentElement.id || e.tagName, s.outlineStyle,"
                " parseFloat(s.outlineWidth)]; })()"
            )
            if focused[0] in ("", "BODY", "HTML"):
                break
            assert focused[1] == "solid"
            assert focused[2] >= 2
            if focused[0] not in reached:
                reached.append(focused[0])
        assert reached[:2] == ["head", "theme"]
        assert reached[3:] == ["find", "targets", "peaks", "remembered", "overview"]

    def test_the_remembered_text_has_its_own_cursor(self, show, plain):
        page = show(plain[1])
        page.evaluate("sharnn.choose(100)")
        before = page.evaluate("sharnn.marked")
        page.locator("#remembered").focus()
        page.keyboard.press("ArrowLeft")
        assert (page.evaluate("sharnn.marked"), chosen(page)) == (before + 1, 100)
        announced = page.locator("#remembered").get_attribute("aria-valuetext")
        assert f"{before + 1} bytes back" in announced

    def test_minimap_and_overview(self, show, plain):
        page = show(plain[1])
        page.evaluate("sharnn.choose(200)")
        box = page.locator("#minimap").bounding_box()
        page.locator("#minimap").click(position={"x": 2, "y": 20})
        assert page.evaluate("sharnn.marked") > 115
        page.locator("#minimap").click(position={"x": box["width"] / 2, "y": 20})
        assert 55 < page.evaluate("sharnn.marked") < 65
        overview = page.locator("#overview")
        box = overview.bounding_box()
        overview.hover(position={"x": 300, "y": 50})
        expect(page.locator("#under-overview")).to_contain_text("effective number of positions")
        overview.click(position={"x": box["width"] - 2, "y": 50})
        assert chosen(page) >= 298
        overview.click(position={"x": 3, "y": 50})
        assert chosen(page) == 0
        page.keyboard.press("ArrowRight")
        assert chosen(page) == 1
        line = page.locator("#overview-line").bounding_box()
        assert box["x"] + 40 < line["x"] < box["x"] + 60

    def test_resizing_the_window_keeps_the_selection(self, show, plain):
        page = show(plain[1])
        page.evaluate("sharnn.choose(42)")
        page.set_viewport_size({"width": 500, "height": 700})
        until(page, "sharnn.canvas.mass.width < 500")
        assert chosen(page) == 42

    def test_it_works_if_no_frame_is_drawn(self, show, plain):
        """A browser may draw no frame while the page is out of view."""
        page = show(plain[1], script="window.requestAnimationFrame = () => 0")
        cell(page, "targetPane", plain[0].trace.first + 30).click()
        assert chosen(page) == 30

    @pytest.mark.parametrize(("text", "memory"), [(b"ab", 24), (b"abc", 1), ("é".encode(), 5)])
    def test_very_short_texts(self, show, tmp_path, text, memory):
        page = show(explore(small_model(), text, memory_limit=memory).save(tmp_path / "page.html"))
        assert chosen(page) in range(len(text) - 1)
        page.locator("#targets").focus()
        for key in ("End", "Home", "ArrowDown", "n"):
            page.keyboard.press(key)
        assert "NaN" not in page.locator("body").inner_text()


def luminance(colour) -> float:
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b) -> float:
    """Returns the WCAG contrast ratio of two colours."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def colour_of(text: str):
    """Parses `rgb(...)`, `rgba(...)` or `#rrggbb` into (red, green, blue) and opacity."""
    if text in ("", "transparent"):
        return (0, 0, 0), 0.0
    if text.startswith("#"):
        return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5)), 1.0
    numbers = [float(n) for n in re.findall(r"[\d.]+", text)]
    return tuple(numbers[:3]), numbers[3] if len(numbers) > 3 else 1.0


def over(top: str, back):
    colour, opacity = colour_of(top)
    return tuple(opacity * c + (1 - opacity) * b for c, b in zip(colour, back, strict=True))


# The colour of each text on the page, with the background colours under it.
TEXTS = """() => {
  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.matches("script")) continue;
    const under = [];
    for (let a = e; a; a = a.parentElement) {
      const s = getComputedStyle(a);
      if (s.opacity !== "1") throw new Error("opacity of " + a.id);
      under.push(s.backgroundColor);
    }
    const key = JSON.stringify([getComputedStyle(e).color, under]);
    found.set(key, walker.currentNode.data.slice(0, 30));
  }
  return [...found].map(([key, text]) => [...JSON.parse(key), text]);
}"""


class TestVisibility:
    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_text_is_legible_on_every_colour(self, show, plain, theme):
        page = show(plain[1], color_scheme=theme)
        palettes = page.evaluate("[sharnn.colours.bits, sharnn.colours.weights]")
        front, back = (
            colour_of(
                page.evaluate(
                    f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')"
                ).strip()
            )[0]
            for name in ("front", "back")
        )
        worst = min(contrast(front, over(level, back)) for p in palettes for level in p)
        print(f"{theme}: worst contrast on a palette {worst:.2f}")
        assert worst >= 4.5
        page.evaluate("document.querySelector('.keys').open = true")
        for colour, under, text in page.evaluate(TEXTS):
            ground = back
            for layer in reversed(under):
                ground = over(layer, ground)
            assert contrast(colour_of(colour)[0], ground) >= 4.5, text

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_the_scale_is_distinguishable_with_colour_blindness(self, show, plain, theme):
        """Weights above and below an even share stay distinguishable without red or green cones."""
        page = show(plain[1], color_scheme=theme)
        weights = page.evaluate("sharnn.colours.weights")
        back = (255, 255, 255) if theme == "light" else (21, 24, 28)
        # Projections of Vienot, Brettel and Mollon, in linear light.
        blind = (
            ((0.1124, 0.8876, 0), (0.1124, 0.8876, 0), (0.004, -0.004, 1)),
            ((0.2928, 0.7072, 0), (0.2928, 0.7072, 0), (-0.0223, 0.0223, 1)),
        )
        for projection in blind:
            seen = []
            for level in (weights[0], weights[-1]):
                linear = [(c / 255) ** 2.2 for c in over(level, back)]
                seen.append(
                    [sum(w * c for w, c in zip(r, linear, strict=True)) for r in projection]
                )
            less, more = seen
            # One is closer to blue, the other closer to yellow.
            assert less[2] > less[0]
            assert more[2] < more[0]

    def test_the_theme_is_that_of_the_system_until_one_is_selected(self, show, plain):
        page = show(plain[1], color_scheme="dark")

        def theme() -> str:
            return page.evaluate("document.documentElement.dataset.theme")

        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        assert theme() == "dark"
        page.emulate_media(color_scheme="light")
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        light = page.evaluate(background)
        assert light != dark
        page.select_option("#theme", "dark")
        assert (theme(), page.evaluate(background)) == ("dark", dark)
        assert page.evaluate("sharnn.colours.bits[16]").startswith("rgba(86, 180, 233")
        page.select_option("#theme", "auto")
        assert (theme(), page.evaluate(background)) == ("light", light)

    @pytest.mark.parametrize("text", [PLAIN, HOSTILE * 3, b"a" * 700, "漢😀".encode() * 100])
    def test_no_horizontal_scrolling_on_a_phone(self, show, model, tmp_path, text):
        path = explore(model, text, targets=300).save(tmp_path / "page.html")
        page = show(path, viewport={"width": 390, "height": 800}, has_touch=True)
        page.evaluate("document.querySelector('.keys').open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for pane in ("targets", "remembered", "peaks", "byte"):
            assert page.evaluate(f"(e => e.scrollWidth <= e.clientWidth)({pane})")
        keys = page.locator(".keys dl").bounding_box()
        assert keys["x"] >= 0
        assert keys["x"] + keys["width"] <= 390


class TestInAFrame:
    """The page in a frame, as in the output of a notebook."""

    def test_of_the_same_origin(self, show, plain, tmp_path):
        explorer, _ = plain
        outer = tmp_path / "outer.html"
        outer.write_text(
            '<!doctype html><html data-theme="dark"><body>' + explorer._repr_html_(), "utf-8"
        )
        page = show(outer, ready=False)
        frame = page.locator("iframe")
        inside = frame.content_frame
        inside.locator("body[data-ready]").wait_for()
        expect(inside.locator("html")).to_have_attribute("data-theme", "dark")
        page.evaluate("document.documentElement.dataset.theme = 'light'")
        expect(inside.locator("html")).to_have_attribute("data-theme", "light")
        assert inside.locator("body").evaluate(
            "() => innerHeight >= document.body.scrollHeight && innerHeight != 1500"
        )

    def test_the_address_of_the_page_around_it_names_a_byte(self, show, plain, tmp_path):
        """As in a chapter of the book: the reader sees and shares the chapter's address."""
        explorer, _ = plain
        outer = tmp_path / "outer.html"
        frame = explorer._repr_html_()
        outer.write_text(f'<!doctype html><p style="height: 5000px"></p>{frame}', "utf-8")
        page = show(outer, ready=False)
        inside = page.locator("iframe").content_frame
        inside.locator("body[data-ready]").wait_for()
        assert page.evaluate("scrollY") == 0
        assert "#" not in page.url
        assert (
            inside.locator("body").evaluate("() => sharnn.chosen")
            == (explorer.content["initial_target"])
        )
        inside.locator("body").evaluate("() => sharnn.choose(55)")
        assert page.url.endswith("outer.html#byte-55")
        page.reload()
        inside.locator("body[data-ready]").wait_for()
        assert inside.locator("body").evaluate("() => sharnn.chosen") == 55
        assert page.evaluate("scrollY") > 4000
        page.evaluate("location.hash = '#byte-7'")
        expect(inside.locator("#targets")).to_have_attribute(
            "aria-valuenow", str(explorer.trace.first + 7)
        )

    def test_of_another_origin(self, show, plain, tmp_path):
        """As on Colab: the page can neither read nor resize its surroundings."""
        explorer, _ = plain
        outer = tmp_path / "outer.html"
        output = html.escape(explorer._repr_html_())
        outer.write_text(
            '<!doctype html><iframe sandbox="allow-scripts" style="width: 100%; height: 1600px" '
            f'srcdoc="{output}"></iframe>',
            "utf-8",
        )
        page = show(outer, ready=False, color_scheme="dark")
        inside = page.locator("iframe").content_frame.locator("iframe").content_frame
        inside.locator("body[data-ready]").wait_for()
        assert inside.locator("html").get_attribute("data-theme") == "dark"
        inside.locator("#targets i").nth(3).click()
        assert inside.locator("body").evaluate("() => [innerHeight, sharnn.chosen]") == [1500, 3]
        assert inside.locator("#problem").is_hidden()


class TestHostileText:
    @pytest.fixture
    def page(self, show, model, tmp_path):
        path = explore(model, HOSTILE * 3, targets=2 * len(HOSTILE)).save(tmp_path / "page.html")
        return show(path)

    def test_it_is_shown_but_never_run(self, page):
        for i in range(0, 2 * len(HOSTILE), 3):
            page.evaluate(f"sharnn.choose({i})")
        page.locator("#targets").hover()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert page.locator("#targets script").count() == 0
        shown = page.locator("#targets").inner_text()
        assert "</script><script>window.hacked=1</script><img src=x onerror=" in shown
        assert "&lt;b&gt;" in shown
        assert "`${window.hacked=3}`" in shown

    def test_a_character_of_several_bytes_is_one_glyph_over_them(self, page):
        glyphs = page.evaluate(
            "[...document.querySelectorAll('#targets .glyph')].map((glyph) =>"
            " [glyph.dataset.glyph, glyph.children.length])"
        )
        for character in "😀سلام漢字é":
            assert [character, len(character.encode())] in glyphs
        for code, size in (("U+202E", 3), ("U+FEFF", 3), ("U+00A0", 2), ("U+115F", 3)):
            assert [code, size] in glyphs
        for code, size in (("U+200B", 3), ("U+2066", 3), ("U+E0001", 4)):
            assert [code, size] in glyphs
        assert ["◌\u0301", 2] in glyphs

    def test_invisible_characters_have_a_substitute(self, page):
        shown = page.locator("#targets").inner_text()
        assert "↵" in shown
        codes = page.locator("#targets i.code").all_inner_texts()
        assert {"FF", "C3", "E2", "82", "F0", "9F", "NUL", "BEL", "DEL", "CR"} <= set(codes)
        for character in "\u202e\u2066\ufeff\u200b\x00":
            assert character not in page.locator("body").inner_text()
        assert all(
            "\u202e" not in line
            for line in page.evaluate(
                "[...document.querySelectorAll('[data-glyph]')].map((glyph) => glyph.dataset.glyph)"
            )
        )

    def test_right_to_left_scripts_keep_the_order_of_the_bytes(self, page):
        start = HOSTILE.index("سلام".encode())
        first = page.evaluate("sharnn.targetPane.from")
        index = first + (start - first) % len(HOSTILE)
        boxes = [cell(page, "targetPane", index + i).bounding_box() for i in range(8)]
        lines = {round(box["y"]) for box in boxes}
        assert len(lines) > 1 or [box["x"] for box in boxes] == sorted(box["x"] for box in boxes)

    def test_a_byte_within_a_character_has_a_name(self, page):
        start = HOSTILE.index("😀".encode())
        first = page.evaluate("sharnn.targetPane.from")
        index = first + (start - first) % len(HOSTILE) + 2
        if index >= page.evaluate("sharnn.targetPane.to"):
            index -= len(HOSTILE)
        page.evaluate(f"sharnn.choose({index - first})")
        assert "😀 (byte 3 of 4)" in page.locator("#byte").inner_text()

    def test_every_byte_occurs_once(self, page):
        indices = page.evaluate("sharnn.targetPane.cells.map((cell) => cell.index)")
        first = page.evaluate("sharnn.targetPane.from")
        assert indices == list(range(first, first + 2 * len(HOSTILE)))
        assert page.locator("#targets i").count() == len(indices)


class TestSpeed:
    def test_at_full_size(self, show, tmp_path, capsys):
        """1024 targets and a memory of 5000.

        The minimum of several times is compared with the limit, since other programs can only make
        a page slower. Three times the limit is allowed.
        """
        model = SHARNN(ModelConfig(dim=64, boom_dim=256, memory=5000)).eval()
        generator = torch.Generator().manual_seed(2)
        words = [
            bytes(torch.randint(97, 123, (n,), generator=generator).tolist())
            for n in torch.randint(1, 9, (400,), generator=generator)
        ]
        text = b" ".join(words[i] for i in torch.randint(400, (1500,), generator=generator))
        explorer = explore(model, text)
        assert explorer.trace.num_targets == 1024
        path = explorer.save(tmp_path / "page.html")
        paint = math.inf
        for _ in range(5):
            page = show(path)
            paint = min(paint, page.evaluate(FIRST_CONTENTFUL_PAINT))
            if paint < 3 * FIRST_PAINT:
                break
        ready = page.evaluate("performance.now()")
        times = page.evaluate(
            """async () => {
              const times = [];
              for (let k = 0; k < 25; k++) {
                const start = performance.now();
                sharnn.choose((sharnn.chosen + 83) % sharnn.trace.numTargets);
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                times.push(performance.now() - start);
              }
              return times;
            }"""
        )
        median = statistics.median(times)
        with capsys.disabled():
            print(
                f"\nfull size: {path.stat().st_size / 1e6:.1f} MB, first paint {paint:.0f} ms, "
                f"ready {ready:.0f} ms, selection {min(times):.0f} ms, median {median:.0f} ms"
            )
        assert paint < 3 * FIRST_PAINT
        assert min(times) < 3 * SELECTION
